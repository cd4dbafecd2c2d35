from __future__ import annotations

import importlib
import importlib.util
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_rayoffload.errors import UsageError
from jupyter_rayoffload.local_modules import LocalModule, local_modules, pack_modules
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.workspace import snapshot

SIGNER = Signer(bytes(range(32)))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``project/notebooks`` is the workspace and current folder; what is imported is forgotten."""
    before = set(sys.modules)
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "notebooks")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path / "project"
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))


def names(modules: list[LocalModule]) -> list[str]:
    return [module.name for module in modules]


def unpacked(modules: list[LocalModule], folder: Path) -> list[Path]:
    """Pack, unpack, and give the folders for ``sys.path``."""
    places = []
    for number, shot in enumerate(pack_modules(modules, signer=SIGNER, cache_dir=folder / "cache")):
        place = folder / f"unpacked{number}"
        shot.zip_to(folder / f"{number}.zip")
        with zipfile.ZipFile(folder / f"{number}.zip") as package:
            package.extractall(place)
        places.append(place)
    return places


def run(code: str, places: list[Path], cwd: Path) -> str:
    """Run code elsewhere, with nothing but these folders."""
    env = {"PYTHONPATH": os.pathsep.join(map(str, places)), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-B", "-c", textwrap.dedent(code)]
    return subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_this_package_stays(project: Path) -> None:
    write(project, {"src/near.py": "import jupyter_rayoffload.errors"})
    sys.path.append(str(project / "src"))
    assert names(local_modules(["jupyter_rayoffload", "jupyter_rayoffload.job", "near"], None)) == ["near"]


def test_installed_and_built_in_modules_stay(project: Path):
    wanted = [
        "os",
        "sys",
        "json.decoder",
        "numpy.linalg",
        "redis",
        "no_such_module",
        "zlib",
        "__main__",
        "_ctypes",
    ]
    assert local_modules(wanted, project / "notebooks") == []


def test_beside_the_notebook(project: Path):
    write(project, {"notebooks/helpers.py": "import more", "notebooks/more.py": ""})
    found = local_modules(["helpers"], project / "notebooks")
    assert names(found) == ["helpers", "more"]
    assert [m.sys_path for m in found] == ["", ""]
    assert pack_modules(found, signer=SIGNER) == []


def test_without_a_workspace_they_travel(project: Path, tmp_path: Path):
    write(project, {"notebooks/helpers.py": "from more import x", "notebooks/more.py": "x = 42"})
    places = unpacked(local_modules(["helpers"], None), tmp_path)
    assert len(places) == 1
    assert run("import helpers; print(helpers.x)", places, tmp_path) == "42"


def test_source_folder_beside_the_workspace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(project / "src"))
    write(
        project,
        {
            "src/pkg/__init__.py": "from .core import run",
            "src/pkg/core.py": """
                def run():
                    import single
                    from pkg import data
                    return single.x + data.y
                """,
            "src/pkg/data/__init__.py": "y = 1",
            "src/pkg/table.csv": "1,2",
            "src/pkg/.env": "SECRET=1",
            "src/pkg/__pycache__/old.pyc": "",
            "src/single.py": "x = 41",
            "src/unused.py": "",
        },
    )
    found = local_modules(["pkg.core"], project / "notebooks")
    assert names(found) == ["pkg", "single"] and all(m.apart and m.sys_path is None for m in found)
    (shot,) = pack_modules(found, signer=SIGNER, cache_dir=tmp_path / "cache")
    assert [e.path for e in shot.files] == [
        "pkg/__init__.py", "pkg/core.py", "pkg/data/__init__.py", "pkg/table.csv", "single.py"
    ]  # fmt: skip
    assert shot.left_behind == ("pkg/.env",)
    assert run("import pkg; print(pkg.run())", unpacked(found, tmp_path), tmp_path) == "42"
    assert "pkg" not in sys.modules and "single" not in sys.modules


def test_source_folder_in_the_workspace(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(project / "notebooks" / "src"))
    write(project, {"notebooks/src/pkg/__init__.py": "x = 42"})
    (module,) = local_modules(["pkg"], project / "notebooks")
    assert module.sys_path == "src" and module.apart
    assert run("import pkg; print(pkg.x)", unpacked([module], tmp_path), tmp_path) == "42"


def test_package_around_the_notebook(project: Path, monkeypatch: pytest.MonkeyPatch):
    """The workspace is in the package, so it does not make it importable."""
    monkeypatch.syspath_prepend(str(project.parent))
    write(project, {"__init__.py": "", "tools.py": "", "notebooks/a.ipynb": "{}"})
    (module,) = local_modules(["project.tools"], project / "notebooks")
    assert (module.name, module.sys_path, module.path) == ("project", None, project)


def test_what_is_loaded_is_known_though_its_source_does_not_say(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(project / "src"))
    write(
        project,
        {
            "src/pkg/__init__.py": "import importlib\nimportlib.import_module('pkg.plugin')",
            "src/pkg/plugin.py": "import other",
            "src/other.py": "",
        },
    )
    importlib.import_module("pkg")
    assert names(local_modules(["pkg"], project / "notebooks")) == ["other", "pkg"]


def test_relative_imports_and_cycles(project: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(project / "src"))
    write(
        project,
        {
            "src/a/__init__.py": "",
            "src/a/b/__init__.py": "from ..c import d",
            "src/a/c.py": "from . import b\nimport e",
            "src/e.py": "import a.b",
            "src/broken.py": "import (",
            "src/escape.py": "import broken\nx = '\\d'",
        },
    )
    assert names(local_modules(["a.b", "escape"], project / "notebooks")) == ["a", "broken", "e", "escape"]


def test_namespace_packages(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for place in ("one", "two"):
        monkeypatch.syspath_prepend(str(project / place))
    write(
        project,
        {
            "one/ns/left/__init__.py": "from ns.deep.right import x",
            "one/ns/unused/__init__.py": "",
            "two/ns/deep/right.py": "x = 42",
        },
    )
    found = local_modules(["ns.left"], project / "notebooks")
    assert [(m.name, m.member, m.search) for m in found] == [
        ("ns.deep.right", "ns/deep/right.py", project / "two"),
        ("ns.left", "ns/left", project / "one"),
    ]
    places = unpacked(found, tmp_path)
    assert len(places) == 2
    assert run("import ns.left; print(ns.left.x)", places, tmp_path) == "42"


def test_namespace_shared_with_site_packages(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site = tmp_path / "lib" / "site-packages"
    write(site, {"shared/installed.py": ""})
    write(project, {"src/shared/mine.py": "import shared.installed"})
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(project / "src"))
    found = local_modules(["shared.mine", "shared.installed"], project / "notebooks")
    assert names(found) == ["shared.mine"]


def test_linked_into_site_packages(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As some tools install in place: the code is elsewhere, and travels."""
    write(project, {"src/pkg/__init__.py": ""})
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    (site / "pkg").symlink_to(project / "src" / "pkg")
    monkeypatch.syspath_prepend(str(site))
    (module,) = local_modules(["pkg"], project / "notebooks")
    assert module.path == project / "src" / "pkg" and module.apart


