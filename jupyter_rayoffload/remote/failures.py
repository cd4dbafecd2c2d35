"""Why a job failed, where it is not its cell's own exception; the shape is that of ``models.Failure``."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from .codec import WrongFormat
from .files import BadPackage
from .libraries import differing, installed, name_and_version, pin
from .store import Missing, StoreDown, StoreNoAuth, StoreOutOfMemory, Tampered

__all__ = [
    "CANCELLED",
    "NOT_THE_CELL",
    "Unready",
    "beyond_memory",
    "crash",
    "failure_of",
    "import_hint",
    "missing_library",
    "worker_died",
]

#: Exit codes of the runner.
NOT_THE_CELL = 3
CANCELLED = 143

#: What those who read the record call the store's errors (names of the package's ``errors``), and what to do.
_STORE: dict[type[Exception], tuple[str, str]] = {
    Missing: ("Expired", "Run the cell again from its notebook: that sends everything anew"),
    Tampered: (
        "Forged",
        "Nothing of it was used. Look into who else can write to the store, then run the cell again",
    ),
    WrongFormat: (
        "FormatMismatch",
        "Use the same version of jupyter_rayoffload and of Python here and there",
    ),
    StoreDown: ("StoreUnreachable", "Check that the cluster can reach the store, then run the cell again"),
    StoreNoAuth: ("StoreRefused", "Check the connection file on the cluster's nodes"),
    StoreOutOfMemory: ("StoreFull", "Delete old jobs, make outputs smaller, or give the store more memory"),
}


class Unready(Exception):
    """The cell cannot be run; carries the failure."""

    def __init__(self, failure: dict[str, Any]) -> None:
        super().__init__(failure["message"])
        self.failure = failure


def failure_of(error: BaseException, doing: str, needed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Give the failure for an error that is not the cell's.

    Parameters
    ----------
    error : BaseException
    doing : str
        What went on: ``loading the inputs``.
    needed : Mapping of str to str, optional
        Libraries of the notebook, as :func:`.libraries.requirements` gives them there.
    """
    needed = needed or {}
    for kind, (reason, hint) in _STORE.items():
        if isinstance(error, kind):
            return {"reason": reason, "message": f"{_capital(doing)}: {error}", "hint": hint}
    if isinstance(error, BadPackage):
        hint = "Run the cell again: that packs the workspace anew"
        return {"reason": "WorkspaceError", "message": f"{_capital(doing)}: {error}", "hint": hint}
    library = missing_library(error)
    if library:
        root = library.partition(".")[0]
        return {
            "reason": "MissingLibrary",
            "message": f"{_capital(doing)}: the cluster has no module named {library!r}",
            "hint": import_hint(library, needed) or f"Add it with --pip {root}, or use an image that has it",
        }
    return {
        "reason": "EnvironmentFailed",
        "message": f"{_capital(doing)} failed: {type(error).__name__}: {error}",
        "hint": _other_versions(needed)
        or "Most often a library has another version there than here: pin it with --pip",
    }


def import_hint(module: str, needed: Mapping[str, str]) -> str:
    """Say which version of a module's library the notebook has, and how to get it there.

    Parameters
    ----------
    module : str
        What could not be imported.
    needed : Mapping of str to str
        As for :func:`failure_of`.

    Returns
    -------
    str
        Empty for a module of which the notebook has said nothing.
    """
    root = module.partition(".")[0]
    if root not in needed:
        return ""
    if installed({root: needed[root]})[root]:  # the library is there, and lacks a part
        return _other_versions({root: needed[root]})
    name, version = name_and_version(needed[root])
    add = f"Add it with --pip {pin(needed[root])}, or use an image that has it"
    return f"The notebook has {name} {version}. {add}" if version else add


def _other_versions(needed: Mapping[str, str]) -> str:
    """Say which libraries have other versions here, on the cluster, than in the notebook."""
    there = installed(needed)
    roots = differing(needed, there, all_=True)
    if not roots:
        return ""
    pairs = {root: name_and_version(needed[root]) for root in roots}
    said = ", ".join(f"{name} {there[root]} where the notebook has {v}" for root, (name, v) in pairs.items())
    pins = " ".join(pin(needed[root]) for root in roots)
    return f"The cluster has {said}. Most often that is why: --pip {pins} gives it the same"


def beyond_memory(size: int) -> dict[str, Any]:
    """Give the failure of a cell that needed more than the `size` bytes of memory that it asked for."""
    # In the units of the asking, as `models.job.memory_words` says it here.
    units = (10**9, "GB"), (10**6, "MB")
    if size % 2**20 == 0 or size % 10**6:
        units = (2**30, "GiB"), (2**20, "MiB")
    unit, word = units[0] if size >= units[0][0] else units[1]
    return {
        "reason": "OutOfMemory",
        "message": f"The cell needed more than the {size / unit:.3g} {word} that it asked for",
        "hint": "Ask for more with --memory, or let the cell use less",
    }


def missing_library(error: BaseException | None) -> str:
    """Give the module that could not be imported, if that is behind `error`; else ``""``."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ModuleNotFoundError):
            return error.name or str(error)
        error = error.__cause__ or error.__context__
    return ""


def crash(status: int, out_of_memory: bool) -> tuple[dict[str, Any], int]:
    """Give failure and exit code for a cell's process that ended without a word.

    Parameters
    ----------
    status : int
        As ``os.waitpid`` gives it.
    out_of_memory : bool
        Whether the container has killed a process for want of memory meanwhile.
    """
    number = status & 0x7F
    if number == signal.SIGKILL and out_of_memory:
        failure = {
            "reason": "OutOfMemory",
            "message": "The cell's process was killed: its node has no more memory",
            "hint": "Ask for more with --memory, or let the cell use less",
        }
    elif number == signal.SIGKILL:
        failure = {
            "reason": "JobCrashed",
            "message": "The cell's process was killed (SIGKILL)",
            "hint": "Most often the node ran out of memory: ask for more with --memory, or use less",
        }
    elif number:
        failure = {
            "reason": "JobCrashed",
            "message": f"The cell's process was ended by signal {number} ({_signal_name(number)})",
            "hint": "A library crashed, or someone ended the process; the log has its last words",
        }
    else:
        failure = {
            "reason": "JobCrashed",
            "message": f"The cell's process ended with exit code {status >> 8} before the cell did",
            "hint": "Something in the cell calls os._exit; what was printed until then is in the log",
        }
    return failure, 128 + number if number else (status >> 8 or NOT_THE_CELL)


def worker_died(error: BaseException) -> tuple[dict[str, Any], bool]:
    """Give the failure of an item whose Ray task never came back, and whether to run it again.

    Parameters
    ----------
    error : Exception
        What Ray raised; known by its name, so that Ray is not imported here.
    """
    name = type(error).__name__
    if name == "OutOfMemoryError":
        return {
            "reason": "OutOfMemory",
            "message": "The worker of the item was killed: its node has no more memory",
            "hint": "Ask for more with --memory, run fewer at once with --max-parallel, or use less",
        }, True
    if name in ("WorkerCrashedError", "NodeDiedError", "ObjectLostError", "OwnerDiedError"):
        return {
            "reason": "JobCrashed",
            "message": "The worker of the item died (SIGKILL, a crash in C code, os._exit), each time",
            "hint": "Most often the node ran out of memory: ask for more with --memory, or use less",
        }, True
    if name == "TaskUnschedulableError":
        return {
            "reason": "NotEnoughResources",
            "message": f"Ray has no place for the item: {error}",
            "hint": "Ask for less, or make the cluster larger",
        }, False
    return failure_of(getattr(error, "cause", None) or error, "running the item"), False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
