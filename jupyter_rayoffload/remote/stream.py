"""``sys.stdout`` and ``sys.stderr`` of the cell."""

from __future__ import annotations

import io
import sys

from .channel import Channel

__all__ = ["CellStream"]


class CellStream(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr`` of the cell.

    What is printed is written at once: it is out of this process, whatever kills it.
    """

    channel: Channel
    last: CellStream | None = None
    writes = 0

    @classmethod
    def install(cls, channel: Channel) -> None:
        """Make both streams."""
        cls.channel = channel
        for name, number in (("stdout", 1), ("stderr", 2)):
            file = open(number, "wb", buffering=0, closefd=False)
            stream = cls(file, encoding="utf-8", errors="backslashreplace", write_through=True)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def write(self, text: str) -> int:
        """Write; after a change of streams only when the guard has what the other one got before."""
        CellStream.writes += 1
        if CellStream.last is not self:
            CellStream.last = self
            self.channel.tell("sync")
        return super().write(text)
