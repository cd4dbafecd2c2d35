"""The outer of the runner's two processes: it watches over the one that executes the cell.

The cell may crash its process, hold the GIL for minutes, use up the memory or ignore every interrupt. This
process does none of that, so there is always one that publishes what was printed, gives signs of life, stops
the cell, ends its children, and says how the job ended.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import processes
from .channel import Inbox
from .failures import CANCELLED, NOT_THE_CELL, crash
from .libraries import installed
from .publisher import OUTPUT_LIMIT, PAUSE_SECONDS, Publisher
from .pulse import Pulse
from .run import STORE_PATIENCE
from .standby import CellHandle, Job
from .state import ended_state, running_state
from .store import Store, StoreFault, Tampered

__all__ = ["Guard", "submission_id"]

#: Ray kills the whole job so long after its stop, seconds, unless the job's environment says otherwise.
RAY_STOP_SECONDS = 3.0
#: Of that, an interrupted cell may take this part to end; the rest is for writing how the job ended.
GRACE = 2 / 3
#: How long a cell that ran out of time may take to end: nobody waits, and what it assigned may be large.
TIMEOUT_GRACE_SECONDS = 10.0
#: How long exit handlers and Ray's shutdown may take after the job's end was written, seconds.
GOODBYE_SECONDS = 15.0
#: How long what was started and left behind by a cell that ended well gets to end by itself, seconds.
LEFTOVER_SECONDS = 0.5
#: print() writes its arguments one by one: a line read after so long is most likely whole, seconds.
PRINT_SECONDS = 0.002
#: A cell that ends within this is left alone until then, seconds: on few cores each thing done beside it
#: costs it time, and its whole story takes one message.
HEAD_START_SECONDS = 0.02
#: Between the last word of a job and what else its guard does, seconds: the notebook reads that word now, and
#: cores are few.
REST_SECONDS = 0.02
#: Exit code of a job that ran out of time; that of timeout(1).
TIMED_OUT = 124


@dataclass
class _Stop:
    """A stop that is under way."""

    end: dict[str, Any]
    deadline: float


class Guard:
    """Watches over one cell; the parameters are what :mod:`.launch` has made.

    Parameters
    ----------
    store, impatient : Store
        The latter bears nothing: what it would write is tried again here.
    cell : CellHandle
    """

    def __init__(self, store: Store, impatient: Store, cell: CellHandle) -> None:
        self._store, self._impatient = store, impatient
        self._handle, self._cell, self._pipes = cell, cell.pid, cell.pipes
        self._inbox: Inbox | None = Inbox(cell.pair)
        self._job_id, self._attempt = "", 0
        self._writer = submission_id()
        self._here = {
            "pid": cell.pid,
            "host": socket.gethostname(),
            "python": sys.version.split()[0],
            "session": _session(),
        }
        self._spec: Mapping[str, Any] = {}
        self._state: dict[str, Any] = {}
        limit = int(os.environ.get("RAYOFFLOAD_OUTPUT_LIMIT") or OUTPUT_LIMIT)
        self._publisher = Publisher(self._append, (StoreFault,), limit, held=True)
        self._pulse: Pulse | None = None
        self._ooms = 0  # before the cell
        self._wake, self._waker = os.pipe()
        self._signal = 0
        self._requested = False
        self._stop: _Stop | None = None
        self._status: int | None = None
        self._end: dict[str, Any] | None = None
        self._quiet_until = 0.0
        self._times_out: float | None = None
        self._settles: float | None = None  # when, unless the cell has ended by then

    def rehearse(self) -> None:
        """Do once, to no effect, what a job waits for and takes longer the first time."""
        publisher = Publisher(self._append, (StoreFault,), held=True)
        publisher.put("phase", {})
        publisher.last(0.0)
        self._store.rehearse()
        self._impatient.ping()  # its connection is there when the job comes

    # ------------------------------------------------------------------ from begin to end

    def run(self, job: Job) -> int:
        """Let the cell run, and give the exit code."""
        self._job_id, self._attempt = job.id, job.attempt
        self._writer = self._writer or f"{job.id}-{job.attempt}"
        self._spec, self._state = job.record["spec"], dict(job.record.get("state") or {})
        self._listen()
        mismatch = self._mismatch()
        if mismatch:
            return self._conclude({"phase": "failed", "exit_code": NOT_THE_CELL, "failure": mismatch})
        if not job.expected:
            self._handle.expect(self._spec)
        self._handle.begin()  # before anything that it need not wait for
        self._note_begin()
        while self._status is None and self._end is None and not self._overdue():
            self._step()
        while self._status is not None and self._inbox and select.select([self._inbox], [], [], 0)[0]:
            self._take()  # its last words
        return self._conclude(self._verdict())

    def _listen(self) -> None:
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that it wakes us

    def _mismatch(self) -> dict[str, Any] | None:
        """Whether the job was made by another Python: its pickles do not cross minor versions."""
        wanted = ".".join(((self._spec.get("versions") or {}).get("python") or "").split(".")[:2])
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        if not wanted or wanted == here or self._spec.get("kind") == "program":
            return None
        return {
            "reason": "ClusterMismatch",
            "message": f"The notebook has Python {wanted}, the cluster Python {here}: values cannot cross",
            "hint": f"Use a cluster image with Python {wanted}",
        }

    def _note_begin(self) -> None:
        """Take down that the cell runs; it is written when it has run for a while, or with its end."""
        now, begun = time.monotonic(), {"submission": self._writer, "attempt": self._attempt}
        self._publisher.put("phase", {"phase": "running", **self._here, **begun})
        self._state = running_state(self._state, self._attempt, str(self._here["session"]), self._writer)
        self._ooms = processes.oom_kills()
        self._settles = now + HEAD_START_SECONDS
        timeout = (self._spec.get("options") or {}).get("timeout")
        if timeout:
            self._times_out = now + timeout

    def _settle(self) -> None:
        """Begin what a cell needs that runs for a while."""
        self._settles = None
        self._publisher.begin()
        self._pulse = Pulse(self._impatient, self._job_id, self._publisher, self._on_request)
        self._pulse.start()
        with contextlib.suppress(StoreFault, Tampered):
            self._store.write_state(self._job_id, self._state)
        self._note_libraries()  # last: to look for them may take a while

    def _note_libraries(self) -> None:
        needed = self._spec.get("libraries")
        if needed:
            self._publisher.put("libraries", {"libraries": installed(needed)})

    def _append(self, number: int, messages: list[dict[str, Any]]) -> None:
        self._impatient.append(self._job_id, self._writer, number, messages)

    def _step(self) -> None:
        """Wait for something to happen, and deal with it."""
        now = time.monotonic()
        if self._settles is not None and now >= self._settles:
            self._settle()
        quiet = now < self._quiet_until
        room = self._publisher.has_room()
        sources: list[Any] = [self._wake]
        if self._inbox and room:
            sources.append(self._inbox)
        if room and not quiet:
            sources += self._pipes
        ready = select.select(sources, [], [], self._patience(now, quiet or not room))[0]
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        if any(pipe in ready for pipe in self._pipes):
            time.sleep(PRINT_SECONDS)
            self._drain()
            # More comes soon, most likely; a read for every line would cost the cell its core.
            self._quiet_until = time.monotonic() + PAUSE_SECONDS / 2
        if self._inbox and self._inbox in ready:
            self._take()
        self._status = processes.reap().get(self._cell)
        self._look_for_stop()

    def _patience(self, now: float, quiet: bool) -> float:
        until = [now + (PAUSE_SECONDS / 2 if quiet else 3600.0)]
        if self._settles is not None:
            until.append(self._settles)
        if self._times_out and not self._stop:
            until.append(self._times_out)
        if self._stop:
            until.append(self._stop.deadline)
        return max(0.0, min(until) - now)

    # ------------------------------------------------------------------ what the cell says

    def _drain(self) -> None:
        for pipe in self._pipes:
            self._publisher.stream(pipe.name, pipe.drain())

    def _take(self) -> None:
        """Take one message; what was printed before it goes first."""
        assert self._inbox is not None
        message, size = self._inbox.take()
        self._drain()
        if message is None:
            self._inbox = None
            return
        kind, content = message["type"], message["content"]
        if kind == "end":
            self._end = content
            return  # acknowledged when it is written: what the cell's process does then would cost it time
        if kind == "log":
            _log(2, content["text"])
        elif kind != "sync":
            self._publisher.put(kind, content, size)
            _log_display(kind, content)
        self._inbox.acknowledge()

    # ------------------------------------------------------------------ stopping

    def _on_signal(self, number: int, frame: object) -> None:
        self._signal = self._signal or number

    def _on_request(self, request: dict[str, Any]) -> None:
        """Take a request that lay in the store; on the pulse's thread."""
        self._requested = True
        with contextlib.suppress(OSError):
            os.write(self._waker, b"!")

    def _look_for_stop(self) -> None:
        if self._stop or self._status is not None or self._end is not None:
            return
        now = time.monotonic()
        if self._signal or self._requested:
            code = 128 + self._signal if self._signal else CANCELLED
            self._stop = _Stop({"phase": "cancelled", "exit_code": code}, now + _grace())
        elif self._times_out and now >= self._times_out:
            failure = {
                "reason": "JobTimedOut",
                "message": f"The cell ran longer than its limit of {self._spec['options']['timeout']:g} s",
                "hint": "Give it more time with --timeout, or none by leaving it out",
            }
            end = {"phase": "failed", "exit_code": TIMED_OUT, "failure": failure}
            self._stop = _Stop(end, now + TIMEOUT_GRACE_SECONDS)
        if self._stop:
            processes.interrupt_main_thread(self._cell)

    def _overdue(self) -> bool:
        return self._stop is not None and time.monotonic() >= self._stop.deadline

    # ------------------------------------------------------------------ the end

    def _verdict(self) -> dict[str, Any]:
        """Say how the job ended; a stopped one was stopped, whatever its cell made of it."""
        if self._stop:
            said = {k: v for k, v in (self._end or {}).items() if k not in ("failure", "result")}
            return {**said, **self._stop.end}
        if self._end is not None:
            return self._end
        assert self._status is not None
        failure, code = crash(self._status, processes.oom_kills() > self._ooms)
        return {"phase": "failed", "exit_code": code, "failure": failure}

    def _conclude(self, end: dict[str, Any]) -> int:
        """Write how the job ended, and leave no process behind."""
        if self._end is None or self._stop:
            processes.kill_descendants()
        if self._pulse is not None:
            self._pulse.stop()
        for pipe in self._pipes:
            self._publisher.stream(pipe.name, pipe.finish())
        if self._settles is not None:
            self._note_libraries()
        sealed = {slot: base64.b64decode(text) for slot, text in end.get("sealed", {}).items()}
        said = {k: v for k, v in end.items() if k != "sealed"}
        end = {"t": time.time(), "attempt": self._attempt, "lines": self._publisher.lines, **said}
        try:
            self._write(end, sealed)
            time.sleep(REST_SECONDS)
            self._write_state(end)
        except (StoreFault, Tampered) as error:
            _log(2, f"rayoffload: the end of job {self._job_id} could not be written: {error}\n")
        if self._inbox is not None and self._end is not None:
            self._inbox.acknowledge()
        self._see_off()
        return int(end["exit_code"])

    def _write(self, end: dict[str, Any], sealed: dict[str, bytes]) -> None:
        """Write the end with what is left to say, and with values that the cell left to this."""
        last = self._publisher.last(STORE_PATIENCE)
        if last is None:
            _log(2, f"rayoffload: the store was away too long: {self._publisher.trouble}\n")
            return self._store.write(self._job_id, "end", end)
        number, messages = last
        messages.append({"t": round(end["t"], 3), "type": "phase", "content": end})
        self._store.conclude(self._job_id, self._writer, number, messages, end, sealed)

    def _write_state(self, end: dict[str, Any]) -> None:
        """Write the state; who follows the job has heard of its end by now."""
        record = self._store.read(self._job_id) or {}
        state = ended_state(record.get("state") or self._state, end)
        self._store.write_state(self._job_id, state)

    def _see_off(self) -> None:
        """Let the cell's process end in order, for a while; what it still prints is for Ray's log alone."""
        deadline = time.monotonic() + GOODBYE_SECONDS
        while self._status is None and self._end is not None and not self._stop:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            sources: list[Any] = [self._wake, *self._pipes]
            select.select(sources, [], [], min(left, 0.5))
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            for pipe in self._pipes:
                pipe.drain()
            self._status = processes.reap().get(self._cell)
            if self._signal:
                break
        processes.kill_descendants(LEFTOVER_SECONDS)


def _grace() -> float:
    """Give the seconds that a cancelled cell may take to end."""
    try:
        wait = float(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S") or RAY_STOP_SECONDS)
    except ValueError:
        wait = RAY_STOP_SECONDS
    return max(1.0, wait * GRACE)


def submission_id() -> str:
    """Give Ray's id of this submission; ``""`` outside Ray."""
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
        return str((config.get("metadata") or {}).get("job_submission_id") or "")
    except ValueError:
        return ""


def _session() -> str:
    """Give Ray's session name, by the folder of the log that this process writes to; ``""`` outside Ray."""
    try:
        match = re.search(r"/(session_[^/]+)/", os.readlink("/proc/self/fd/1"))
    except OSError:
        return ""
    return match[1] if match else ""


def _log(descriptor: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, text.encode("utf-8", "replace"))


def _log_display(kind: str, content: Mapping[str, Any]) -> None:
    """Let Ray's own log show what a terminal would: the text of a display, and the traceback."""
    if kind == "error":
        _log(2, "\n".join(content["traceback"]) + "\n")
    elif kind in ("display_data", "execute_result"):
        text = content["data"].get("text/plain")
        if isinstance(text, str):
            _log(1, text + "\n")
