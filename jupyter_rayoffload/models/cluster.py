"""Clusters: what one should be, and what is known of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .base import Model

__all__ = ["CAN", "ClusterInfo", "ClusterPhase", "ClusterSpec", "PodSpec", "Volume", "WorkerGroup"]


#: By kind of cluster, what can be done with it; a cluster that is given by its address is not ours.
CAN: Mapping[str, tuple[str, ...]] = {
    "embedded": ("start", "delete"),
    "kubernetes": ("start", "scale", "suspend", "resume", "delete"),
}


class ClusterPhase(str, enum.Enum):
    """Where a cluster is."""

    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUSPENDED = "suspended"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class PodSpec(Model):
    """One Ray pod: the head, or each worker of a group.

    Parameters
    ----------
    cpus : float, optional
        Limit, in cores; Ray counts with it, rounded up.
    memory : int, optional
        Limit, in bytes.
    gpus : int
    gpu_resource : str
        What the device plugin of the nodes calls a GPU.
    requests : Mapping of str to str
        Kubernetes quantities to reserve where they are less than the limits: ``{"cpu": "500m"}``.
    start_params : Mapping of str to str
        Of ``ray start``, without the dashes.
    env : Mapping of str to str
    node_selector, labels, annotations : Mapping of str to str
    tolerations : tuple of Mapping
        As in a Kubernetes pod.
    priority_class : str
    """

    cpus: float | None = None
    memory: int | None = None
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    requests: Mapping[str, str] = field(default_factory=dict)
    start_params: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority_class: str = ""


@dataclass(frozen=True)
class WorkerGroup(Model):
    """Workers of one kind.

    Parameters
    ----------
    name : str
    pod : PodSpec
    replicas : int
        How many there are at first; without autoscaling, until somebody scales.
    minimum, maximum : int, optional
        Bounds of the autoscaler; by default 0, and `replicas`.
    """

    name: str = "workers"
    pod: PodSpec = PodSpec()
    replicas: int = 1
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True)
class Volume(Model):
    """What is mounted into every Ray pod: one of a claim, a Secret or a ConfigMap of the namespace.

    Parameters
    ----------
    name : str
        Of the volume.
    path : str
        Where it is mounted.
    claim, secret, config_map : str
        Name of what is mounted.
    sub_path : str
        The part of it that is mounted.
    read_only : bool
    """

    name: str
    path: str
    claim: str = ""
    secret: str = ""
    config_map: str = ""
    sub_path: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class ClusterSpec(Model):
    """What a cluster should be; back ends that make none of other sizes read only its name.

    Parameters
    ----------
    name : str
    profile : str
        Name of the size that was asked for, or that it is made from.
    choices : Mapping
        What was chosen of that profile's fields: ``{"workers": 4}``.
    image : str
        Must have ``ray[default]`` and the Python minor version of the kernel.
    ray : str
        Version of Ray in it.
    pull_policy : str
        ``IfNotPresent``, ``Always``, ``Never``, or empty for the default of Kubernetes.
    pull_secrets : tuple of str
    head : PodSpec
    groups : tuple of WorkerGroup
        Without any, cells run on the head.
    autoscale : bool
        Ray adds and removes workers by itself. Its head then holds rights to all pods of the namespace.
    idle_seconds : float, optional
        After which the autoscaler removes an idle worker.
    service_type : str
        Of the head's service; empty for KubeRay's default.
    token_secret : str
        Secret with Ray's token under ``auth_token``; by default KubeRay makes one for the cluster.
    store_secret : str
        Secret with the connection file of the store under ``connection.json``.
    volumes : tuple of Volume
    labels, annotations : Mapping of str to str
        Of the RayCluster.
    overlay : Mapping
        Laid over the RayCluster at last, for what has no name here: see
        :func:`.clusters.kubernetes.manifest.overlaid`.
    """

    name: str = "default"
    profile: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict)
    image: str = ""
    ray: str = ""
    pull_policy: str = ""
    pull_secrets: tuple[str, ...] = ()
    head: PodSpec = PodSpec()
    groups: tuple[WorkerGroup, ...] = ()
    autoscale: bool = False
    idle_seconds: float | None = None
    service_type: str = ""
    token_secret: str = ""
    store_secret: str = ""
    volumes: tuple[Volume, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    overlay: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterInfo(Model):
    """What is known of a cluster at one moment; holds no secret.

    Parameters
    ----------
    name : str
    kind : str
        ``embedded``, ``address`` or ``kubernetes``.
    phase : ClusterPhase
    reason, detail : str
        In words, as in :class:`JobRecord`.
    address : str
        Of Ray's Jobs API.
    dashboard : str
        For a browser.
    session : str
        Ray's session name.
    python, ray : str
        Versions on the cluster: ``3.11``, ``2.60.0``.
    profile : str
        The one that it was made from; empty where there is none.
    choices : Mapping
        The values of that profile's fields that it was made with.
    resources, used : Mapping of str to float
        ``CPU``, ``GPU``, ``memory`` (bytes) and custom ones.
    nodes : int
    workers : int, optional
        How many are wanted, as ``scale`` sets it; none where nobody can: the embedded cluster, an autoscaler.
    since : float, optional
        When this phase began.
    standbys, standby_memory : int
        Runners that wait there for a job, and the bytes that they hold.
    """

    name: str = "default"
    kind: str = ""
    phase: ClusterPhase = ClusterPhase.NONE
    reason: str = ""
    detail: str = ""
    address: str = ""
    dashboard: str = ""
    session: str = ""
    python: str = ""
    ray: str = ""
    profile: str = ""
    choices: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    used: Mapping[str, float] = field(default_factory=dict)
    nodes: int = 0
    workers: int | None = None
    since: float | None = None
    standbys: int = 0
    standby_memory: int = 0

    @property
    def can(self) -> tuple[str, ...]:
        """What its back end can do with it, in any phase: verbs of panel and REST."""
        return CAN.get(self.kind, ())
