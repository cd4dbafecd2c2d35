"""The items of a batch, as its handle has them: what has become of each, also while it runs."""

from __future__ import annotations

import enum
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, overload

from .errors import CellError, OutputUnavailable, StillRunning, by_name
from .models import ItemCounts, JobRecord
from .outputs import Outputs
from .remote.chunks import ABOUT, ERROR, RESULT, Done, ended_of, key_of, lists_of, slot_of
from .tracebacks import remember
from .words import items_text, number_text

__all__ = ["Item", "ItemStatus", "Items"]

#: Bytes of payloads that are held as they came, so that neighbours are not fetched one by one.
HELD_BYTES = 16 << 20


class ItemStatus(str, enum.Enum):
    """What has become of an item."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


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


class Item:
    """One item of a batch.

    Parameters
    ----------
    items : Items
    index : int
        Its number, from 0.
    """

    def __init__(self, items: Items, index: int) -> None:
        self._items, self.index = items, index

    @property
    def status(self) -> ItemStatus:
        """Whether it waits, runs, has succeeded or has failed."""
        done = self._items.entry(self.index)
        if done is not None:
            return ItemStatus.SUCCEEDED if done.ok else ItemStatus.FAILED
        return ItemStatus.RUNNING if self._items.is_running(self.index) else ItemStatus.WAITING

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._items.entry(self.index) is not None

    @property
    def value(self) -> Any:
        """The item itself, as it was sent."""
        return self._items.given(self.index)

    @property
    def seconds(self) -> float | None:
        """How long it ran; None before its end."""
        done = self._items.entry(self.index)
        return None if done is None else done.seconds

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The names that it assigned, fetched when they are asked for.

        Raises
        ------
        StillRunning
            It has not ended.
        """
        self._must_have_ended()
        return _ItemOutputs(self._items, self.index)

    @property
    def result(self) -> Any:
        """The value of the last expression, or what the function returned.

        Raises
        ------
        StillRunning
            It has not ended.
        Exception
            Its own, if it failed.
        """
        self._must_have_ended()
        error = self.error
        if error is not None:
            raise error
        try:
            return self._items.value(self.index, RESULT)
        except KeyError:
            return None

    @property
    def error(self) -> BaseException | None:
        """Its own exception, with the traceback of the cell; what happened to its worker; or None."""
        done = self._items.entry(self.index)
        if done is None or done.ok:
            return None
        if lost := self._items.lost(self.index):
            return by_name(lost.get("reason", ""), lost.get("message", ""), lost.get("hint", ""))
        failure = self._about().get("failure", {})
        if failure.get("reason"):  # of a program
            return by_name(failure["reason"], failure.get("message", ""), failure.get("hint", ""))
        error: BaseException | None = None
        try:
            error = self._items.value(self.index, ERROR)
        except (KeyError, OutputUnavailable):
            pass
        except Exception:  # a class whose constructor wants other arguments than it gives
            error = None
        lines = list(failure.get("traceback", ()))
        if not isinstance(error, BaseException):
            name, text = failure.get("ename", "Exception"), failure.get("evalue", "")
            error = CellError(f"{name}: {text}", "The exception itself could not travel", name, text, lines)
        remember(error, lines)
        return error

    @property
    def traceback(self) -> list[str]:
        """Lines of its traceback, with terminal colours; empty without an error."""
        return list(self._about().get("failure", {}).get("traceback", ()))

    @property
    def displays(self) -> list[dict[str, Any]]:
        """What it displayed, such as figures: ``{output_type, data, metadata}`` each."""
        shown = Outputs()
        for message in self._about().get("displays", ()):
            shown.add(message)
        return shown.outputs

    def _about(self) -> Mapping[str, Any]:
        try:
            about: Mapping[str, Any] = self._items.value(self.index, ABOUT)
        except KeyError:
            return {}
        return about

    def _must_have_ended(self) -> None:
        if not self.done():
            raise StillRunning(
                f"item {self.index} has not ended: it is {self.status.value}",
                "job.items.as_completed() waits",
            )

    def __repr__(self) -> str:
        took = "" if self.seconds is None else f", {self.seconds:.3g} s"
        return f"<item {self.index}: {self.status.value}{took}>"


class _ItemOutputs(Mapping[str, Any]):
    """Names of one item to values."""

    def __init__(self, items: Items, index: int) -> None:
        self._items, self._index = items, index

    def _names(self) -> list[str]:
        mark = f"{self._index}."
        return [key[len(mark) :] for key in self._items.keys(self._index) if key.startswith(mark)]

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            there = ", ".join(self._names()) or "none"
            raise KeyError(f"item {self._index} has no output {name!r}; it has: {there}")
        return self._items.value(self._index, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"<outputs of item {self._index}: {', '.join(self._names()) or 'none'}>"
