"""The account of a batch: what has become of each item, told now and then in few words."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .chunks import Done

__all__ = ["Ledger"]

#: Between two events of a batch at least so long, seconds: a browser must follow.
TELL_SECONDS = 0.25
#: Between two notes of the counts in the record, seconds.
NOTE_SECONDS = 2.0
#: Errors whose traceback is in the log, whose text is there, and whose text is told to panels.
TRACEBACKS, LINES, TOLD = 5, 100, 100
#: Numbers of running items that one event names at most.
RUNNING = 100
#: Text of one error at most, characters; the payload has the exception itself.
ERROR_TEXT = 200


class Ledger:
    """Counts items, and tells of them.

    Parameters
    ----------
    total : int
    kept : sequence of Done
        Those that an earlier job has done.
    name_of : callable
        ``name_of(index)`` says what an item is.
    tell : callable
        ``tell(type, content)`` publishes a message.
    note : callable
        ``note(counts)`` writes the counts where they are seen by who lists jobs.
    """

    def __init__(
        self,
        total: int,
        kept: Sequence[Done],
        name_of: Callable[[int], str],
        tell: Callable[[str, dict[str, Any]], None],
        note: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.total, self.kept = total, len(kept)
        self.done: dict[int, Done] = {d.item: d for d in kept}
        self.running: list[int] = []
        self.failed = 0
        self._name_of, self._tell, self._note = name_of, tell, note
        self._fresh: list[Done] = list(kept)
        self._errors: list[list[Any]] = []
        self._failures: dict[int, Mapping[str, Any]] = {}
        self._lost: list[list[Any]] = []
        self._last: dict[str, Any] = {}
        self._told = self._noted = 0.0

    def add(self, one: Done, failure: Mapping[str, Any] | None) -> None:
        """Enter an item that has ended."""
        self.done[one.item] = one
        self._fresh.append(one)
        if one.ok:
            return
        self.failed += 1
        failure = failure or {}
        if one.slot < 0:  # no payload says why
            self._lost.append([one.item, dict(failure)])
        if len(self._failures) < TOLD:
            self._failures[one.item] = failure
            self._errors.append([one.item, self._name_of(one.item), _said(failure), one.seconds])
        self._print(one.item, failure)

    def counts(self) -> dict[str, int]:
        """Give the counts, as ``models.ItemCounts`` has them."""
        return {
            "total": self.total,
            "succeeded": len(self.done) - self.failed,
            "failed": self.failed,
            "running": len(self.running),
            "kept": self.kept,
        }

    def first(self) -> list[dict[str, Any]]:
        """Give the first failed items by their number, as ``models.FailedItem`` has them."""
        first = sorted(self._failures)[:TRACEBACKS]
        return [
            {
                "index": i,
                "value": self._name_of(i),
                "error": _said(self._failures[i]),
                "seconds": self.done[i].seconds,
            }
            for i in first
        ]

    def failure(self) -> dict[str, Any]:
        """Give the job's failure: that of the first item that failed, and how many did."""
        index = min(self._failures)
        count = "1 item" if self.total == 1 else f"{self.failed:,} of {self.total:,} items"
        said = f"{count} failed; the error is that of item {index}: {self._name_of(index)}"
        first = self._failures[index]
        if first.get("ename"):
            return {**first, "message": said, "item": index}
        return {**first, "message": f"{first.get('message', '')}. {said}", "item": index}

    def tell(self) -> None:
        """Tell what is new, unless something was told a moment ago."""
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self.flush()
        if now - self._noted >= NOTE_SECONDS:
            self._noted = now
            self._note(self.counts())

    def flush(self) -> None:
        """Tell what is new."""
        self._told = time.monotonic()
        chunks: dict[int, list[list[Any]]] = {}
        for one in self._fresh:
            chunks.setdefault(one.slot, []).append([one.item, int(one.ok), one.seconds])
        content = {
            "counts": self.counts(),
            "running": self.running[:RUNNING],
            "chunks": [[slot, items] for slot, items in chunks.items()],
            "errors": self._errors,
            "lost": self._lost,
        }
        if content != self._last:
            self._tell("item", content)
        self._last = {**content, "chunks": [], "errors": [], "lost": []}
        self._fresh, self._errors, self._lost = [], [], []

    def _print(self, index: int, failure: Mapping[str, Any]) -> None:
        """Let the log show the first errors whole, the next ones in a line each, and say when it ends."""
        name = f"item {index} ({self._name_of(index)}) failed"
        if self.failed <= TRACEBACKS and failure.get("traceback"):
            print(f"{name}:", *failure["traceback"], sep="\n", file=sys.stderr)
        elif self.failed <= LINES:
            print(f"{name}: {_said(failure)}", file=sys.stderr)
        elif self.failed == LINES + 1:
            print("more items fail; `job.items.failed` has all of them", file=sys.stderr)


def _said(failure: Mapping[str, Any]) -> str:
    if failure.get("ename"):
        text = f"{failure['ename']}: {failure['evalue']}" if failure.get("evalue") else failure["ename"]
    else:
        text = failure.get("message") or "nothing says why"
    text = " ".join(str(text).split())
    return text if len(text) <= ERROR_TEXT else f"{text[: ERROR_TEXT - 1]}…"
