"""Changes of clusters and jobs, as events of Jupyter Server: hints to look again, and nothing to be believed.

Nobody is asked anything while nobody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import OffloadError

if TYPE_CHECKING:
    from jupyter_events import EventLogger

    from .service import Service

__all__ = ["CLUSTER_EVENT", "JOB_EVENT", "Watch", "changes"]

JOB_EVENT = "https://schema.jupyter.org/jupyter_rayoffload/job/v1"
CLUSTER_EVENT = "https://schema.jupyter.org/jupyter_rayoffload/cluster/v1"
#: Between two looks, seconds: a change is to be seen within one.
PAUSE = 0.6
#: The pause doubles up to this while looking fails, seconds.
LONGEST_PAUSE = 30.0
#: In one of so many looks Ray is asked, too: of a job that was lost, nobody writes anything.
CHECK_EVERY = 15

log = logging.getLogger(__name__)
Stamps = dict[str, str]


class Watch:
    """Looks for changes while somebody listens, and emits them.

    Parameters
    ----------
    service : callable
        Gives the service; making it may fail.
    events : EventLogger
        Of the server.
    """

    def __init__(self, service: Callable[[], Service], events: EventLogger) -> None:
        self._service = service
        self._events = events
        self._task: asyncio.Task[None] | None = None
        self._jobs: Stamps | None = None
        self._clusters: dict[tuple[str, str], str] = {}  # by name, and who says it
        self._cluster_watch: asyncio.Task[None] | None = None
        self._looks = 0

    def start(self) -> None:
        """Begin, in the running loop."""
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """End all of it."""
        tasks = [task for task in (self._task, self._cluster_watch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        pause = PAUSE
        while True:
            await asyncio.sleep(pause)
            if not listened_to(self._events):
                await self._rest()
                continue
            try:
                await self._look()
                pause = PAUSE
            except OffloadError as error:
                log.debug("rayoffload: no changes to be seen: %s", error)
                pause = min(2 * pause, LONGEST_PAUSE)
            except Exception:  # whatever it is, the server goes on, and so does this
                log.exception("rayoffload: looking for changes has failed")
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _rest(self) -> None:
        """Ask nobody any more."""
        task, self._cluster_watch = self._cluster_watch, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> None:
        service = self._service()
        if self._cluster_watch is None or self._cluster_watch.done():
            self._cluster_watch = asyncio.ensure_future(self._follow_cluster(service))
        self._looks += 1
        now = await service.stamps(checked=self._looks % CHECK_EVERY == 0)
        # At first nothing is news but what is under way: a browser reads the list when it begins to listen.
        before = {i: s for i, s in now.items() if service.final(s)} if self._jobs is None else self._jobs
        self._jobs = now
        for job_id, stamp in changes(before, now):
            self._emit(JOB_EVENT, id=job_id, phase=stamp.partition(" ")[0])
        for name, phase in service.begun().items():
            self._cluster(name, phase, by="server")

    async def _follow_cluster(self, service: Service) -> None:
        """Emit what the back end tells; it ends with an error, and the next look begins anew."""
        with contextlib.suppress(OffloadError):
            async for info in service.backend.watch("default"):
                used = ",".join(f"{name}={amount:g}" for name, amount in sorted(info.used.items()))
                more = f"{info.reason} {info.nodes} {used}"
                self._cluster(info.name, info.phase.value, by="back end", more=more)

    def _cluster(self, name: str, phase: str, *, by: str, more: str = "") -> None:
        stamp = f"{phase} {more}"
        if self._clusters.get((name, by)) != stamp:
            self._clusters[name, by] = stamp
            self._emit(CLUSTER_EVENT, name=name, phase=phase)

    def _emit(self, schema_id: str, **data: Any) -> None:
        self._events.emit(schema_id=schema_id, data=data)


def changes(before: Stamps, now: Stamps) -> Iterable[tuple[str, str]]:
    """Give what is new or other in `now`, and what has gone, as ``gone``.

    Ids that have only left the newest ones are no change: they are told apart by those that came.
    """
    yield from ((key, stamp) for key, stamp in now.items() if before.get(key) != stamp)
    came = sum(key not in before for key in now)
    gone = [key for key in before if key not in now]
    yield from ((key, "gone") for key in gone[: max(0, len(gone) - came)])


def listened_to(events: EventLogger) -> bool:
    """Whether anybody listens to our events; jupyter_events has no public way to ask."""
    for kind in ("_unmodified_listeners", "_modified_listeners"):
        known = getattr(events, kind, None)
        if known is None or known.get(JOB_EVENT) or known.get(CLUSTER_EVENT):
            return True
    return False
