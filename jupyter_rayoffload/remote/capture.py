"""What the cell's process writes to its stdout and stderr: Python, C code and child processes alike."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import struct
import termios

__all__ = ["Pipe"]

#: A printing cell need not wait for its reader within this, bytes (Linux lets anyone ask for 1 MiB).
PIPE_SIZE = 1 << 20


class Pipe:
    """One captured stream: the guard reads it, the cell's process and its children write it.

    Parameters
    ----------
    name : str
        ``stdout`` or ``stderr``.
    number : int
        Its descriptor, 1 or 2. The guard's own is Ray's log of the job: all that is read is copied there.
    """

    def __init__(self, name: str, number: int) -> None:
        self.name, self._number = name, number
        self._reader, self._writer = os.pipe()
        with contextlib.suppress(OSError):  # above the user's share of pipe memory: a smaller one does
            fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, PIPE_SIZE)  # type: ignore[attr-defined,unused-ignore]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._reader

    # The guard keeps the writing end open as well: else a cell that closes its stdout would make the other
    # end readable for ever.

    def attach(self) -> None:
        """In the cell's process: make this the stream."""
        os.dup2(self._writer, self._number)
        os.close(self._writer)
        os.close(self._reader)

    def drain(self) -> str:
        """Take what has been written until now; never waits."""
        texts = []
        left = self._waiting()
        while left > 0:
            data = os.read(self._reader, left)
            if not data:
                break
            left -= len(data)
            _write_all(self._number, data)
            texts.append(self._decoder.decode(data))
        return "".join(texts)

    def finish(self) -> str:
        """Take the rest; half a character at the very end becomes the replacement character."""
        return self.drain() + self._decoder.decode(b"", final=True)

    def _waiting(self) -> int:
        # Bounded by what is there now: one that writes without end must not keep its reader here.
        answer = fcntl.ioctl(self._reader, termios.FIONREAD, b"\0" * 4)
        return int(struct.unpack("i", answer)[0])


def _write_all(descriptor: int, data: bytes) -> None:
    """Copy to Ray's log; a log that cannot be written is no reason to lose the job."""
    view = memoryview(data)
    with contextlib.suppress(OSError):
        while view:
            view = view[os.write(descriptor, view) :]
