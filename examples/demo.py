"""Run the quickstart from beginning to end without a browser, and check everything that comes back.

The values that it must give are computed here once more, in plain Python and by another formula.
Needs ``jupyter_rayoffload[lab]``; takes about a minute, in folders and with a cluster of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import tempfile
from base64 import b64decode
from fractions import Fraction
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

HERE = Path(__file__).parent
GROWTH = {"north": 3, "east": 1, "south": -1, "west": 2}
DAYS, WEEKS_AHEAD = 364, 4
VALUES = "import json; print(json.dumps([best, outlook.to_dict('list'), list(outlook.index)]))"


def day_sales(branch: str) -> list[int]:
    """Give what a branch sells on each day."""
    return [1000 + GROWTH[branch] * day + (120 if day % 7 >= 5 else 0) + 31 * day % 13 for day in range(DAYS)]


def expected_outlook(branch: str) -> list[float]:
    """Give the next weeks on the least-squares line, by the normal equations in exact fractions."""
    days = day_sales(branch)
    weeks = [sum(days[start : start + 7]) for start in range(0, DAYS, 7)]
    n, numbers = len(weeks), range(len(weeks))
    x, y = sum(numbers), sum(weeks)
    xx, xy = sum(i * i for i in numbers), sum(i * w for i, w in enumerate(weeks))
    slope = Fraction(n * xy - x * y, n * xx - x * x)
    level = (y - slope * x) / n
    return [float(level + slope * (n + i)) for i in range(WEEKS_AHEAD)]


def perform(root: Path) -> list[Any]:
    """Run the notebook in a copy of this folder; give its code cells with their outputs."""
    folder = shutil.copytree(HERE, root / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    notebook = nbformat.read(folder / "quickstart.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    ends = [new_code_cell(source) for source in (VALUES, "%ray cluster down --force")]  # type: ignore[no-untyped-call]
    notebook.cells += ends
    places = {"JUPYTER_RUNTIME_DIR": "run", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython"}
    environment = {**os.environ, **{name: str(root / place) for name, place in places.items()}}
    environment.setdefault("RAYOFFLOAD_START_TIMEOUT", "170s")
    # Also after a failure: the cluster that was started here must not stay.
    client = NotebookClient(
        notebook, timeout=180, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(cell: Any, stream: str) -> str:
    """Give what a cell printed."""
    return "".join(o.text for o in cell.outputs if o.get("name") == stream)


def values(cell: Any, mime: str = "text/plain") -> list[str]:
    """Give what a cell showed, in one form."""
    return [o.data[mime] for o in cell.outputs if mime in o.get("data", {})]


def figure_sizes(cell: Any) -> list[tuple[int, int]]:
    """Give width and height, in pixels, of the figures of a cell."""
    return [struct.unpack(">II", b64decode(data)[16:24]) for data in values(cell, "image/png")]


class Checks:
    """Says of each thing that came back whether it is what it should be."""

    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, what: str, good: bool, got: Any) -> None:
        """Print one line; what is not good is counted."""
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what}: {got}")


def main() -> int:
    """Run the quickstart; give the number of things that are not as they should be."""
    root = Path(tempfile.mkdtemp(prefix="ro-"))
    try:
        cells = perform(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    check = Checks()
    for cell in cells:
        for error in (o for o in cell.outputs if o.output_type == "error"):
            check(cell.source.partition("\n")[0], False, "\n".join(error.traceback))
    if not check.failed:
        review({cell.source.partition("\n")[0]: cell for cell in cells}, check)
    print("Everything came back" if not check.failed else f"{check.failed} not as they should be")
    return check.failed


def review(cells: dict[str, Any], check: Checks) -> None:
    """Look at everything that the notebook gave; the cells are known by their first lines."""
    outlook = {branch: expected_outlook(branch) for branch in GROWTH}
    best = max(outlook, key=lambda branch: sum(outlook[branch]))

    job = cells["%%ray_job forecasts -o outlook,best"]
    lines = "".join(f"{branch}: {ahead[0]:,.0f} next week\n" for branch, ahead in outlook.items())
    check("printed", text(job, "stdout") == lines, text(job, "stdout").splitlines())
    bar = text(job, "stderr").replace("\r", "\n").strip().rpartition("\n")[2]
    check("progress bar", "branches" in bar and "4/4" in bar, bar)
    sizes = figure_sizes(job)
    # 6 by 3 inches of 100 pixels, less or more what the inline backend trims.
    good = len(sizes) == 1 and 480 <= sizes[0][0] <= 620 and 240 <= sizes[0][1] <= 320
    check("figure, in pixels", good, sizes)

    totals = {branch: sum(day_sales(branch)) for branch in GROWTH}
    shown = " ".join(values(cells["sales.sum()"]))
    check("cell between", all(str(total) in shown for total in totals.values()), totals)

    here_best, here_outlook, here_index = json.loads(text(cells[VALUES], "stdout"))
    check("best", here_best == best, here_best)
    check("weeks", here_index == list(range(1, WEEKS_AHEAD + 1)), here_index)
    for branch, ahead in outlook.items():
        got = here_outlook.get(branch, [])
        near = len(got) == len(ahead) and all(abs(a - b) < 1e-6 for a, b in zip(got, ahead, strict=True))
        check(f"outlook of {branch}", near, [round(value, 2) for value in got])
    check("branches", list(here_outlook) == list(GROWTH), list(here_outlook))

    done = values(cells["forecasts.done(), sorted(forecasts.outputs)"])
    check("handle", done == ["(True, ['best', 'outlook'])"], done)
    for line in ("%ray", "%ray jobs", "%ray attach {forecasts.id}"):
        said = " ".join([text(cells[line], "stdout"), *values(cells[line])])
        check(line, "forecasts" in said, said.strip().partition("\n")[0])


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
