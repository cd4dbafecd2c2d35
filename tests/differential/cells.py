"""The corpus: small notebooks, one text file for each subject in ``corpus/``.

A file reads like this::

    === walrus-in-comprehension               a notebook; more words on the line are its marks
    xs = [1, 2, 3]                            its first cell, which is run plainly
    --- job                                   a cell that is run as it is, and with %%ray_job --wait on top
    ys = [last := x for x in xs]
    --- raises=NameError                      one more plain cell, which must raise
    print(nowhere)

Marks of a notebook: ``needs=LIBRARY``, ``python=3.11`` (the oldest that has the syntax), ``stays=NAME``
(a name that cannot come back from a job, by rule), ``unordered`` (text of C code may come before or after
the rest).

Marks of a cell: ``raises=NAME``, ``job OPTIONS`` (options of the magic), ``file PATH`` (not a cell: a file
that is written beside the notebook at this point).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Cell:
    """One cell, or a file that is written at this point.

    `kind` is ``plain``, ``job`` or ``file``; `raises` the name of the exception.
    """

    source: str
    kind: str = "plain"
    options: str = ""
    raises: str = ""
    path: str = ""

    def text(self, offloaded: bool) -> str:
        """Give the text to run.

        The plain form of a job's cell has the magic line as a comment, so that lines have the same numbers.
        """
        if self.kind != "job":
            return self.source
        magic = f"%%ray_job --wait {self.options}".rstrip()
        if offloaded:
            return f"{magic}\n{self.source}"
        # Another cell magic must stay on the first line.
        return self.source if self.source.startswith("%%") else f"#{magic}\n{self.source}"


@dataclass(frozen=True)
class Notebook:
    """One case of the corpus."""

    id: str
    cells: tuple[Cell, ...]
    needs: tuple[str, ...] = ()
    python: tuple[int, ...] = (3, 10)
    stays: tuple[str, ...] = ()
    unordered: bool = False


def load() -> list[Notebook]:
    """Read the whole corpus."""
    return [notebook for path in sorted(CORPUS.glob("*.txt")) for notebook in _read(path)]


def _read(path: Path) -> list[Notebook]:
    _, *parts = re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.M)
    return [_notebook(part, path.stem) for part in parts]


def parse(text: str) -> Notebook:
    """Read one notebook from the text that follows its ``===``."""
    return _notebook(text, "")


def _notebook(text: str, subject: str) -> Notebook:
    heading, _, body = text.partition("\n")
    name, *marks = heading.split()
    options: dict[str, list[str]] = {}
    for mark in marks:
        key, _, value = mark.partition("=")
        options.setdefault(key, []).append(value)
    unknown = options.keys() - {"needs", "python", "stays", "unordered"}
    assert not unknown, f"{name}: unknown marks {unknown}"
    return Notebook(
        f"{subject}-{name}" if subject else name,
        tuple(_cells(body)),
        needs=tuple(options.get("needs", ())),
        python=tuple(int(n) for n in options.get("python", ["3.10"])[0].split(".")),
        stays=tuple(options.get("stays", ())),
        unordered="unordered" in options,
    )


def _cells(body: str) -> list[Cell]:
    pieces = re.split(r"^---(?: (.*))?\n", body, flags=re.M)
    headings = ["", *pieces[1::2]]
    cells = [_cell(heading or "", source) for heading, source in zip(headings, pieces[::2], strict=True)]
    return [cell for cell in cells if cell.source.strip() or cell.kind == "file"]


def _cell(heading: str, source: str) -> Cell:
    words = heading.split()
    raises = "".join(w.removeprefix("raises=") for w in words if w.startswith("raises="))
    words = [w for w in words if not w.startswith("raises=")]
    kind, *rest = words or ["plain"]
    assert kind in ("plain", "job", "file"), f"unknown cell: {heading}"
    # A blank line ends a piece in the file for the eye only.
    source = source.rstrip("\n")
    if kind == "file":
        return Cell(source + "\n", "file", path=rest[0])
    return Cell(source, kind, options=" ".join(rest), raises=raises)
