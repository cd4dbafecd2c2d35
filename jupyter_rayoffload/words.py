"""The words of the package: numbers, sizes, times, phases and sentences; the one source for every surface.

Sentences carry three marks, so that one text serves a terminal, a record and a browser: names of the
notebook stand in backticks, ``{at:SECONDS}`` is a clock time and ``{since:SECONDS}`` a time that still runs
(both seconds since the epoch). :func:`plain` replaces them; the panel's script does the same in the
reader's own time zone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from .models import ClusterInfo, ClusterPhase, Failure, FileInfo, JobRecord, Phase, Step, Value, ValueState

__all__ = [
    "LOG_WORDS",
    "MARKS",
    "amount_text",
    "clock_text",
    "cluster_sentence",
    "cluster_warning",
    "cluster_word",
    "duration_text",
    "expression",
    "failure_word",
    "file_state",
    "icon",
    "job_name",
    "kernel_gone",
    "lines_text",
    "listing",
    "log_title",
    "meaning",
    "memory_text",
    "number_text",
    "phase_word",
    "plain",
    "sentence",
    "size_text",
    "span_text",
    "troubled",
    "value_state",
    "voices",
    "workspace_notes",
    "worth_a_rerun",
]

#: The marks of a sentence: code, a clock time, a running time.
MARKS = re.compile(r"`([^`\n]+)`|\{(at|since):(\d+(?:\.\d+)?)\}")

# ---------------------------------------------------------------------- numbers


def number_text(number: float) -> str:
    """Give a count with its thousands: ``1,021``."""
    return f"{number:,.0f}"


def lines_text(count: int) -> str:
    """Give ``1 line`` or ``105 lines``."""
    return f"{number_text(count)} {'line' if count == 1 else 'lines'}"


def size_text(size: float) -> str:
    """Give a size of data in decimal bytes, three significant figures at most: ``14.6 MB``.

    Parameters
    ----------
    size : float
        Bytes.
    """
    for unit in ("B", "kB", "MB", "GB"):
        if float(f"{size:.3g}") < 1000:
            return f"{float(f'{size:.3g}'):g} {unit}"
        size /= 1000
    return f"{float(f'{size:.3g}'):,g} TB"


def memory_text(size: float) -> str:
    """Give memory that was asked for or given, as ``--memory`` spells it: ``8 GiB``.

    Parameters
    ----------
    size : float
        Bytes.
    """
    if size < 2**30:
        return f"{size / 2**20:.3g} MiB"
    return f"{float(f'{size / 2**30:.3g}'):,g} GiB"


def amount_text(used: float, total: float, *, memory: bool = False) -> str:
    """Give what is in use of what there is: ``3 of 8``, ``21 of 32 GiB``."""
    if memory:
        return f"{float(f'{used / 2**30:.3g}'):g} of {memory_text(max(total, 2**30))}"
    return f"{float(f'{used:.3g}'):g} of {float(f'{total:.6g}'):,g}"


def duration_text(seconds: float) -> str:
    """Give a duration in two units at most: ``8 ms``, ``0.4 s``, ``38 s``, ``2 min 19 s``, ``1 h 05 min``."""
    seconds = max(0.0, seconds)
    if seconds < 0.0995:
        return f"{max(1, round(seconds * 1000))} ms" if seconds else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def clock_text(at: float) -> str:
    """Give the time of day in UTC, ``14:28:03``: the reader's zone is known to the reader's browser only."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%H:%M:%S")


def span_text(begin: float, end: float) -> str:
    """Give ``2024-06-30, 14:28:03 to 14:30:22 UTC``; the date of the end too where it is another one."""
    first, last = (datetime.fromtimestamp(t, timezone.utc) for t in (begin, end))
    until = f"{last:%H:%M:%S}" if first.date() == last.date() else f"{last:%Y-%m-%d, %H:%M:%S}"
    return f"{first:%Y-%m-%d, %H:%M:%S} to {until} UTC"


def listing(names: Iterable[str]) -> str:
    """Give names in code type with commas: ```a`, `b```."""
    return ", ".join(f"`{name}`" for name in names)


