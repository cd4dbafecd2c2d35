"""Jobs: what is asked for, and what is known of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .base import Model

__all__ = [
    "FAILED_SHOWN",
    "STEPS",
    "Batch",
    "FailedItem",
    "Failure",
    "FileInfo",
    "ItemCounts",
    "JobOptions",
    "JobRecord",
    "JobSpec",
    "Phase",
    "Resources",
    "Step",
    "Value",
    "ValueState",
    "memory_words",
]


class Phase(str, enum.Enum):
    """Where a job is; DESIGN of the phases in docs/architecture.md."""

    PACKAGING = "packaging"
    STARTING_CLUSTER = "starting_cluster"
    UPLOADING = "uploading"
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def ended(self) -> bool:
        """Whether nothing can follow this phase."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED, Phase.LOST)


#: The steps of the panel's strip, in order. Cluster and workspace run side by side.
STEPS = ("cluster", "workspace", "inputs", "queued", "running")


class ValueState(str, enum.Enum):
    """What has become of an input or an output; the values are the words that people see."""

    TO_SEND = "to send"
    SENT = "sent"
    REUSED = "reused"
    WAITS = "waits"
    KEPT = "kept"  # in the store, and not asked for here
    LANDED = "landed"
    NOT_LANDED = "not landed"
    CANNOT_TRAVEL = "cannot travel"


@dataclass(frozen=True)
class Value(Model):
    """An input or an output, as the panel lists it.

    Parameters
    ----------
    name : str
    type : str
        In words: ``DataFrame 1,000,000 × 12``, ``dict, 4 keys``.
    size : int, optional
        Pickled bytes, buffers included.
    state : ValueState, optional
    reason : str
        Why it cannot travel or did not land.
    job : str
        Id of the job that it waits for, or came from.
    """

    name: str
    type: str = ""
    size: int | None = None
    state: ValueState | None = None
    reason: str = ""
    job: str = ""


@dataclass(frozen=True)
class FileInfo(Model):
    """A file that the cell made or changed; `state` is ``fetched``, ``there`` or ``kept here``."""

    path: str
    size: int = 0
    state: str = "there"
    reason: str = ""


@dataclass(frozen=True)
class Step(Model):
    """One step of the strip: when it began and ended, and a word instead of its time (``reused``)."""

    begin: float | None = None
    end: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Failure(Model):
    """Why a job did not succeed.

    Parameters
    ----------
    reason : str
        Name of a class of :mod:`.errors`, or ``""`` for the cell's own exception.
    message, hint : str
        What happened, and what to do.
    ename, evalue : str
        Of the cell's own exception.
    traceback : tuple of str
        Rendered lines with terminal colours.
    line : int, optional
        Line of the cell that raised, counted as the notebook shows them (the magic is line 1).
    """

    reason: str = ""
    message: str = ""
    hint: str = ""
    ename: str = ""
    evalue: str = ""
    traceback: tuple[str, ...] = ()
    line: int | None = None


