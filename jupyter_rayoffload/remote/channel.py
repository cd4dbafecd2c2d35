"""Messages from the process that executes the cell to the one that guards it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
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
    shield : callable
        Gives a context that puts an interrupt off: half a message would be the guard's last.
    """

    def __init__(self, connection: Connection, shield: Callable[[], AbstractContextManager[None]]) -> None:
        self._connection = connection
        self._shield = shield
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def tell(self, type: str, content: dict[str, Any] | None = None) -> None:
        """Send one message and wait until the guard has it.

        A forked child of the cell has nothing to tell: it inherits the connection, and two voices would mix.
        """
        if os.getpid() != self._pid:
            return
        body = to_json({"type": type, "content": content or {}})
        with self._shield(), self._lock:
            # A cell that has closed the connection can still print, and its guard sees how it ends.
            with contextlib.suppress(OSError, EOFError):
                self._connection.send_bytes(body)
                self._connection.recv_bytes(0)


class Inbox:
    """The guard's end.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._connection.fileno()

    def take(self) -> tuple[dict[str, Any] | None, int]:
        """Read one message, and give it with its size in bytes; None at the end of the cell's process."""
        try:
            data = self._connection.recv_bytes()
            return json.loads(data), len(data)
        except (EOFError, OSError, ValueError):
            return None, 0

    def acknowledge(self) -> None:
        """Let the sender of the message that was read last go on."""
        with contextlib.suppress(OSError):  # it has died meanwhile; the guard sees that by itself
            self._connection.send_bytes(b"")


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