def plain(text: str, now: float | None = None, code: str = "{}") -> str:
    """Replace the marks of a sentence; clock times are UTC and say so.

    Parameters
    ----------
    text : str
    now : float, optional
        Until when running times count, seconds since the epoch.
    code : str
        Format of a name in code type: ``"{}"`` for plain text, ``"<code>{}</code>"`` for HTML.
    """

    def word(match: re.Match[str]) -> str:
        if match[1] is not None:
            return code.format(match[1])
        at = float(match[3])
        if match[2] == "at":
            return f"{clock_text(at)} UTC"
        return duration_text((time.time() if now is None else now) - at)

    return MARKS.sub(word, text)


# ---------------------------------------------------------------------- phases

_PHASE_WORDS = {
    Phase.PACKAGING: "Packaging",
    Phase.STARTING_CLUSTER: "Starting cluster",
    Phase.UPLOADING: "Uploading",
    Phase.PENDING: "Pending",
    Phase.RUNNING: "Running",
    Phase.SUCCEEDED: "Succeeded",
    Phase.FAILED: "Failed",
    Phase.CANCELLED: "Cancelled",
    Phase.LOST: "Lost",
}
_PREPARING = (Phase.PACKAGING, Phase.STARTING_CLUSTER, Phase.UPLOADING)
_CLUSTER_WORDS = {
    ClusterPhase.NONE: "Not started",
    ClusterPhase.STARTING: "Starting",
    ClusterPhase.RUNNING: "Running",
    ClusterPhase.SUSPENDED: "Suspended",
    ClusterPhase.FAILED: "Failed",
    ClusterPhase.UNKNOWN: "Unknown",
}

#: What failed, in a word or two beside the time; a class that is not here has its sentence only.
_FAILURE_WORDS = {
    "OutOfMemory": "out of memory",
    "JobTimedOut": "timed out",
    "JobCrashed": "process ended",
    "EnvironmentFailed": "environment",
    "MissingLibrary": "library missing",
    "DependencyFailed": "an earlier job failed",
    "NotEnoughResources": "not enough resources",
    "ClusterUnreachable": "cluster unreachable",
    "ClusterRefused": "cluster refused",
    "ClusterMismatch": "versions differ",
    "ClusterStartFailed": "cluster did not start",
    "StoreUnreachable": "store unreachable",
    "StoreRefused": "store refused",
    "StoreFull": "store full",
    "NotPicklable": "input cannot travel",
    "InputError": "input cannot travel",
    "WorkspaceTooLarge": "workspace too large",
    "WorkspaceError": "workspace",
}


#: Labels of the log's controls and counts; ``{n}``, ``{i}`` are numbers that the front end puts in.
LOG_WORDS = {
    "title": "Log",
    "line": "{n} line",
    "lines": "{n} lines",
    "search": "Search the log",
    "follow": "Follow new lines",
    "wrap": "Wrap long lines",
    "copy": "Copy the log",
    "show": "Show the log",
    "hide": "Hide the log",
    "case": "Match case",
    "previous": "Previous match",
    "next": "Next match",
    "close": "Close search",
    "match": "{i} of {n}",
    "none": "no match",
    "held": "{i} of {n} in the lines at hand",
    "copied": "Copied",
    "asked": "Asked for: a busy kernel answers when its cell has ended",
    "steps": "Steps",
    "done": "done",
    "failed": "failed",
    "lost": "lost",
}


def phase_word(phase: Phase) -> str:
    """Give the word that every surface shows for `phase`."""
    return _PHASE_WORDS[phase]


def cluster_word(phase: ClusterPhase) -> str:
    """Give the word that every surface shows for a cluster's `phase`."""
    return _CLUSTER_WORDS[phase]


def icon(phase: Phase | ClusterPhase) -> str:
    """Give the name of the state's drawing, which is its ``jp-mod-`` class too: ``preparing``, ``lost``."""
    if phase in _PREPARING or phase is ClusterPhase.STARTING:
        return "preparing"
    value: str = phase.value
    return value


def job_name(record: JobRecord) -> str:
    """Give the name that people see: the label, or the id where there is none."""
    return record.spec.label or record.id


def failure_word(failure: Failure) -> str:
    """Give what failed in a word or two, or ``""``."""
    return _FAILURE_WORDS.get(failure.reason, "")


# ---------------------------------------------------------------------- values and files


