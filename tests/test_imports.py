"""Names that a cell imported, bound without paying for them."""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from jupyter_rayoffload.cell import analyze
from jupyter_rayoffload.cell.mutators import changed_in_place
from jupyter_rayoffload.imports import Absent, bind

_numbers = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the name of a package with a module ``package.sub.leaf``; each run says so in ``sys.ran``."""
    name = f"imported_{next(_numbers)}"
    (tmp_path / name / "sub").mkdir(parents=True)
    for path in ("__init__.py", "sub/__init__.py", "sub/leaf.py"):
        (tmp_path / name / path).write_text("import sys\nsys.ran.append(__name__)\nhere = 1\n")
    monkeypatch.setattr(sys, "ran", [], raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    for loaded in [n for n in sys.modules if n.startswith(name)]:
        del sys.modules[loaded]


def test_a_module_and_its_submodules_are_loaded_when_they_are_used(package: str) -> None:
    module = bind(package, None, [f"{package}.sub", f"{package}.sub.leaf"])
    assert sys.ran == []  # type: ignore[attr-defined]
    assert module.sub.leaf.here == 1
    assert sys.ran == [package, f"{package}.sub", f"{package}.sub.leaf"]  # type: ignore[attr-defined]


def test_asking_what_a_module_is_does_not_load_it(package: str) -> None:
    module = bind(package)
    assert not isinstance(module, (list, dict, str)) and isinstance(module, types.ModuleType)
    assert inspect.ismodule(module) and not callable(module)
    assert (module.__name__, Path(module.__file__ or "").name) == (package, "__init__.py")
    assert changed_in_place(analyze(f"{package}.fill()"), {package: module}) == set()
    travelling = cloudpickle.dumps(module)
    assert sys.ran == []  # type: ignore[attr-defined]
    assert cloudpickle.loads(travelling) is module
    assert module.here == 1 and type(module) is types.ModuleType


def test_a_package_has_run_before_its_submodule_does(package: str) -> None:
    bind(package)
    importlib.import_module(f"{package}.sub")
    assert sys.ran == [package, f"{package}.sub"]  # type: ignore[attr-defined]


def test_a_module_that_is_bound_already_gets_them_too(package: str) -> None:
    module = bind(package)
    assert bind(package, None, [f"{package}.sub"]) is module and sys.ran == []  # type: ignore[attr-defined]
    assert module.sub.here == 1
    assert bind(package, None, [f"{package}.sub", f"{package}.sub.leaf"]) is module
    assert module.sub.leaf.here == 1


def test_what_is_not_installed_says_so(package: str) -> None:
    module = bind(f"{package}_gone", None, [f"{package}_gone.sub"])
    assert isinstance(module, Absent)
    with pytest.raises(ImportError, match="not installed"):
        module.sub  # noqa: B018 - asking raises
