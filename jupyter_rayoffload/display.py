"""How a job shows itself: a live panel in a notebook, text in a terminal, a static record at its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .models import JobRecord, Phase
from .pages import row_fact
from .phase import Event
from .profiles import profile_text
from .record import TAIL_LINES, bundle, live_bundle
from .record import text as record_text
from .words import clock_text, cluster_sentence, duration_text, phase_word, size_text

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .job import Job
    from .panel import JobPanel
    from .session import Session

__all__ = ["METADATA", "publish_record", "record_bundle", "show"]

#: Between two updates of a live panel, seconds: quick enough for eyes, slow enough for a browser.
PANEL_SECONDS = 0.15
#: Under this name in an output's metadata our own output says that it is ours, and of which job.
METADATA = "rayoffload"


def _shell() -> InteractiveShell | None:
    from IPython import get_ipython

    shell: InteractiveShell | None = get_ipython()
    return shell


def record_bundle(job: Job, inside: bool = False) -> dict[str, Any]:
    """Give the static mimebundle of a job as it is now.

    Parameters
    ----------
    job : Job
    inside : bool
        The running cell shows log, outputs and error itself.
    """
    record, total = job.record, job.spool.total
    if inside:
        failure = record.failure.replace(traceback=()) if record.failure else None
        return dict(bundle(record.replace(failure=failure), (), (), 0))
    return dict(bundle(record, job.displays.outputs, job.spool.lines(total - TAIL_LINES, total), total))


def show(job: Job) -> None:
    """Show a job in the running cell."""
    shell = _shell()
    if job.quiet or shell is None:
        job.quiet = False
        return
    if getattr(shell, "kernel", None) is None:
        print(record_text(job.record, job.displays.outputs, job.spool.lines(0, job.spool.total)))
    elif job.done():
        publish_record(job, shell)
    else:
        _LivePanel(job, shell).open()


def publish_record(job: Job, shell: InteractiveShell, display_id: str = "", **kwargs: Any) -> None:
    """Publish the static record; with a `display_id`, in the place of what stands there."""
    transient = {"transient": {"display_id": display_id}, "update": True} if display_id else {}
    metadata = {METADATA: {"job": job.id, "phase": job.phase.value}}
    shell.display_pub.publish(record_bundle(job, **kwargs), metadata, **transient)


class _LivePanel:
    """Keeps one panel up to date from the loop thread, and puts the static record in its place at the end.

    From a thread only comm and display messages may be sent, through the publisher that was there when the
    cell ran: printing, or the module's functions, would end up in whatever cell runs by then.
    """

    def __init__(self, job: Job, shell: InteractiveShell) -> None:
        from .panel import JobPanel

        self._job, self._shell = job, shell
        self._publisher = shell.display_pub
        self._id = uuid4().hex
        self._panel: JobPanel = JobPanel(job.record, read_log=job.spool.lines)
        self._scheduled = False
        self._flushed = 0.0
        self._text: list[str] = []
        self._displays = 0

    def open(self) -> None:
        """Show the panel, and follow the job from now on."""
        data, metadata = live_bundle(self._job.record), {METADATA: {"job": self._job.id, "phase": "live"}}
        view: Any = self._panel._repr_mimebundle_() or {}
        widget, widget_metadata = view if isinstance(view, tuple) else (view, {})
        transient = {"display_id": self._id}
        self._publisher.publish({**widget, **data}, {**widget_metadata, **metadata}, transient=transient)
        self._panel.on_intent(self._intent)
        self._job.session.soon(self._join)

    def _join(self) -> None:
        """Take in what was printed so far, and follow; on the loop thread, so that nothing is missed."""
        self._panel.write("stdout", self._job.spool.text())
        self._job.subscribe(self._on_event)
        self._flush()

    def _intent(self, intent: str, content: dict[str, Any]) -> None:
        """Do what a button asks; called wherever comm messages arrive, so it only enqueues."""
        if intent == "cancel":
            self._job.cancel_soon()
        elif intent == "rerun":
            self._job.rerun_soon(content)

    def _on_event(self, record: JobRecord, event: Event) -> None:
        if event.type == "stream":
            self._text.append(event.content.get("text", ""))
        if not self._scheduled:
            self._scheduled = True
            loop = asyncio.get_running_loop()
            # The first line after a pause shows at once; a flood is gathered.
            loop.call_at(max(loop.time(), self._flushed + PANEL_SECONDS), self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        self._flushed = asyncio.get_running_loop().time()
        if self._text:
            text, self._text = "".join(self._text), []
            self._panel.write("stdout", text)
        if self._job.displays.version != self._displays:
            self._displays = self._job.displays.version
            self._panel.outputs = list(self._job.displays.outputs)
        self._panel.update(self._job.record)
        if self._job.done():
            self._replace()

    def _replace(self) -> None:
        """Swap in the static record: what the notebook file keeps, readable in any viewer."""
        with contextlib.suppress(Exception):  # the front end may be gone; the record is in the store
            data = record_bundle(self._job)
            metadata = {METADATA: {"job": self._job.id, "phase": self._job.phase.value}}
            self._publisher.publish(data, metadata, transient={"display_id": self._id}, update=True)


def ended_line(job: Job) -> str:
    """Say in one line how a job ended, for terminals."""
    word = {Phase.SUCCEEDED: "succeeded", Phase.FAILED: "failed"}.get(job.phase, job.phase.value)
    return f"Job {job.id} {word}"


@contextlib.contextmanager
def progress(shell: InteractiveShell, text: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something has come, from its first word on, and take it away afterwards."""
    place: dict[str, str] = {}

    def show_line(line: str) -> None:
        data = {"text/plain": line}
        if place:
            shell.display_pub.publish(data, {}, transient=place, update=True)
        else:
            place["display_id"] = uuid4().hex
            shell.display_pub.publish(data, {}, transient=place)

    def on_progress(done: int, total: int) -> None:
        filled = round(20 * done / max(total, 1))
        bar = "█" * filled + "░" * (20 - filled)
        show_line(f"{text}  {bar}  {size_text(done)} of {size_text(total)}")

    try:
        yield on_progress
    finally:
        if place:
            show_line("")


def show_status(session: Session) -> None:
    """Print the cluster's state and the newest jobs; starts nothing."""
    info = session.call(session.offloader.backend.get("default"))
    print(cluster_sentence(info))
    if info.address:
        show_jobs(session, limit=5)


def show_jobs(session: Session, limit: int = 20) -> None:
    """Print the newest jobs, one a line."""
    records = session.call(session.offloader.records(limit))
    if not records:
        print("No jobs yet: write %%ray_job over a cell")
    for record in records:
        print(job_line(record))


def show_profiles(session: Session) -> None:
    """Print the sizes that clusters may have, each with what can be chosen."""
    found = session.profiles()
    if not found:
        print("The embedded cluster has no profiles, nor has one that is used by its address")
    for profile in found:
        print(profile_text(profile))


def job_line(record: JobRecord) -> str:
    """Give one line for a list: id, state, time taken, notebook."""
    took = ""
    if record.started:
        took = duration_text((record.ended or time.time()) - record.started)
    started = clock_text(record.started) if record.started else ""
    where = "  ".join(filter(None, (row_fact(record) if record.items else "", record.spec.notebook)))
    return f"{record.id:24} {phase_word(record.phase):16} {took:>14}  {started}  {where}".rstrip()
