"""The log of a job as pages read it: a window of lines, the newest at once, any other on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .ansi import LogBuffer, fold, has_controls, without_colours

__all__ = ["WINDOW", "LogLines"]

#: Most lines of one answer.
WINDOW = 2_000
#: Characters of one answer with the newest lines: the newest one is always there.
WINDOW_SIZE = 400_000
#: Matching lines of a search that are named; beyond, only their number.
MOST_FOUND = 10_000


class LogLines:
    """A log that grows; one thread may write while others read.

    Parameters
    ----------
    read_log : callable, optional
        ``read_log(first, last)`` gives lines of the whole log, counted from 0, `last` not included. Without
        it only the newest lines can be read.
    """

    def __init__(self, read_log: Callable[[int, int], Sequence[str]] | None = None) -> None:
        self._buffer = LogBuffer()
        self._read_log = read_log

    @property
    def total(self) -> int:
        """Lines so far, the unfinished one included."""
        return self._buffer.total

    def write(self, text: str) -> int:
        """Append `text`; give the number of the first line that changed."""
        return self._buffer.write(text)

    def window(self, first: int) -> dict[str, Any]:
        """Give the lines from `first` on, or the newest of them where they are many.

        Returns
        -------
        dict
            ``{first, lines, total}``.
        """
        total = self.total
        lines = self._buffer.lines(max(first, total - WINDOW), total)
        size, begin = 0, len(lines)
        while begin and (size := size + len(lines[begin - 1])) <= WINDOW_SIZE:
            begin -= 1
        begin = min(begin, max(0, len(lines) - 1))
        return {"first": total - len(lines) + begin, "lines": lines[begin:], "total": total}

    def lines(self, first: int, last: int) -> list[str]:
        """Give lines `first` to `last` (not included), counted from 0, :data:`WINDOW` of them at most."""
        first = max(0, first)
        last = min(last, first + WINDOW, self.total)
        if first >= self._buffer.first or self._read_log is None:
            missing = max(0, min(last, self._buffer.first) - first)
            return [""] * missing + self._buffer.lines(first + missing, last)
        return [fold(line)[0] for line in self._read_log(first, last)]

    def find(self, text: str, exact: bool) -> dict[str, Any]:
        """Give the numbers of the lines that contain a text.

        A million lines take most of a second: not for a thread that serves others.

        Parameters
        ----------
        text : str
        exact : bool
            Upper and lower case differ.

        Returns
        -------
        dict
            ``{lines, count}``; of many lines only the first :data:`MOST_FOUND` are named.
        """
        wanted = text if exact else text.lower()
        found: list[int] = []
        count, total = 0, self.total
        for first in range(0, total if wanted else 0, WINDOW):
            block = self._plain(first, first + WINDOW)
            block = block if exact else block.lower()
            if wanted not in block:  # most blocks: no line of theirs is looked at
                continue
            for number, line in enumerate(block.split("\n"), first):
                if wanted in line:
                    count += 1
                    found += [number] if count <= MOST_FOUND else []
        return {"lines": found, "count": count}

    def _plain(self, first: int, last: int) -> str:
        """Give lines as text without colours."""
        last = min(last, self.total)
        if first >= self._buffer.first or self._read_log is None:
            return without_colours("\n".join(self.lines(first, last)))
        raw = self._read_log(first, last)
        text = without_colours("\n".join(raw))
        return without_colours("\n".join(fold(line)[0] for line in raw)) if has_controls(text) else text