def value_state(value: Value) -> str:
    """Give the state of an input or output with its reason: ``cannot travel: an open file``."""
    if value.state is None:
        return ""
    if value.state is ValueState.CANNOT_TRAVEL and value.reason:
        return f"{value.state.value}: {value.reason}"
    if value.state is ValueState.KEPT:
        return "kept in the store"
    return value.state.value


def file_state(file: FileInfo) -> str:
    """Give what has become of a file that the cell made or changed."""
    if file.state == "kept here":
        return "not overwritten: " + (file.reason or "changed here meanwhile")
    word = "not fetched" if file.state == "there" else file.state
    return f"{word}: {file.reason}" if file.reason else word


def _missing(record: JobRecord) -> list[Value]:
    return [v for v in record.outputs if v.state in (ValueState.NOT_LANDED, ValueState.CANNOT_TRAVEL)]


def troubled(record: JobRecord) -> bool:
    """Whether a job that succeeded needs a decision: something did not land, or could not travel."""
    return record.phase is Phase.SUCCEEDED and bool(_missing(record))


# ---------------------------------------------------------------------- sentences


def sentence(record: JobRecord) -> str:
    """Say what is waited for, or what happened: the main voice.

    Parameters
    ----------
    record : JobRecord

    Returns
    -------
    str
        With the marks of this module; ``""`` where there is nothing to say (the log speaks).
    """
    if record.phase is Phase.SUCCEEDED:
        return _landing(record)
    if record.phase is Phase.CANCELLED:
        return _cancelled(record)
    if record.failure is not None and record.phase.ended:
        failure = record.failure
        if failure.ename:
            return f"{failure.ename}: {failure.evalue}" if failure.evalue else failure.ename
        return _capital(failure.message)
    if record.phase.ended:
        return _capital(record.reason) or "Nothing says why"
    return _capital(record.reason) or _DOING.get(record.phase, "")


_DOING = {
    Phase.PACKAGING: "Packing the workspace",
    Phase.STARTING_CLUSTER: "Starting the cluster",
    Phase.UPLOADING: "Sending the inputs",
    Phase.PENDING: "Waiting for the job to start",
}


def meaning(record: JobRecord) -> str:
    """Say what that means, and what to do: the second voice.

    Parameters
    ----------
    record : JobRecord

    Returns
    -------
    str
        Sentences with full stops, with the marks of this module, or ``""``.
    """
    if not record.phase.ended:
        return " ".join(filter(None, [_stop(record.detail), *workspace_notes(record)]))
    if record.phase is Phase.SUCCEEDED:
        return _where_values_are(record)
    failure = record.failure
    if record.phase is Phase.CANCELLED or failure is None:
        return ""
    known = _came_back(record)
    return " ".join(filter(None, [_stop(_capital(failure.hint)), known]))


def voices(record: JobRecord) -> tuple[str, str]:
    """Give :func:`sentence` and :func:`meaning` as they stand together.

    A job that ended well has its table to say so, a traceback says itself what happened; and the first of two
    sentences ends with a full stop.
    """
    main, second = sentence(record), meaning(record)
    failure = record.failure
    said = failure is not None and bool(failure.ename and failure.traceback)
    if said or (record.phase is Phase.SUCCEEDED and not troubled(record)):
        main = ""
    return (_stop(main) if record.phase.ended and second else main), second


#: Of these failures the same job may well be free the next time; of all others the cell must change first.
_WORTH_A_RERUN = frozenset(
    {
        "ClusterStartFailed",
        "ClusterUnreachable",
        "EnvironmentFailed",
        "JobCrashed",
        "JobLost",
        "JobTimedOut",
        "OffloadError",
        "OutOfMemory",
        "StoreFull",
        "StoreUnreachable",
    }
)


def worth_a_rerun(record: JobRecord) -> bool:
    """Whether the same job may be started again, and that may help."""
    inputs = record.steps.get("inputs", Step())
    # The store has what a rerun needs before the first submission.
    if not record.attempt and (inputs.end is None or record.spec.after):
        return False
    failure = record.failure
    if record.phase in (Phase.FAILED, Phase.LOST) and failure is not None:
        return not failure.ename and failure.reason in _WORTH_A_RERUN
    return record.phase.ended


