"""``%ray cluster``: the panel, and the verbs that do the same without it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from .errors import OffloadError, UsageError
from .models import ClusterInfo, JobRecord
from .words import cluster_sentence

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .panel import ClusterPanel
    from .session import Session

__all__ = ["CLUSTER_VERBS", "show_panel"]

#: How long a verb may take (beside the time to start) before the prompt comes back, seconds.
VERB_SECONDS = 120.0


def _up(session: Session, words: list[str]) -> None:
    _nothing_more("up", words)
    told: list[str] = []

    def on_change(info: ClusterInfo) -> None:
        if info.reason and info.reason not in told:
            told.append(info.reason)
            print(info.reason)

    config = session.config
    limit = max(config.start_timeout, config.kubernetes_start_timeout) + VERB_SECONDS
    link = session.call(session.offloader.connect(on_change=on_change), timeout=limit)
    print(cluster_sentence(session.call(session.offloader.backend.get(link.info.name))))


def _down(session: Session, words: list[str]) -> None:
    if words not in ([], ["--force"]):
        raise UsageError(f"%ray cluster down: expected nothing or --force, not {' '.join(words)!r}")
    running = _running(session)
    if running and not words:
        names = ", ".join(r.id for r in running)
        raise UsageError(
            f"%ray cluster down would end {len(running)} running job{'s' * (len(running) > 1)}: {names}",
            "Wait for them, cancel them, or say %ray cluster down --force",
        )
    session.call(session.offloader.down(), timeout=VERB_SECONDS)
    print("The cluster is down. Records and results stay in its store")


def _running(session: Session) -> list[JobRecord]:
    """Give the jobs that would be lost; a cluster that is not up has none."""
    info = session.call(session.offloader.backend.get("default"))
    if not info.address:
        return []
    try:
        return [r for r in session.call(session.offloader.records(100)) if not r.phase.ended]
    except OffloadError:
        return []


def _scale(session: Session, words: list[str]) -> None:
    if len(words) != 1 or not words[0].isdigit():
        raise UsageError("%ray cluster scale: expected a number of workers", "%ray cluster scale 4")
    info = session.call(session.offloader.backend.scale("default", int(words[0])), timeout=VERB_SECONDS)
    print(cluster_sentence(info))


def _suspend(session: Session, words: list[str]) -> None:
    _nothing_more("suspend", words)
    print(cluster_sentence(session.call(session.offloader.backend.suspend("default"), timeout=VERB_SECONDS)))


def _resume(session: Session, words: list[str]) -> None:
    _nothing_more("resume", words)
    print(cluster_sentence(session.call(session.offloader.backend.resume("default"), timeout=VERB_SECONDS)))


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
