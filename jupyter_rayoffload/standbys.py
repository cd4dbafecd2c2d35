"""Standbys: runners that are submitted ahead and wait, so that the next cell begins in milliseconds."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .course import REST_SECONDS, Course
from .errors import OffloadError
from .link import Link, blocking
from .models import ClusterInfo, ClusterPhase, JobSpec, Phase
from .packing import provide, runtime_env
from .remote.store import NewRecord, Store, StoreFault, Tampered

if TYPE_CHECKING:
    from .config import RayOffload
    from .jobclient import ClusterStatus

__all__ = ["Standbys", "entrypoint_resources", "standing"]

#: How long a standby may take to say that it has the job, seconds: it takes a millisecond, and on a machine
#: whose cores are all at work a hundred. Then the job is taken back, unless it has it after all.
ACKNOWLEDGE_SECONDS = 0.5
#: A new one is started when the job has ended, or has run for so long, seconds: it would cost it a core.
ORDER_AFTER = 1.0
#: Between two looks whether something waits for a CPU, which a standby holds or would take, seconds.
YIELD_SECONDS = 5.0
#: After a job has ended, so many looks, with so many seconds between: Ray tells late that its CPU is free.
ROOM_LOOKS, ROOM_SECONDS = 15, 1.0
#: What the runner of a batch reserves where only that keeps it off the head; Ray counts in 1/10,000.
BATCH_CPUS = 0.001
_RAY = re.compile(r"\bray\b")


class Standbys:
    """Orders standbys for the jobs of one process, and hands jobs over; any process may use what waits.

    Parameters
    ----------
    config : RayOffload
    """

    def __init__(self, config: RayOffload) -> None:
        self._config = config
        self._package: str | None = None  # of the last job
        self._ordered: dict[str, tuple[str, Link]] = {}  # id: key, way
        self._tasks: dict[asyncio.Task[None], str] = {}  # with the cluster that one is ordered on
        self._ordering = asyncio.Lock()
        self._watched: dict[str, list[Course]] = defaultdict(list)  # by cluster, while somebody watches
        self._ways: dict[str, Link] = {}  # there, the newest ones

    async def hand(self, spec: JobSpec, attempt: int, link: Link, new: NewRecord | None = None) -> str:
        """Hand a job to a standby that waits for its like.

        Parameters
        ----------
        spec : JobSpec
        attempt : int
        link : Link
        new : NewRecord, optional
            What enters the job into the store, which is done before, also where no standby may have it.

        Returns
        -------
        str
            The standby, by the id of its Ray submission; ``""`` if the job must be submitted by itself.

        Raises
        ------
        StoreError
            Nobody knows whether a standby has it: it must not be submitted as well.
        """
        keys = self._keys(spec, link)
        if keys and spec.package and _uses_ray(spec):
            if new is not None:  # who looks for the job finds it while a package is on its way
                await blocking(link.store.create, *new)
                new = None
            await provide(spec, link)
        if not keys:
            if new is not None:
                await blocking(link.store.create, *new)
            return ""
        return await blocking(_hand, link.store, keys, spec, attempt, new)

    def behind(self, course: Course, link: Link) -> None:
        """Order a standby behind a job that was just submitted, for the next one like it."""
        if entrypoint_resources(None, link):
            self._watch(course, link)
        if self._may_stand_by(course.record.spec, link):
            self._start(self._order_behind(course, link), link.info.name)

    async def send_off(self, link: Link) -> None:
        """Let all standbys of a cluster end, whoever has ordered them, and order no more behind earlier jobs.

        Ray lets a pod that is to end wait half a minute for what runs there.
        """
        for task, cluster in self._tasks.items():
            if cluster == link.info.name:
                task.cancel()
        await blocking(_dismiss_all, link.store, link.info.name)

    async def aclose(self) -> None:
        """Order none any more; those that wait are for the next kernel, and end when none comes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _may_stand_by(self, spec: JobSpec, link: Link) -> bool:
        # Standbys hold the default resources, and no GPU.
        return bool(self._wanted(link)) and not spec.options.resources.by_name()

    def _wanted(self, link: Link) -> int:
        """Give how many there should be for the next job."""
        if self._config.standby is None:
            return 1 if link.info.kind == "embedded" else 0
        return int(self._config.standby)

    def _start(self, work: Coroutine[Any, Any, None], cluster: str = "") -> None:
        task = asyncio.ensure_future(work)
        self._tasks[task] = cluster
        task.add_done_callback(self._tasks.pop)

    # ------------------------------------------------------------------ ordering

    async def _order_behind(self, course: Course, link: Link) -> None:
        while not course.record.phase.ended and course.record.phase is not Phase.RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(course.ended.wait(), ORDER_AFTER)
            await asyncio.sleep(REST_SECONDS)
        with suppress(OffloadError):
            if not entrypoint_resources(None, link) or await _room(course, link):
                async with self._ordering:
                    await self._order(course.record.spec, link)

    async def _order(self, spec: JobSpec, link: Link) -> None:
        """Have as many standbys for the like of this job as there should be, and no others of ours."""
        # A workspace that changes is bound late, which a connected one could not do.
        changed = self._package not in (None, spec.package)
        self._package = spec.package
        connect = _uses_ray(spec) and not changed
        key = self._key(spec, link, connect)
        await self._dismiss_others(key)
        there = {plan["id"]: plan["key"] for plan in await blocking(link.store.handovers.ordered)}
        gone = [s for s, (_, way) in self._ordered.items() if way is link and s not in there]
        for standby in gone:  # served, or dead
            del self._ordered[standby]
        for _ in range(self._wanted(link) - list(there.values()).count(key)):
            await self._submit(spec, key, connect, link)

    async def _submit(self, spec: JobSpec, key: str, connect: bool, link: Link) -> None:
        standby = f"standby-{secrets.token_hex(6)}"
        plan = {
            "key": key,
            "cluster": link.info.name,
            "package": spec.package,
            "modules": list(spec.modules),
            "libraries": dict(spec.libraries),
            "imports": sorted({*spec.libraries, *(("ray",) if _uses_ray(spec) else ())}),
            "connect": connect,
            "idle": self._config.standby_idle,
        }
        await blocking(link.store.handovers.order, standby, plan)
        await provide(spec, link)
        await link.ray.submit(
            submission_id=standby,
            entrypoint=f"python -m {spec.versions['runner']} --standby {standby}",
            runtime_env=self._environment(spec, link, connect),
            metadata={"owner": spec.owner, "label": "standby"},
            resources=entrypoint_resources(None, link),
        )
        self._ordered[standby] = (key, link)

    async def _dismiss_others(self, key: str) -> None:
        for standby, (other, link) in list(self._ordered.items()):
            if other != key:
                await self._dismiss(standby, other, link)

    async def _dismiss(self, standby: str, key: str, link: Link) -> None:
        self._ordered.pop(standby, None)
        with suppress(OffloadError):
            await blocking(link.store.handovers.dismiss, standby, key)

    def _watch(self, course: Course, link: Link) -> None:
        name = link.info.name
        self._ways[name] = link
        if not self._watched[name]:
            self._start(self._yield(name))
        self._watched[name].append(course)

    async def _yield(self, name: str) -> None:
        """Let standbys end that hold what something waits for, while they or jobs of ours are there."""
        try:
            while True:
                await asyncio.sleep(YIELD_SECONDS)
                link = self._ways[name]
                with suppress(OffloadError):
                    there = await blocking(_of_cluster, link.store, name)
                    if there and _short(await link.ray.cluster_status()):
                        await blocking(_dismiss_all, link.store, name)
                    elif not there and not self._busy(name):
                        return
        finally:
            del self._watched[name], self._ways[name]

    def _busy(self, name: str) -> bool:
        return name in self._tasks.values() or any(not c.record.phase.ended for c in self._watched[name])

    # ------------------------------------------------------------------ which job may have which standby

    def _keys(self, spec: JobSpec, link: Link) -> list[str]:
        """Name the standbys that may have a job, the best first."""
        if not self._may_stand_by(spec, link) or "environ" in spec.source:
            return []  # what reads the environment when it is imported has been imported
        if spec.batch and entrypoint_resources(None, link):
            return []  # its items may need what a standby holds
        return [self._key(spec, link, connect) for connect in (True, False)]

    def _key(self, spec: JobSpec, link: Link, connect: bool) -> str:
        """Name what a standby and its job must have in common."""
        common = [
            self._environment(spec, link, connect),
            spec.versions["runner"],
            link.info.session,
            connect,
        ]
        return link.signer.digest(json.dumps(common, sort_keys=True).encode())[:40]

    def _environment(self, spec: JobSpec, link: Link, connect: bool) -> dict[str, Any]:
        bound = spec if connect else spec.replace(package="")
        return runtime_env(bound, link.connection, self._config)


