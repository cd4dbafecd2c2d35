"""The example notebooks: the same with ``%%ray_job`` above every cell, and what the quickstart promises."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from .harness import LOAD_PROBE, diff
from .outputs import Tidy, printed, shown

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Those that know nothing of this package.
ORDINARY = ["pandas_analysis", "plotting", "train_and_evaluate"]
pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def examples(base: Path) -> Path:
    """A copy of the folder: the notebooks write files."""
    return Path(shutil.copytree(EXAMPLES, base / "examples", ignore=shutil.ignore_patterns("__pycache__")))


def performed(name: str, folder: Path, environment: dict[str, str], offloaded: bool) -> list[dict[str, Any]]:
    """Run a notebook headless; give what each cell printed and showed, and the names at the end."""
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        cell.source = ("%%ray_job\n" if offloaded else "#%%ray_job\n") + cell.source
    first = "%load_ext jupyter_rayoffload" if offloaded else "pass"
    ends = [new_code_cell(source) for source in (first, LOAD_PROBE, "%probe")]  # type: ignore[no-untyped-call]
    notebook.cells = [*ends[:2], *cells, ends[2]]
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    client.execute(env={**inherited, **environment})
    tidy = Tidy(folder, first=0)
    names = json.loads(tidy(printed(ends[2].outputs, "stdout", tidy)))
    seen = [{"source": cell.source.partition("\n")[2], **outputs(cell, tidy)} for cell in cells]
    return [*seen, {"names": names}]


def outputs(cell: Any, tidy: Tidy) -> dict[str, Any]:
    """Give what stands below a cell in the saved notebook, but for our own record."""
    return {"stderr": printed(cell.outputs, "stderr", tidy), "shown": shown(cell.outputs, tidy)}


def differences(plain: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """Say which cells differ, and how; empty where none does."""
    return "\n".join(
        "\n".join([one.get("source", "at the end"), diff(key, one[key], two[key])])
        for one, two in zip(plain, other, strict=True)
        for key in one
        if one[key] != two[key]
    )


@pytest.fixture(scope="module")
def plainly(examples: Path, environment: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What the ordinary notebooks give here."""
    return {name: performed(name, examples, environment, offloaded=False) for name in ORDINARY}


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ORDINARY)
def test_example_is_the_same_on_ray(
    name: str,
    examples: Path,
    environment: dict[str, str],
    plainly: dict[str, list[dict[str, Any]]],
) -> None:
    assert any(cell.get("shown") for cell in plainly[name])
    seen = performed(name, examples, environment, offloaded=True)
    found = differences(plainly[name], seen)
    assert not found, found


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda p: p.stem)
def test_example_is_saved_clean(path: Path) -> None:
    """Without outputs, which would age, and valid."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.ray
def test_quickstart_keeps_its_promise() -> None:
    """The demo checks everything that comes back against values of its own."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "demo.py"], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