def _landing(record: JobRecord) -> str:
    missing = _missing(record)
    if missing:
        return ". ".join(_missed(v) for v in missing)
    landed = [v.name for v in record.outputs if v.state is ValueState.LANDED]
    kept = [v.name for v in record.outputs if v.state is ValueState.KEPT]
    parts = [f"{listing(landed)} landed"] if landed else []
    parts += [f"{listing(kept)} kept in the store"] if kept else []
    return " · ".join(parts)


def _missed(value: Value) -> str:
    if value.state is ValueState.CANNOT_TRAVEL:
        return f"`{value.name}` cannot travel" + (f": {value.reason}" if value.reason else "")
    return f"`{value.name}` did not land" + (f": {value.reason}" if value.reason else "")


def _where_values_are(record: JobRecord) -> str:
    there = [v.name for v in _missing(record) if v.state is ValueState.NOT_LANDED]
    if not there:
        return ""
    places = listing(f'{expression(record)}.outputs["{name}"]' for name in there)
    return f"The job’s {'value is' if len(there) == 1 else 'values are'} in {places}."


def expression(record: JobRecord) -> str:
    """Give the Python expression for the job: its name in the notebook, or how to attach to it."""
    label = record.spec.label
    if label.isidentifier():
        return label
    return f'jupyter_rayoffload.attach("{record.id}")'


def _cancelled(record: JobRecord) -> str:
    who = record.reason or "Cancelled"
    when = f" at {{at:{record.ended:.0f}}}" if record.ended else ""
    names = [v.name for v in record.outputs] or list(record.spec.expected)
    if not names:
        return f"{_capital(who)}{when}"
    are = "is what it was" if len(names) == 1 else "are what they were"
    return f"{_capital(who)}{when}. Nothing landed; {_joined(names)} {are}."


def _came_back(record: JobRecord) -> str:
    """Say where to find what was assigned before an error."""
    names = [v.name for v in record.outputs if v.state is not ValueState.CANNOT_TRAVEL]
    if not names:
        return ""
    return f"What was assigned before is in `{expression(record)}.outputs`: {listing(names)}."


def workspace_notes(record: JobRecord) -> list[str]:
    """Say what stayed behind of the workspace, and what else is to be known of it."""
    names, notes = record.spec.left_behind, [_stop(_capital(note)) for note in record.spec.notes]
    if not names:
        return notes
    shown, more = names[:5], len(names) - 5
    tail = f" and {number_text(more)} more" if more > 0 else ""
    verb = "Stays behind because it" if len(names) == 1 else "Stay behind because they"
    return [f"{verb} may hold secrets: {listing(shown)}{tail}.", *notes]


def kernel_gone(record: JobRecord) -> tuple[str, str]:
    """Say what a panel says whose kernel has gone: main and second voice."""
    return (
        "This panel lost its kernel; the job goes on without it",
        f"Run `%ray attach {record.id}` in a cell.",
    )


def log_title(total: int, shown: int) -> str:
    """Give the title of a log's end: ``Log: the last 3 of 105 lines``."""
    if shown >= total:
        return f"Log: {lines_text(total)}"
    return f"Log: the last {number_text(shown)} of {lines_text(total)}"


def cluster_sentence(info: ClusterInfo) -> str:
    """Say of a cluster what is waited for, or how long it has been so."""
    if info.reason:
        return _capital(info.reason)
    if info.phase is ClusterPhase.NONE:
        return "The first cell starts it"
    if info.phase is ClusterPhase.SUSPENDED:
        return "Costs nothing; the next cell wakes it"
    if info.phase is ClusterPhase.RUNNING and info.since:
        return f"Up for {{since:{info.since:.0f}}}"
    return ""


def cluster_warning(verb: str, name: str) -> str:
    """Say what will be lost before it is done; ``""`` where nothing is."""
    if verb == "delete":
        return f"Delete cluster {name}? Jobs that run on it end, and nothing of them lands"
    if verb == "suspend":
        return f"Suspend cluster {name}? Jobs that run on it end; the next cell wakes it"
    return ""


def _joined(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"`{names[0]}`"
    return f"{listing(names[:-1])} and `{names[-1]}`"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _stop(text: str) -> str:
    return text if not text or text[-1] in ".!?" else text + "."
