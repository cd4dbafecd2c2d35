"""Following a job to its end by three witnesses: its events, Ray's status, and the cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from .course import REST_SECONDS, Course
from .errors import ClusterError, OffloadError, StoreError
from .link import Link, blocking, translated
from .matching import learn
from .models import ClusterInfo, ClusterPhase, JobRecord, Phase
from .phase import SILENCE_SECONDS
from .remote.store import Entry
from .words import listing

if TYPE_CHECKING:
    from .rayapi import JobInfo

__all__ = ["Witness"]

#: Between two questions to Ray about one job, seconds; with many live jobs proportionally more.
POLL_SECONDS = 1.0
#: How long the runner's own last word may come after Ray's, seconds.
GRACE_SECONDS = 3.0
#: How long the reader of a job's stream may not come on although there is more, seconds.
STUCK_SECONDS = 10.0
#: How long an unreachable head may stay so before its silent jobs count as lost, seconds.
UNREACHABLE_SECONDS = 90.0


class Witness:
    """Follows one job from its first event until it has ended.

    Parameters
    ----------
    course : Course
    link : Link
    look : callable
        ``await look(name)`` gives the cluster's present state.
    save : callable
        ``await save(course)`` writes the record's state to the store.
    crowd : callable
        Number of jobs that are followed now.
    """

    def __init__(
        self,
        course: Course,
        link: Link,
        look: Callable[[str], Awaitable[ClusterInfo]],
        save: Callable[[Course], Awaitable[None]],
        crowd: Callable[[], int],
    ) -> None:
        self._course, self._link = course, link
        self._look, self._save, self._crowd = look, save, crowd

    @property
    def _record(self) -> JobRecord:
        return self._course.record

    async def follow(self) -> None:
        """Return when the job has ended."""
        events, ray = asyncio.ensure_future(self._events()), asyncio.ensure_future(self._ray())
        tasks = {events, ray, asyncio.ensure_future(self._save_phases())}
        try:
            done, _ = await asyncio.wait({events, ray}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._save(self._course)

    async def _events(self) -> None:
        # Of a retry, what the earlier attempts printed is known.
        stream = self._link.follow(self._record.id, self._course.read, self._trouble)
        with translated():
            async with aclosing(stream):
                async for entry in stream:
                    self._take(entry)
                    if self._record.phase.ended:
                        break
                # The runner has written the end itself; of a batch this side knows more than that.
                if self._record.items is None:
                    await asyncio.sleep(REST_SECONDS)

    def _take(self, entry: Entry) -> None:
        if _place(entry.id) <= _place(self._course.read):
            return  # another witness was here before
        # A retry starts a new runner: what an earlier one printed is log, what it said of phases is past.
        current = entry.writer == self._record.submission_id or not self._record.attempt
        self._course.read = entry.id
        if current:
            self._course.values = entry.values
        for message in entry.messages:
            if message["type"] == "libraries":
                learn(self._record.spec, self._link, message["content"]["libraries"])
            if current or message["type"] != "phase":
                self._course.tell(message["type"], at=message["t"], **message["content"])

    def _trouble(self, text: str | None) -> None:
        if not self._record.phase.ended:
            self._course.tell("wait", reason=text or "")

    async def _ray(self) -> None:
        """Ask Ray, and the cluster where Ray does not answer, until they know that the job has ended."""
        silent_since: float | None = None
        while True:
            await asyncio.sleep(max(POLL_SECONDS, 0.1 * self._crowd()))
            try:
                info = await self._link.ray.info(self._record.submission_id)
            except ClusterError as error:
                silent_since = silent_since or time.time()
                if await self._head_died(silent_since, error):
                    return
                continue
            if silent_since:
                self._course.tell("wait", reason="")
            silent_since = None
            if info is None:
                if await self._head_died(time.time(), None):
                    return
            elif not info.live:
                return await self._last_word(info)
            elif info.status == "PENDING" and self._record.phase is Phase.PENDING and not self._record.reason:
                self._course.tell("wait", reason=waits_for(self._record))

    async def _last_word(self, info: JobInfo) -> None:
        """Ray says that the runner has ended: let the runner's own words come first, if there are any."""
        deadline = time.time() + GRACE_SECONDS
        while time.time() < deadline and not self._record.phase.ended:
            try:
                fields = await blocking(self._link.store.read, self._record.id)
            except StoreError:
                deadline = time.time() + GRACE_SECONDS  # it may hold the last word: wait for it
                await asyncio.sleep(1)
                continue
            end = (fields or {}).get("end")
            if end and end.get("attempt", self._record.attempt) == self._record.attempt:
                break
            await asyncio.sleep(0.2)
        else:
            end = None
        await self._caught_up()
        if self._record.phase.ended:
            return
        if end:
            return self._course.tell("phase", **end)
        self._course.tell("ray", **info.verdict())

    async def _caught_up(self) -> None:
        """Wait until the stream has been read: a reader may be behind a runner that printed a lot.

        Where the reader does not come on, its connection hangs: then the rest is read here.
        """
        read, deadline = self._course.read, time.monotonic() + STUCK_SECONDS
        while not self._record.phase.ended:
            if self._course.read != read:
                read, deadline = self._course.read, time.monotonic() + STUCK_SECONDS
            stuck = time.monotonic() > deadline
            with suppress(StoreError):
                count = None if stuck else 1
                left = await blocking(self._link.store.read_events, self._record.id, read, count=count)
                if not left:
                    return
                for entry in left if stuck else ():
                    self._take(entry)
            await asyncio.sleep(0.1)

    async def _head_died(self, since: float, error: OffloadError | None) -> bool:
        """Whether the job went with its head: nothing hears of it, and its runner is silent."""
        now = time.time()
        there = ClusterInfo(phase=ClusterPhase.UNKNOWN)
        with suppress(OffloadError):
            there = await self._look(self._link.info.name)
        # A head that is merely too busy to answer is no other one.
        other_head = there.phase is not ClusterPhase.UNKNOWN and there.session != self._link.info.session
        # From outside of a Kubernetes the way to Ray is its API server, whose silence says nothing of heads.
        blind = there.phase is ClusterPhase.UNKNOWN and self._link.connection.transport is not None
        unreachable = now - since > UNREACHABLE_SECONDS and not blind
        silent = now - (self._record.last_seen or 0) > SILENCE_SECONDS
        if silent and (error is None or other_head or unreachable):
            self._course.tell("gone")
            return True
        if error is not None and now - since > 5:
            self._course.tell("wait", reason=f"The cluster has not answered for {int(now - since)} s")
        return False

    async def _save_phases(self) -> None:
        """Write the state whenever its phase has changed, for those who list jobs."""
        seen = None
        while True:
            await asyncio.sleep(0.5)  # a short job is saved when it has ended
            if self._record.phase is not seen:
                seen = self._record.phase
                await self._save(self._course)


def _place(entry_id: str) -> tuple[int, int]:
    """Give what ids of a stream are ordered by: milliseconds, and a number among those of one."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def waits_for(record: JobRecord) -> str:
    """Say in one sentence what a queued job waits for; empty where it asks for nothing in particular.

    Ray does not tell whether it waits for resources or makes the job's environment.
    """
    wanted, pip = record.spec.options.resources.words(), record.spec.options.pip
    if not pip:
        return f"Waiting for {wanted}: other jobs hold them" if wanted else ""
    shown, more = listing(pip[:3]), len(pip) - 3
    installs = f"pip installs {shown}{f' and {more} more' if more > 0 else ''}"
    return f"Waiting for {wanted}, or {installs}" if wanted else f"Making the environment: {installs}"
