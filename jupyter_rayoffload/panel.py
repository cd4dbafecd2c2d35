"""The live panels: a job's (log, outputs, steps) and a cluster's.

Both only draw what :mod:`.view` says and hand on what the user asks for. Importing this module imports
anywidget (0.14 s), so others import it when a panel is first shown.

How the log reaches the browser: the trait `log` is never assigned; whenever a page asks for the widget's
state it is made on demand from the newest lines. Later lines come as numbered messages ``{"log": {seq,
changed, first, lines, total}}``: all lines from `changed` on are new, and those from `first` on are these.
The page leaves out what its snapshot already had, and asks for other lines by ``{"want": [first, last]}``, so
that a log of a million lines costs it no more than a window.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from .cluster_view import RESTING, History, Request, cluster_view
from .errors import OffloadError
from .loglines import LogLines
from .models import ClusterInfo, JobRecord
from .view import job_view

__all__ = ["ClusterPanel", "JobPanel"]

STATIC = Path(__file__).parent / "static"

Intent = Callable[[str, dict[str, Any]], object]


def _script(*names: str) -> str:
    """Join modules of ``static/`` into the one that anywidget loads, behind the icons.

    They are written as separate modules so that a bundler can take them as they are; here the imports between
    them go, for all names are in one scope.
    """
    parts = [f"const ICONS = {json.dumps(_icons())};"]
    for name in names:
        source = (STATIC / name).read_text("utf-8")
        source = re.sub(r"^import .*;\n", "", source, flags=re.M)
        parts.append(re.sub(r"^export (?!default)", "", source, flags=re.M))
    return "\n".join(parts)


@functools.cache
def _icons() -> dict[str, str]:
    """Read the drawings, in the colour of the text around them instead of JupyterLab's icon classes."""
    icons = {}
    for path in sorted((STATIC / "icons").glob("*.svg")):
        drawing = path.read_text("utf-8").replace(' class="jp-icon3"', "").replace("#616161", "currentColor")
        icons[path.stem] = re.sub(r"\s*\n\s*", "", drawing)
    return icons


class _Panel(anywidget.AnyWidget):
    """What both panels share: one synced tree of ready words, and intents that come back."""

    _css = (STATIC / "rayoffload.css").read_text("utf-8")

    # `now` tells the page how far its clock is off; it is of the moment when the state is sent.
    view = traitlets.Dict().tag(sync=True, to_json=lambda view, _: {**view, "now": time.time()})

    def __init__(self, view: Mapping[str, Any]) -> None:
        self._callback: Intent | None = None
        super().__init__(view=dict(view))
        self.on_msg(self._on_message)

    def on_intent(self, callback: Intent) -> None:
        """Call ``callback(verb, options)`` when the user asks for something.

        Comm messages arrive in whatever thread the kernel chooses: the callback must only enqueue.

        Parameters
        ----------
        callback : callable
            Takes the verb (``cancel``, ``rerun``, ``start``, ...) and a dict of options.
        """
        self._callback = callback

    def close_live(self) -> None:
        """Take the panel out of every page and forget the callback; call it when a record has its place."""
        self._callback = None
        self.close()

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and isinstance(content.get("do"), str) and self._callback:
            options = content.get("options")
            self._callback(content["do"], dict(options) if isinstance(options, dict) else {})


class JobPanel(_Panel):
    """The panel of one job.

    The owner decides how often: each call below sends one message at once. 5 to 10 calls a second are plenty.

    Parameters
    ----------
    record : JobRecord
    read_log : callable, optional
        ``read_log(first, last)`` gives lines of the whole log, counted from 0, `last` not included. Without
        it only the newest lines can be read.

    Attributes
    ----------
    outputs : list of dict
        What the cell has displayed, ``{data, metadata}`` each.
    """

    _esm = _script("dom.js", "log.js", "outputs.js", "panel.js")

    log = traitlets.Dict().tag(sync=True, to_json=lambda _, panel: panel._snapshot())
    outputs: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)

    def __init__(
        self, record: JobRecord, read_log: Callable[[int, int], Sequence[str]] | None = None
    ) -> None:
        self._lines = LogLines(read_log)
        self._seq = 0
        self._sending = threading.Lock()
        super().__init__(job_view(record))

    def update(self, record: JobRecord) -> None:
        """Show `record`."""
        view = job_view(record)
        if view != self.view:
            self.view = view

    def write(self, stream: str, text: str) -> None:
        """Append `text` to the log.

        Parameters
        ----------
        stream : str
            ``stdout`` or ``stderr``: a terminal shows both alike, and so does the log.
        text : str
        """
        if not text:
            return
        with self._sending:
            changed = self._lines.write(text)
            self._seq += 1
            self.send({"log": {"seq": self._seq, "changed": changed, **self._lines.window(changed)}})

    def _snapshot(self) -> dict[str, Any]:
        with self._sending:
            return {"seq": self._seq, **self._lines.window(0)}

    def _on_message(self, widget: Any, content: Any, buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if "want" in content:
            first, last = (max(0, int(n)) for n in content["want"])
            self.send({"got": {"first": first, "lines": self._lines.lines(first, last)}})
        elif "find" in content:
            # A million lines take most of a second: not in the thread that serves the page.
            threading.Thread(target=self._find, args=(dict(content["find"]),), daemon=True).start()
        else:
            super()._on_message(widget, content, buffers)

    def _find(self, asked: Mapping[str, Any]) -> None:
        """Answer with the numbers of the lines that contain a text."""
        found = self._lines.find(str(asked.get("text", "")), bool(asked.get("case")))
        self.send({"found": {"id": asked.get("id"), **found}})


class ClusterPanel(_Panel):
    """The panel of a cluster: state, what is in use, what can be done, and how what was asked for goes.

    Parameters
    ----------
    info : ClusterInfo
    profiles : sequence of Mapping
        What a new cluster can be, for a form; without any, the panel has a button instead.
    """

    _esm = _script("dom.js", "profile.js", "cluster.js")

    def __init__(self, info: ClusterInfo, profiles: Sequence[Mapping[str, Any]] = ()) -> None:
        self._info, self._profiles = info, tuple(profiles)
        self._history = History().after(info, time.time())
        self._request = Request()
        self._asked: dict[str, Any] | None = None
        super().__init__(self._whole())

    def update(self, info: ClusterInfo) -> None:
        """Show `info`; an error is forgotten when the cluster has come to rest in another phase."""
        moved = info.phase is not self._info.phase
        if moved and self._request.error and info.phase in RESTING:
            self._request = Request()
        self._info, self._history = info, self._history.after(info, time.time())
        self._show()

    def begin(self, verb: str, workers: int | None = None) -> None:
        """Show that `verb` is under way: the controls rest until :meth:`end`."""
        self._request = Request(verb, time.time(), workers)
        self._show()

    def end(self, verb: str, error: OffloadError | None = None) -> None:
        """Show that `verb` is done, or why it could not be; one that another has displaced says nothing."""
        if self._request.verb == verb:
            self._request = Request(error=error)
            self._show()

    def fail(self, error: OffloadError) -> None:
        """Show an error that no button has led to."""
        self._request = dataclasses.replace(self._request, error=error)
        self._show()

    def answer(self, asked: int, text: str) -> None:
        """Say what would be lost, to the question with this number."""
        self._asked = {"id": asked, "text": text}
        self._show()

    def _show(self) -> None:
        self.view = self._whole()

    def _whole(self) -> dict[str, Any]:
        view = cluster_view(self._info, self._profiles, self._history, self._request)
        return {**view, "asked": self._asked}
