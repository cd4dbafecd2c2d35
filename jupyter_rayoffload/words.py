"""The words of the package: numbers, sizes, times, states; :mod:`.sentences` has what is said of jobs.

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

from .models import ClusterInfo, ClusterPhase, Failure, FileInfo, ItemCounts, Phase, Value, ValueState
from .models.job import memory_words

__all__ = [
    "CLUSTER_WORDS",
    "LOG_WORDS",
    "MARKS",
    "amount_text",
    "capital",
    "clock_text",
    "cluster_asked",
    "cluster_reason",
    "cluster_sentence",
    "cluster_warning",
    "cluster_word",
    "duration_text",
    "failure_word",
    "file_state",
    "icon",
    "jobs_lost",
    "lines_text",
    "listing",
    "log_title",
    "memory_text",
    "number_text",
    "phase_word",
    "plain",
    "size_text",
    "span_text",
    "stop",
    "value_state",
    "with_article",
    "workers_text",
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


def items_text(count: int) -> str:
    """Give a number of items: ``1 item``, ``1,000 items``."""
    return "1 item" if count == 1 else f"{number_text(count)} items"


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
    """Give memory that was asked for or given, as ``--memory`` spells it: ``8 GiB``, ``300 MB``.

    Parameters
    ----------
    size : float
        Bytes.
    """
    return memory_words(size)


def amount_text(used: float, total: float, *, memory: bool = False) -> str:
    """Give what is in use of what there is: ``3 of 8``, ``21 of 32 GiB``."""
    if memory:
        total = max(total, 2**30)
        return f"{float(f'{used / 2**30:.3g}'):g} of {float(f'{total / 2**30:.3g}'):,g} GiB"
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


def with_article(noun: str) -> str:
    """Give ``an int``, ``a dict``."""
    return f"{'an' if noun[:1].lower() in 'aeio' else 'a'} {noun}"


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
    ClusterPhase.STOPPING: "Stopping",
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

#: Of a batch so much must be done before its remaining time is told.
BATCH_SURE = 0.05

#: Jobs that are named before they are lost; of more, only the number.
MOST_NAMED = 5

#: Labels of the cluster panel's controls; ``{n}`` and the like are what the front end puts in.
CLUSTER_WORDS = {
    "asked": LOG_WORDS["asked"],
    "looking": "Looking for jobs that run on it",
    "workers": "Workers",
    "fewer": "One worker fewer",
    "more": "One worker more",
    "scale": "Scale",
    "scaled": "This is how many it has been given",
    "count": "A whole number from 0 on",
    "profile": "Profile",
    "start": "Start cluster",
    "whole": "A whole number",
    "number": "A number",
    "size": "A size such as 8GiB or 500MB",
    "choice": "One of the list",
    "between": "{least} to {most}",
    "least": "At least {least}",
    "most": "At most {most}",
    "history": "History",
}


def phase_word(phase: Phase) -> str:
    """Give the word that every surface shows for `phase`."""
    return _PHASE_WORDS[phase]


def cluster_word(phase: ClusterPhase) -> str:
    """Give the word that every surface shows for a cluster's `phase`."""
    return _CLUSTER_WORDS[phase]


def icon(phase: Phase | ClusterPhase) -> str:
    """Give the name of the state's drawing, which is its ``jp-mod-`` class too: ``preparing``, ``lost``."""
    if phase in (*_PREPARING, ClusterPhase.STARTING, ClusterPhase.STOPPING):
        return "preparing"
    return f"{phase.value}"


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
    return f"{value.state.value}"


def file_state(file: FileInfo) -> str:
    """Give what has become of a file that the cell made or changed."""
    if file.state == "kept here":
        return "not overwritten: " + (file.reason or "changed here meanwhile")
    word = "not fetched" if file.state == "there" else file.state
    return f"{word}: {file.reason}" if file.reason else word


def batch_text(items: ItemCounts) -> str:
    """Say how far a batch is: ``620 of 1,000 items``."""
    return f"{number_text(items.done)} of {items_text(items.total)}"


