"""A RayCluster of KubeRay for one owner: made on first use, adopted, scaled, suspended, deleted.

Kubernetes holds the truth: nothing is kept here that another kernel, or this one after a restart, would need.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import (
    ClusterError,
    ClusterRefused,
    ClusterStartFailed,
    ClusterUnreachable,
    UsageError,
)
from ...models import ClusterInfo, ClusterPhase, ClusterSpec, Profile, WorkerGroup
from ...profiles import apply, pick
from .. import owner
from ..address import configured_store, configured_token
from ..checks import look
from ..connection import Connection, read_connection
from . import groups
from .api import EVENTS, PODS, RAYCLUSTERS, SECRETS, KubeApi
from .conditions import Verdict, head_runs, judged
from .credentials import StoreSecret, secret_text
from .manifest import (
    ANNOTATION_CHOICES,
    CONNECTION_FILE,
    has_store,
    labels_of,
    made_from,
    name_of,
    object_name,
    ray_cluster,
    worker_group,
)
from .observer import Observer, Seen, look_once, seen_of
from .outside import Outside, is_outside
from .refusals import Conflict, NotThere
from .starting import TICK, Start

if TYPE_CHECKING:
    from ...config import RayOffload
    from ...remote.signing import Signer
    from .. import OnChange

__all__ = ["KubernetesBackend", "Reach", "in_cluster", "no_rights"]

#: Gives the address of Ray's Jobs API from a RayCluster.
Reach = Callable[[Mapping[str, Any]], str]
#: How long a deletion may take, seconds: pods have 30 to end.
DELETE_TIMEOUT = 100.0
#: How long a head that is not called ready may take for an answer, seconds: whoever watches waits for it.
EARLY_SECONDS = 1.0
#: Key of Ray's token in KubeRay's Secret.
_TOKEN = "auth_token"


def in_cluster(cluster: Mapping[str, Any]) -> str:
    """Give the address as pods reach it: the head's service, by its DNS name."""
    metadata = cluster["metadata"]
    return f"http://{metadata['name']}-head-svc.{metadata['namespace']}.svc:8265"


def no_rights(missing: str = "") -> ClusterStartFailed:
    """Say what a pod needs so that its jobs can run, where it has no way to a cluster."""
    return ClusterStartFailed(
        "this is a Kubernetes pod, and no Ray cluster is configured for it"
        + (f"; its service account may not {missing}" if missing else ""),
        "Set ray_address and store_url, or let your site grant the pod create, get, list, watch, patch "
        "and delete on rayclusters.ray.io; backend='embedded' starts a Ray inside the pod all the same",
    )


