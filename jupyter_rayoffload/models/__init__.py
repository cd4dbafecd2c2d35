"""The plain data that passes between layers; its JSON is the schema of store, panel and REST.

Everything here is frozen. Times are seconds since the epoch (UTC), sizes are bytes.
"""

from .base import Model
from .cluster import ClusterInfo, ClusterPhase, ClusterSpec, PodSpec, Volume, WorkerGroup
from .job import (
    FAILED_SHOWN,
    STEPS,
    Batch,
    FailedItem,
    Failure,
    FileInfo,
    ItemCounts,
    JobOptions,
    JobRecord,
    JobSpec,
    Phase,
    Resources,
    Step,
    Value,
    ValueState,
)
from .profile import Choice, Profile, ProfileField

__all__ = [
    "FAILED_SHOWN",
    "STEPS",
    "Batch",
    "Choice",
    "ClusterInfo",
    "ClusterPhase",
    "ClusterSpec",
    "FailedItem",
    "Failure",
    "FileInfo",
    "ItemCounts",
    "JobOptions",
    "JobRecord",
    "JobSpec",
    "Model",
    "Phase",
    "PodSpec",
    "Profile",
    "ProfileField",
    "Resources",
    "Step",
    "Value",
    "ValueState",
    "Volume",
    "WorkerGroup",
]
