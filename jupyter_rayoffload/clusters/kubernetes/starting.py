"""A RayCluster on its way up: made, awaited or resumed, until Ray and the store answer."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import (
    ClusterError,
    ClusterMismatch,
    ClusterRefused,
    ClusterStartFailed,
    ClusterUnreachable,
    StoreUnreachable,
)
from ...models import ClusterInfo, ClusterPhase, ClusterSpec
from ...profiles import check_same
from ..checks import check_ray, check_store, look
from .api import RAYCLUSTERS
from .conditions import head_runs, judged
from .manifest import made_from
from .observer import Observer, Seen
from .refusals import Conflict, NotThere

if TYPE_CHECKING:
    from .. import OnChange
    from ..connection import Connection
    from .backend import KubernetesBackend

__all__ = ["TICK", "Start"]

#: Seconds between two looks at what no watch tells: the time itself, and what Ray says. People wait for it.
TICK = 4.0
#: The same while a head runs, and does not answer yet.
SHORT_TICK = 0.5
#: How long an API server that has never answered is waited for, seconds: its address may be wrong.
FIRST_ANSWER = 30.0
#: Kueue suspends what waits in its queue, and resumes it when its turn comes.
_QUEUE = "kueue.x-k8s.io/queue-name"


class Start:
    """One cluster on its way up.

    Parameters
    ----------
    backend : KubernetesBackend
    asked : ClusterSpec
        Its name; and what one that is there already must have been made from.
    way : Connection
        The way to the store.
    body : Mapping
        The RayCluster, if it has to be made.
    on_change : callable, optional
    """

    def __init__(
        self,
        backend: KubernetesBackend,
        asked: ClusterSpec,
        way: Connection,
        body: Mapping[str, Any],
        on_change: OnChange | None,
    ) -> None:
        self._backend, self._asked, self._name, self._way = backend, asked, asked.name, way
        self._body = body
        self._on_change = on_change
        self._api = backend.api
        self._answered, self._began = False, time.monotonic()
        self._created, self._resumed = 0.0, ""
        self._last = ClusterInfo(name=asked.name, kind="kubernetes", reason="Kubernetes has not answered yet")

    async def run(self) -> Connection:
        """Go on until Ray and the store answer, or the time is over."""
        limit = self._backend.config.kubernetes_start_timeout
        async with Observer(self._api, self._body["metadata"]["name"]) as observer:
            within = TICK
            while (left := self._began + limit - time.monotonic()) > 0:
                found = await self._step(await observer.next(min(within, left)))
                if not isinstance(found, ClusterInfo):
                    self._tell(found.info)
                    return found
                self._tell(found)
                # Whether Ray answers, no watch tells: it is asked often, for the short while that it takes.
                within = SHORT_TICK if found.address else TICK
        raise ClusterStartFailed(
            f"cluster {self._name!r} is not ready after {limit:.0f} s: {self._last.reason}",
            self._last.detail or "kubernetes_start_timeout gives it more time; %ray cluster down removes it",
        )

    async def _step(self, seen: Seen) -> ClusterInfo | Connection:
        """Do what can be done now; give how far it has come."""
        if seen.silent_since is not None:
            return await self._without_kubernetes(seen.silent_since)
        self._answered = True
        if seen.cluster is None:
            return await self._create()
        self._created = 0.0
        self._backend.check_owner(seen.cluster)
        if seen.cluster["metadata"].get("deletionTimestamp"):
            return self._starting("The cluster that was there is being deleted")
        self._check(seen.cluster)
        if seen.cluster["spec"].get("suspend"):
            return await self._resume(seen.cluster)
        verdict = judged(seen.cluster, seen.pods, seen.events, time.time())
        if verdict.hopeless:
            raise ClusterStartFailed(
                f"cluster {self._name!r} cannot start: {verdict.reason}",
                (f"{verdict.detail}. " if verdict.detail else "")
                + "%ray cluster down removes it; %ray cluster up makes it anew from the settings",
            )
        info = self._backend.info(self._name, seen, verdict)
        if info.phase is not ClusterPhase.RUNNING:
            early = await self._backend.early(self._name, seen)
            if early is None:
                # With the address it is asked often.
                return (
                    info.replace(address=self._backend.reach(seen.cluster)) if head_runs(seen.pods) else info
                )
            info = early
        return await self._connect(seen.cluster, info)

    def _check(self, cluster: Mapping[str, Any]) -> None:
        """Refuse a cluster that was made from something else than what is asked for."""
        profile, choices = made_from(cluster)
        check_same(self._asked, ClusterInfo(self._name, profile=profile, choices=choices))

    async def _create(self) -> ClusterInfo:
        # What was created a moment ago, the watch is about to tell.
        if time.monotonic() - self._created > TICK:
            try:
                await self._api.create(RAYCLUSTERS, self._body)
            except (Conflict, ClusterUnreachable):
                # Another kernel was faster, an old one is not gone yet, or the answer got lost.
                pass  # the watch will tell which
            self._created = time.monotonic()
        return self._starting("Creating the cluster")

    async def _resume(self, cluster: Mapping[str, Any]) -> ClusterInfo:
        metadata = cluster["metadata"]
        if _QUEUE in metadata.get("labels", {}):
            return self._starting("Waiting in the queue of your site (Kueue)")
        if self._resumed != metadata["resourceVersion"]:
            try:
                await self._api.patch(RAYCLUSTERS, metadata["name"], {"spec": {"suspend": False}})
                self._resumed = metadata["resourceVersion"]
            except (NotThere, ClusterUnreachable):
                pass  # the watch tells what is there now
        return self._starting("Resuming the cluster")

    async def _connect(self, cluster: Mapping[str, Any], info: ClusterInfo) -> ClusterInfo | Connection:
        """Give the way there if Ray and the store answer."""
        limit, outside = self._backend.config.check_timeout, self._backend.outside
        waiting = info.replace(phase=ClusterPhase.STARTING)
        try:
            token = await self._backend.token(cluster)
            connection = await self._backend.connection(self._way, cluster, info, token)
            async with connection.client() as client:
                info = await asyncio.wait_for(check_ray(client, info), limit)
            connection = dataclasses.replace(connection, info=info)
            if outside is not None:
                await outside.check_store(self._way.store)
            await check_store(connection, limit)
        except (ClusterRefused, ClusterMismatch):
            raise
        except NotThere:
            return waiting.replace(reason="Waiting for the token that KubeRay makes")
        except asyncio.TimeoutError:
            return waiting.replace(reason="The head is ready; Ray is slow to answer")
        except ClusterError as error:
            return waiting.replace(
                reason="The head is ready; Ray does not answer yet",
                detail=str(error)
                if outside
                else f"{error.message}. A NetworkPolicy must let this pod reach port 8265 of the head",
            )
        except StoreUnreachable as error:
            return waiting.replace(reason="Ray is ready; waiting for the store", detail=str(error))
        return connection

    async def _without_kubernetes(self, since: float) -> ClusterInfo | Connection:
        """Use a cluster that is known and answers: it needs no Kubernetes to run jobs."""
        known = self._backend.known.get(self._name)
        if known and (await look(known.info, known.ray_token, known.transport)).session:
            check_same(self._asked, known.info)
            return known
        if not self._answered and time.monotonic() - self._began > FIRST_ANSWER:
            raise ClusterUnreachable(
                f"the Kubernetes API server has not answered within {FIRST_ANSWER:.0f} s",
                "See whether kubectl reaches it; kubeconfig says where it is",
            )
        return self._backend.silent(self._name, since)

    def _starting(self, reason: str) -> ClusterInfo:
        return ClusterInfo(name=self._name, kind="kubernetes", phase=ClusterPhase.STARTING, reason=reason)

    def _tell(self, info: ClusterInfo) -> None:
        changed = info != self._last
        self._last = info
        if changed and self._on_change:
            self._on_change(info)
