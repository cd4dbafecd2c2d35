"""``%ray cluster``: the panel, and the verbs that do the same without it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import ClusterError, OffloadError, UsageError
from .models import ClusterInfo
from .options import parse_up
from .profiles import profile_view
from .words import cluster_sentence, jobs_lost

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .panel import ClusterPanel
    from .session import Session
    from .submission import Offloader

__all__ = ["CLUSTER_VERBS", "Controls", "show_panel"]

#: The cluster that panel and verbs are for.
NAME = "default"
#: After how many seconds a cluster that could not be watched is looked at again.
LOOK_AGAIN = 5.0

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
    connect = session.offloader.links.connect(asked.name, asked.profile, on_change, asked.choices)
    link = session.call(connect, timeout=limit)
    print(cluster_sentence(session.call(session.offloader.backend.get(link.info.name))))


def _down(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    _refuse_while_running(session, "down", name, words)
    session.call(session.offloader.down(name), timeout=VERB_SECONDS)
    print("The cluster is down. Records and results stay in its store")


def _refuse_while_running(session: Session, verb: str, name: str, words: list[str]) -> None:
    """Refuse a verb that would end jobs, unless somebody has said that it may."""
    if words not in ([], ["--force"]):
        raise UsageError(f"%ray cluster {verb}: expected nothing or --force, not {' '.join(words)!r}")
    if words:
        return
    try:
        running = session.call(_running(session.offloader, name))
    except OffloadError as error:
        raise UsageError(
            f"%ray cluster {verb} may end jobs, and nobody knows which: {error.message}",
            f"Wait until they can be asked for, or say %ray cluster {verb} --force",
        ) from error
    if running:
        raise UsageError(
            f"%ray cluster {verb} would end {len(running)} running job{'s' * (len(running) > 1)}: "
            + ", ".join(running),
            f"Wait for them, cancel them, or say %ray cluster {verb} --force",
        )


async def _running(offloader: Offloader, name: str = NAME) -> list[str]:
    """Give the ids of the jobs that would be lost; a cluster that is not up has none, and is not started.

    Raises
    ------
    StoreError, ClusterError
        Nobody can tell.
    """
    info = await offloader.backend.get(name)
    if not info.address:
        return []
    records = await offloader.records(100)
    return [r.id for r in records if not r.phase.ended and (r.cluster or NAME) == name]


def _scale(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    if len(words) != 1 or not words[0].isdigit():
        raise UsageError("%ray cluster scale: expected a number of workers", "%ray cluster scale 4")
    info = session.call(session.offloader.scale(name, int(words[0])), timeout=VERB_SECONDS)
    print(cluster_sentence(info))


def _suspend(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    backend = session.offloader.backend
    if "suspend" in session.call(backend.get(name)).can:  # one that cannot do it says so itself
        _refuse_while_running(session, "suspend", name, words)
    print(cluster_sentence(session.call(session.offloader.suspend(name), timeout=VERB_SECONDS)))


def _resume(session: Session, words: list[str]) -> None:
    name, words = _named(words)
    _nothing_more("resume", words)
    print(cluster_sentence(session.call(session.offloader.backend.resume(name), timeout=VERB_SECONDS)))


def _named(words: list[str]) -> tuple[str, list[str]]:
    """Give the name of the cluster, and the other words."""
    if "--cluster" not in words:
        return NAME, words
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
    info = session.call(session.offloader.backend.get(NAME))
    if getattr(shell, "kernel", None) is None:
        print(cluster_sentence(info))
        return None
    from .panel import ClusterPanel

    declared = session.profiles(VERB_SECONDS)
    # Of one size in which nothing can be chosen, a form would have nothing to ask.
    choosable = len(declared) > 1 or any(profile.fields for profile in declared)
    panel = ClusterPanel(info, [profile_view(profile) for profile in declared] if choosable else ())
    controls = Controls(session.offloader, panel)
    panel.on_intent(lambda verb, options: session.start(controls.do(verb, options)))
    session.start(controls.watch())
    return panel


class Controls:
    """Does what the buttons of one panel ask for, on the loop thread; the panel says how it goes.

    Parameters
    ----------
    offloader : Offloader
    panel : ClusterPanel
    """

    def __init__(self, offloader: Offloader, panel: ClusterPanel) -> None:
        self.offloader, self.panel = offloader, panel
        self._task: asyncio.Task[None] | None = None
        self._verb = ""

    async def do(self, verb: str, options: Mapping[str, Any]) -> None:
        """Begin what a button asks for; a second press, or one that has come too late, is no order.

        Parameters
        ----------
        verb : str
            ``start``, ``scale``, ``suspend``, ``resume``, ``delete``; or ``ask``, for what would be lost.
        options : Mapping
            ``{profile, options}`` of a start, ``{workers}`` of ``scale``, ``{id}`` of a question.
        """
        if verb == "ask":
            self.panel.answer(int(options.get("id", 0)), await self._lost())
            return
        work = self._work(verb, options)
        if work is None:
            return
        if self._task is not None and not self._task.done():
            if (verb, self._verb) != ("delete", "start"):
                return
            self._task.cancel()
        asked = options.get("workers")
        self._verb, workers = (
            verb,
            asked if isinstance(asked, int) else None,
        )  # what else it is, `work` refuses
        self._task = asyncio.ensure_future(self._follow(verb, workers, work))

    def _work(self, verb: str, options: Mapping[str, Any]) -> Callable[[], Awaitable[Any]] | None:
        """Give what does `verb`."""
        offloader, backend = self.offloader, self.offloader.backend
        works: dict[str, Callable[[], Awaitable[Any]]] = {
            "start": lambda: offloader.links.connect(
                NAME, str(options.get("profile") or ""), choices=options.get("options") or {}
            ),
            "scale": lambda: offloader.scale(NAME, int(options["workers"])),
            "suspend": lambda: offloader.suspend(NAME),
            "resume": lambda: backend.resume(NAME),
            "delete": offloader.down,
        }
        return works.get(verb)

    async def _follow(self, verb: str, workers: int | None, work: Callable[[], Awaitable[Any]]) -> None:
        """Do it; whatever comes of it, the panel hears of it."""
        self.panel.begin(verb, workers)
        failed: OffloadError | None = None
        try:
            await work()
        except OffloadError as error:
            failed = error
        except Exception as error:
            failed = ClusterError(
                f"{verb} has failed: {type(error).__name__}: {error}", "%ray cluster shows how it is now"
            )
        finally:
            self.panel.end(verb, failed)

    async def _lost(self) -> str:
        try:
            return jobs_lost(await _running(self.offloader))
        except OffloadError as error:
            return f"Nobody knows which jobs run on it: {error.message}"

    async def watch(self) -> None:
        """Keep the panel up to date for as long as its page may be open."""
        while self.panel.comm is not None:
            try:
                async for info in self.offloader.backend.watch(NAME):
                    if self.panel.comm is None:
                        return
                    self.panel.update(await self.offloader.standing(info))
            except OffloadError as error:
                self.panel.fail(error)
            await asyncio.sleep(LOOK_AGAIN)
