"""Binder's environment, made here from its files, runs the quickstart.

A new virtual environment with all that JupyterLab, Ray and the examples need takes minutes with pip, which
Binder has; uv installs the same here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nbformat
import pytest
import yaml

from tests.ray_fixture import jupyter_environment, short_folder

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"
UV = (Path(sys.executable).with_name("uv"), "pip")
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "dist", "build")


def run(command: Sequence[object], cwd: Path, env: Mapping[str, str], seconds: float) -> str:
    """Run a command to its end; its output is in the failure."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A short folder: sockets are in it."""
    with short_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def session(root: Path) -> tuple[Path, dict[str, str]]:
    """Build what Binder builds: give the checkout, and the environment of a session."""
    bin_folder = root / "venv" / "bin"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "RAYOFFLOAD_"))},
        **jupyter_environment(root),
        "IPYTHONDIR": str(root / "ipython"),
        "PATH": os.pathsep.join([str(bin_folder), os.environ["PATH"]]),
        "VIRTUAL_ENV": str(root / "venv"),
    }
    checkout = Path(shutil.copytree(ROOT, root / "repo", ignore=NOT_COPIED))
    run([sys.executable, "-m", "venv", root / "venv"], root, environment, 120)
    asked = subprocess.run(
        [*UV, "install", "--quiet", "--no-deps", "--target", root / "index", "hatchling"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if asked.returncode:
        pytest.skip(f"uv reaches no package index: {asked.stderr.strip()[-300:]}")
    for requirement in pip_section():
        run([*UV, "install", requirement], checkout, environment, 600)
    post_build = (checkout / "binder" / "postBuild").read_text()
    pip = "python -m pip install --no-cache-dir"
    assert pip in post_build
    post_build = post_build.replace(pip, shlex.join(map(str, [*UV, "install"])))
    (checkout / "binder" / "postBuild").write_text(post_build)
    run([checkout / "binder" / "postBuild"], checkout, environment, 900)
    return checkout, environment


def dependencies() -> list[str | dict[str, list[str]]]:
    """Give what Binder's conda installs."""
    return list(yaml.safe_load((BINDER / "environment.yml").read_text())["dependencies"])


def pip_section() -> list[str]:
    """Give what its pip installs before postBuild."""
    return [line for entry in dependencies() if isinstance(entry, dict) for line in entry["pip"]]


def test_the_files_are_what_binder_expects() -> None:
    names = {str(entry).partition("=")[0] for entry in dependencies() if isinstance(entry, str)}
    assert names == {"python", "pip"}, "what conda would install besides is not tried by this test"
    [python] = [str(entry) for entry in dependencies() if str(entry).startswith("python=")]
    lowest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert lowest and int(python.rpartition(".")[2]) >= int(lowest[1])
    for name in ("postBuild", "start"):
        assert os.access(BINDER / name, os.X_OK), f"binder/{name} is not executable"
        assert (BINDER / name).read_text().startswith("#!")


@pytest.mark.ray
@pytest.mark.kernel
@pytest.mark.timeout(1500)
def test_the_quickstart_runs_in_a_session(session: tuple[Path, dict[str, str]]) -> None:
    checkout, environment = session
    start = checkout / "binder" / "start"
    # As on Binder: in a pod, where the embedded cluster does not start unasked.
    environment = {**environment, "KUBERNETES_SERVICE_HOST": "127.0.0.1", "RAYOFFLOAD_START_TIMEOUT": "200"}
    made = checkout / "examples" / "made.ipynb"
    convert = ["jupyter", "nbconvert", "--to", "notebook", "--execute", "--output", made.name]
    try:
        run([start, *convert, "quickstart.ipynb"], checkout / "examples", environment, 600)
    finally:
        down = [start, "jupyter", "rayoffload", "cluster", "down", "--force"]
        run(down, checkout / "examples", environment, 120)
    notebook = nbformat.read(made, as_version=4)  # type: ignore[no-untyped-call]
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    printed = "".join(o.text for o in outputs if o.output_type == "stream")
    assert "north: " in printed
    assert "Best outlook: north" in printed
    assert any("image/png" in o.get("data", {}) for o in outputs)
    [installed] = (checkout.parent / "venv" / "lib").glob("python3.*/site-packages/jupyter_rayoffload")
    assert (installed / "static" / "panel.js").exists()