class Editable:
    """A finder as setuptools writes it for an editable project whose folder has another name."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            places = [str(self.folder)]
            return importlib.util.spec_from_file_location(
                name, self.folder / "__init__.py", submodule_search_locations=places
            )
        return None


def test_editable_install_under_another_name(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(project, {"lib/__init__.py": "from mypkg.sub import x", "lib/sub.py": "x = 42"})
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Editable("mypkg", project / "lib")])
    found = local_modules(["mypkg"], project / "notebooks")
    assert names(found) == ["mypkg"]
    assert run("import mypkg; print(mypkg.x)", unpacked(found, tmp_path), tmp_path) == "42"


def test_generated_module_that_git_ignores(project: Path, tmp_path: Path):
    write(
        project,
        {
            "notebooks/pkg/__init__.py": "from ._version import version",
            "notebooks/pkg/_version.py": "version = '42'",
            "notebooks/.gitignore": "_version.py\n",
        },
    )
    root = project / "notebooks"
    shot = snapshot(root, signer=SIGNER, cache_dir=tmp_path / "cache")
    assert not local_modules(["pkg"], root)[0].apart
    found = local_modules(["pkg"], root, files={e.path for e in shot.files})
    assert found[0].apart
    assert run("import pkg; print(pkg.version)", unpacked(found, tmp_path), tmp_path) == "42"


def test_module_linked_into_the_workspace(project: Path, tmp_path: Path):
    """The workspace leaves links out that lead out of it, so the module travels by itself."""
    write(project, {"shared/tools.py": "x = 42"})
    (project / "notebooks" / "tools.py").symlink_to("../shared/tools.py")
    (module,) = local_modules(["tools"], project / "notebooks")
    assert module.apart
    assert run("import tools; print(tools.x)", unpacked([module], tmp_path), tmp_path) == "42"


def test_compiled_module_travels_with_its_platform(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    source = importlib.util.find_spec("_ctypes_test") or importlib.util.find_spec("_struct")
    assert source is not None and source.origin is not None
    monkeypatch.syspath_prepend(str(project / "src"))
    write(project, {"src/pkg/__init__.py": "from . import fast", "src/.gitignore": "*.so\n"})
    shutil.copy(source.origin, project / "src" / "pkg" / f"fast{suffix}")
    found = local_modules(["pkg"], project / "notebooks")
    (shot,) = pack_modules(found, signer=SIGNER, cache_dir=tmp_path / "cache")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert f"pkg/fast{suffix}" in [e.path for e in shot.files] and shot.platform.endswith(tag)
    assert any("Module pkg: compiled for" in note for note in shot.notes)


def test_module_without_source(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(project / "src"))
    write(project, {"src/hidden.py": "x = 42"})
    py_compile.compile(str(project / "src/hidden.py"), cfile=str(project / "src/hidden.pyc"), doraise=True)
    (project / "src/hidden.py").unlink()
    found = local_modules(["hidden"], project / "notebooks")
    assert run("import hidden; print(hidden.x)", unpacked(found, tmp_path), tmp_path) == "42"


def test_edit_between_two_cells(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Edits of equal size in the same instant: what is sent, and what the source is found to import."""
    monkeypatch.syspath_prepend(str(project / "src"))
    write(project, {"src/one.py": "", "src/two.py": ""})
    for number in range(20):
        other = ("one", "two")[number % 2]
        (project / "src" / "m.py").write_text(f"import {other}\nx = {number + 10}\n")
        found = local_modules(["m"], project / "notebooks")
        assert names(found) == sorted(["m", other])
        (shot,) = pack_modules(found, signer=SIGNER, cache_dir=tmp_path / "cache")
        shot.zip_to(tmp_path / "m.zip")
        with zipfile.ZipFile(tmp_path / "m.zip") as package:
            assert package.read("m.py").endswith(b"x = %d\n" % (number + 10))


