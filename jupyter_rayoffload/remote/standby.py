"""A runner before it has its job: the claim of an attempt, and the wait of one that was started ahead."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pair
from pathlib import Path
from typing import Any

from . import processes
from .capture import Pipe
from .channel import Inbox
from .libraries import installed
from .store import Store

__all__ = ["CellHandle", "Job", "Waiting", "claim"]

#: How long the cell's process may take to make itself ready, seconds: it imports what may be large.
READY_SECONDS = 120.0
#: Between two signs of life, and two looks at the cell's process, seconds.
BEAT_SECONDS = 1
#: How long a letter that is on its way is waited for, seconds.
LETTER_SECONDS = 5


@dataclass(frozen=True)
class CellHandle:
    """The process that executes the cell, as the one that guards it has it.

    Parameters
    ----------
    pid : int
    pair : multiprocessing.connection.Connection
    pipes : list of Pipe
    """

    pid: int
    pair: Pair
    pipes: list[Pipe]

    def expect(self, spec: Mapping[str, Any]) -> None:
        """Let it get ready for a job that it is not to begin yet."""
        self._send(json.dumps(spec).encode())

    def begin(self) -> None:
        """Let it begin the job that it was told last."""
        self._send(b"")

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # it has died; who watches over it sees that
            self.pair.send_bytes(message)


@dataclass(frozen=True)
class Job:
    """An attempt that was claimed.

    Parameters
    ----------
    id : str
    attempt : int
    record : dict
        The store's record of the job.
    expected : bool
        Whether the cell's process has the spec already.
    """

    id: str
    attempt: int
    record: dict[str, Any]
    expected: bool = False


def claim(store: Store, job_id: str, attempt: int, standby: str = "") -> dict[str, Any] | str:
    """Take an attempt; give the job's record, or why it is not to be run.

    Who handed it to that standby hears of it.
    """
    by = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
    if standby:
        record, taken = store.accept_handed(standby, job_id, attempt, by)
    else:
        record, taken = store.accept(job_id, attempt, by)
    if record is None or "spec" not in record:
        return "the store has no such job"
    state = record.get("state") or {}
    if (state.get("attempt") or 0) > attempt:
        return f"attempt {state['attempt']} has taken its place"
    if (record.get("end") or {}).get("attempt", 0) >= attempt:
        return "it has ended"
    if state.get("phase") == "cancelled":
        return "it was cancelled"
    return record if taken else "somebody else has it, or it was taken back"


class Waiting:
    """Waits for a job.

    Parameters
    ----------
    store : Store
    standby : str
    plan : dict
        As :meth:`.handover.Handovers.order` has it.
    cell : CellHandle
        Its process makes itself ready, and says so.
    """

    def __init__(self, store: Store, standby: str, plan: dict[str, Any], cell: CellHandle) -> None:
        self._store, self._handovers = store, store.handovers
        self._standby, self._plan, self._cell = standby, plan, cell

    def job(self) -> Job | None:
        """Give the job that was handed over and claimed; None if this is not wanted any more."""
        if not self._ready():
            return None
        installed(self._plan.get("libraries") or {})  # known when the job asks for it
        self._plan |= {"since": time.time(), "memory": memory()}
        if not self._handovers.announce(self._standby, self._plan):
            return None
        try:
            return self._wait(time.monotonic() + float(self._plan["idle"]))
        except SystemExit:  # Ray stops this one
            self._handovers.leave(self._standby, self._plan["key"])
            raise

    def _wait(self, deadline: float) -> Job | None:
        while True:
            letter = self._handovers.await_letter(self._standby, BEAT_SECONDS)
            job = self._claimed(letter) if letter else None
            self._drain()
            if job or (letter and "end" in letter):
                return job
            if not self._goes_on(deadline):
                return self._last()
            if letter and not self._handovers.announce(self._standby, self._plan):
                return None

    def _ready(self) -> bool:
        """Wait for the word of the cell's process; what it prints meanwhile is for Ray's log alone."""
        inbox, deadline = Inbox(self._cell.pair), time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            sources: list[Any] = [inbox, *self._cell.pipes]
            heard = select.select(sources, [], [], BEAT_SECONDS)[0]
            self._drain()
            if inbox not in heard:
                continue
            message, _ = inbox.take()
            inbox.acknowledge()
            if message is None or message["type"] == "ready":
                return message is not None
        return False

    def _goes_on(self, deadline: float) -> bool:
        alive = self._cell.pid not in processes.reap()
        return alive and time.monotonic() < deadline and self._handovers.beat(self._standby)

    def _last(self) -> Job | None:
        """Leave; whoever has already taken this out of the list is waited for."""
        if self._handovers.leave(self._standby, self._plan["key"]):
            return None
        letter = self._handovers.await_letter(self._standby, LETTER_SECONDS)
        return self._claimed(letter) if letter else None

    def _claimed(self, letter: dict[str, Any]) -> Job | None:
        if "job" not in letter or not _alive(self._cell.pid):
            return None
        job_id, attempt, spec = str(letter["job"]), int(letter["attempt"]), letter.get("spec")
        if spec:
            self._cell.expect(spec)
        record = claim(self._store, job_id, attempt, self._standby)
        if isinstance(record, str):
            print(f"rayoffload: attempt {attempt} of job {job_id} is not run here: {record}", flush=True)
            return None
        return Job(job_id, attempt, record, expected=spec == record["spec"])

    def _drain(self) -> None:
        for pipe in self._cell.pipes:
            pipe.drain()


def memory() -> int:
    """Give the bytes that this process and those below it hold, with their share of what others hold too."""
    return sum(_share(pid) for pid in (os.getpid(), *processes.descendants(os.getpid())))


def _share(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # gone, or a kernel that does not tell
        pass
    return 0


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
