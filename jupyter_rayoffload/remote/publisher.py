"""The writer of a job's event stream: batched, numbered, and patient while the store is away."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["OUTPUT_LIMIT", "Publisher"]

#: Between two entries at least so long, seconds: a line is seen at once, a flood costs few entries.
PAUSE_SECONDS = 0.02
#: Text of one entry, characters; a single larger message is an entry of its own.
ENTRY_SIZE = 64 * 1024
#: What may wait for a store that is away before the cell has to wait too.
PENDING_SIZE = 32 * 1024 * 1024
#: Output of one job beyond this is cut, and the cut is said; bytes.
OUTPUT_LIMIT = 64_000_000
#: Between two tries to reach the store, seconds: first and longest.
RETRY_SECONDS = (0.05, 2.0)

_OUTPUT = {"stream", "display_data", "update_display_data", "execute_result"}


class Publisher:
    """Takes messages, and a thread of its own writes them.

    Parameters
    ----------
    append : callable
        ``append(number, messages)`` writes one entry; numbers count from 1 without a gap, so that a reader
        knows an entry which was written twice.
    away : tuple of exception types
        What `append` raises while the store cannot be written: it is tried again, the order is kept.
    limit : int
        Bytes of output after which it is cut.
    held : bool
        Whether nothing is written before :meth:`begin`: a thread that writes would cost a short job its core.
    """

    def __init__(
        self,
        append: Callable[[int, list[dict[str, Any]]], None],
        away: tuple[type[BaseException], ...],
        limit: int = OUTPUT_LIMIT,
        held: bool = False,
    ) -> None:
        self._append, self._away, self._limit = append, away, limit
        self._pending: deque[_Message] = deque()
        self._size = self._total = self._number = 0
        self._cut = self._closed = self._urgent = self._sending = False
        self._held = held
        self._changed = threading.Condition()
        self.lines = 0
        self.trouble = ""
        self._thread: threading.Thread | None = None  # begun with the first message

    def begin(self) -> None:
        """Write what has come, and what comes."""
        with self._changed:
            self._held = False
            if self._pending:
                self._start()

    def put(self, type: str, content: dict[str, Any], size: int = 0) -> None:
        """Take a message; returns at once.

        Parameters
        ----------
        type : str
            A message type of docs/architecture.md.
        content : dict
        size : int
            Bytes of `content`, where it is not a stream.
        """
        with self._changed:
            if type == "stream":
                size = len(content["text"])
            if type in _OUTPUT and not self._admit(type, content, size):
                return
            self._add(type, content, size)

    def stream(self, name: str, text: str) -> None:
        """Take text that was written to ``stdout`` or ``stderr``."""
        if text:
            self.put("stream", {"name": name, "text": text})

    def beat(self) -> None:
        """Give a sign of life, unless what is pending will be one."""
        with self._changed:
            if not self._pending:
                self._add("beat", {}, 0)

    def has_room(self) -> bool:
        """Whether more should be given now; false when the store has been away for long."""
        return self._size < PENDING_SIZE

    def last(self, timeout: float) -> tuple[int, list[dict[str, Any]]] | None:
        """End, and leave the last entry to the caller.

        Parameters
        ----------
        timeout : float
            Seconds that what does not fit into one entry may take to be written.

        Returns
        -------
        (int, list of dict) or None
            Number of that entry, and the messages with which it begins; None where the store was away too
            long, with :attr:`trouble` saying why.
        """
        with self._changed:
            self._urgent = True
            if self._size > ENTRY_SIZE:
                self._start()
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._sending and self._size <= ENTRY_SIZE, timeout):
                return None
            rest = [m.to_json() for m in self._pending]
            self._number += 1
        self.close()
        return self._number, rest

    def close(self) -> None:
        """End the thread; what is still pending is dropped."""
        with self._changed:
            self._closed = True
            self._pending.clear()
            self._changed.notify_all()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rayoffload-publisher", daemon=True)
            self._thread.start()

    def _admit(self, type: str, content: dict[str, Any], size: int) -> bool:
        """Whether this output is within the limit; the first that is not says so in its place."""
        if self._cut:
            return False
        left = self._limit - self._total
        self._total += size
        if size <= left:
            return True
        self._cut = True
        if type == "stream" and left > 0:
            self._add(type, {**content, "text": content["text"][:left]}, left)
        text = (
            f"\n… output is cut here: {self._limit / 1e6:.3g} MB reached. "
            "Ray's own log of this job has all that is printed.\n"
        )
        self._add("stream", {"name": "stderr", "text": text}, len(text))
        return False

    def _add(self, type: str, content: dict[str, Any], size: int) -> None:
        last = self._pending[-1] if self._pending else None
        if type == "stream":
            self.lines += content["text"].count("\n")
            if last and last.continues(content):
                last.extend(content["text"])
            else:
                self._pending.append(_Message(type, content, size))
        else:
            self._pending.append(_Message(type, content, size))
        self._size += size
        self._changed.notify_all()
        if not self._held:
            self._start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                batch = self._take()
                self._sending = True
            self._number += 1
            self._send([m.to_json() for m in batch])
            with self._changed:
                self._sending = False
                self._size -= sum(m.size for m in batch)
                self._changed.notify_all()
                self._changed.wait_for(
                    lambda: self._urgent or self._closed or self._size >= ENTRY_SIZE, PAUSE_SECONDS
                )

    def _take(self) -> list[_Message]:
        batch, size = [self._pending.popleft()], 0
        size = batch[0].size
        while self._pending and size + self._pending[0].size <= ENTRY_SIZE:
            batch.append(self._pending.popleft())
            size += batch[-1].size
        return batch

    def _send(self, messages: list[dict[str, Any]]) -> None:
        delay, longest = RETRY_SECONDS
        while not self._closed:
            try:
                self._append(self._number, messages)
            except self._away as error:
                self.trouble = str(error)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, delay)
                delay = min(2 * delay, longest)
            else:
                self.trouble = ""
                return


class _Message:
    """One pending message; the text of a stream grows until it is sent."""

    def __init__(self, type: str, content: dict[str, Any], size: int) -> None:
        self.type, self.content, self.size, self.at = type, content, size, time.time()
        self._parts = [content["text"]] if type == "stream" else []

    def continues(self, content: dict[str, Any]) -> bool:
        return bool(self._parts and self.content["name"] == content["name"] and self.size < ENTRY_SIZE)

    def extend(self, text: str) -> None:
        self._parts.append(text)
        self.size += len(text)

    def to_json(self) -> dict[str, Any]:
        content = {**self.content, "text": "".join(self._parts)} if self._parts else self.content
        return {"t": round(self.at, 3), "type": self.type, "content": content}