class KubernetesBackend:
    """The back end of RayClusters in one namespace.

    Store, owner's key and name come from `connection_file`, whose content is also in the Secret
    `store_secret` of the cluster's specification, which is mounted in Ray pods; where the
    setting is empty, they come from that Secret.

    Parameters
    ----------
    config : RayOffload
    reach : callable, optional
        Where Ray is reached straight from here; by default the setting `kubernetes_reach` says how.
    """

    def __init__(self, config: RayOffload, reach: Reach | None = None) -> None:
        self.config = config
        self.reach = reach or in_cluster
        self.api = KubeApi(config.kubeconfig, config.namespace)
        #: The ways through the API server; None where none is needed.
        self.outside = Outside(self.api) if reach is None and is_outside(config) else None
        self._secret = StoreSecret(config)
        self.known: dict[str, Connection] = {}
        self._tokens: dict[str, str] = {}

    def signer(self) -> Signer:
        """See :class:`.ClusterBackend`."""
        return owner.signer(self._configured().key)

    async def ensure(self, spec: ClusterSpec, on_change: OnChange | None = None) -> Connection:
        """Adopt the cluster, resume it or make it, and wait until Ray and the store answer.

        Raises
        ------
        UsageError
            The settings are not complete; what is asked for is not declared; or a cluster of another profile
            has this name.
        ClusterStartFailed
            It has not come up in time, or waiting would not help.
        ClusterRefused
            This account lacks a right, which is named.
        ClusterUnreachable, ClusterMismatch, ClusterError
        StoreRefused, StoreError
        """
        asked, spec = self._whole(spec)
        await self._secret.read(self.api, spec)
        way = self._configured(spec)
        api = await self.api.open()
        body = ray_cluster(spec, self.config.owner, api.namespace)
        await self._may_create()
        connection = await Start(self, asked, way, body, on_change).run()
        self.known[spec.name] = connection
        return connection

    async def find(self, name: str = "default") -> Connection | None:
        """See :class:`.ClusterBackend`."""
        seen = await self._look(name)
        if seen.silent_since is not None and name in self.known:
            return self.known[name]
        info = await self.early(name, seen) or self.info(name, seen)
        _, spec = self._whole(ClusterSpec(name=name))
        await self._secret.read(self.api, spec, again=False)
        way = self._configured(spec)
        if seen.cluster is not None and info.phase is ClusterPhase.RUNNING:
            try:
                token = self._tokens.get(seen.cluster["metadata"]["uid"]) or await self.token(seen.cluster)
                return await self.connection(way, seen.cluster, info, token)
            except NotThere:
                info = info.replace(address="")
        store = await self.outside.store(way.store) if self.outside else way.store
        return dataclasses.replace(way, info=info, store=store)

    async def connection(
        self, way: Connection, cluster: Mapping[str, Any], info: ClusterInfo, token: str
    ) -> Connection:
        """Give the way to a cluster from that to the store, both as they are reached from here."""
        file = Path(CONNECTION_FILE) if has_store(cluster) else way.file  # where runners find it
        made = dataclasses.replace(way, info=info, ray_token=token, file=file)
        if self.outside is None:
            return made
        store = await self.outside.store(made.store)
        return dataclasses.replace(made, store=store, transport=self.outside.ray(cluster))

    async def get(self, name: str = "default") -> ClusterInfo:
        """See :class:`.ClusterBackend`."""
        return await self._told(name, await self._look(name))

    async def _look(self, name: str) -> Seen:
        await self.api.open()
        try:
            return await look_once(self.api, self._object(name))
        except ClusterUnreachable:
            return Seen(silent_since=self.api.silent_since or time.time())

    async def list(self) -> list[ClusterInfo]:
        """See :class:`.ClusterBackend`."""
        api = await self.api.open()
        found, _ = await api.list(RAYCLUSTERS, labelSelector=_selector(labels_of(self.config.owner)))
        if not found:
            return []
        names = ",".join(cluster["metadata"]["name"] for cluster in found)
        (pods, _), (events, _) = await asyncio.gather(
            api.list(PODS, labelSelector=f"ray.io/cluster in ({names})"), api.list(EVENTS)
        )
        seen = [seen_of(cluster, pods, events) for cluster in found]
        return list(
            await asyncio.gather(*(self._told(name_of(c), s) for c, s in zip(found, seen, strict=True)))
        )

    async def scale(self, name: str, workers: int) -> ClusterInfo:
        """Give the first worker group so many workers."""
        return await self.scale_group(name, "", workers)

    async def scale_group(self, name: str, group: str, workers: int) -> ClusterInfo:
        """Give a worker group so many workers.

        Parameters
        ----------
        name, group : str
            Empty for the first group.
        workers : int

        Raises
        ------
        UsageError
            There is no such cluster or group, its profile does not allow so many, or Ray's autoscaler
            decides.
        """
        if workers < 0:
            raise UsageError(f"{workers} workers cannot be", "It is a number from 0 on")
        profiles = self.config.cluster_profiles()
        return await self._change_groups(name, lambda it: groups.scaled(it, group, workers, profiles))

    async def add_group(self, name: str, group: WorkerGroup) -> ClusterInfo:
        """Give a cluster that is there another worker group, of the image and with the volumes that it has.

        Raises
        ------
        UsageError
            There is no such cluster, it has such a group already, the group cannot be, or the profile of the
            cluster does not allow so much.
        """

        def added(cluster: Mapping[str, Any]) -> groups.Change:
            profile, _ = made_from(cluster)
            declared = {known.name for known in self.config.cluster_profiles()}
            asked = ClusterSpec(name, profile) if profile in declared else ClusterSpec(name)
            made = worker_group(cluster, self._whole(asked)[1], self.config.owner, group)
            return groups.added(cluster, made)

        return await self._change_groups(name, added)

    async def remove_group(self, name: str, group: str) -> ClusterInfo:
        """Take a worker group from a cluster; what runs on its workers ends with them.

        Raises
        ------
        UsageError
            There is no such cluster or group, or no cell could run without it.
        ClusterError
            Its workers are not gone in time.
        """
        # KubeRay no longer looks at the pods of a group that it is not told of: they would stay.
        await self._change_groups(name, lambda cluster: groups.emptied(cluster, group))
        await self._until_empty(name, group)
        profiles = self.config.cluster_profiles()
        return await self._change_groups(name, lambda cluster: groups.removed(cluster, group, profiles))

    async def _until_empty(self, name: str, group: str) -> None:
        """Wait until a worker group has no pod."""
        labels = {"ray.io/cluster": self._object(name), "ray.io/group": group}
        deadline = time.monotonic() + DELETE_TIMEOUT
        while True:
            left, _ = await self.api.list(PODS, labelSelector=_selector(labels))
            if not left:
                return
            if time.monotonic() > deadline:
                pod = left[0]["metadata"]["name"]
                raise ClusterError(
                    f"worker group {group!r} still has {len(left)} of its pods after {DELETE_TIMEOUT:.0f} s",
                    f"kubectl describe pod {pod} shows what holds it; then remove the group again",
                )
            await asyncio.sleep(0.5)

    async def _change_groups(
        self, name: str, change: Callable[[Mapping[str, Any]], groups.Change]
    ) -> ClusterInfo:
        """Change the worker groups of a cluster, and what it says that it was made from."""
        for _ in range(5):  # KubeRay writes into the object too
            cluster = await self._there(name)
            made, choices = change(cluster)
            groups.check_growth(cluster, made, self.config.cluster_profiles())
            metadata = {
                "resourceVersion": cluster["metadata"]["resourceVersion"],
                "annotations": {ANNOTATION_CHOICES: json.dumps(choices) if choices else None},
            }
            body = {"metadata": metadata, "spec": {"workerGroupSpecs": made}}
            try:
                await self.api.patch(RAYCLUSTERS, cluster["metadata"]["name"], body)
            except (Conflict, NotThere):
                continue
            return await self.get(name)
        raise ClusterError(f"cluster {name!r} changes all the time", "Try again in a moment")

    async def suspend(self, name: str) -> ClusterInfo:
        """End all pods of the cluster, and keep its object."""
        return await self._set_suspend(name, True)

    async def resume(self, name: str) -> ClusterInfo:
        """Take back :meth:`suspend`."""
        return await self._set_suspend(name, False)

    async def delete(self, name: str = "default") -> None:
        """Remove the cluster, and return when it is gone with its pods.

        Raises
        ------
        ClusterError
            It is not gone in time; the message says what holds it.
        """
        self.known.pop(name, None)
        try:
            cluster = await self._find(name)
            uid = cluster["metadata"]["uid"]
            await self.api.delete(RAYCLUSTERS, cluster["metadata"]["name"], uid)
        except (NotThere, Conflict):
            return  # there is none, or it is another one by now
        holding = [cluster]
        try:
            await asyncio.wait_for(
                _until_gone(self.api, cluster["metadata"]["name"], uid, holding), DELETE_TIMEOUT
            )
        except asyncio.TimeoutError:
            finalizers = ", ".join(holding[-1]["metadata"].get("finalizers", ())) or "its pods"
            raise ClusterError(
                f"cluster {name!r} is being deleted, and not gone after {DELETE_TIMEOUT:.0f} s: it waits for "
                f"{finalizers}",
                f"kubectl describe raycluster {cluster['metadata']['name']} shows what holds it",
            ) from None

    async def watch(self, name: str = "default") -> AsyncIterator[ClusterInfo]:
        """See :class:`.ClusterBackend`; Kubernetes tells of changes, Ray is asked every few seconds."""
        await self.api.open()
        last = None
        async with Observer(self.api, self._object(name)) as observer:
            while True:
                seen = await observer.next(TICK)
                info = await self._told(name, seen)
                if info != last:
                    yield info
                    last = info

    async def aclose(self) -> None:
        """Close the connections; the clusters stay."""
        if self.outside is not None:
            await self.outside.aclose()
        await self.api.aclose()

    # ------------------------------------------------------------------ what the settings say

    async def profiles(self) -> tuple[Profile, ...]:
        """See :class:`.ClusterBackend`."""
        return self.config.cluster_profiles()

    def _whole(self, spec: ClusterSpec) -> tuple[ClusterSpec, ClusterSpec]:
        """Give what is asked of a cluster that is there already, and what one is made from.

        Raises
        ------
        UsageError
            There is no such profile, or it cannot be chosen so.
        """
        if spec.image:
            return spec, spec
        config = self.config
        profile = pick(config.cluster_profiles(), spec.profile)
        made = apply(profile, spec.choices)
        image, ray = config.pod_image(made.image)
        whole = made.replace(name=spec.name, image=image, ray=made.ray or ray)
        choices = {name: made.choices[name] for name in spec.choices}
        return ClusterSpec(spec.name, profile.name if choices else spec.profile, choices), whole

    def _configured(self, spec: ClusterSpec | None = None) -> Connection:
        """Give the way to the store, which is there before the cluster."""
        config = self.config
        spec = spec or self._whole(ClusterSpec())[1]
        there = self._secret.connection(spec) or _read_file(config.connection_file)
        return dataclasses.replace(there, store=configured_store(config, there.store))

    async def _may_create(self) -> None:
        """Where nobody has asked for Kubernetes by name, an account without rights is no error of its own."""
        if self.config.backend != "auto":
            return
        try:
            may = await self.api.may("create", RAYCLUSTERS)
        except ClusterUnreachable:
            return  # whoever looks for the cluster next says so, and knows what to do
        if not may:
            raise no_rights(f"create rayclusters.ray.io in the namespace {self.api.namespace}")

    # ------------------------------------------------------------------ what Kubernetes says

    def _object(self, name: str) -> str:
        return object_name(self.config.owner, name or "default")

    async def _find(self, name: str) -> dict[str, Any]:
        """Give the object of a cluster, which must be ours."""
        api = await self.api.open()
        cluster = await api.get(RAYCLUSTERS, self._object(name))
        self.check_owner(cluster)
        return cluster

    async def _there(self, name: str) -> dict[str, Any]:
        """Give the object of a cluster that must be there, and ours."""
        try:
            return await self._find(name)
        except NotThere:
            raise UsageError(f"there is no cluster {name!r}", "%ray cluster up makes it") from None

    def check_owner(self, cluster: Mapping[str, Any]) -> None:
        """Refuse an object that another owner, or somebody by hand, has made under our name."""
        metadata = cluster["metadata"]
        if not labels_of(self.config.owner).items() <= metadata.get("labels", {}).items():
            raise ClusterRefused(
                f"the RayCluster {metadata['name']} lacks the label of its owner, {self.config.owner!r}",
                "Delete it with kubectl if nobody needs it, or use another name: --cluster NAME",
            )

    async def _set_suspend(self, name: str, suspend: bool) -> ClusterInfo:
        cluster = await self._there(name)
        try:
            await self.api.patch(RAYCLUSTERS, cluster["metadata"]["name"], {"spec": {"suspend": suspend}})
        except NotThere:
            raise UsageError(f"there is no cluster {name!r}", "%ray cluster up makes it") from None
        return await self.get(name)

    def info(self, name: str, seen: Seen, verdict: Verdict | None = None) -> ClusterInfo:
        """Give what is seen as people see it."""
        if seen.silent_since is not None:
            return self.silent(name, seen.silent_since)
        verdict = verdict or judged(seen.cluster, seen.pods, seen.events, time.time())
        cluster, running = seen.cluster, verdict.phase is ClusterPhase.RUNNING
        profile, choices = made_from(cluster) if cluster else ("", {})
        return ClusterInfo(
            name=name,
            kind="kubernetes",
            profile=profile,
            choices=choices,
            phase=verdict.phase,
            reason=verdict.reason,
            detail=verdict.detail,
            address=self.reach(cluster) if cluster and running else "",
            ray=str(cluster["spec"].get("rayVersion", "")) if cluster else "",
            workers=groups.workers_of(cluster["spec"]) if cluster else None,
            since=verdict.since,
        )

    def silent(self, name: str, since: float) -> ClusterInfo:
        """Give what can be said of a cluster while Kubernetes says nothing."""
        when = time.strftime("%H:%M:%S", time.localtime(since))
        known = self.known.get(name)
        return (known.info if known else ClusterInfo(name=name, kind="kubernetes")).replace(
            phase=ClusterPhase.UNKNOWN,
            reason=f"The Kubernetes API server does not answer since {when}",
            detail="Jobs that run go on",
            since=since,
        )

    # ------------------------------------------------------------------ what Ray says

    async def early(self, name: str, seen: Seen) -> ClusterInfo | None:
        """Ask a head whether Ray answers, where it runs and is not called ready; None where it does not.

        KubeRay lets the kubelet ask for the first time after ten seconds, and then every five.
        """
        if seen.silent_since is not None or seen.cluster is None or not head_runs(seen.pods):
            return None
        there = (seen.cluster, seen.pods, seen.events, time.time())
        verdict = judged(*there, answers=True)
        if verdict == judged(*there) or verdict.phase is not ClusterPhase.RUNNING:
            return None
        try:
            asking = self._with_ray(self.info(name, seen, verdict), seen)
            info = await asyncio.wait_for(asking, EARLY_SECONDS)
        except asyncio.TimeoutError:
            return None
        return info if info.session else None

    async def _told(self, name: str, seen: Seen) -> ClusterInfo:
        """Give what is seen as people see it, with what Ray says."""
        return await self.early(name, seen) or await self._with_ray(self.info(name, seen), seen)

    async def _with_ray(self, info: ClusterInfo, seen: Seen) -> ClusterInfo:
        """Give `info` with what the head says, where there is one."""
        if info.phase is not ClusterPhase.RUNNING or seen.cluster is None:
            return info
        uid = seen.cluster["metadata"]["uid"]
        try:
            token = self._tokens.get(uid) or await self.token(seen.cluster)
        except ClusterUnreachable:
            return self.silent(info.name, self.api.silent_since or time.time())
        except (ClusterError, NotThere) as error:
            return info.replace(phase=ClusterPhase.UNKNOWN, reason=str(error))
        looked = await look(info, token, self.outside.ray(seen.cluster) if self.outside else None)
        # One that does not answer may have another token by now.
        self._tokens = {**self._tokens, uid: token if looked.session else ""}
        return looked

    async def token(self, cluster: Mapping[str, Any]) -> str:
        """Give Ray's token: as configured, or from the Secret.

        Raises
        ------
        NotThere
            KubeRay has not made the Secret yet.
        ClusterRefused, ClusterError
        """
        if configured := configured_token(self.config):
            return configured
        name = cluster["spec"].get("authOptions", {}).get("secretName") or cluster["metadata"]["name"]
        return secret_text(await self.api.get(SECRETS, name), _TOKEN, "Correct token_secret in the settings")


def _read_file(file: str) -> Connection:
    if not file:
        raise UsageError(
            "there is no connection_file: it says where the store of the clusters is, and whose it is",
            "docs/clusters.md says how to write it; the Secret store_secret brings the same to Ray pods, and "
            "is read from here where kubernetes_cluster names it",
        )
    try:
        return read_connection(Path(file).expanduser())
    except FileNotFoundError:
        raise UsageError(f"the connection file {file} is not here", "Correct connection_file") from None


async def _until_gone(api: KubeApi, name: str, uid: str, holding: list[Any]) -> None:
    """Wait until the object of this uid is gone; what is left of it is put into `holding`."""
    async with Observer(api, name) as observer:
        while True:
            seen = await observer.next(TICK)
            if seen.silent_since is not None:
                continue
            if seen.cluster is None or seen.cluster["metadata"]["uid"] != uid:
                return
            holding.append(seen.cluster)


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
