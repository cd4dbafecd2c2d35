"""``--wait`` and headless runs: the job's outputs are the running cell's own, as if it ran here."""

from __future__ import annotations

import queue
import sys
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .display import METADATA, publish_record
from .errors import OutputUnavailable
from .models import JobRecord, Phase
from .phase import Event
from .tracebacks import remember
from .words import batch_counts, phase_word

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .job import Job
    from .landing import Landing

__all__ = ["Messages", "RemoteValue", "wait_here"]

#: How long a cancelled job may take to say goodbye before the cell gives up waiting for it, seconds.
FAREWELL_SECONDS = 15.0
#: What :func:`wait_here` is fed with.
Messages = queue.SimpleQueue[tuple[JobRecord, Event]]
_DISPLAYS = ("display_data", "update_display_data", "clear_output", "execute_result", "stream")


class RemoteValue:
    """The value of a waiting cell, shown as the job showed it; in ``Out`` the value itself replaces it."""

    def __init__(self, job: Job, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        self.job, self._data, self._metadata = job, dict(data), dict(metadata)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self._data, self._metadata

    def __repr__(self) -> str:
        return str(self._data.get("text/plain", ""))


def wait_here(job: Job, landing: Landing, messages: Messages, quiet: bool = False) -> None:
    """Follow a job in the running cell until it has ended; an interrupt cancels it.

    Parameters
    ----------
    job : Job
    landing : Landing
    messages : queue.SimpleQueue
        ``(record, event)`` of the job from its first event on.
    quiet : bool
        Show no record at the end.

    Raises
    ------
    Exception
        The cell's own exception, or what kept the job from its end.
    """
    shell = landing.shell
    status = _Status(shell, quiet)
    value: RemoteValue | None = None
    try:
        while not (job.done() and messages.empty()):
            try:
                record, event = messages.get(timeout=0.1)
            except queue.Empty:
                continue
            status.update(record)
            if event.type == "execute_result":
                value = RemoteValue(job, event.content["data"], event.content.get("metadata") or {})
                shell.displayhook(value)  # now, for figures may follow it
            elif event.type in _DISPLAYS:
                _republish(shell, event)
    except KeyboardInterrupt as interrupt:
        job.cancel()
        job.wait(FAREWELL_SECONDS)
        # Not our frames: the cell was interrupted, and with it the job.
        line = f"KeyboardInterrupt: job {job.id} was cancelled; %ray rerun {job.id} starts it again"
        remember(interrupt, [line])
        raise
    finally:
        landing.land(job, even_failed=True)
        problem = landing.await_files(job)  # the record says what has landed, and which files came home
        status.close(job)
        if problem:
            warnings.warn(problem, UserWarning, stacklevel=2)
    error = job.exception()
    if error is not None:
        raise error
    if value is not None:
        shell.events.register("post_execute", _Replace(shell, value))


def _republish(shell: InteractiveShell, event: Event) -> None:
    content = event.content
    if event.type == "stream":
        stream = sys.stderr if content.get("name") == "stderr" else sys.stdout
        stream.write(content["text"])
    elif event.type == "clear_output":
        shell.display_pub.clear_output(wait=bool(content.get("wait")))  # type: ignore[no-untyped-call]
    else:
        shell.display_pub.publish(
            content["data"],
            content.get("metadata") or {},
            transient=content.get("transient") or {},
            update=event.type == "update_display_data",
        )


class _Status:
    """A line that says what is waited for; the job's record takes its place."""

    def __init__(self, shell: InteractiveShell, quiet: bool) -> None:
        self._shell, self._quiet = shell, quiet
        self._id = ""
        self._text = ""

    def update(self, record: JobRecord) -> None:
        doing = record.reason
        if record.phase is Phase.RUNNING:
            doing = ", ".join(text for _, text in batch_counts(record.items)) if record.items else ""
        text = f"{phase_word(record.phase)}{': ' if doing else ''}{doing}"
        silent = record.phase is Phase.RUNNING and not record.items  # the cell's own outputs speak
        if self._quiet or record.phase.ended or silent or text == self._text:
            return
        self._publish(text, record.id)

    def _publish(self, text: str, job_id: str) -> None:
        update, self._id, self._text = bool(self._id), self._id or uuid4().hex, text
        metadata = {METADATA: {"job": job_id, "phase": "live"}}
        transient = {"display_id": self._id}
        self._shell.display_pub.publish({"text/plain": text}, metadata, transient=transient, update=update)

    def close(self, job: Job) -> None:
        if not self._quiet:
            publish_record(job, self._shell, self._id, inside=True)


class _Replace:
    """Puts the value itself into ``Out`` and ``_`` once the display hook has shown it."""

    def __init__(self, shell: InteractiveShell, shown: RemoteValue) -> None:
        self._shell, self._shown = shell, shown

    def __call__(self) -> None:
        self._shell.events.unregister("post_execute", self)
        namespace = self._shell.user_ns
        places = [k for k, v in namespace.get("Out", {}).items() if v is self._shown]
        names = [k for k, v in namespace.items() if v is self._shown]
        if not places and not names:
            return
        try:
            value = self._shown.job.result()
        except OutputUnavailable:
            return  # what was shown stays; .job says why
        for place in places:
            namespace["Out"][place] = value
        for name in names:
            namespace[name] = value
        hook = self._shell.displayhook
        for place in ("_", "__", "___"):  # what a later output moves on to
            if getattr(hook, place, None) is self._shown:
                setattr(hook, place, value)
