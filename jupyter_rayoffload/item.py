"""One item of a batch, as its handle has it."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from .errors import CellError, OutputUnavailable, StillRunning, by_name
from .outputs import Outputs
from .remote.chunks import ABOUT, ERROR, RESULT, Done
from .tracebacks import remember

__all__ = ["Item", "ItemStatus"]


class ItemStatus(str, enum.Enum):
    """What has become of an item."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class _Items(Protocol):
    def entry(self, index: int) -> Done | None: ...
    def is_running(self, index: int) -> bool: ...
    def lost(self, index: int) -> dict[str, Any]: ...
    def given(self, index: int) -> Any: ...
    def keys(self, index: int) -> list[str]: ...
    def value(self, index: int, name: str) -> Any: ...


class Item:
    """One item of a batch.

    Parameters
    ----------
    items : Items
        Those that it is one of.
    index : int
        Its number, from 0.
    """

    def __init__(self, items: _Items, index: int) -> None:
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

    def __init__(self, items: _Items, index: int) -> None:
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
