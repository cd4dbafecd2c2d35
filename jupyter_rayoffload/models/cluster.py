"""Clusters: what one should be, and what is known of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from .base import Model

__all__ = ["ClusterInfo", "ClusterPhase", "ClusterSpec"]


class ClusterPhase(str, enum.Enum):
    """Where a cluster is."""

    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ClusterSpec(Model):
    """What a cluster should be; the Kubernetes back end reads more of it than the embedded one."""

    name: str = "default"
    profile: str = ""


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
    resources, used : Mapping of str to float
        ``CPU``, ``GPU``, ``memory`` (bytes) and custom ones.
    nodes : int
    since : float, optional
        When this phase began.
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
    resources: Mapping[str, float] = field(default_factory=dict)
    used: Mapping[str, float] = field(default_factory=dict)
    nodes: int = 0
    since: float | None = None