async def standing(info: ClusterInfo, link: Link | None) -> ClusterInfo:
    """Give what is known of a cluster with the standbys that wait there, as the store tells."""
    if link is None or info.phase is not ClusterPhase.RUNNING:
        return info
    with suppress(OffloadError):
        plans = await blocking(_of_cluster, link.store, info.name)
        waiting = [plan for plan in plans if "since" in plan]
        memory = sum(int(plan["memory"]) for plan in waiting)
        return info.replace(standbys=len(waiting), standby_memory=memory)
    return info


def entrypoint_resources(spec: JobSpec | None, link: Link) -> dict[str, float]:
    """Give what the process of a job, or of a standby, reserves.

    Nothing unasked where its own Ray tasks need the CPUs. On Kubernetes something: it keeps the process off
    the head, where an OOM kill would take every job along.
    """
    least = {"CPU": 1.0} if link.info.kind == "kubernetes" else {}
    if spec is None:
        return least
    if spec.batch:  # its items ask for themselves
        return {"CPU": BATCH_CPUS} if least else {}
    return {**least, **spec.options.resources.by_name()}


async def _room(course: Course, link: Link) -> bool:
    """Wait for a CPU that a standby may have: nothing must wait for it, and no node be started for it."""
    looks, before = 0, False
    while looks < ROOM_LOOKS:
        status = await link.ray.cluster_status()
        free = status.resources.get("CPU", 0.0) - status.used.get("CPU", 0.0)
        room = free >= 1.0 and not _short(status)
        # That a job which has just begun has its CPU Ray tells late, too: two looks must agree.
        if room and (before or course.record.phase.ended):
            return True
        before = room
        looks += course.record.phase.ended
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(course.ended.wait(), YIELD_SECONDS)
        await asyncio.sleep(ROOM_SECONDS)
    return False


