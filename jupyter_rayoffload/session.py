"""What links a process to its owner's jobs: the settings, and the one loop thread behind all of them."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .course import Course, Draft
from .errors import OffloadError, StillRunning
from .job import Job, Observer
from .models import JobOptions, JobRecord
from .profiles import Profile, pick

if TYPE_CHECKING:
    from .config import RayOffload
    from .drafting import Origin
    from .remote.chunks import Done
    from .submission import Offloader

__all__ = ["Session", "session"]

Progress = Callable[[int, int], None]
#: A process remembers the newest of the jobs that have ended; any other can be attached to by its id.
KEPT_JOBS = 100
_T = TypeVar("_T")


class Session:
    """The link of one process to its owner's jobs.

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
        limit = self.config.freeze_limit
        return Origin(self.config.owner, self.notebook, self.folder, self.namespace, signer, limit)

    def profiles(self, timeout: float | None = None) -> tuple[Profile, ...]:
        """Give the named sizes that clusters may have here; a back end may have to ask for them."""
        return self.call(self.offloader.backend.profiles(), timeout)

    def checked(self, options: JobOptions) -> JobOptions:
        """Refuse a profile that there is not, before anything is frozen or sent.

        Raises
        ------
        UsageError
        """
        if options.profile:
            pick(self.profiles(), options.profile)
        return options

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
    def wait(
        future: concurrent.futures.Future[_T],
        timeout: float | None = None,
        tick: Callable[[], None] | None = None,
    ) -> _T:
        """Wait for `future` in slices: a plain wait for ever is deaf to an interrupt on some platforms."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not future.done():
            with contextlib.suppress(concurrent.futures.TimeoutError):
                future.result(0.2)
            if tick is not None:
                tick()
            if deadline is not None and time.monotonic() > deadline and not future.done():
                raise StillRunning("this took longer than it may", "Try again, or look at %ray cluster")
        return future.result()

    def soon(self, function: Callable[[], None]) -> None:
        """Call `function` on the loop thread."""
        self._loop.call_soon_threadsafe(function)

    def launch(
        self, draft: Draft, observer: Observer | None = None, on_progress: Progress | None = None
    ) -> Job:
        """Give the handle of a new job at once, and start its course behind it.

        Parameters
        ----------
        draft : Draft
        observer : callable, optional
            ``observer(record, event)`` is called on the loop thread from the first event on.
        on_progress : callable, optional
            ``on_progress(done, total)`` is called here while large inputs are sent, before this returns.
        """
        offloader = self.offloader
        if not draft.held:
            self._send_first(draft, on_progress)
        course = Course(JobRecord(draft.spec, inputs=draft.spec.inputs, started=time.time()))
        if observer is not None:
            course.subscribe(observer)
        job = self.remember(Job(self, course))
        job._task = self.start(offloader.run(draft, course))
        return job

    def remember(self, job: Job) -> Job:
        """Let `job` be found by its id, and forget what has ended long ago: a kernel may run for weeks."""
        self.jobs[job.id] = job
        ended = [known.id for known in list(self.jobs.values()) if known.done()]
        for job_id in ended[:-KEPT_JOBS]:
            self.jobs.pop(job_id, None)
        return job

    def _send_first(self, draft: Draft, on_progress: Progress | None) -> None:
        """Send inputs that are too large to copy; without a store they are copied all the same."""
        told = (0, 0)

        def note(done: int, total: int) -> None:
            nonlocal told
            told = (done, total)

        def tick() -> None:
            if on_progress is not None and told[1]:
                on_progress(*told)

        sending = self.start(self.offloader.send_first(draft, note))
        try:
            self.wait(sending, tick=tick)
            tick()
        except OffloadError:  # the job will say what is wrong, in its own panel
            if draft.frozen is not None:
                draft.frozen.hold()
        except BaseException:
            sending.cancel()
            raise

    async def relaunch(
        self, record: JobRecord, options: JobOptions, kept: Sequence[Done] | None = None
    ) -> Job:
        """Start a job again from its frozen inputs, without the items `kept`; on the loop thread."""
        return self.launch(await self.offloader.rerun_draft(record, options, kept))

    def close(self) -> None:
        """Close connections and the loop; jobs and clusters go on."""
        if not self.alive:
            return
        with contextlib.suppress(Exception):
            self.call(self._end(), timeout=3)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)
        if not self._thread.is_alive():
            self._loop.close()

    async def _end(self) -> None:
        """End what follows jobs, so that no connection is cut off in the middle."""
        if self._offloader is not None:
            self._offloader.closing = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._offloader is not None:
            await self._offloader.aclose()
        await self._loop.shutdown_asyncgens()


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
