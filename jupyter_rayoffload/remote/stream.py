"""``sys.stdout`` and ``sys.stderr`` of the cell."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable

from .channel import Channel

__all__ = ["CellStream"]


class CellStream(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr`` of the cell.

    What is printed is written at once: it is out of this process, whatever kills it. A ``print`` of three
    values is six writes, so all but the first write after a change of streams are those of the type above.
    """

    channel: Channel
    _last: CellStream | None = None
    _changes = 0

    @classmethod
    def install(cls, channel: Channel) -> None:
        """Make both streams."""
        cls.channel = channel
        for name, number in (("stdout", 1), ("stderr", 2)):
            file = open(number, "wb", buffering=0, closefd=False)
            stream = cls(file, encoding="utf-8", errors="backslashreplace", write_through=True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    @classmethod
    def listen(cls) -> int:
        """Give a number that is another one at the next call if something was written meanwhile."""
        cls._slow()
        return cls._changes

    @classmethod
    def _slow(cls) -> None:
        """Let the next write of the stream that wrote last be one of ours."""
        if cls._last is not None and cls._last.__dict__.get("write") is cls._last._fast:
            del cls._last.__dict__["write"]

    @functools.cached_property
    def _fast(self) -> Callable[[str], int]:
        return super().write

    def write(self, text: str) -> int:
        """Write; after a change of streams only when the guard has what the other one got before."""
        CellStream._changes += 1
        if CellStream._last is not self:
            self._slow()
            CellStream._last = self
            self.channel.tell("sync")
        self.__dict__.setdefault("write", self._fast)  # a cell may have put its own there
        return self._fast(text)
