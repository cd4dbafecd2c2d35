"""A job on its way: the draft before it is submitted, and its course as one process sees it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .models import JobRecord, JobSpec, Phase
from .phase import Event, advance

if TYPE_CHECKING:
    from .remote.codec import Frozen

__all__ = ["REST_SECONDS", "Course", "Draft", "new_id"]

#: Between the end of a job and what is done in the loop behind it, seconds: the notebook first takes what it
#: has waited for, and its thread needs the interpreter.
REST_SECONDS = 0.05

_log = logging.getLogger(__name__)


def new_id(label: str) -> str:
    """Give a fresh job id: what people recognise, then 24 random bits; never reused.

    Ray accepts any string and then chokes on some (``research``: ``a/b``, 300 characters), so only
    ``[A-Za-z0-9_-]{1,64}`` is made here.
    """
    slug = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in label).strip("-")[:40]
    return f"{slug or 'cell'}-{secrets.token_hex(3)}"


@dataclass
class Draft:
    """A job that is about to be submitted.

    Parameters
    ----------
    spec : JobSpec
    frozen : Frozen, optional
        The inputs; None for a rerun, whose inputs are in the store.
    modules : tuple of str
        Dotted names that the cell and its inputs import.
    needs : frozenset of str
        First parts of the names of modules without which the job cannot begin.
    cwd : str
        The notebook's folder: the workspace, unless the options name another.
    program_input : (str, bytes), or list of these
        What ``read_input()`` returns in a program, ``json`` or ``bytes`` and the data; of a batch each one.
    held : bool
        Whether the inputs' buffers are copies; if not, they must be sent before the notebook goes on.
    copy_from : str
        Id of the job whose inputs and packages a rerun takes over.
    """

    spec: JobSpec
    frozen: Frozen | None = None
    modules: tuple[str, ...] = ()
    cwd: str = ""
    program_input: Any = None
    held: bool = True
    copy_from: str = ""
    needs: frozenset[str] = frozenset()


class Course:
    """The course of one job as this process sees it: its record, and who wants to know.

    Parameters
    ----------
    record : JobRecord
    """

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.end: Mapping[str, Any] = {}  # the runner's last word
        self.values: dict[str, bytes] = {}  # small payloads that came with it, by slot: signed, not checked
        self.read = "0"  # of its stream, the last entry that was taken in
        self.ended = asyncio.Event()
        self.ended_here: float | None = None  # when this process learnt of it: clocks of others may differ
        self._observers: list[Callable[[JobRecord, Event], None]] = []
        if record.phase.ended:
            self.ended.set()

    def subscribe(self, observer: Callable[[JobRecord, Event], None]) -> None:
        """Call ``observer(record, event)`` in the loop after each event, also those that change nothing."""
        self._observers.append(observer)

    def tell(self, type_: str, at: float | None = None, **content: Any) -> None:
        """Take an event into the record and pass it on."""
        event = Event(type_, time.time() if at is None else at, content)
        if type_ == "phase" and Phase(content["phase"]).ended:
            self.end = content
        self.record = advance(self.record, event)
        # A failed attempt is not the end where another one follows, unless this side cannot go on.
        if self.record.phase.ended and (type_ == "failed" or not self.retries_left):
            self.ended_here = self.ended_here or time.time()
            self.ended.set()
        for observer in list(self._observers):
            try:
                observer(self.record, event)
            except Exception:  # a panel that fails must not keep others from hearing that the job has ended
                _log.exception("an observer of job %s failed at %s", self.record.id, type_)

    def take(self, record: JobRecord) -> None:
        """Go on from what another process has written of the job."""
        self.record = record
        self.tell("alive")

    @property
    def retries_left(self) -> bool:
        """Whether the job has failed and is to be tried again."""
        record = self.record
        if record.items is not None and record.items.failed:
            return False  # of a batch each item is tried again by itself
        return record.phase is Phase.FAILED and 0 < record.attempt <= record.spec.options.retries

    @asynccontextmanager
    async def step(self, name: str, note: str = "") -> AsyncIterator[dict[str, str]]:
        """Mark a step of the strip as current while the block runs; ``box["note"]`` replaces its time."""
        box = {"note": note}
        self.tell("step", name=name, state="begin")
        yield box
        self.tell("step", name=name, state="end", note=box["note"])
