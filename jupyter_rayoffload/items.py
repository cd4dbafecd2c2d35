"""The items of a batch, as its handle has them: what has become of each, also while it runs."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, overload

from .errors import OutputUnavailable, StillRunning
from .item import Item
from .models import ItemCounts, JobRecord
from .remote.chunks import ABOUT, ERROR, RESULT, Done, ended_of, key_of, lists_of, slot_of
from .words import items_text, number_text

__all__ = ["Items"]

#: Bytes of payloads that are held as they came, so that neighbours are not fetched one by one.
HELD_BYTES = 16 << 20


class _Job(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def record(self) -> JobRecord: ...
    def done(self) -> bool: ...
    def fetch(self, slot: str) -> Any: ...
    def thaw(self, payload: Any, names: Sequence[str], refused: dict[str, str]) -> dict[str, Any]: ...
    def given(self, index: int) -> Any: ...


class Items(Sequence["Item"]):
    """``job.items``: the items of a batch in their order; it changes while the batch runs.

    Parameters
    ----------
    job : Job
    """

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._changed = threading.Condition()
        self._ended: dict[int, Done] = {}
        self._order: list[int] = []  # as they ended
        self._running: frozenset[int] = frozenset()
        self._lost: dict[int, dict[str, Any]] = {}
        self._payloads: OrderedDict[str, Any] = OrderedDict()

    # ------------------------------------------------------------------ what is told

    def take(self, content: Mapping[str, Any]) -> None:
        """Take in an event of the batch; on the loop thread."""
        with self._changed:
            fresh = ended_of([content])
            self._order += [index for index in fresh if index not in self._ended]
            self._ended.update(fresh)
            self._lost.update({index: failure for index, failure in content.get("lost", ())})
            self._running = frozenset(content.get("running", ())) - self._ended.keys()
            self._changed.notify_all()

    def begin_again(self) -> None:
        """Forget all: the job is tried again."""
        with self._changed:
            self._ended, self._order, self._lost = {}, [], {}
            self._running, self._payloads = frozenset(), OrderedDict()

    def wake(self) -> None:
        """Let who waits look again: the job has ended."""
        with self._changed:
            if self._job.done():
                self._running = frozenset()
            self._changed.notify_all()

    # ------------------------------------------------------------------ what is known

    def __len__(self) -> int:
        batch = self._job.record.spec.batch
        return batch.total if batch else 0

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [Item(self, i) for i in range(len(self))[index]]
        try:
            return Item(self, range(len(self))[index])
        except IndexError:
            count = items_text(len(self))
            raise IndexError(f"job {self._job.id} has {count}, and no item {index}") from None

    def __iter__(self) -> Iterator[Item]:
        return (Item(self, i) for i in range(len(self)))

    @property
    def counts(self) -> ItemCounts:
        """How many have succeeded, failed, run and wait."""
        return self._job.record.items or ItemCounts(total=len(self))

    @property
    def done(self) -> list[Item]:
        """Those that have ended, well or not, in the order of the items."""
        with self._changed:
            return [Item(self, i) for i in sorted(self._ended)]

    @property
    def succeeded(self) -> list[Item]:
        """Those that have ended well."""
        with self._changed:
            return [Item(self, i) for i, done in sorted(self._ended.items()) if done.ok]

    @property
    def failed(self) -> list[Item]:
        """Those that have failed."""
        with self._changed:
            return [Item(self, i) for i, done in sorted(self._ended.items()) if not done.ok]

    @property
    def running(self) -> list[Item]:
        """Those that run now, as far as that is known."""
        with self._changed:
            return [Item(self, i) for i in sorted(self._running)]

    @property
    def waiting(self) -> list[Item]:
        """Those that have not begun; of a batch that has ended, those that never did."""
        with self._changed:
            begun = self._ended.keys() | self._running
        return [Item(self, i) for i in range(len(self)) if i not in begun]

    def as_completed(self, timeout: float | None = None) -> Iterator[Item]:
        """Give each item when it has ended, as ``concurrent.futures.as_completed`` does.

        Parameters
        ----------
        timeout : float, optional
            Seconds for all of them together.

        Raises
        ------
        StillRunning
            They have not all ended within `timeout`.

        Yields
        ------
        Item
            Also those that ended before; after the last of a batch that was cancelled or lost, no more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        given = 0
        while True:
            with self._changed:
                over = self._job.done()
                fresh = self._order[given:]
                if not fresh and not over:
                    self._changed.wait(0.2)  # in slices: a wait for ever is deaf to an interrupt
            given += len(fresh)
            yield from (Item(self, i) for i in fresh)
            if not fresh and over:
                return
            if deadline is not None and time.monotonic() > deadline and not self._job.done():
                done = f"{number_text(given)} of {items_text(len(self))}"
                raise StillRunning(
                    f"{done} of job {self._job.id} have ended after {timeout:g} s", "Wait longer"
                )

    def __repr__(self) -> str:
        counts = self.counts
        parts = {
            "succeeded": counts.succeeded,
            "failed": counts.failed,
            "running": counts.running,
            "waiting": counts.waiting,
        }
        said = ", ".join(f"{number_text(count)} {word}" for word, count in parts.items() if count)
        return f"<{items_text(len(self))} of job {self._job.id}{': ' if said else ''}{said}>"

    # ------------------------------------------------------------------ values

    def good(self) -> list[Done]:
        """Give the entries of those that succeeded, for a retry."""
        with self._changed:
            return [done for _, done in sorted(self._ended.items()) if done.ok]

    def lists(self, names: Sequence[str], refused: dict[str, str]) -> dict[str, list[Any]]:
        """Give the values of all items that succeeded, as lists; None for the others.

        Parameters
        ----------
        names : sequence of str
        refused : dict
            Filled with keys and reasons, of values that cannot be rebuilt here.
        """

        def read(slot: str, keys: set[str]) -> dict[str, Any]:
            payload = self._job.fetch(slot)
            return self._job.thaw(payload, _within(payload, keys), refused)

        return lists_of(self.good(), len(self), names, read)

    def entry(self, index: int) -> Done | None:
        """Give what is known of an item that has ended."""
        with self._changed:
            return self._ended.get(index)

    def is_running(self, index: int) -> bool:
        """Whether an item runs now."""
        with self._changed:
            return index in self._running

    def lost(self, index: int) -> dict[str, Any]:
        """Give the failure of an item whose worker died."""
        with self._changed:
            return self._lost.get(index, {})

    def error(self, index: int) -> BaseException | None:
        """Give the exception of an item that has failed."""
        return Item(self, index).error

    def given(self, index: int) -> Any:
        """Give the item itself, as it was sent."""
        return self._job.given(index)

    def keys(self, index: int) -> list[str]:
        """Give the keys under which the values of an item are in its payload."""
        done = self.entry(index)
        if done is None or done.slot < 0:
            return []
        names = [v["name"] for v in self._payload(slot_of(done.slot))[0]["values"]]
        return [
            name
            for name in names
            if name.startswith(tuple(f"{index}{m}" for m in (".", RESULT, ERROR, ABOUT)))
        ]

    def value(self, index: int, name: str) -> Any:
        """Give one value of an item.

        Raises
        ------
        OutputUnavailable
            It could not travel, or cannot be rebuilt here.
        KeyError
            There is none of that name.
        """
        key = key_of(index, name)
        if key not in self.keys(index):
            raise KeyError(name)
        done = self.entry(index)
        assert done is not None
        refused: dict[str, str] = {}
        found = self._job.thaw(self._payload(slot_of(done.slot)), [key], refused)
        if key in refused:
            raise OutputUnavailable(
                f"{name!r} of item {index} of job {self._job.id} cannot be rebuilt here: {refused[key]}",
                "Install that library here, and ask again in a new kernel",
            )
        return found[key]

    def _payload(self, slot: str) -> Any:
        if slot not in self._payloads:
            self._payloads[slot] = self._job.fetch(slot)
            while len(self._payloads) > 1 and sum(map(_size, self._payloads.values())) > HELD_BYTES:
                self._payloads.popitem(last=False)
        self._payloads.move_to_end(slot)
        return self._payloads[slot]


def _size(payload: Any) -> int:
    _, graph, buffers = payload
    return len(graph) + sum(int(buffer.nbytes) for buffer in buffers)


def _within(payload: Any, keys: set[str]) -> list[str]:
    return [v["name"] for v in payload[0]["values"] if v["name"] in keys]
