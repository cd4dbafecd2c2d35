"""Every error that a user of this package can meet.

::

    OffloadError
    ├── UsageError                a bad option, name or setting
    ├── InputError                an input cannot travel
    │   └── NotPicklable
    ├── OutputUnavailable         an output could not travel, or is no longer kept
    ├── WorkspaceError            the workspace cannot be packed
    │   └── WorkspaceTooLarge
    ├── ClusterError              the cluster cannot be used
    │   ├── ClusterUnreachable
    │   ├── ClusterNotRunning     what was asked starts none
    │   ├── ClusterRefused        no token, or a wrong one
    │   ├── ClusterMismatch       other Python minor, other Ray version
    │   ├── ClusterStartFailed
    │   └── NotEnoughResources    it can never give what was asked
    ├── StoreError                the store cannot be used
    │   ├── StoreUnreachable
    │   ├── StoreRefused          no password, or a wrong one
    │   ├── StoreFull
    │   ├── Expired               what was asked for has outlived its time
    │   ├── Forged                a signature does not match
    │   └── FormatMismatch        written by a version that this one cannot read
    ├── JobError                  a job ended, and not because of its cell's own exception
    │   ├── CellError             the cell's own exception, where its class cannot travel
    │   ├── JobCancelled
    │   ├── JobCrashed            the runner's process ended: exit, signal
    │   │   └── OutOfMemory
    │   ├── JobTimedOut
    │   ├── JobLost               the cluster, or the only process that knew of it, died
    │   ├── EnvironmentFailed     the runtime environment could not be made
    │   │   └── MissingLibrary    the cluster lacks what the cell or its inputs import
    │   └── DependencyFailed      a job that this one, or this cell, waits for failed
    ├── JobNotFound
    └── StillRunning              asked for the result of a job that has none yet
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CellError",
    "ClusterError",
    "ClusterMismatch",
    "ClusterNotRunning",
    "ClusterRefused",
    "ClusterStartFailed",
    "ClusterUnreachable",
    "DependencyFailed",
    "EnvironmentFailed",
    "Expired",
    "Forged",
    "FormatMismatch",
    "InputError",
    "JobCancelled",
    "JobCrashed",
    "JobError",
    "JobLost",
    "JobNotFound",
    "JobTimedOut",
    "MissingLibrary",
    "NotEnoughResources",
    "NotPicklable",
    "OffloadError",
    "OutOfMemory",
    "OutputUnavailable",
    "StillRunning",
    "StoreError",
    "StoreFull",
    "StoreRefused",
    "StoreUnreachable",
    "UsageError",
    "WorkspaceError",
    "WorkspaceTooLarge",
    "by_name",
]


class OffloadError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message : str
        What happened, one sentence without a full stop; names the thing.
    hint : str, optional
        What to do next, one sentence without a full stop.
    """

    #: HTTP status with which the REST interface answers.
    status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    @property
    def reason(self) -> str:
        """Name of the class: stable, for programs."""
        return type(self).__name__

    def to_json(self) -> dict[str, str]:
        """Give ``{message, reason, hint}``, the shape of every error body."""
        return {"message": self.message, "reason": self.reason, "hint": self.hint}

    def _render_traceback_(self) -> list[str]:
        """Give IPython one line instead of a traceback through our own code."""
        return [f"\x1b[31m{self.reason}\x1b[39m: {self}"]


class UsageError(OffloadError, ValueError):
    """An option, a name or a setting is not what it may be."""

    status = 400


class InputError(OffloadError):
    """An input cannot travel to the cluster."""

    status = 422


class NotPicklable(InputError):
    """A value cannot be pickled; the message has the path to the culprit."""


class OutputUnavailable(OffloadError):
    """An output could not travel, was never bound, or is no longer kept."""

    status = 404


class WorkspaceError(OffloadError):
    """The workspace cannot be packed."""

    status = 422


class WorkspaceTooLarge(WorkspaceError):
    """The workspace is beyond a limit; nothing has been sent."""

    status = 413


class ClusterError(OffloadError):
    """The cluster cannot be used."""

    status = 502


class ClusterUnreachable(ClusterError):
    """Nothing answers at the cluster's address."""

    status = 504


class ClusterNotRunning(ClusterError):
    """There is no cluster that could answer, and what was asked for starts none."""

    status = 503


class ClusterRefused(ClusterError):
    """The cluster refuses our credential, or there is none."""

    status = 403


class ClusterMismatch(ClusterError):
    """Python or Ray differ between here and the cluster, so that values cannot cross."""

    status = 409


class ClusterStartFailed(ClusterError):
    """The cluster could not be started."""


class NotEnoughResources(ClusterError):
    """The cluster can never give what the job asks for."""

    status = 409


class StoreError(OffloadError):
    """The store cannot be used."""

    status = 502


class StoreUnreachable(StoreError):
    """Nothing answers at the store's address."""

    status = 504


class StoreRefused(StoreError):
    """The store refuses our password, or there is none."""

    status = 403


class StoreFull(StoreError):
    """The store has reached its cap; nothing was cut."""

    status = 507


class Expired(StoreError):
    """What was asked for has outlived its time to live."""

    status = 410


class Forged(StoreError):
    """A signature does not match: the bytes are not what this owner wrote. Nothing was unpickled."""


class FormatMismatch(StoreError):
    """The bytes were written by a version that this one cannot read."""

    status = 409


class JobError(OffloadError):
    """A job ended without a result."""

    status = 409


class CellError(JobError):
    """The cell's own exception, where its class cannot travel.

    Parameters
    ----------
    message : str
        ``ename: evalue`` of the remote exception.
    hint : str, optional
        Why the exception itself is not here.
    ename, evalue : str
        Name of the remote class, and its text.
    traceback : list of str
        The rendered remote traceback, with terminal colours.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        ename: str = "",
        evalue: str = "",
        traceback: list[str] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.ename, self.evalue, self.traceback = ename, evalue, traceback or []

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint, self.ename, self.evalue, self.traceback)

    def _render_traceback_(self) -> list[str]:
        return self.traceback or super()._render_traceback_()


class JobCancelled(JobError):
    """The job was cancelled."""


class JobCrashed(JobError):
    """The runner's process ended before its cell did."""


class OutOfMemory(JobCrashed):
    """The job needed more memory than it asked for, or than its node has."""


class JobTimedOut(JobError):
    """The job ran longer than ``--timeout``."""


class JobLost(JobError):
    """The cluster, or the only process that knew of the job, died."""


class EnvironmentFailed(JobError):
    """The job's runtime environment could not be made."""


class MissingLibrary(EnvironmentFailed):
    """The cluster lacks a library that the cell or its inputs import."""


class DependencyFailed(JobError):
    """A job whose output is read here failed; ``__cause__`` is its error."""


class JobNotFound(OffloadError, LookupError):
    """There is no job of that id."""

    status = 404


class StillRunning(OffloadError, TimeoutError):
    """The job has not ended within the time that was given."""

    status = 409


def by_name(reason: str, message: str, hint: str = "") -> OffloadError:
    """Make the error whose class is called `reason`, as a record or a REST body names it.

    Parameters
    ----------
    reason : str
        Name of a class of this module; an unknown one gives an :class:`OffloadError`.
    message, hint : str
        As in :class:`OffloadError`.

    Returns
    -------
    OffloadError
    """
    known = globals().get(reason)
    if not (isinstance(known, type) and issubclass(known, OffloadError)):
        known = OffloadError
    return known(message, hint)
