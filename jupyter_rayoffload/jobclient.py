"""What the Jobs API is, whoever serves it: the protocol of its clients, and what they give and refuse."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .errors import UsageError

__all__ = ["LIVE", "SUBMISSION_ID", "ClusterStatus", "JobClient", "JobInfo", "check_submission"]

#: Linux takes no argument or variable beyond 128 KiB, and a job with a larger one wedges its node. Half of it
#: is room for what Ray adds.
VALUE_LIMIT = 64 << 10
#: ``client_max_size`` of the dashboard agent's aiohttp application (1 MiB), less what Ray adds.
BODY_LIMIT = 960 << 10
#: Ray's statuses of a job that has not ended.
LIVE = ("PENDING", "RUNNING")
#: Ray takes other ids, and then cannot find them again.
SUBMISSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class JobInfo:
    """What Ray knows of one submission.

    Parameters
    ----------
    submission_id : str
        Empty for a driver that was not submitted, such as a notebook that has called ``ray.init``.
    status : str
        ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``. RUNNING may be stale for ever
        after the head has been restarted.
    message : str
    error_type : str
        ``RUNTIME_ENV_SETUP_FAILURE`` and the like (``JobErrorType`` of Ray).
    start, end : float, optional
        Seconds since the epoch.
    exit_code : int, optional
        Of the driver.
    node_id : str
        Where the driver runs.
    entrypoint : str
    metadata : Mapping of str to str
    """

    submission_id: str
    status: str
    message: str = ""
    error_type: str = ""
    start: float | None = None
    end: float | None = None
    exit_code: int | None = None
    node_id: str = ""
    entrypoint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether Ray says that it has not ended."""
        return self.status in LIVE

    def verdict(self) -> dict[str, Any]:
        """Give what :func:`.phase.advance` takes as the event ``ray``."""
        return {
            "status": self.status,
            "message": self.message,
            "exit_code": self.exit_code,
            "error_type": self.error_type,
        }

    @classmethod
    def from_ray(cls, data: Mapping[str, Any]) -> JobInfo:
        """Read Ray's ``JobDetails``."""
        return cls(
            submission_id=data.get("submission_id") or "",
            status=data["status"],
            message=data.get("message") or "",
            error_type=data.get("error_type") or "",
            start=_seconds(data.get("start_time")),
            end=_seconds(data.get("end_time")),
            exit_code=data.get("driver_exit_code"),
            node_id=data.get("driver_node_id") or "",
            entrypoint=data.get("entrypoint") or "",
            metadata=data.get("metadata") or {},
        )


def _seconds(milliseconds: int | None) -> float | None:
    # Ray says 0 where it does not know.
    return milliseconds / 1000 if milliseconds else None


@dataclass(frozen=True)
class ClusterStatus:
    """What a cluster has, uses and lacks; Ray renews the last two every five seconds.

    Parameters
    ----------
    nodes : int
        Live ones.
    resources, used : Mapping of str to float
        ``CPU``, ``GPU``, ``memory`` (bytes) and custom ones.
    waiting : tuple of (Mapping of str to float, int)
        What tasks and actors wait for, and how many of them.
    """

    nodes: int
    resources: Mapping[str, float]
    used: Mapping[str, float]
    waiting: tuple[tuple[Mapping[str, float], int], ...] = ()


class JobClient(Protocol):
    """The Jobs API of one cluster."""

    async def version(self) -> dict[str, str]:
        """Give ``ray_version`` and ``session_name``: another one means another head."""

    async def python_version(self) -> str:
        """Give the cluster's Python version, ``3.11.7``; empty where the cluster does not tell."""

    async def cluster_status(self) -> ClusterStatus:
        """Look at nodes and resources."""

    async def has_package(self, name: str) -> bool:
        """Tell whether the cluster has the package; if so, it keeps it for ten more minutes."""

    async def put_package(self, name: str, path: Path) -> None:
        """Upload a package; jobs then name it ``gcs://NAME``."""

    async def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> str:
        """Submit a job under our own id; safe to repeat. `resources`: CPU, GPU, memory, ... of its driver."""

    async def info(self, submission_id: str) -> JobInfo | None:
        """Look at one job; None if there is none of that id."""

    async def list(self) -> list[JobInfo]:
        """Look at all jobs, also at drivers that were not submitted."""

    async def stop(self, submission_id: str) -> bool:
        """Ask Ray to stop the job; False if there was nothing to stop."""

    async def delete(self, submission_id: str) -> bool:
        """Forget an ended job; False if there is none. Its id must never be used again."""

    async def logs(self, submission_id: str) -> str:
        """Give all that the driver has printed so far."""

    async def aclose(self) -> None:
        """Close the connections."""


def check_submission(
    submission_id: str,
    entrypoint: str,
    runtime_env: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> None:
    """Refuse what Ray would take and then choke on.

    Raises
    ------
    UsageError
        The id has other letters, or a value is too large.
    """
    if not SUBMISSION_ID.fullmatch(submission_id):
        raise UsageError(
            f"{submission_id!r} cannot be a submission id",
            "It has 1 to 64 letters, digits, - and _",
        )
    values = {"the entrypoint": entrypoint, "the metadata": json.dumps(dict(metadata))}
    values |= {f"the variable {k}": f"{k}={v}" for k, v in (runtime_env.get("env_vars") or {}).items()}
    for what, value in values.items():
        if (size := len(value.encode())) > VALUE_LIMIT:
            raise UsageError(
                f"{what} has {size:,} bytes; Ray takes no more than {VALUE_LIMIT:,}",
                "Pass large values as inputs of the cell, or in a file of the workspace",
            )
    if (size := len(json.dumps(runtime_env))) > BODY_LIMIT:
        raise UsageError(
            f"the runtime environment has {size:,} bytes; Ray takes no more than {BODY_LIMIT:,}",
            "Put lists of requirements and variables into files of the workspace",
        )