def _short(status: ClusterStatus) -> bool:
    """Whether something waits for what a standby could hold."""
    return any(shape.get("CPU") for shape, _ in status.waiting)


def _of_cluster(store: Store, name: str) -> list[dict[str, Any]]:
    return [plan for plan in store.handovers.ordered() if plan.get("cluster") == name]


def _dismiss_all(store: Store, name: str) -> None:
    for plan in _of_cluster(store, name):
        store.handovers.dismiss(plan["id"], plan["key"])


def _uses_ray(spec: JobSpec) -> bool:
    texts = (spec.source, *(text for _, text in spec.cells.values()))
    return any(_RAY.search(text) for text in texts)


def _hand(store: Store, keys: list[str], spec: JobSpec, attempt: int, new: NewRecord | None) -> str:
    """Hand a job over, and see that it was taken; or else take it back."""
    if new is None:
        standby = store.handovers.hand(keys, spec.id, attempt, spec.to_json())
    else:
        standby = store.create_handed(new, keys, attempt)
    with suppress(StoreFault, Tampered):
        if not standby or store.handovers.taken(standby, spec.id, ACKNOWLEDGE_SECONDS):
            return standby
    # If it cannot be taken back, the standby has claimed it: it is slow to say so, or died in that moment,
    # which Ray will say.
    return "" if store.take_back(spec.id, attempt) else standby