@dataclass(frozen=True)
class Resources(Model):
    """What a job asks for; None means the cluster's default.

    Parameters
    ----------
    cpus, gpus : float, optional
    memory : int, optional
        Bytes.
    custom : Mapping of str to float
    """

    cpus: float | None = None
    gpus: float | None = None
    memory: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    def by_name(self) -> dict[str, float]:
        """Give what is asked for under Ray's names: ``CPU``, ``GPU``, ``memory`` (bytes), custom ones."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **self.custom}
        return {name: float(amount) for name, amount in named.items() if amount}

    def words(self) -> str:
        """Say it: ``4 CPUs and 8 GiB of memory``; empty where nothing is asked for."""
        return " and ".join(_resource(name, amount) for name, amount in self.by_name().items())


def memory_words(size: float) -> str:
    """Say an amount of memory in the units in which it was asked for: ``8 GiB``, ``300 MB``."""
    units = (10**9, "GB"), (10**6, "MB")
    if size % 2**20 == 0 or size % 10**6:
        units = (2**30, "GiB"), (2**20, "MiB")
    unit, word = units[0] if size >= units[0][0] else units[1]
    return f"{float(f'{size / unit:.3g}'):,g} {word}"


def _resource(name: str, amount: float) -> str:
    if name == "memory":
        return f"{memory_words(amount)} of memory"
    return f"{amount:g} {name}{'s' if amount != 1 and name in ('CPU', 'GPU') else ''}"


@dataclass(frozen=True)
class Batch(Model):
    """What a job runs once for each of many items.

    Parameters
    ----------
    name : str
        What each item is called in the cell; empty where it is the argument of a call, or a program's input.
    total : int
        Number of items, those included that an earlier job has done.
    parallel : int, optional
        So many at once at most; None for as many as the cluster has room for.
    only : tuple of int, optional
        The items to run; None for all.
    kept : str
        Digest of the list of those that an earlier job has done (:mod:`.remote.chunks`); empty without any.
    kept_size : int
        Its bytes.
    first_slot : int
        Number of the first payload that this job may write: those before it are the earlier job's.
    copies : bool
        Whether the cell's own statements change inputs in place: each item gets arrays that it may write to.
    """

    name: str = ""
    total: int = 0
    parallel: int | None = None
    only: tuple[int, ...] | None = None
    kept: str = ""
    kept_size: int = 0
    first_slot: int = 0
    copies: bool = False


#: So many failed items stand in a record: it must stay small, and the handle has all of them.
FAILED_SHOWN = 5


@dataclass(frozen=True)
class FailedItem(Model):
    """One item of a batch that failed: its number, what it is and why, in words, and its seconds."""

    index: int
    value: str = ""
    error: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class ItemCounts(Model):
    """How far a batch has come.

    Parameters
    ----------
    total, succeeded, failed, running : int
        Items; all others wait.
    kept : int
        Those of `succeeded` that an earlier job has done.
    first : tuple of FailedItem
        The first that failed, :data:`FAILED_SHOWN` at most.
    """

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    running: int = 0
    kept: int = 0
    first: tuple[FailedItem, ...] = ()

    @property
    def done(self) -> int:
        """Items that have ended, well or not."""
        return self.succeeded + self.failed

    @property
    def waiting(self) -> int:
        """Items that have not begun."""
        return max(0, self.total - self.done - self.running)


@dataclass(frozen=True)
class JobOptions(Model):
    """The options of ``%%ray_job``, after parsing; :func:`.magics.parse` documents each.

    `inputs` and `outputs` None means found from the cell. `timeout` is seconds. `map` is ``NAME=EXPR`` as it
    was typed, or what a Python call is mapped over.
    """

    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    profile: str = ""
    cluster: str = ""
    resources: Resources = Resources()
    pip: tuple[str, ...] = ()
    py_modules: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    exclude: tuple[str, ...] = ()
    fetch: tuple[str, ...] = ()
    timeout: float | None = None
    retries: int = 0
    lazy: bool = False
    map: str = ""
    max_parallel: int | None = None

    # `inputs=()` (nothing) is not the same as None (find them), so empty tuples must survive JSON.
    def to_json(self) -> dict[str, Any]:
        """As :meth:`Model.to_json`, but an empty `inputs` or `outputs` stays."""
        out = super().to_json()
        for name in ("inputs", "outputs"):
            if getattr(self, name) is not None:
                out[name] = list(getattr(self, name))
        return out


@dataclass(frozen=True)
class JobSpec(Model):
    """What a job is: fixed when it is submitted, signed in the store, enough for a rerun.

    Parameters
    ----------
    id : str
        ``LABEL-6hex``, ``[A-Za-z0-9_-]{1,64}``.
    kind : str
        ``cell``, ``callable`` or ``program``.
    source : str
        The cell's text without the magic line; the entrypoint of a program.
    cell_line : str
        The magic line as typed, for line numbers and the record.
    label, owner, notebook : str
    count : int, optional
        Execution count of the cell, for ``Cell In[7]`` in tracebacks.
    created : float
    options : JobOptions
    inputs : tuple of Value
    expected : tuple of str
        Names that the cell will assign, as far as its text tells.
    watched : tuple of str
        Inputs that the cell may change: they come back if they differ afterwards.
    aliased : tuple of str
        Those of them that the notebook knows by another name, too: what the cell makes of the value counts,
        even if it binds the name anew.
    deletes : tuple of str
        Names of the notebook that the cell may delete without reading them (``except E as name``).
    after : Mapping of str to str
        Input name to the id of the job whose output it is (a chain).
    versions : Mapping of str to str
        ``python``, ``ray``, ``cloudpickle`` and the libraries of the inputs' types.
    libraries : Mapping of str to str
        What the cell imports and its inputs are made of, by module, as pip would call it and in the
        notebook's version: ``{"sklearn": "scikit-learn==1.5.2"}``. Empty where nobody shall look.
    needs : tuple of str
        Those of them without which the cell cannot even begin.
    cells : Mapping of str to list
        Cells whose functions travel: name of the code's file to ``[execution count, text]``, for tracebacks.
    package, bundle : str
        Digests of the workspace package and of the runner's own package.
    modules : tuple of str
        Digests of further packages (local modules outside the workspace).
    overlays : tuple of str
        Digests of packages that are laid over the workspace, in this order: what the jobs made that this one
        waited for, and that had not come home when its cell was run.
    left_behind : tuple of str
        Files that stay because they may hold secrets.
    notes : tuple of str
        What else the panel should say of the workspace.
    batch : Batch, optional
        The items that it is run for, one by one; None for a single run.
    """

    id: str
    kind: str = "cell"
    source: str = ""
    cell_line: str = ""
    label: str = ""
    owner: str = ""
    notebook: str = ""
    count: int | None = None
    created: float = 0.0
    options: JobOptions = JobOptions()
    inputs: tuple[Value, ...] = ()
    expected: tuple[str, ...] = ()
    watched: tuple[str, ...] = ()
    aliased: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    after: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    cells: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""
    bundle: str = ""
    modules: tuple[str, ...] = ()
    overlays: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    batch: Batch | None = None


@dataclass(frozen=True)
class JobRecord(Model):
    """All that is known of a job at one moment; :func:`.phase.advance` makes the next one.

    Parameters
    ----------
    spec : JobSpec
    phase : Phase
    cluster : str
        Name of the cluster that serves it.
    dashboard : str
        Address of the Ray dashboard for a browser; empty where there is none to open.
    reason, detail, event : str
        What is waited for in one sentence, what that means, and the raw event behind it.
    steps : Mapping of str to Step
        By the names of :data:`STEPS`.
    started, ended, last_seen : float, optional
        First and last moment of the job; last sign of life of its runner.
    inputs, outputs : tuple of Value
    files : tuple of FileInfo
    failure : Failure, optional
    exit_code : int, optional
    attempt : int
        Number of times that it was submitted so far.
    submissions : tuple of str
        Ids of the Ray submissions that served it, the newest last: ``ID-ATTEMPT``, or a standby's.
    lines : int
        Lines of log so far.
    progress : tuple of float
        ``(done, total)`` in bytes or items, or empty.
    session : str
        Ray's session name: another one means another head.
    libraries : Mapping of str to str
        Versions in which the cluster has the libraries of the specification, by module, and ``python``;
        empty text where it lacks one.
    items : ItemCounts, optional
        How far a batch has come.
    """

    spec: JobSpec
    phase: Phase = Phase.PACKAGING
    cluster: str = ""
    dashboard: str = ""
    reason: str = ""
    detail: str = ""
    event: str = ""
    steps: Mapping[str, Step] = field(default_factory=dict)
    started: float | None = None
    ended: float | None = None
    last_seen: float | None = None
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    files: tuple[FileInfo, ...] = ()
    failure: Failure | None = None
    exit_code: int | None = None
    attempt: int = 0
    submissions: tuple[str, ...] = ()
    lines: int = 0
    progress: tuple[float, ...] = ()
    session: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    items: ItemCounts | None = None

    @property
    def id(self) -> str:
        """Id of the job."""
        return self.spec.id

    @property
    def submission_id(self) -> str:
        """Id of the newest Ray submission; ``""`` before the first."""
        if self.submissions:
            return self.submissions[-1]
        return f"{self.spec.id}-{self.attempt}" if self.attempt else ""
