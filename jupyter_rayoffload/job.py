"""`Job`: the handle of an offloaded cell, function or program."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import json
import time
import weakref
from collections import ChainMap
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import errors
from .course import Course
from .errors import OutputUnavailable, StillRunning, UsageError, by_name
from .items import Items
from .models import FileInfo, JobRecord, Phase, Value, ValueState
from .options import from_keywords
from .outputs import Outputs
from .phase import Event
from .remote.chunks import ITEMS
from .spool import Spool
from .tracebacks import remember

if TYPE_CHECKING:
    from .remote.chunks import Done
    from .session import Session

__all__ = ["Job", "Observer"]

#: Lists, dictionaries and other values without weak references are remembered up to this size, pickled.
SMALL_BYTES = 1 << 20
_NOTHING = object()
#: What is told of each event: the record after it, and the event.
Observer = Callable[[JobRecord, Event], None]


class Job:
    """One offloaded cell, function or program.

    Made by ``%%ray_job``, :func:`submit`, :func:`submit_program` and :func:`attach`; everything that it knows
    comes from the store, so any process can have a handle of any job.
    """

    def __init__(self, session: Session, course: Course) -> None:
        self._session, self._course = session, course
        self._ended: concurrent.futures.Future[Job] = concurrent.futures.Future()
        self._task: concurrent.futures.Future[None] | None = None
        self._values: dict[str, dict[str, Any]] = {}
        self._absent: dict[str, dict[str, str]] = {}
        self._landed: ChainMap[str, Any] = ChainMap({}, cast("dict[str, Any]", weakref.WeakValueDictionary()))
        self._items = Items(self)
        self.displays = Outputs()
        self.spool = Spool()
        self.quiet = False
        self.settled: concurrent.futures.Future[None] | None = None
        course.subscribe(self._on_event)
        if course.record.phase.ended:
            self._ended.set_result(self)

    # ------------------------------------------------------------------ what is known

    @property
    def record(self) -> JobRecord:
        """All that is known of the job now."""
        return self._course.record

    @property
    def id(self) -> str:
        """Id of the job: attach to it from anywhere by this."""
        return self.record.id

    @property
    def label(self) -> str:
        """Name given on the magic line, or ``""``."""
        return self.record.spec.label

    @property
    def phase(self) -> Phase:
        """Where the job is."""
        return self.record.phase

    @property
    def end(self) -> Mapping[str, Any]:
        """The runner's last word; empty before it."""
        return self._course.end

    def done(self) -> bool:
        """Whether the job has ended, well or not."""
        return self._ended.done()

    def running(self) -> bool:
        """Whether the cell is being executed."""
        return self.phase is Phase.RUNNING

    def __repr__(self) -> str:
        from .words import phase_word

        return f"<Job {self.id}: {phase_word(self.phase)}>"

    # ------------------------------------------------------------------ waiting

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job has ended.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None waits as long as the job takes.

        Returns
        -------
        bool
            Whether it has ended. An interrupt ends the waiting, not the job.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended.done():
            left = 0.2 if deadline is None else min(0.2, deadline - time.monotonic())
            if left <= 0:
                return False
            with contextlib.suppress(concurrent.futures.TimeoutError):
                self._ended.result(left)
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Give the value of the cell's last expression, or what the function returned.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for the job.

        Raises
        ------
        StillRunning
            The job has not ended within `timeout`.
        OutputUnavailable
            The value could not travel, or is no longer kept.
        Exception
            The cell's own exception, or the :class:`~.errors.JobError` that says what happened.
        """
        if not self.wait(timeout):
            raise StillRunning(f"job {self.id} has not ended after {timeout:g} s", "Wait longer, or await it")
        error = self.exception()
        if error is not None:
            raise error
        return self._result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Give the job's error: the cell's own exception, one of :mod:`.errors`, or None.

        Raises
        ------
        StillRunning
            The job has not ended within `timeout`.
        """
        if not self.wait(timeout):
            raise StillRunning(f"job {self.id} has not ended after {timeout:g} s", "Wait longer, or await it")
        phase, failure = self.phase, self.record.failure
        if phase is Phase.SUCCEEDED:
            return None
        if phase is Phase.CANCELLED:
            return errors.JobCancelled(
                f"job {self.id} was cancelled", f"%ray rerun {self.id} starts it again"
            )
        if failure is None:
            return errors.JobError(f"job {self.id} has {phase.value} and nothing says why", "Run it again")
        if failure.ename:
            return self._cell_error()
        return by_name(failure.reason, failure.message, failure.hint)

    def __await__(self) -> Generator[Any, None, Any]:
        yield from asyncio.wrap_future(self._ended).__await__()
        return self.result()

    def add_done_callback(self, callback: Callable[[Job], object]) -> None:
        """Call ``callback(job)`` when the job has ended, on the extension's own thread; at once if it has."""
        self._ended.add_done_callback(lambda _: callback(self))

    def subscribe(self, observer: Observer) -> None:
        """Call ``observer(record, event)`` after each event, on the extension's own thread."""
        self._course.subscribe(observer)

    # ------------------------------------------------------------------ what came back

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The names that the cell assigned or changed, fetched when they are first asked for."""
        return _Outputs(self)

    @property
    def files(self) -> tuple[FileInfo, ...]:
        """Files that the cell made or changed in its workspace."""
        return self.record.files

    @property
    def items(self) -> Items:
        """The items of a batch, each with its status, error and values; also while the batch runs.

        Raises
        ------
        UsageError
            The job is no batch.
        """
        if self.record.spec.batch is None:
            raise UsageError(f"job {self.id} is no batch", "--map NAME=EXPR makes one")
        return self._items

    def logs(self, tail: int | None = None) -> str:
        """Give what the job has printed so far, the last `tail` lines or all of it."""
        first = 0 if tail is None else max(0, self.spool.total - tail)
        return "\n".join(self.spool.lines(first, self.spool.total))

    def values(self, slot: str = "outputs", known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Fetch, check and unpickle a payload of this job; once.

        What needs a library that is not here is left out: :meth:`absent` says why. Outputs that hold an
        unchanged input hold that of `known`, or else a copy as it was sent.
        """
        if slot not in self._values and self.record.spec.batch and slot in ("outputs", "result"):
            self._values[slot], self._absent[slot] = self._lists(slot)
        if slot not in self._values:
            from .remote.codec import thaw

            header, graph, buffers = self.fetch(slot)
            names = [v["name"] for v in header["values"]]
            absent: dict[str, str] = {}
            self._values[slot] = thaw(
                graph, buffers, self._session.namespace, names, absent, self._had(known or {})
            )
            self._absent[slot] = absent
        return self._values[slot]

    def _lists(self, slot: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Give the values of all items as lists, and why a whole list is not here."""
        names = ["="] if slot == "result" else [v.name for v in self.record.outputs]
        refused: dict[str, str] = {}
        lists = self._items.lists(names, refused)
        if slot == "result":
            lists = {"result": lists["="]}
        why: dict[str, str] = {}
        for key, reason in refused.items():
            number, _, name = key.partition("." if slot == "outputs" else "=")
            why.setdefault(name or "result", f"item {number}: {reason}")
        return {name: found for name, found in lists.items() if name not in why}, why

    def fetch(self, slot: str) -> Any:
        """Fetch a payload, checked and not yet unpickled."""
        offloader = self._session.offloader
        came = offloader.opened(self._course, slot)
        return self._session.call(offloader.fetch(self.record, slot)) if came is None else came

    def thaw(self, payload: Any, names: Sequence[str], refused: dict[str, str]) -> dict[str, Any]:
        """Unpickle values of a payload; what needs a library that is not here is in `refused`."""
        from .remote.codec import thaw

        _, graph, buffers = payload
        return thaw(graph, buffers, self._session.namespace, names, refused)

    def given(self, index: int) -> Any:
        """Give an item of a batch, as it was sent."""
        return self.value(ITEMS, "inputs")[index]

    def _had(self, known: Mapping[str, Any]) -> Callable[[str], Any]:
        """Give what finds an input or a part of one: in `known`, or as it was sent if that has changed."""
        from .remote.codec import Unpicklable, fingerprint, travelled
        from .remote.parts import Part

        @functools.cache
        def prints_of(name: str) -> frozenset[str]:
            """Give the prints that an unchanged value has in a job: it came from another, or from here."""
            namespace, value = self._session.namespace, known[name]
            try:
                both = value, travelled(value, namespace, self._session.origin().signer)
            except Unpicklable:
                return frozenset()
            return frozenset((fingerprint(v, namespace) or b"").hex() for v in both)

        def find(key: str) -> Any:
            part = Part.from_key(key)
            if part.name in known and (not part.print or part.print in prints_of(part.name)):
                return part.of(known[part.name])
            return part.of(self.value(part.name, "inputs"))

        return find

    def absent(self, slot: str = "outputs") -> dict[str, str]:
        """Give the names of a payload whose values cannot be rebuilt here, and why."""
        if slot not in self._absent:
            self.values(slot)
        return self._absent[slot]

    def value(self, name: str, slot: str = "outputs") -> Any:
        """Give one value of a payload.

        Raises
        ------
        OutputUnavailable
            It cannot be rebuilt here.
        """
        if slot == "outputs" and (value := self._landed.get(name, _NOTHING)) is not _NOTHING:
            return value
        if name in (absent := self.absent(slot)):
            raise OutputUnavailable(
                f"{name!r} of job {self.id} cannot be rebuilt here: {absent[name]}",
                "Install that library here, and ask again in a new kernel",
            )
        return self.values(slot)[name]

    def input(self, name: str) -> Any:
        """Give an input: as it was sent, or from the job that it waited for.

        Raises
        ------
        OutputUnavailable
            That job is not known here.
        """
        job_id, _, there = self.record.spec.after.get(name, "").partition("#")
        if not job_id:
            return self.value(name, "inputs")
        job = self._session.jobs.get(job_id)
        if job is None:
            raise OutputUnavailable(
                f"{name!r} of job {self.id} came from job {job_id}, which this notebook does not know",
                f"%ray attach {job_id}, and ask again",
            )
        there = there or name
        return job.outputs[there] if there in job.outputs else job.input(there)

    def _result(self) -> Any:
        result = self.end.get("result") or {}
        if result.get("reason"):
            raise OutputUnavailable(
                f"the value of job {self.id}'s last expression cannot travel: {result['reason']}",
                "Assign what you need of it to a name in the cell",
            )
        if result.get("name"):
            name = result["name"]
            if name in {v.name for v in self.record.outputs}:
                return self.outputs[name]
            return self._session.namespace.get(name)
        if result.get("slot") or result.get("items"):
            return self.value("result", "result")
        if result.get("digest"):  # what a program wrote: bytes or JSON, never unpickled
            data = self._session.call(
                self._session.offloader.blob(self.record, result["digest"], result["size"])
            )
            return json.loads(data) if result["kind"] == "json" else data
        return None

    def _cell_error(self) -> BaseException:
        failure = self.record.failure
        assert failure is not None
        item = (self.end.get("failure") or {}).get("item")
        if item is not None and (first := self._items.error(item)) is not None:
            return first
        error: BaseException | None = None
        why = ""
        if self.end.get("error_slot"):
            try:
                bound = self.end.get("error_name")
                error = self.value(bound) if bound else self.values("error").get("error")
            except errors.OffloadError as problem:
                why = str(problem)
            except Exception as problem:
                why = f"its class cannot be rebuilt here: {problem!r}"
        if not isinstance(error, BaseException):
            hint = why or "The exception itself could not travel"
            error = errors.CellError(
                f"{failure.ename}: {failure.evalue}",
                hint,
                failure.ename,
                failure.evalue,
                list(failure.traceback),
            )
        remember(error, failure.traceback)
        return error

    # ------------------------------------------------------------------ what can be done

    def cancel(self) -> bool:
        """Cancel the job: gracefully first, finally after some seconds, its child processes included.

        Returns
        -------
        bool
            False where it had ended already.
        """
        if self.done():
            return False
        future = self.cancel_soon()
        if future is not None:
            self._session.wait(future, timeout=30)
        return True

    def cancel_soon(self) -> concurrent.futures.Future[None] | None:
        """Ask for the end of the job without waiting, from any thread."""
        if self.record.attempt or self._task is None:
            return self._session.start(self._session.offloader.cancel(self._course))
        self._task.cancel()
        return None

    @property
    def session(self) -> Session:
        """The session that this handle belongs to."""
        return self._session

    def rerun(self, **options: Any) -> Job:
        """Start the same job again, from the same frozen inputs and the same workspace.

        Parameters
        ----------
        **options
            Fields of :class:`~.models.JobOptions` or :class:`~.models.Resources` that change.

        Returns
        -------
        Job
            A new job with an id of its own.
        """
        changed = from_keywords(options, self.record.spec.options)
        return self._session.call(self._session.relaunch(self.record, changed))

    def retry_failed(self, **options: Any) -> Job:
        """Run the items of a batch again that have not succeeded, from the same frozen inputs.

        Parameters
        ----------
        **options
            As for :meth:`rerun`: ``memory="16GiB"``.

        Returns
        -------
        Job
            A new job; its lists have the values of the items that had succeeded, too.

        Raises
        ------
        UsageError
            The job is no batch, still runs, or all of its items have succeeded.
        """
        kept = self._to_keep()
        changed = from_keywords(options, self.record.spec.options)
        return self._session.call(self._session.relaunch(self.record, changed, kept))

    def _to_keep(self) -> list[Done]:
        items = self.items
        if not self.done():
            raise UsageError(f"job {self.id} is still running", "Wait for its end, or cancel it")
        kept = items.good()
        if len(kept) == len(items):
            raise UsageError(f"no item of job {self.id} has failed", "job.rerun() runs all of them again")
        return kept

    def rerun_soon(self, options: Mapping[str, Any]) -> None:
        """Ask for a rerun without waiting, from any thread; it is found under ``%ray jobs``.

        With ``failed`` among the options it is a retry of the items that have not succeeded.
        """
        given = dict(options)
        kept = self._to_keep() if given.pop("failed", False) else None
        changed = from_keywords(given, self.record.spec.options)
        self._session.start(self._session.relaunch(self.record, changed, kept))

    def delete(self) -> None:
        """Forget the job: its record, log and values.

        Raises
        ------
        UsageError
            It is still running.
        """
        if not self.done():
            raise UsageError(f"job {self.id} is still running", f"%ray cancel {self.id} first")
        self._session.call(self._session.offloader.delete(self.id))
        self._session.jobs.pop(self.id, None)

    def let_go(self) -> None:
        """Keep none of the values that have landed alive: what the notebook drops is free, as without a job.

        They are fetched again if they are asked for then. Small ones that cannot be referred to weakly stay.
        """
        sizes = {v.name: v.size or 0 for v in self.record.outputs}
        for name, value in self._values.pop("outputs", {}).items():
            small, weak = self._landed.maps
            try:
                weak[name] = value
            except TypeError:
                if sizes.get(name, 0) <= SMALL_BYTES:
                    small[name] = value
        self._values.pop("inputs", None)

    def settle(self, outputs: Sequence[Value]) -> None:
        """Note what has become of the outputs, and bring the files home."""
        self.settled = self._session.start(self._settle(outputs))

    async def _settle(self, outputs: Sequence[Value]) -> None:
        offloader, folder = self._session.offloader, self.record.spec.options.workdir or self._session.folder
        if outputs:
            self._course.tell("landed", outputs=[v.to_json() for v in outputs])
        if self.end.get("files_package"):
            files = await offloader.bring_home(self.record, self.end["files_package"], Path(folder))
            self._course.tell("files", files=[f.to_json() for f in files])
        await offloader.settled(self.record)

    def _on_event(self, record: JobRecord, event: Event) -> None:
        if event.type == "stream":
            self.spool.write(event.content.get("text", ""))
        elif event.type == "item":
            self._items.take(event.content)
        elif event.type == "again":
            self._items.begin_again()
        elif event.type in ("display_data", "update_display_data", "execute_result", "clear_output"):
            self.displays.add({"type": event.type, "content": event.content})
        if self._course.ended.is_set() and not self._ended.done():
            self._ended.set_result(self)
            self._items.wake()


class _Outputs(Mapping[str, Any]):
    """``job.outputs``: names to values; a name that could not travel says why when it is asked for."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def _manifest(self) -> dict[str, Value]:
        job = self._job
        if not job.done():
            raise StillRunning(f"job {job.id} is still running", "job.result() waits for it")
        return {v.name: v for v in job.record.outputs}

    def __getitem__(self, name: str) -> Any:
        manifest = self._manifest()
        if name not in manifest:
            raise KeyError(
                f"job {self._job.id} has no output {name!r}; it has: {', '.join(manifest) or 'none'}"
            )
        if manifest[name].state is ValueState.CANNOT_TRAVEL:
            raise OutputUnavailable(
                f"{name!r} of job {self._job.id} cannot travel: {manifest[name].reason}",
                "Make something in the cell that can, and assign that",
            )
        imported = self._job.end.get("imports", {}).get(name)
        if imported:
            from .imports import imported_value

            return imported_value(*imported)
        same = self._job.end.get("same", {}).get(name)
        if same:  # an input, unchanged: it did not travel back
            return self._job.input(same)
        return self._job.value(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest())

    def __len__(self) -> int:
        return len(self._manifest())

    def __repr__(self) -> str:
        if not self._job.done():
            return f"<outputs of {self._job!r}>"
        return "{" + ", ".join(f"{n!r}: {v.type}" for n, v in self._manifest().items()) + "}"
