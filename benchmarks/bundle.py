"""What a browser loads of the JupyterLab extension, and when: ``python -m benchmarks.bundle [--write]``."""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jupyter_rayoffload

STATIC = Path(jupyter_rayoffload.__file__).parent / "labextension" / "static"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- bundle: written by python -m benchmarks.bundle --write -->", "<!-- end of bundle -->"

#: When a file is loaded, by a text of the extension that only the file for it has.
WHEN = {
    "Filter jobs": "the sidebar is first shown",
    "Reading the job": "the first page of a job is opened",
    "@container jp-RayOffload-sidebar": "JupyterLab starts: the style",
}
FIRST = "JupyterLab starts"


@dataclass(frozen=True)
class Part:
    """Files that are loaded at one moment.

    Parameters
    ----------
    when : str
    size, sent : int
        Bytes of the files, and of what a server sends of them with gzip.
    """

    when: str
    size: int
    sent: int


def parts(folder: Path = STATIC) -> list[Part]:
    """Measure the scripts of a built extension.

    Raises
    ------
    FileNotFoundError
        It is not built here.
    """
    files = sorted(folder.glob("*.js"))
    if not files:
        raise FileNotFoundError(f"{folder} has no scripts: build them by npm run build in labextension")
    found: dict[str, list[bytes]] = {}
    for file in files:
        text = file.read_text("utf-8")
        when = next((when for mark, when in WHEN.items() if mark in text), FIRST)
        found.setdefault(when, []).append(file.read_bytes())
    order = [FIRST, *WHEN.values()]
    return [
        Part(when, sum(map(len, found[when])), sum(len(gzip.compress(data)) for data in found[when]))
        for when in sorted(found, key=order.index)
    ]


def _kilobytes(size: int) -> str:
    return f"{size / 1000:.0f} kB"


def section(found: Sequence[Part]) -> str:
    """Give the part of docs/performance.md."""
    rows = [f"| {part.when} | {_kilobytes(part.size)} | {_kilobytes(part.sent)} |" for part in found]
    whole = Part("all of it", sum(part.size for part in found), sum(part.sent for part in found))
    rows.append(f"| {whole.when} | {_kilobytes(whole.size)} | {_kilobytes(whole.sent)} |")
    table = "\n".join(["| loaded when | files | sent with gzip |", "|---|---|---|", *rows])
    return f"""{BEGIN}
## The JupyterLab extension

What a browser loads of it, from `python -m benchmarks.bundle`:

{table}

How much memory a tab takes with 1,000 jobs and with a log of 200,000 lines, and how long scrolling and
searching take then, is printed by `pytest -s tests/browser/test_sidebar_looks.py`.
{END}"""


def write(text: str, page: Path = PAGE) -> None:
    """Put the part in the place of the one that is there, or at the end."""
    whole = page.read_text("utf-8")
    before, begin, rest = whole.partition(BEGIN)
    after = rest.partition(END)[2] if begin else ""
    page.write_text(f"{before.rstrip()}\n\n{text}\n{after.lstrip()}", "utf-8")


def main() -> int:
    """Measure and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bundle", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into docs/performance.md")
    text = section(parts())
    print(text)
    if parser.parse_args().write:
        write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
