"""Messages from the process that executes the cell to the one that guards it."""

from __future__ import annotations

import base64
import json
import os
import threading
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Channel", "Inbox", "to_json"]


class Channel:
    """The cell's end.

    A message is told when :meth:`tell` returns: everything that was written to stdout or stderr before it is
    ahead of it, and whatever is written afterwards comes behind it. That keeps a print of C code and a figure
    in order, although they take different ways.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._number = 0

    def tell(self, type: str, content: dict[str, Any] | None = None) -> None:
        """Send one message and wait until the guard has it.

        A forked child of the cell has nothing to tell: it inherits the connection, and two voices would mix.
        """
        if os.getpid() != self._pid:
            return
        body = to_json({"type": type, "content": content or {}})
        with self._lock:
            self._number += 1
            number = self._number
            self._connection.send_bytes(number.to_bytes(8, "little") + body)
            # An interrupt may have left the acknowledgement of an earlier message unread.
            while int.from_bytes(self._connection.recv_bytes(8), "little") < number:
                pass


class Inbox:
    """The guard's end.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._number = b""

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._connection.fileno()

    def take(self) -> tuple[dict[str, Any] | None, int]:
        """Read one message, and give it with its size in bytes; None at the end of the cell's process."""
        try:
            data = self._connection.recv_bytes()
        except (EOFError, OSError):
            return None, 0
        self._number = data[:8]
        return json.loads(data[8:]), len(data)

    def acknowledge(self) -> None:
        """Let the sender of the message that was read last go on."""
        try:
            self._connection.send_bytes(self._number)
        except OSError:  # it has died meanwhile; the guard sees that by itself
            pass


def to_json(message: Any) -> bytes:
    """Give `message` as strict JSON; what JSON does not know becomes what Jupyter makes of it.

    Bytes become base64 text, other objects numbers where they are numbers, else their ``str``; NaN becomes
    null, a lone surrogate a question mark.
    """
    try:
        text = json.dumps(message, default=_plain, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError):  # NaN, a circle, or a key that is no string
        text = json.dumps(_clean(message, 0), ensure_ascii=False)
    return text.encode("utf-8", "replace")


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset)):
        return list(value)
    for method in ("isoformat", "tolist"):  # dates; numpy's numbers and arrays
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)


#: Beyond this depth a value is taken for a circle.
_DEEPEST = 100


def _clean(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, dict):
        return {str(k): _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v, depth + 1) for v in value]
    return _clean(_plain(value), depth + 1)
