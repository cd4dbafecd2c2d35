"""`Job`: the handle of an offloaded cell, function or program; and the one loop thread behind all of them."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import errors
from .course import Course, Draft, new_id
from .errors import OutputUnavailable, StillRunning, UsageError, by_name
from .models import FileInfo, JobOptions, JobRecord, JobSpec, Phase, Value, ValueState
from .phase import Event
from .spool import Spool

if TYPE_CHECKING:
    from .config import RayOffload
    from .models import ClusterInfo
    from .outputs import Outputs
    from .drafting import Origin
    from .submission import Offloader

__all__ = [
    "Job",
    "Session",
    "attach",
    "cluster",
    "jobs",
    "offload",
    "session",
    "submit",
    "submit_program",
]

Observer = Callable[[JobRecord, Event], None]
_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


class Session:
    """This process's link to its owner's jobs: the configuration, and the loop thread on which all runs.

    Parameters
    ----------
    config : RayOffload
    namespace : dict
        The notebook's namespace: what functions and classes that come back belong to.
    """

    def __init__(self, config: RayOffload, namespace: dict[str, Any] | None = None) -> None:
        self.config = config
        self.namespace = namespace if namespace is not None else sys.modules["__main__"].__dict__
        self.jobs: dict[str, Job] = {}
        self.notebook = ""
        self.folder = os.getcwd()
        self._loop = asyncio.new_event_loop()
        self._offloader: Offloader | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="rayoffload", daemon=True)
        self._thread.start()
        self._pid = os.getpid()

    @property
    def alive(self) -> bool:
        """Whether the loop still runs, in this process (a fork has no loop thread)."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def origin(self) -> Origin:
        """Give what a draft must know of where it comes from; needs no cluster."""
        from .drafting import Origin

        signer = self.offloader.backend.signer()
        return Origin(self.config.owner, self.notebook, self.folder, self.namespace, signer)

    @property
    def offloader(self) -> Offloader:
        """The asynchronous core; made at first use, for it imports aiohttp and redis."""
        if self._offloader is None:
            from .submission import Offloader

            self._offloader = self.call(_made(Offloader, self.config))
        return self._offloader

    def start(self, work: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Start `work` on the loop thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, _T], timeout: float | None = None) -> _T:
        """Run `work` on the loop thread and wait for it; an interrupt of the waiting cell cancels it."""
        future = self.start(work)
        try:
            return self.wait(future, timeout)
        except BaseException:
            future.cancel()
            raise

    @staticmethod
    def wait(future: concurrent.futures.Future[_T], timeout: float | None = None) -> _T:
        """Wait for `future` in slices: a plain wait for ever is deaf to an interrupt on some platforms."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not future.done():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                future.result(0.2)
            if deadline is not None and time.monotonic() > deadline and not future.done():
                raise StillRunning("this took longer than it may", "Try again, or look at %ray cluster")
        return future.result()

    def soon(self, function: Callable[[], None]) -> None:
        """Call `function` on the loop thread."""
        self._loop.call_soon_threadsafe(function)

    def launch(self, draft: Draft, observer: Observer | None = None) -> Job:
        """Give the handle of a new job at once, and start its course behind it.

        Parameters
        ----------
        draft : Draft
        observer : callable, optional
            ``observer(record, event)`` is called on the loop thread from the first event on.
        """
        offloader = self.offloader
        course = Course(JobRecord(draft.spec, inputs=draft.spec.inputs, started=time.time()))
        if observer is not None:
            course.subscribe(observer)
        job = self.jobs[draft.spec.id] = Job(self, course)
        job._task = self.start(offloader.run(draft, course))
        return job

    async def relaunch(self, record: JobRecord, options: JobOptions) -> Job:
        """Start a job again from its frozen inputs; on the loop thread."""
        return self.launch(await self.offloader.rerun_draft(record, options))

    def close(self) -> None:
        """Close connections and the loop; jobs and clusters go on."""
        if not self.alive:
            return
        if self._offloader is not None:
            with contextlib.suppress(Exception):
                self.call(self._offloader.aclose(), timeout=3)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)


async def _made(make: Callable[..., _T], *args: Any) -> _T:
    return make(*args)


_session: Session | None = None


def session(config: RayOffload | None = None, namespace: dict[str, Any] | None = None) -> Session:
    """Give this process's session, made at first use."""
    global _session
    if _session is None or not _session.alive:
        if config is None:
            from .config import RayOffload

            config = RayOffload.load()
        _session = Session(config, namespace)
        atexit.register(_session.close)
    return _session


