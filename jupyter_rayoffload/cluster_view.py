"""What a panel shows of a cluster, and what it offers: a JSON tree of ready words, as in :mod:`.view`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import words
from .errors import OffloadError
from .models import ClusterInfo, ClusterPhase

__all__ = ["RESTING", "History", "Request", "cluster_view"]

Json = dict[str, Any]

#: Phases in which a cluster stays by itself, and nothing is wrong.
RESTING = (ClusterPhase.NONE, ClusterPhase.RUNNING, ClusterPhase.SUSPENDED)
#: So many of the last changes are shown.
REMEMBERED = 6

#: What makes sense in each phase, of what the back end can do; as buttons, in this order.
_VERBS = {
    ClusterPhase.NONE: ("start",),
    ClusterPhase.STARTING: ("delete",),
    ClusterPhase.RUNNING: ("suspend", "delete"),
    ClusterPhase.STOPPING: ("delete",),
    ClusterPhase.SUSPENDED: ("resume", "delete"),
    ClusterPhase.FAILED: ("start", "delete"),
    ClusterPhase.UNKNOWN: (),
}
_SCALED = (ClusterPhase.STARTING, ClusterPhase.RUNNING)
_VERB_ICONS = {"resume": "start"}


@dataclass(frozen=True)
class Request:
    """What a panel was asked for last.

    Parameters
    ----------
    verb : str
        Under way; empty when nothing is.
    at : float
        Since when, seconds since the epoch.
    workers : int, optional
        How many, where that was asked for.
    error : OffloadError, optional
        Why what was asked for before could not be done.
    """

    verb: str = ""
    at: float = 0.0
    workers: int | None = None
    error: OffloadError | None = None


@dataclass(frozen=True)
class History:
    """The last phases of a cluster and what was said in them, as one panel has seen them.

    Parameters
    ----------
    entries : tuple of Mapping
        ``{at, state, word, text}``, the newest last.
    """

    entries: tuple[Mapping[str, Any], ...] = ()

    def after(self, info: ClusterInfo, now: float) -> History:
        """Give the history with `info`; a number that counts on is no change.

        Parameters
        ----------
        info : ClusterInfo
        now : float
            Seconds since the epoch.
        """
        text = words.capital(info.reason)
        entry = {"state": words.icon(info.phase), "word": words.cluster_word(info.phase), "text": text}
        last = self.entries[-1] if self.entries else None
        moved = last is None or last["word"] != entry["word"]
        if last is not None and not moved and _still(last["text"]) == _still(text):
            return History((*self.entries[:-1], {**last, "text": text}))
        at = info.since if moved and info.since else now
        return History((*self.entries, {"at": at, **entry})[-REMEMBERED:])


def _still(text: str) -> str:
    return re.sub(r"[\d.,]+", "", text)


def cluster_view(
    info: ClusterInfo,
    profiles: Sequence[Mapping[str, Any]] = (),
    history: History = History(),
    request: Request = Request(),
) -> Json:
    """Give all that a panel shows of a cluster.

    Parameters
    ----------
    info : ClusterInfo
    profiles : sequence of Mapping
        What a new cluster can be: ``{name, title, description, default, fields}``.
    history : History
    request : Request

    Returns
    -------
    dict
        JSON-ready; the keys are those of ``static/cluster.js``.
    """
    word, fault = words.cluster_word(info.phase), _fault(info, request.error)
    form = _form(info, profiles)
    said = [f"Cluster {info.name}: {word}", words.capital(info.reason), fault["main"] if fault else ""]
    return {
        "name": info.name,
        "group": f"Cluster {info.name}",
        "state": words.icon(info.phase),
        "word": word,
        "status": ". ".join(filter(None, said)),
        "busy": words.cluster_asked(request.verb, request.at, request.workers) if request.verb else "",
        "actions": _actions(info, request, form is not None),
        "meters": _meters(info),
        "workers": _workers(info, request),
        "form": form,
        "lines": [
            line for line in (words.cluster_reason(info), info.detail, _facts(info), _standbys(info)) if line
        ],
        "fault": fault,
        "history": [dict(entry) for entry in history.entries] if len(history.entries) > 1 else [],
        "words": words.CLUSTER_WORDS,
    }


def _actions(info: ClusterInfo, request: Request, form: bool) -> list[Json]:
    """Give the buttons: only those that make sense now; while one is under way the others rest.

    A deletion may displace what is under way: nobody must wait for a start that is not wanted any more.
    """
    out = []
    for verb in _VERBS[info.phase]:
        if verb in info.can and not (verb == "start" and form):
            out.append(
                _verb(verb, info, rests=bool(request.verb) and (verb, request.verb) != ("delete", "start"))
            )
    if info.dashboard and info.phase is ClusterPhase.RUNNING:
        link = {"do": "dashboard", "icon": "dashboard", "label": "Open Ray dashboard", "text": False}
        out.insert(0, {**link, "href": info.dashboard})
    return out


def _verb(verb: str, info: ClusterInfo, rests: bool) -> Json:
    action: Json = {
        "do": verb,
        "icon": _VERB_ICONS.get(verb, verb),
        "label": verb.capitalize(),
        "text": verb in ("start", "resume"),
        "rests": rests,
    }
    asked = words.cluster_warning(verb, info.name)
    return {**action, "confirm": {"question": asked, "keep": "Keep it"}} if asked else action


def _fault(info: ClusterInfo, error: OffloadError | None) -> Json | None:
    """Give why something could not be done; what the state says already is not said twice."""
    if error is None or words.capital(error.message) == words.capital(info.reason):
        return None
    return {"main": words.stop(words.capital(error.message)), "second": words.stop(error.hint)}


def _form(info: ClusterInfo, profiles: Sequence[Mapping[str, Any]]) -> Json | None:
    if not profiles or info.phase is not ClusterPhase.NONE or "start" not in info.can:
        return None
    return {"profiles": [dict(profile) for profile in profiles]}


def _workers(info: ClusterInfo, request: Request) -> Json | None:
    """Give the wanted number of workers, where it can be changed now."""
    if info.workers is None or "scale" not in info.can or info.phase not in _SCALED:
        return None
    return {"count": info.workers, "text": words.workers_text(info.workers), "rests": bool(request.verb)}


def _meters(info: ClusterInfo) -> list[Json]:
    """Give what is in use; a number that nobody has said yet is not shown as a zero."""
    if info.phase is not ClusterPhase.RUNNING:
        return []
    rows: list[Json] = []
    for name, title in (("CPU", "CPU"), ("memory", "Memory"), ("GPU", "GPU")):
        total, used = info.resources.get(name), info.used.get(name)
        if not total:
            continue
        memory = name == "memory"
        if used is None:
            all_of_it = words.memory_text(total) if memory else words.number_text(total)
            rows.append({"name": title, "share": None, "text": f"{all_of_it} in all"})
        else:
            text = words.amount_text(used, total, memory=memory)
            rows.append({"name": title, "share": used / total, "text": text})
    return rows


def _standbys(info: ClusterInfo) -> str:
    """Say what waits for the next cell, and what that costs."""
    if not info.standbys or info.phase is not ClusterPhase.RUNNING:
        return ""
    who = "1 standby waits" if info.standbys == 1 else f"{words.number_text(info.standbys)} standbys wait"
    return f"{who} for the next cell: {words.size_text(info.standby_memory)} of memory"


def _facts(info: ClusterInfo) -> str:
    nodes = "1 node" if info.nodes == 1 else f"{words.number_text(info.nodes)} nodes"
    facts = [nodes] if info.nodes else []
    facts += [f"Ray {info.ray}"] if info.ray else []
    facts += [f"Python {info.python}"] if info.python else []
    if info.address and not info.dashboard:  # no browser gets there by a link: it may be inside Kubernetes
        facts.append(f"`{info.address}`")
    return " · ".join(facts)
