from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
import time
import venv
import zipfile
from pathlib import Path

import pytest

from jupyter_rayoffload import bundle
from jupyter_rayoffload.errors import WorkspaceError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(cache: Path) -> bundle.Bundle:
    return bundle.build(cache)


@pytest.fixture(scope="module")
def unpacked(built: bundle.Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built.path) as package:
        package.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter that has the standard library and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    return str(folder / "bin" / "python")


def run(python: str, code: str, unpacked: Path) -> str:
    env = {"PYTHONPATH": str(unpacked), "PATH": os.environ["PATH"], "HOME": str(unpacked), "TERM": "dumb"}
    done = subprocess.run(
        [python, "-W", "error", "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_layout(built: bundle.Bundle, unpacked: Path):
    assert len(built.digest) == 64 and built.path.name == f"{built.digest}.zip"
    assert {p.name for p in unpacked.iterdir() if not p.name.endswith(".dist-info")} == {
        built.package, "rayoffload_job.py", "cloudpickle", "blake3", bundle.SITE
    }  # fmt: skip
    assert built.package.startswith("rayoffload_remote_0_1_0_")
    here = Path(bundle.__file__).parent / "remote"
    for source in here.rglob("*.py"):
        assert (unpacked / built.package / source.relative_to(here)).read_bytes() == source.read_bytes()
    names = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*")}
    for unwanted in ("/jedi", "/parso", "/hiredis/", "__pycache__", "/tests/", ".pyi", "RECORD"):
        assert not [name for name in names if unwanted in f"/{name}"], unwanted


def test_size(built: bundle.Bundle):
    with zipfile.ZipFile(built.path) as package:
        assert 500 < len(package.namelist()) < 1500
    assert built.path.stat().st_size < 6_000_000


def test_bare_interpreter_has_nothing(bare_python: str, tmp_path: Path):
    code = "import importlib.util as u; print([n for n in ('IPython', 'redis', 'blake3') if u.find_spec(n)])"
    assert run(bare_python, code, tmp_path) == "[]"


def test_first_and_last_on_the_path(bare_python: str, built: bundle.Bundle, unpacked: Path):
    """What must be ours is there at once; the rest once the folder is appended, as the runner does."""
    code = f"""
import importlib, os, sys
import blake3, cloudpickle
signing = importlib.import_module("{built.package}.signing")
signer = signing.Signer(bytes(32))
assert signer.check("x", signer.sign("x", b"data")) == b"data"
try:
    import redis
except ImportError:
    pass
else:
    raise AssertionError("redis must not win over the image's own")
sys.path.append(os.path.join({str(unpacked)!r}, "{bundle.SITE}"))
import redis, IPython.core.interactiveshell
from importlib.metadata import entry_points, version
print(version("cloudpickle"), version("IPython"), version("redis"))
print([e.value for e in entry_points(group="matplotlib.backend")])
print(all(m.__file__.startswith({str(unpacked)!r}) for m in (redis, IPython, cloudpickle, blake3)))
"""
    versions = " ".join(importlib.metadata.version(n) for n in ("cloudpickle", "ipython", "redis"))
    assert run(bare_python, code, unpacked).splitlines() == [
        versions, "['matplotlib_inline.backend_inline']", "True"
    ]  # fmt: skip


def test_shell_runs_a_cell(bare_python: str, unpacked: Path):
    code = f"""
import os, sys
sys.path.append(os.path.join({str(unpacked)!r}, "{bundle.SITE}"))
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
shell.run_cell("%config InteractiveShell.ast_node_interactivity = 'all'\\nx = !echo 41\\nint(x[0]) + 1")
shell.run_cell("1 / 0")
shell.history_manager.end_session()
"""
    output = run(bare_python, code, unpacked)
    assert "]: 42" in output and "ZeroDivisionError" in output


def test_every_module_of_the_runner_can_be_imported(bare_python: str, built: bundle.Bundle, unpacked: Path):
    code = f"""
import importlib, os, pkgutil, sys
sys.path.append(os.path.join({str(unpacked)!r}, "{bundle.SITE}"))
package = importlib.import_module("{built.package}")
for module in pkgutil.walk_packages(package.__path__, "{built.package}."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("jupyter_rayoffload" in sys.modules)
"""
    assert run(bare_python, code, unpacked) == "False"


def test_program_finds_its_input(bare_python: str, unpacked: Path, tmp_path: Path):
    (tmp_path / "in.json").write_text('{"x": 41}')
    code = f"""
import os
os.environ["RAYOFFLOAD_INPUT"] = {str(tmp_path / "in.json")!r}
os.environ["RAYOFFLOAD_OUTPUT"] = {str(tmp_path)!r}
from rayoffload_job import read_input, write_output
write_output(read_input()["x"] + 1)
"""
    run(bare_python, code, unpacked)
    assert (tmp_path / "output.json").read_text() == "42"


def test_second_call_is_the_first_one(built: bundle.Bundle, cache: Path):
    start = time.perf_counter()
    assert bundle.build(cache) == built
    assert time.perf_counter() - start < 0.5  # the build takes seconds, this milliseconds
    assert bundle.cached(built.digest, cache) == built.path
    assert bundle.cached("0" * 64, cache) is None


def test_same_content_same_bytes(built: bundle.Bundle, tmp_path: Path):
    other = bundle.build(tmp_path)
    assert other.digest == built.digest
    assert other.path.read_bytes() == built.path.read_bytes()


def test_many_at_once(built: bundle.Bundle, tmp_path: Path):
    results: list[bundle.Bundle] = []
    threads = [threading.Thread(target=lambda: results.append(bundle.build(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [r.digest for r in results] == [built.digest] * 2
    assert zipfile.ZipFile(results[0].path).testzip() is None


@pytest.mark.parametrize("damage", ["index", "zip"])
def test_damaged_cache_is_built_again(built: bundle.Bundle, cache: Path, tmp_path: Path, damage: str):
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    first = bundle.build(tmp_path)
    for path in first.path.parent.glob("*.json" if damage == "index" else "*.zip"):
        path.write_text("{") if damage == "index" else path.unlink()
    assert bundle.build(tmp_path) == first and first.path.exists()


class Site:
    """A folder of installed distributions, first on ``sys.path``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self, name: str, version: str, *, requires: str = "", listed: bool = True, text: str = ""
    ) -> None:
        package, notes = self.folder / name, self.folder / f"{name}-{version}.dist-info"
        package.mkdir(parents=True, exist_ok=True)
        notes.mkdir()
        (package / "__init__.py").write_text(text)
        need = f"Requires-Dist: {requires}\n" if requires else ""
        (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{need}")
        if listed:
            record = f"{name}/__init__.py,,\n{notes.name}/METADATA,,\n../../bin/{name},,\n"
            (notes / "RECORD").write_text(record)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(bundle, "LAST", ("quux",))
    return Site(folder)


def members(built: bundle.Bundle) -> set[str]:
    with zipfile.ZipFile(built.path) as package:
        return {n.removeprefix(f"{bundle.SITE}/") for n in package.namelist() if n.startswith(bundle.SITE)}


def test_what_a_distribution_needs_comes_along(site: Site, tmp_path: Path):
    site.install("quux", "1.0", requires="corge>=1; python_version >= '3'")
    site.install("corge", "2.0", requires="grault; extra == 'never'")
    found = members(bundle.build(tmp_path / "cache"))
    assert {"quux/__init__.py", "corge/__init__.py", "corge-2.0.dist-info/METADATA"} <= found
    assert not any("grault" in name or "bin" in name for name in found)


def test_missing_distribution_is_named(site: Site, tmp_path: Path):
    site.install("quux", "1.0", requires="no_such_distribution")
    with pytest.raises(WorkspaceError, match=r"no-such-distribution is not installed .* pip install no-such"):
        bundle.build(tmp_path / "cache")


def test_new_version_is_another_bundle(site: Site, tmp_path: Path):
    site.install("quux", "1.0")
    first = bundle.build(tmp_path / "cache")
    assert bundle.build(tmp_path / "cache") == first
    for path in (site.folder / "quux-1.0.dist-info").iterdir():
        path.unlink()
    (site.folder / "quux-1.0.dist-info").rmdir()
    site.install("quux", "1.1", text="x = 1")
    importlib.invalidate_caches()
    second = bundle.build(tmp_path / "cache")
    assert second.digest != first.digest and "quux-1.1.dist-info/METADATA" in members(second)


def test_distribution_without_a_list_of_files(site: Site, tmp_path: Path):
    """As system packagers install, and as one that is developed in place: found by import."""
    site.install("quux", "1.0", listed=False)
    first = bundle.build(tmp_path / "cache")
    assert {"quux/__init__.py", "quux-1.0.dist-info/METADATA"} <= members(first)
    (site.folder / "quux" / "__init__.py").write_text("x = 2")
    assert bundle.build(tmp_path / "cache").digest != first.digest


def test_cache_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"cannot be written to .*JUPYTER_DATA_DIR"):
        bundle.build(tmp_path / "file")


def test_platform(built: bundle.Bundle):
    assert built.platform.endswith(f"-cp{sys.version_info[0]}{sys.version_info[1]}")