def batch_left(items: ItemCounts, seconds: float) -> str:
    """Say about how long a batch still takes that has come so far in `seconds`; nothing for its first 5 %."""
    done = items.done - items.kept
    todo = items.total - items.kept
    if done < max(1, BATCH_SURE * todo) or items.done >= items.total:
        return ""
    return f"about {duration_text(max(1.0, round(seconds / done * (todo - done))))} left"


def batch_counts(items: ItemCounts) -> list[tuple[str, str]]:
    """Give the counts of a batch with their states, as all surfaces show them; what there is none of, not."""
    counts = [
        ("succeeded", items.succeeded, "ok"),
        ("failed", items.failed, "failed"),
        ("running", items.running, "running"),
        ("pending", items.waiting, "waiting"),
    ]
    return [(state, f"{number_text(count)} {word}") for state, count, word in counts if count]


def failed_items(count: int) -> str:
    """Give a number of failed items: ``1 failed item``, ``8 failed items``."""
    return "1 failed item" if count == 1 else f"{number_text(count)} failed items"


def log_title(total: int, shown: int) -> str:
    """Give the title of a log's end: ``Log: the last 3 of 105 lines``."""
    if shown >= total:
        return f"Log: {lines_text(total)}"
    return f"Log: the last {number_text(shown)} of {lines_text(total)}"


def cluster_reason(info: ClusterInfo) -> str:
    """Say of a cluster what is waited for, or how long it has been so; with the marks of this module."""
    if info.reason:
        return capital(info.reason)
    if info.phase is ClusterPhase.NONE:
        return "The first cell starts it"
    if info.phase is ClusterPhase.SUSPENDED:
        return "Costs nothing; the next cell wakes it"
    if info.phase is ClusterPhase.RUNNING and info.since:
        return f"Up for {{since:{info.since:.0f}}}"
    return ""


def cluster_sentence(info: ClusterInfo, now: float | None = None) -> str:
    """Say all of a cluster in one line for a terminal: ``Cluster default: Running · up for 2 h 05 min``.

    Parameters
    ----------
    info : ClusterInfo
    now : float, optional
        Seconds since the epoch.
    """
    reason = plain(cluster_reason(info), now)
    facts = [cluster_word(info.phase), reason[:1].lower() + reason[1:] if reason[1:2].islower() else reason]
    if info.phase is ClusterPhase.RUNNING:
        for name, total in info.resources.items():
            if name in ("CPU", "memory", "GPU") and total:
                facts.append(f"{name} {amount_text(info.used.get(name, 0), total, memory=name == 'memory')}")
    return f"Cluster {info.name}: " + " · ".join(filter(None, facts))


def cluster_warning(verb: str, name: str) -> str:
    """Say what will be lost before it is done; ``""`` where nothing is."""
    if verb == "delete":
        return f"Delete cluster {name}? Jobs that run on it end, and nothing of them lands"
    if verb == "suspend":
        return f"Suspend cluster {name}? Jobs that run on it end; the next cell wakes it"
    return ""


def cluster_asked(verb: str, at: float, workers: int | None = None) -> str:
    """Say what a cluster was asked for, and how long ago; with the marks of this module."""
    since = f"{{since:{at:.0f}}}"
    if verb == "scale":
        return f"Asked for {workers_text(workers or 0)} {since} ago"
    return f"Asked to {verb} {since} ago"


def workers_text(count: int) -> str:
    """Give ``1 worker`` or ``4 workers``."""
    return f"{number_text(count)} {'worker' if count == 1 else 'workers'}"


def jobs_lost(ids: Sequence[str]) -> str:
    """Say which jobs would be lost: the first of them by their ids."""
    if not ids:
        return "No job runs on it"
    rest = len(ids) - MOST_NAMED
    more = f" and {number_text(rest)} more" if rest > 0 else ""
    if len(ids) == 1:
        return f"1 running job will be lost: `{ids[0]}`"
    return f"{number_text(len(ids))} running jobs will be lost: {listing(ids[:MOST_NAMED])}{more}"


def capital(text: str) -> str:
    """Give `text` as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def stop(text: str) -> str:
    """Give `text` with a full stop at its end."""
    return text if not text or text[-1] in ".!?" else text + "."
