"""Names that a cell imported, bound without paying for them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