def test_module_that_is_loaded_and_edited(project: Path, tmp_path: Path):
    write(project, {"notebooks/m.py": "x = 1"})
    assert importlib.import_module("m").x == 1
    write(project, {"notebooks/m.py": "x = 2"})
    places = unpacked(local_modules(["m"], None), tmp_path)
    assert run("import m; print(m.x)", places, tmp_path) == "2"


@pytest.mark.parametrize("text", ["pkg", "pkg.sub", "../src/pkg", "../src/pkg/"])
def test_py_module(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.syspath_prepend(str(project / "src"))
    write(
        project,
        {
            "src/pkg/__init__.py": "import other",
            "src/pkg/sub.py": "",
            "src/other.py": "x = 42",
            "src/pkg/d.txt": "",
        },
    )
    found = local_modules([text], project / "notebooks", explicit=[text])
    assert names(found) == ["other", "pkg"]
    assert run("import pkg; print(pkg.other.x)", unpacked(found, tmp_path), tmp_path) == "42"


def test_py_module_may_be_installed_or_a_file(project: Path, tmp_path: Path):
    write(project, {"src/one.py": "x = 42"})
    found = local_modules([], project / "notebooks", explicit=["cloudpickle", "../src/one.py"])
    assert names(found) == ["cloudpickle", "one"]
    places = unpacked(found, tmp_path)
    assert run("import one; print(one.x)", places, tmp_path) == "42"
    assert run("import cloudpickle; print(cloudpickle.__file__)", places, tmp_path).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope", "there is no such module"),
        ("../nope.py", "there is no"),
        ("x.whl", "what pip installs goes to --pip"),
        ("../bad-name", "cannot be imported by that name"),
        ("sys", "there is no such module"),
    ],
)
def test_py_module_that_is_none(project: Path, text: str, words: str):
    (project / "bad-name").mkdir()
    with pytest.raises(UsageError, match=f"--py-module {text}: .*{words}"):
        local_modules([], project / "notebooks", explicit=[text])
