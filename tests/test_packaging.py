"""What `pip install` brings: built from the repository, and from what is published, without Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import hatch_build

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
PLACE = f"share/jupyter/labextensions/{hatch_build.NAME}"

pytestmark = pytest.mark.timeout(900)


def run(*command: object, **more: object) -> str:
    """Run a command to its end; give what it says."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it on a machine without Node."""
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--sdist", "--out-dir", folder, ROOT)
    [sdist] = folder.glob("*.tar.gz")
    bare = tmp_path_factory.mktemp("bin")  # a PATH without node and npm
    for name in ("sh", "env", "uname"):
        (bare / name).symlink_to(shutil.which(name) or "/bin/sh")
    env = {**os.environ, "PATH": f"{bare}"}
    run(UV, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", folder, sdist, env=env)
    return folder


def test_the_sdist_has_the_extension_ready_made(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hatch_build.py", "labextension/package-lock.json", "labextension/src/index.ts"} <= names
    assert f"{hatch_build.BUILT}/package.json" in names
    assert not [name for name in names if "node_modules" in name or name.startswith("labextension/lib/")]


def test_the_wheel_has_each_of_its_files_once(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    ours = [name for name in names if "remoteEntry" in name]
    assert len(ours) == 1 and f"data/{PLACE}/static/" in ours[0]
    assert any(name.endswith(f"data/{PLACE}/schemas/{hatch_build.NAME}/commands.json") for name in names)
    assert len(set(names)) == len(names)


def test_installing_the_wheel_is_the_whole_installation(built: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    python = tmp_path / "env" / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env")
    run(UV, "pip", "install", "--quiet", "--python", python, wheel, "jupyterlab")
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    env = {**os.environ, **{name: str(tmp_path / name) for name in places}, "HOME": str(tmp_path)}
    jupyter = [python, "-m", "jupyter"]
    listed = run(*jupyter, "labextension", "list", env=env)
    [line] = [line for line in listed.splitlines() if hatch_build.NAME in line]
    assert "enabled" in line and "OK" in line, listed
    servers = run(*jupyter, "server", "extension", "list", env=env)
    assert "jupyter_rayoffload" in servers and "OK" in servers, servers


def test_a_change_of_a_source_is_a_change_of_the_whole(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "labextension", tmp_path / "labextension", ignore=shutil.ignore_patterns("node_modules")
    )
    shutil.copytree(ROOT / "jupyter_rayoffload/static", tmp_path / "jupyter_rayoffload/static")
    before = hatch_build.digest(tmp_path)
    assert before == hatch_build.digest(ROOT)
    with (tmp_path / "jupyter_rayoffload/static/panel.js").open("a") as file:
        file.write("// more\n")
    assert hatch_build.digest(tmp_path) != before


def test_a_lock_file_names_no_place_of_its_own() -> None:
    text = (ROOT / "labextension/package-lock.json").read_text()
    assert '"resolved"' not in text