class Job:
    """One offloaded cell, function or program.

    Made by ``%%ray_job``, :func:`submit`, :func:`submit_program` and :func:`attach`; everything that it knows
    comes from the store, so any process can have a handle of any job.
    """

    def __init__(self, session: Session, course: Course) -> None:
        from .outputs import Outputs

        self._session, self._course = session, course
        self._ended: concurrent.futures.Future[Job] = concurrent.futures.Future()
        self._task: concurrent.futures.Future[None] | None = None
        self._values: dict[str, dict[str, Any]] = {}
        self.displays: Outputs = Outputs()
        self.spool = Spool()
        self.quiet = False
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
        return self.phase.ended

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

    def logs(self, tail: int | None = None) -> str:
        """Give what the job has printed so far, the last `tail` lines or all of it."""
        first = 0 if tail is None else max(0, self.spool.total - tail)
        return "\n".join(self.spool.lines(first, self.spool.total))

    def values(self, slot: str = "outputs") -> dict[str, Any]:
        """Fetch, check and unpickle a payload of this job; once."""
        if slot not in self._values:
            from .remote.codec import thaw

            header, graph, buffers = self._session.call(self._session.offloader.fetch(self.record, slot))
            names = [v["name"] for v in header["values"]]
            self._values[slot] = thaw(graph, buffers, self._session.namespace, names)
        return self._values[slot]

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
        if result.get("slot"):
            return self.values("result")["result"]
        if result.get("digest"):  # what a program wrote: bytes or JSON, never unpickled
            data = self._session.call(self._session.offloader.blob(self.record, result["digest"], result["size"]))
            return json.loads(data) if result["kind"] == "json" else data
        return None

    def _cell_error(self) -> BaseException:
        failure = self.record.failure
        assert failure is not None  # noqa: S101 - the caller looked
        error: BaseException | None = None
        why = ""
        if self.end.get("error_slot"):
            try:
                error = self.values("error").get("error")
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
        lines = list(failure.traceback)
        with contextlib.suppress(Exception):  # a class with slots shows an ordinary traceback
            error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
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
        changed = _options(options, self.record.spec.options)
        return self._session.call(self._session.relaunch(self.record, changed))

    def rerun_soon(self, options: Mapping[str, Any]) -> None:
        """Ask for a rerun without waiting, from any thread; it is found under ``%ray jobs``."""
        changed = _options(options, self.record.spec.options)
        self._session.start(self._session.relaunch(self.record, changed))

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

    def settle(self, outputs: Sequence[Value]) -> None:
        """Note what has become of the outputs, and bring the files home."""
        self._session.start(self._settle(outputs))

    async def _settle(self, outputs: Sequence[Value]) -> None:
        offloader, folder = self._session.offloader, self.record.spec.options.workdir or self._session.folder
        if outputs:
            self._course.tell("landed", outputs=[v.to_json() for v in outputs])
        if self.end.get("files_package"):
            files = await offloader.bring_home(self.record, self.end["files_package"], Path(folder))
            self._course.tell("files", files=[f.to_json() for f in files])
        await offloader.save(self._course)

    def _on_event(self, record: JobRecord, event: Event) -> None:
        if event.type == "stream":
            self.spool.write(event.content.get("text", ""))
        elif event.type in ("display_data", "update_display_data", "execute_result", "clear_output"):
            self.displays.add({"type": event.type, "content": event.content})
        if record.phase.ended and not self._ended.done() and not self._retries_left(record):
            self._ended.set_result(self)

    def _retries_left(self, record: JobRecord) -> bool:
        return record.phase is Phase.FAILED and 0 < record.attempt <= record.spec.options.retries


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
        return self._job.values("outputs")[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._manifest())

    def __len__(self) -> int:
        return len(self._manifest())

    def __repr__(self) -> str:
        if not self._job.done():
            return f"<outputs of {self._job!r}>"
        return "{" + ", ".join(f"{n!r}: {v.type}" for n, v in self._manifest().items()) + "}"


# ---------------------------------------------------------------------- the module's functions


