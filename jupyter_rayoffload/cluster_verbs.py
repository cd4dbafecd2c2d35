"""``%ray cluster``: the panel, and the verbs that do the same without it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from .errors import OffloadError, UsageError
from .models import ClusterInfo, JobRecord
from .options import parse_up
from .words import cluster_sentence

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .panel import ClusterPanel
    from .session import Session

__all__ = ["CLUSTER_VERBS", "show_panel"]

#: How long a verb may take (beside the time to start) before the prompt comes back, seconds.
VERB_SECONDS = 120.0


def _up(session: Session, words: list[str]) -> None:
    asked = parse_up(words)
    told: list[str] = []

    def on_change(info: ClusterInfo) -> None:
        if info.reason and info.reason not in told:
            told.append(info.reason)
            print(info.reason)

    config = session.config
    limit = max(config.start_timeout, config.kubernetes_start_timeout) + VERB_SECONDS
    connect = session.offloader.connect(asked.name, asked.profile, on_change, asked.choices)
    link = session.call(connect, timeout=limit)
    print(cluster_sentence(session.call(session.offloader.backend.get(link.info.name))))


def _down(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    if words not in ([], ["--force"]):
        raise UsageError(f"%ray cluster down: expected nothing or --force, not {' '.join(words)!r}")
    running = _running(session, name)
    if running and not words:
        names = ", ".join(r.id for r in running)
        raise UsageError(
            f"%ray cluster down would end {len(running)} running job{'s' * (len(running) > 1)}: {names}",
            "Wait for them, cancel them, or say %ray cluster down --force",
        )
    session.call(session.offloader.down(name), timeout=VERB_SECONDS)
    print("The cluster is down. Records and results stay in its store")


def _running(session: Session, name: str) -> list[JobRecord]:
    """Give the jobs that would be lost; a cluster that is not up has none."""
    info = session.call(session.offloader.backend.get(name))
    if not info.address:
        return []
    try:
        records = session.call(session.offloader.records(100))
        return [r for r in records if not r.phase.ended and (r.cluster or "default") == name]
    except OffloadError:
        return []


def _scale(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    if len(words) != 1 or not words[0].isdigit():
        raise UsageError("%ray cluster scale: expected a number of workers", "%ray cluster scale 4")
    info = session.call(session.offloader.backend.scale(name, int(words[0])), timeout=VERB_SECONDS)
    print(cluster_sentence(info))


def _suspend(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    _nothing_more("suspend", words)
    print(cluster_sentence(session.call(session.offloader.backend.suspend(name), timeout=VERB_SECONDS)))


def _resume(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    _nothing_more("resume", words)
    print(cluster_sentence(session.call(session.offloader.backend.resume(name), timeout=VERB_SECONDS)))


def _named(words: list[str]) -> tuple[str, list[str]]:
    """Give the name of the cluster, and the other words."""
    if "--cluster" not in words:
        return "default", words
    at = words.index("--cluster")
    if at + 1 == len(words):
        raise UsageError("--cluster: expected the name of a cluster")
    return words[at + 1], [*words[:at], *words[at + 2 :]]


def _nothing_more(verb: str, words: list[str]) -> None:
    if words:
        raise UsageError(f"%ray cluster {verb}: {words[0]!r} is one word too many")


#: Verb -> what it does.
CLUSTER_VERBS: Mapping[str, Callable[[Session, list[str]], None]] = {
    "up": _up,
    "down": _down,
    "scale": _scale,
    "suspend": _suspend,
    "resume": _resume,
}


def show_panel(session: Session, shell: InteractiveShell) -> Any:
    """Show the cluster's panel; its sentence in a terminal."""
    info = session.call(session.offloader.backend.get("default"))
    if getattr(shell, "kernel", None) is None:
        print(cluster_sentence(info))
        return None
    from .panel import ClusterPanel

    panel = ClusterPanel(info, can=("start", "delete"))
    doing: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "start": session.offloader.connect,
        "delete": session.offloader.down,
    }

    def on_intent(verb: str, options: dict[str, Any]) -> None:
        if verb in doing:
            session.start(doing[verb]())

    panel.on_intent(on_intent)
    session.start(_watch(session, panel))
    return panel


async def _watch(session: Session, panel: ClusterPanel) -> None:
    """Keep the panel up to date for as long as its page may be open."""
    async for info in session.offloader.backend.watch("default"):
        if panel.comm is None:
            return
        panel.update(info)
