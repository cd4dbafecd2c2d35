"""The log of a job, in a file: a notebook pod must not hold in memory what its job prints."""

from __future__ import annotations

import tempfile
import threading
import weakref
from array import array

from .ansi import fold

__all__ = ["Spool"]

#: A log of up to so many bytes needs no file.
IN_MEMORY = 32 << 10


class Spool:
    """Lines of text in an unlinked temporary file, with 8 bytes of memory for each.

    There is a file only for what is more than :data:`IN_MEMORY`: a kernel has a log for each of its jobs, and
    may have no more than some thousand files open (``ulimit -n``).

    A carriage return starts its line again, as a progress bar means it: what it rewrote is not kept.
    Safe to write from one thread while others read.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, prefix="rayoffload-log-")
        weakref.finalize(self, self._file.close)
        self._starts = array("Q")
        self._size = 0
        self._open = ""  # the line that has no newline yet
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Number of lines so far, the unfinished one included."""
        return len(self._starts) + bool(self._open)

    def write(self, text: str) -> None:
        """Append `text` as a terminal would take it."""
        with self._lock:
            *whole, self._open = (self._open + text).split("\n")
            data = bytearray()
            for line in whole:
                self._starts.append(self._size + len(data))
                data += (_overwritten(line) + "\n").encode("utf-8", "replace")
            if self._open.count("\r") > 1:  # a long progress bar must not grow
                done, _, last = self._open.rpartition("\r")
                self._open = f"{_overwritten(done)}\r{last}"
            if data:
                self._file.seek(self._size)
                self._file.write(data)
                self._size += len(data)

    def lines(self, first: int, last: int) -> list[str]:
        """Give lines `first` to `last` (not included), counted from 0."""
        with self._lock:
            first, last = max(0, first), min(last, self.total)
            done = len(self._starts)
            out: list[str] = []
            if first < min(last, done):
                begin = self._starts[first]
                end = self._starts[last] if last < done else self._size
                self._file.seek(begin)
                out = self._file.read(end - begin).decode("utf-8", "replace").split("\n")[:-1]
            if last > done:
                out.append(_overwritten(self._open))
            return out

    def text(self) -> str:
        """Give all that was written, as it would be written again."""
        lines = self.lines(0, self.total)
        return "\n".join(lines) + ("" if self._open or not lines else "\n")


def _overwritten(line: str) -> str:
    """Apply carriage returns and backspaces as a terminal would."""
    return fold(line)[0] if "\r" in line or "\b" in line else line