def submit(
    work: str | Callable[..., Any], *args: Any, inputs: Mapping[str, Any] | None = None, **options: Any
) -> Job:
    """Offload a piece of code or a call.

    Parameters
    ----------
    work : str or callable
        Code as in a cell, or a function to call with `args`.
    *args
        Arguments of the function.
    inputs : Mapping, optional
        Names for the code, or keyword arguments for the function.
    **options
        Fields of :class:`~.models.JobOptions` and :class:`~.models.Resources` (``cpus=2``, ``memory="8GiB"``),
        and ``label``.

    Returns
    -------
    Job
        At once; ``job.result()`` waits.

    Raises
    ------
    UsageError
        An option is unknown or not what it may be.
    NotPicklable
        An argument cannot travel; nothing has been sent.

    Examples
    --------
    >>> job = submit(sum, [1, 2, 3])   # doctest: +SKIP
    >>> job.result()                   # doctest: +SKIP
    6
    """
    from .drafting import draft_call, draft_code

    here, label = session(), options.pop("label", "")
    chosen = _options(options, here.config.job_options())
    if callable(work):
        draft = draft_call(here.origin(), work, args, dict(inputs or {}), chosen, label)
    elif args:
        raise UsageError("code takes no arguments", "Give its names with inputs={'name': value}")
    else:
        draft = draft_code(here.origin(), work, chosen, label, values=inputs)
    return here.launch(draft)


def submit_program(
    entrypoint: str | Sequence[str],
    *,
    input: Any = None,
    working_dir: str = "",
    py_modules: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    label: str = "",
    **options: Any,
) -> Job:
    """Offload a program with the folder it stands in.

    The program reads its input and leaves its output through two functions that are there in every job::

        from rayoffload_job import read_input, write_output

    Parameters
    ----------
    entrypoint : str or sequence of str
        The command: ``"python train.py"``.
    input : bytes or JSON-ready value, optional
        What ``read_input()`` returns there.
    working_dir : str, optional
        The folder that travels; the current one by default.
    py_modules : sequence of str
        Local modules from outside that folder.
    env : Mapping of str to str, optional
    label : str
    **options
        As for :func:`submit`.

    Returns
    -------
    Job
        Its ``result()`` is what the program gave to ``write_output``.
    """
    from .drafting import draft_program

    here = session()
    command = entrypoint if isinstance(entrypoint, str) else shlex.join(entrypoint)
    options.update(workdir=working_dir, py_modules=tuple(py_modules), env=dict(env or {}))
    return here.launch(draft_program(here.origin(), command, input, _options(options, here.config.job_options()), label))


def offload(function: _F | None = None, **options: Any) -> Any:
    """Make a function whose calls are jobs: ``@offload`` or ``@offload(cpus=4)``.

    A call gives a :class:`Job`; ``function.local(...)`` still calls it here.
    """
    if function is None:
        return functools.partial(offload, **options)

    @functools.wraps(function)
    def remote(*args: Any, **kwargs: Any) -> Job:
        return submit(function, *args, inputs=kwargs, **{"label": function.__name__, **options})

    remote.local = function  # type: ignore[attr-defined]
    return remote


def attach(job_id: str) -> Job:
    """Give the handle of any job of yours, running or ended, with its whole output.

    Parameters
    ----------
    job_id : str
        As the panel, ``%ray jobs`` and ``Job.id`` say it.

    Raises
    ------
    JobNotFound
    """
    here = session()
    if job_id in here.jobs:
        return here.jobs[job_id]
    offloader = here.offloader
    course = here.call(offloader.course(job_id))
    job = here.jobs[job_id] = Job(here, course)
    replay = here.start(offloader.attach(course))
    if course.record.phase.ended:
        here.wait(replay)
    return job


def jobs(limit: int = 20) -> list[JobRecord]:
    """Give the records of your newest jobs, newest first, whichever process submitted them."""
    here = session()
    return here.call(here.offloader.records(limit))


def cluster(name: str = "default") -> ClusterInfo:
    """Give the state of your cluster; starts none."""
    here = session()
    return here.call(here.offloader.backend.get(name))


def _options(options: Mapping[str, Any], base: JobOptions) -> JobOptions:
    from .options import from_keywords

    return from_keywords(options, base)
