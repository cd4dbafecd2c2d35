"""What the REST interface does with clusters and jobs; knows nothing of HTTP.

Whoever only looks starts nothing and keeps nothing alive: an open sidebar must not make an idle cluster cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_core.paths import jupyter_runtime_dir

from ..course import Course
from ..errors import ClusterNotRunning, JobError, JobNotFound, OffloadError, StillRunning
from ..ledger import find, newest, read_fields, read_record, recent, request_stop
from ..link import Link, blocking
from ..models import ClusterInfo, ClusterPhase, ClusterSpec, JobRecord, Phase
from ..options import from_keywords
from ..outputs import Outputs
from ..record import TAIL_LINES
from ..remote.chunks import Done, ended_of
from ..remote.events import Entry, Numbers
from ..transport import Direct
from . import bodies
from .logs import Logs

if TYPE_CHECKING:
    from ..clusters import Connection
    from ..config import RayOffload
    from ..remote.store import Store
    from ..submission import Offloader
    from ..transport import Transport

__all__ = ["Page", "Service"]

#: The cluster whose store has the jobs.
DEFAULT = "default"
#: How long an answer waits for what it has asked for; what takes longer goes on behind it, seconds.
PROMPT_SECONDS = 0.5
#: The same for what people wait for, such as the end of a cluster; below the time-out of common proxies.
PATIENT_SECONDS = 25.0
#: So many records are looked at for one page; a filter that few pass gives a short page.
SCAN_LIMIT = 2000
#: Entries of a stream in one page; each has some 100 KB at most.
PAGE_ENTRIES = 20
#: So many of the newest jobs are watched.
STAMPED = 30

Page = tuple[list[JobRecord], float | None]


class Service:
    """The clusters and jobs of one owner.

    Parameters
    ----------
    offloader : Offloader
        Submits reruns; what it uses is used here, too.
    """

    def __init__(self, offloader: Offloader) -> None:
        self.offloader = offloader
        self.backend = offloader.backend
        self.config: RayOffload = offloader.config
        self._work: dict[str, asyncio.Task[Any]] = {}  # by cluster: what was asked for and is not done yet
        self._faults: dict[str, OffloadError] = {}  # by cluster: why that failed
        self._told: dict[str, ClusterInfo] = {}  # by cluster: how far it has come, while it is on its way
        self._runs: set[asyncio.Task[None]] = set()
        self._direct: dict[str, Direct] = {}  # by address
        self._logs = Logs()

    async def aclose(self) -> None:
        """End what follows jobs and close all connections; clusters and jobs go on."""
        self.offloader.closing = True
        tasks = [*self._runs, *self._work.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for direct in self._direct.values():
            await direct.aclose()
        await self.offloader.aclose()

    async def link(self, name: str = DEFAULT) -> Link:
        """Give the open way to a store, and to its cluster if that runs.

        Raises
        ------
        ClusterNotRunning
            The store is a part of a cluster that does not run, and none is started.
        StoreError
        """
        link = await self.offloader.links.find(name)
        if link is None:
            raise ClusterNotRunning(
                f"cluster {name} does not run, and its store with it",
                "Start it; what was stored is still there",
            )
        return link

    # ------------------------------------------------------------------ clusters

    async def clusters(self) -> list[ClusterInfo]:
        """Look at all clusters that exist or are about to."""
        there = {info.name: await self._standing(info) for info in await self.backend.list()}
        for name in [*self._work, *self._faults]:
            if name not in there:
                there[name] = await self.cluster(name)
        return [info for info in there.values() if info.phase is not ClusterPhase.NONE]

    async def cluster(self, name: str) -> ClusterInfo:
        """Look at one cluster; of one that this server starts, give what it was told last."""
        if name in self._work and name in self._told:
            return self._told[name]
        info = await self.backend.get(name)
        if info.phase is not ClusterPhase.NONE:
            return await self._standing(info)
        if name in self._work:
            return info.replace(name=name, phase=ClusterPhase.STARTING, reason="Starting")
        if fault := self._faults.get(name):
            return info.replace(name=name, phase=ClusterPhase.FAILED, reason=fault.message, detail=fault.hint)
        return info

    async def _standing(self, info: ClusterInfo) -> ClusterInfo:
        with contextlib.suppress(OffloadError):
            return await self.offloader.standing(info)
        return info  # its store is away

    async def ensure(self, spec: ClusterSpec) -> tuple[ClusterInfo, bool]:
        """Make a cluster; give it as it is now, and whether it is ready.

        Raises
        ------
        UsageError
            There is no such profile, it cannot be chosen so, or the cluster has another one.
        """
        if spec.name not in self._work:
            self._begin(spec.name, self.backend.ensure(spec, functools.partial(self._hear, spec.name)))
        elif spec.profile or spec.choices:  # one is on its way: whether it is this one, the back end knows
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.backend.ensure(spec), PROMPT_SECONDS)
        done = spec.name not in self._work or await self._settled(spec.name, PROMPT_SECONDS)
        return await self.cluster(spec.name), done

    def _hear(self, name: str, info: ClusterInfo) -> None:
        self._told[name] = info

    def fault(self, name: str) -> OffloadError | None:
        """Give why what was last asked for a cluster could not be done."""
        return self._faults.get(name)

    async def connection_file(self, name: str) -> str:
        """Write the way to a cluster and its store into a file for this server's kernels, and name it."""
        connection = await self.backend.find(name)
        if connection is None:
            return ""
        file = Path(jupyter_runtime_dir(), "rayoffload-clusters", f"{name}.json")
        await asyncio.to_thread(connection.hand_over, file)
        return str(file)

    async def delete(self, name: str, force: bool = False) -> bool:
        """Remove a cluster; give whether it is gone already.

        Raises
        ------
        StillRunning
            Jobs would be lost, and nobody said that they may.
        """
        if not force and (live := await self._live(name)):
            names = ", ".join(record.id for record in live[:5])
            raise StillRunning(
                f"{len(live)} job{'s' * (len(live) > 1)} of cluster {name} would be lost: {names}",
                "Wait for them, stop them, or ask for it with force=true",
            )
        if (begun := self._work.pop(name, None)) is not None:
            begun.cancel()
        self._begin(name, self.offloader.down(name))
        return await self._settled(name, PATIENT_SECONDS)

    async def _live(self, name: str) -> list[JobRecord]:
        try:
            link = await self.link(name)
            records = await newest(link, 200)
        except OffloadError:  # what does not answer has no job that could be waited for
            return []
        return [r for r in records if not r.phase.ended and (r.cluster or DEFAULT) == name]

    def _begin(self, name: str, work: Awaitable[Any]) -> None:
        async def run() -> None:
            try:
                await work
                self._faults.pop(name, None)
            except OffloadError as error:
                self._faults[name] = error
                raise
            finally:
                if self._work.get(name) is task:
                    del self._work[name]
                    self._told.pop(name, None)

        self._faults.pop(name, None)
        task = self._work[name] = asyncio.ensure_future(run())
        task.add_done_callback(_looked_at)

    async def _settled(self, name: str, seconds: float) -> bool:
        """Wait a little for what was begun; its error is raised here if it comes in that time."""
        task = self._work[name]
        await asyncio.wait({task}, timeout=seconds)
        if not task.done() or task.cancelled():
            return False
        if task.exception() is not None:
            self._faults.pop(name, None)  # it is told now
        task.result()
        return True

    # ------------------------------------------------------------------ jobs

    async def jobs(
        self, limit: int, before: float | None = None, accept: Callable[[JobRecord], bool] = lambda _: True
    ) -> Page:
        """Give a page of jobs, newest first, and where the next one begins.

        Raises
        ------
        ClusterNotRunning, StoreError
        """
        link, found, seen = await self.link(), list[JobRecord](), 0
        while seen < SCAN_LIMIT:
            records = await newest(link, max(limit, 50), before)
            for record in records:
                before = record.spec.created
                if self._ours(record) and accept(record):
                    found.append(record)
                if len(found) == limit:
                    return found, before
            seen += len(records)
            if len(records) < max(limit, 50):
                return found, None
        return found, before

    def _ours(self, record: JobRecord) -> bool:
        return record.spec.owner in ("", self.config.owner)

    async def job(self, job_id: str) -> JobRecord:
        """Give the record of one job.

        Raises
        ------
        JobNotFound
            There is none, or it is somebody else's.
        """
        return self._own(await find(await self.link(), job_id))

    def _own(self, record: JobRecord) -> JobRecord:
        if not self._ours(record):
            raise JobNotFound(f"there is no job {record.id!r}", "%ray jobs lists those that are kept")
        return record

    async def _store_of(self, job_id: str) -> Store:
        """Give the store that has a job, whose record is not looked at any further."""
        link = await self.link()
        self._own(read_record(await read_fields(link, job_id)))
        return link.store

    async def stop(self, job_id: str) -> JobRecord:
        """Ask a job to stop; one that has ended stays as it is."""
        record = await self.job(job_id)
        if not record.phase.ended:
            await request_stop(await self.link(), record)
        return record

    async def forget(self, job_id: str) -> None:
        """Remove a job that has ended from the store.

        Raises
        ------
        StillRunning
        """
        record = await self.job(job_id)
        if not record.phase.ended:
            raise StillRunning(f"job {job_id} has not ended", "Stop it first")
        await blocking((await self.link()).store.delete, job_id)
        self.offloader.courses.pop(job_id, None)
        self._logs.forget(job_id)

    async def rerun(self, job_id: str, changes: Mapping[str, Any]) -> JobRecord:
        """Start a job again, as a new one, from its frozen inputs and workspace.

        Parameters
        ----------
        job_id : str
        changes : Mapping
            Options that differ: ``{"memory": bytes}``; with ``failed`` only the items of a batch are run that
            have not succeeded.

        Raises
        ------
        JobNotFound, Expired, UsageError
        JobError, StillRunning
            There is no failed item to run again, or not yet.
        """
        record = await self.job(job_id)
        given = dict(changes)
        kept = await self._good_items(record) if given.pop("failed", False) else None
        options = from_keywords(given, record.spec.options)
        draft = await self.offloader.rerun_draft(record, options, kept)
        course = Course(JobRecord(draft.spec, inputs=draft.spec.inputs, started=time.time()))
        task = asyncio.ensure_future(self.offloader.run(draft, course))
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)
        task.add_done_callback(_looked_at)
        return course.record

    async def _good_items(self, record: JobRecord) -> list[Done]:
        """Give the items of a batch that has ended which a retry takes over."""
        # What was asked is well-formed: it is the job that has nothing for it.
        if record.spec.batch is None:
            raise JobError(f"job {record.id} is no batch", "Rerun it as a whole, without `failed`")
        if not record.phase.ended:
            raise StillRunning(f"job {record.id} still runs", "Items are run again when it has ended")
        contents, after, more = list[Mapping[str, Any]](), "0", True
        while more:
            entries, more = await self.entries(record.id, after)
            contents += [m["content"] for entry in entries for m in entry.messages if m["type"] == "item"]
            after = entries[-1].id if entries else after
        kept = [done for _, done in sorted(ended_of(contents).items()) if done.ok]
        if len(kept) == record.spec.batch.total:
            raise JobError(f"no item of job {record.id} has failed", "Rerun it to run all of them again")
        return kept

    # ------------------------------------------------------------------ what a job has shown

    async def entries(self, job_id: str, after: str = "0") -> tuple[list[Entry], bool]:
        """Give a page of a job's stream, each entry once, and whether more is there.

        Raises
        ------
        JobNotFound, StoreError
        """
        store = await self._store_of(job_id)
        entries = await blocking(store.read_events, job_id, after, 0, PAGE_ENTRIES + 1)
        numbers = Numbers(whole=after == "0")
        page = [numbers.admit(entry) for entry in entries[:PAGE_ENTRIES]]
        return [entry for entry in page if entry], len(entries) > PAGE_ENTRIES

    async def lines(self, job_id: str, first: int, last: int | None) -> dict[str, Any]:
        """Give lines of a log as a terminal would show them: see :meth:`.logs.Logs.window`."""
        return await self._logs.window(await self._store_of(job_id), job_id, first, last)

    async def find(self, job_id: str, text: str, exact: bool) -> dict[str, Any]:
        """Give the numbers of the lines of a log that contain a text."""
        return await self._logs.find(await self._store_of(job_id), job_id, text, exact)

    async def outputs(self, job_id: str, record: bool = False) -> Sequence[Mapping[str, Any]]:
        """Give the rich outputs that the cell shows now, as nbformat writes them.

        Parameters
        ----------
        job_id : str
        record : bool
            First of them the static record with the end of the log: together, what stands under a cell whose
            job has ended.
        """
        shown, numbers, after = Outputs(), Numbers(whole=True), "0"
        known = await self.job(job_id)
        store = (await self.link()).store
        while entries := await blocking(store.read_events, job_id, after, 0, PAGE_ENTRIES):
            for entry in filter(None, map(numbers.admit, entries)):
                for message in entry.messages:
                    shown.add(message)
            after = entries[-1].id
        if not record:
            return shown.outputs
        while (read := await self.lines(job_id, 0, None))["more"]:
            pass  # a long log is read in several parts
        total = read["total"]
        tail = (await self.lines(job_id, max(0, total - TAIL_LINES), total))["lines"]
        return [bodies.record_output(known, tail, total), *shown.outputs]

    # ------------------------------------------------------------------ what has changed

    async def stamps(self, checked: bool = False) -> dict[str, str]:
        """Give the newest jobs: by id the phase, and whatever else makes them worth another look.

        Parameters
        ----------
        checked : bool
            Ask Ray, too, whether those that seem to live do.
        """
        try:
            link = await self.link()
        except ClusterNotRunning:
            return {}
        records = await (newest if checked else recent)(link, STAMPED)
        return {r.id: f"{r.phase.value} {r.attempt} {r.reason}" for r in records if self._ours(r)}

    @staticmethod
    def final(stamp: str) -> bool:
        """Whether a stamp is of a job that has ended."""
        return Phase(stamp.partition(" ")[0]).ended

    def begun(self) -> dict[str, str]:
        """Give the phases of clusters that this server was asked for, where the back end may not know yet."""
        phases = dict.fromkeys(self._faults, ClusterPhase.FAILED.value)
        return phases | dict.fromkeys(self._work, ClusterPhase.STARTING.value)

    def transport(self, connection: Connection) -> Transport:
        """Give the way to a cluster's dashboard."""
        address = connection.info.address
        return connection.transport or self._direct.setdefault(address, Direct(address))


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Take note of an error that is told elsewhere, so that asyncio does not warn of it."""
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
