"""All that Kubernetes says of one RayCluster: the object, its pods and its events, followed together."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import ClusterUnreachable
from .api import EVENTS, PODS, RAYCLUSTERS, KubeApi, Resource
from .refusals import NotThere, Outdated

__all__ = ["Observer", "Seen", "look_once", "seen_of"]

Json = dict[str, Any]
#: Longest pause between two attempts, seconds, and what a watch that works lasts at least.
_LONGEST_PAUSE, _SOUND = 8.0, 5.0


@dataclass(frozen=True)
class Seen:
    """A RayCluster at one moment.

    Parameters
    ----------
    cluster : Mapping, optional
        The object; None where there is none.
    pods, events : tuple of Mapping
        Of this very object, not of an earlier one of its name.
    silent_since : float, optional
        Since when the API server has not answered: the rest is what it said last.
    """

    cluster: Mapping[str, Any] | None = None
    pods: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    silent_since: float | None = None


def seen_of(
    cluster: Json | None, pods: Iterable[Json], events: Iterable[Json], silent_since: float | None = None
) -> Seen:
    """Put together what belongs to `cluster`.

    Events outlive what they are about by an hour, and pods of a deleted cluster take a while to end: without
    the uid a new cluster would be judged by what has become of the old one.
    """
    if cluster is None:
        return Seen(silent_since=silent_since)
    uid = cluster["metadata"]["uid"]
    own = tuple(p for p in pods if any(o["uid"] == uid for o in p["metadata"].get("ownerReferences", ())))
    uids = {uid, *(p["metadata"]["uid"] for p in own)}
    told = tuple(e for e in events if e["involvedObject"].get("uid") in uids)
    return Seen(cluster, own, told, silent_since)


async def look_once(api: KubeApi, name: str) -> Seen:
    """Look at one RayCluster now.

    Raises
    ------
    ClusterRefused, ClusterUnreachable, ClusterError
    """
    try:
        cluster = await api.get(RAYCLUSTERS, name)
    except NotThere:
        return Seen()
    (pods, _), (events, _) = await asyncio.gather(
        api.list(PODS, labelSelector=f"ray.io/cluster={name}"), api.list(EVENTS)
    )
    return seen_of(cluster, pods, events)


class _Table:
    """The objects of one kind that matter, as the API server tells them."""

    def __init__(self, resource: Resource, matters: Callable[[Json], bool], **selectors: str) -> None:
        self.resource, self.matters, self.selectors = resource, matters, selectors
        self.objects: dict[str, Json] = {}
        self.version = ""  # from which to watch; empty: list first
        self.silent_since: float | None = None

    def fill(self, objects: Iterable[Json]) -> None:
        self.objects = {o["metadata"]["uid"]: o for o in objects if self.matters(o)}

    def take(self, kind: str, entry: Json) -> bool:
        """Take what a watch says; give whether it matters."""
        self.version = entry["metadata"]["resourceVersion"]
        if kind == "BOOKMARK" or not self.matters(entry):
            return False
        if kind == "DELETED":
            self.objects.pop(entry["metadata"]["uid"], None)
        else:
            self.objects[entry["metadata"]["uid"]] = entry
        return True


class Observer:
    """Follows one RayCluster: lists once, and then is told of changes.

    Parameters
    ----------
    api : KubeApi
    name : str
        Of the object in Kubernetes.
    """

    def __init__(self, api: KubeApi, name: str) -> None:
        self._api = api
        self._cluster = _Table(RAYCLUSTERS, lambda _: True, fieldSelector=f"metadata.name={name}")
        self._pods = _Table(PODS, lambda _: True, labelSelector=f"ray.io/cluster={name}")
        # No selector can say "of this object or of one of those": KubeRay's pods begin with the name.
        self._events = _Table(EVENTS, lambda e: f"{e['involvedObject'].get('name')}-".startswith(f"{name}-"))
        self._tables = (self._cluster, self._pods, self._events)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Observer:
        self._tasks = [asyncio.create_task(self._follow(table)) for table in self._tables]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def next(self, within: float) -> Seen:
        """Give what is seen as soon as it has changed, but no later than `within` seconds.

        The first time it waits until there is something to tell: that the server is silent, if nothing else.

        Raises
        ------
        ClusterRefused, ClusterError
            The account lacks a right, or there is no KubeRay.
        """
        while True:
            await self._wait(within)
            for task in self._tasks:
                if task.done():
                    task.result()
            if self._silent_since() is not None or all(table.version for table in self._tables):
                return self._seen()

    async def _wait(self, within: float) -> None:
        # Unlike asyncio.wait_for (https://github.com/python/cpython/issues/86296) this loses no cancellation.
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({changed}, timeout=within)
        finally:
            changed.cancel()
        self._changed.clear()

    def _seen(self) -> Seen:
        clusters = list(self._cluster.objects.values())
        return seen_of(
            clusters[-1] if clusters else None,
            self._pods.objects.values(),
            self._events.objects.values(),
            self._silent_since(),
        )

    def _silent_since(self) -> float | None:
        return min((t.silent_since for t in self._tables if t.silent_since is not None), default=None)

    async def _follow(self, table: _Table) -> None:
        """Keep a table up to date until this is cancelled or refused."""
        loop, failures = asyncio.get_running_loop(), 0
        try:
            while True:
                began = loop.time()
                try:
                    await self._listen(table)
                except Outdated:
                    table.version = ""
                except ClusterUnreachable:
                    table.silent_since = table.silent_since or self._api.silent_since or time.time()
                    self._changed.set()
                failures = 0 if loop.time() - began > _SOUND else failures + 1
                if failures:
                    await asyncio.sleep(_pause(failures))
        finally:
            self._changed.set()  # whoever waits learns why it ended

    async def _listen(self, table: _Table) -> None:
        if not table.version:
            objects, version = await self._api.list(table.resource, **table.selectors)
            table.fill(objects)
            table.version = version
            self._changed.set()
        async with self._api.watch(table.resource, table.version, **table.selectors) as told:
            table.silent_since = None
            self._changed.set()
            with contextlib.suppress(ClusterUnreachable):  # whether it is the server, the next attempt shows
                async for kind, entry in told:
                    if table.take(kind, entry):
                        self._changed.set()


def _pause(failures: int) -> float:
    longest: float = min(0.1 * 2**failures, _LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1)  # noqa: S311
