"""The live panels on the kernel's side: what the page is told, and what it may ask."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_rayoffload import loglines
from jupyter_rayoffload import panel as panels
from jupyter_rayoffload.ansi import LogBuffer, Style, _Row, fold, strip
from jupyter_rayoffload.models import (
    Failure,
    JobOptions,
    JobRecord,
    JobSpec,
    Phase,
    Resources,
    Step,
    Value,
    ValueState,
)
from jupyter_rayoffload.view import job_view

GIB = 2**30


class Page:
    """The page's half of the log, as static/log.js has it: a snapshot, then deltas."""

    def __init__(self, snapshot):
        self.seq, self.total = snapshot["seq"], snapshot["total"]
        self.lines = dict(enumerate(snapshot["lines"], snapshot["first"]))

    def message(self, content):
        log = content.get("log")
        if log and log["seq"] > self.seq:
            self.seq, self.total = log["seq"], log["total"]
            self.lines = {n: line for n, line in self.lines.items() if n < log["changed"]}
            self.lines.update(enumerate(log["lines"], log["first"]))
        if "got" in content:
            self.lines.update(enumerate(content["got"]["lines"], content["got"]["first"]))


@pytest.fixture
def made():
    """Make panels whose messages are kept in a queue; close them at the end."""
    opened = []

    def make(cls=panels.JobPanel, *args, **kwargs):
        panel = cls(*(args or (record(),)), **kwargs)
        panel.sent = queue.Queue()
        panel.send = lambda content, buffers=None: panel.sent.put(json.loads(json.dumps(content)))
        opened.append(panel)
        return panel

    yield make
    for panel in opened:
        panel.close()


def record(phase=Phase.RUNNING, **more):
    spec = more.pop("spec", {})
    return JobRecord(JobSpec(**{"id": "fit-3f9a1c", "label": "fit", **spec}), phase, **more)


def said(panel):
    out = []
    while not panel.sent.empty():
        out.append(panel.sent.get())
    return out


def ask(panel, content):
    """Send a message as the page does, and give the answer."""
    panel._handle_custom_msg(content, [])
    return panel.sent.get(timeout=10)


pieces = st.lists(
    st.text("ab\n\r", max_size=8) | st.just("x\n" * 30) | st.sampled_from(["\x1b[31m", "\x1b[0m"]),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(pieces, st.integers(0, 12), st.integers(0, 12), st.sampled_from([5, 2000]))
def test_snapshot_and_deltas_are_the_whole_log_however_they_interleave(texts, opened, late, window):
    """A page opens after `opened` pieces; messages from before it may still come, and must not harm."""
    panel = panels.JobPanel(record())
    messages = []
    panel.send = lambda content, buffers=None: messages.append(content)
    before, loglines.WINDOW = loglines.WINDOW, window
    try:
        for text in texts[:opened]:
            panel.write("stdout", text)
        page, sent = Page(panel.get_state("log")["log"]), len(messages)
        for text in texts[opened:]:
            panel.write("stderr", text)
        for message in messages[min(late, sent) :]:
            page.message(message)
        for number in range(page.total):  # what a window left out is asked for
            if number not in page.lines:
                panel._handle_custom_msg({"want": [number, number + 3]}, [])
                page.message(messages[-1])
    finally:
        loglines.WINDOW = before
        panel.close()
    whole = LogBuffer()
    whole.write("".join(texts))
    assert page.total == whole.total
    assert [page.lines[n] for n in range(page.total)] == whole.lines(0, whole.total)


def test_older_lines_come_from_the_owners_log(made):
    lines = [f"line {n}" for n in range(100_000)]
    lines[7] = "old\rnew \x1b[31mred\x1b[0m"
    panel = made(panels.JobPanel, record(), read_log=lambda first, last: lines[first:last])
    panel.write("stdout", "\n".join(lines) + "\n")
    (delta,) = said(panel)
    assert (delta["log"]["first"], delta["log"]["total"]) == (98_000, 100_000)
    got = ask(panel, {"want": [5, 9]})["got"]
    assert got == {"first": 5, "lines": ["line 5", "line 6", "new \x1b[31mred\x1b[0m", "line 8"]}
    assert len(ask(panel, {"want": [0, 100_000]})["got"]["lines"]) == loglines.WINDOW
    assert ask(panel, {"want": [99_999, 100_005]})["got"]["lines"] == ["line 99999"]


def test_without_that_log_old_lines_are_empty_and_keep_their_numbers(made):
    panel = made()
    panel.write("stdout", "".join(f"{n}\n" for n in range(30_000)))
    said(panel)
    assert ask(panel, {"want": [9_998, 10_002]})["got"]["lines"] == ["", "", "10000", "10001"]


@pytest.mark.parametrize(
    ("text", "case", "found"),
    [("best", False, [1, 3]), ("best", True, [1]), ("31", False, []), ("", False, []), ("of red", True, [4])],
)
def test_a_search_reads_the_whole_log_without_its_colours(made, text, case, found):
    panel = made()
    panel.write("stdout", "a\nbest\nc\nBEST\nend of \x1b[31mred")
    said(panel)
    answer = ask(panel, {"find": {"id": "1", "text": text, "case": case}})
    assert answer == {"found": {"id": "1", "lines": found, "count": len(found)}}


def test_a_search_names_so_many_lines_and_counts_all(made):
    panel = made()
    panel.write("stdout", "x\n" * (loglines.MOST_FOUND + 5))
    said(panel)
    found = ask(panel, {"find": {"id": "1", "text": "x"}})["found"]
    assert (len(found["lines"]), found["count"]) == (loglines.MOST_FOUND, loglines.MOST_FOUND + 5)


def test_a_snapshot_stays_small_whatever_was_printed(made):
    panel = made()
    panel.write("stdout", ("x" * 50_000 + "\n") * 100 + "last")
    log = panel.get_state("log")["log"]
    assert sum(map(len, log["lines"])) <= loglines.WINDOW_SIZE
    assert log["lines"][-1] == "last"
    assert log["total"] == 101


def test_a_bar_that_runs_for_long_costs_little(made):
    panel = made()
    for n in range(200):
        panel.write("stderr", f"\r{n:3}%|{'#' * 50}|")
    messages = said(panel)
    assert {len(m["log"]["lines"]) for m in messages} == {1}
    assert messages[-1]["log"]["total"] == 1


def test_intents_reach_the_owner_and_nothing_else_does(made):
    panel = made()
    asked = []
    panel._handle_custom_msg({"do": "cancel"}, [])  # nobody listens yet
    panel.on_intent(lambda verb, options: asked.append((verb, options)))
    for content in (
        {"do": "rerun", "options": {"memory": 1}},
        {"do": "cancel", "options": 3},
        {"do": 3},
        "x",
        {},
    ):
        panel._handle_custom_msg(content, [])
    assert asked == [("rerun", {"memory": 1}), ("cancel", {})]
    panel.close_live()
    panel._handle_custom_msg({"do": "cancel"}, [])
    assert len(asked) == 2


def test_the_view_says_when_it_was_sent(made):
    panel = made()
    before = time.time()
    assert before <= panel.get_state("view")["view"]["now"] <= time.time()
    assert panel.get_state("view")["view"]["id"] == "fit-3f9a1c"


def test_only_a_change_is_sent(made):
    panel = made()
    changes = []
    panel.observe(lambda change: changes.append(change["new"]["word"]), "view")
    panel.update(record(lines=5))
    panel.update(record(lines=6))
    panel.update(record(Phase.LOST))
    assert changes == ["Lost"]


def test_threads_may_write_while_pages_open(made):
    panel = made()
    stop = threading.Event()
    snapshots = []

    def open_pages():
        while not stop.is_set():
            snapshots.append(panel.get_state("log")["log"])

    opener = threading.Thread(target=open_pages)
    opener.start()
    for n in range(300):
        panel.write("stdout", f"{n}\n")
    stop.set()
    opener.join(10)
    deltas = said(panel)
    for snapshot in snapshots[:: max(1, len(snapshots) // 20)]:
        page = Page(snapshot)
        for message in deltas:
            page.message(message)
        assert [page.lines[n] for n in range(300)] == [str(n) for n in range(300)]


def test_the_script_is_one_module_without_imports(made):
    for cls in (panels.JobPanel, panels.ClusterPanel):
        script = str(cls._esm)
        assert script.count("export default") == 1
        starts = [
            line.split(" ")[:2] for line in script.splitlines() if line.startswith(("import", "export"))
        ]
        assert starts == [["export", "default"]]
    assert '"state-lost"' in str(panels.JobPanel._esm) and "#616161" not in str(panels.JobPanel._esm)


def test_nothing_of_it_is_imported_before_a_panel_is_shown():
    code = (
        "import sys, jupyter_rayoffload, jupyter_rayoffload.record, jupyter_rayoffload.view;"
        "print([m for m in ('anywidget', 'ipywidgets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- what a view says


def verbs(view):
    reason = view["reason"] or {}
    return [a["do"] for a in view["actions"]] + [reason["action"]["do"] for _ in [0] if reason.get("action")]


OOM = Failure("OutOfMemory", "the node ended it", "64 GiB fit")
ASKED = {"options": JobOptions(resources=Resources(memory=32 * GIB), timeout=7200.0)}


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (record(Phase.PACKAGING), ["cancel", "copy", "open"]),
        (record(Phase.RUNNING, dashboard="http://x/"), ["cancel", "dashboard", "copy", "open"]),
        (record(Phase.SUCCEEDED, attempt=1, dashboard="http://x/"), ["rerun", "copy", "open"]),
        (record(Phase.CANCELLED, attempt=1), ["rerun", "copy", "open"]),
        (record(Phase.FAILED, attempt=1, failure=Failure(ename="E", traceback=("t",))), ["copy", "open"]),
        (record(Phase.FAILED, attempt=1, failure=OOM), ["copy", "open", "rerun"]),
        (record(Phase.FAILED, failure=Failure("NotPicklable", "x")), ["copy", "open"]),
    ],
)
def test_controls_that_cannot_work_are_not_there(job, expected):
    assert verbs(job_view(job)) == expected


def test_a_remedy_is_in_its_button():
    action = job_view(record(Phase.FAILED, attempt=1, failure=OOM, spec=ASKED))["reason"]["action"]
    assert (action["label"], action["options"]) == ("Rerun with 64 GiB", {"memory": 64 * GIB})
    late = Failure("JobTimedOut", "it ran longer than 2 h")
    action = job_view(record(Phase.FAILED, attempt=1, failure=late, spec=ASKED))["reason"]["action"]
    assert (action["label"], action["options"]) == ("Rerun with 4 h 00 min", {"timeout": 14400.0})


def test_two_steps_may_be_current_and_the_broken_one_is_marked():
    steps = {"cluster": Step(1.0), "workspace": Step(1.0)}
    strip = job_view(record(Phase.PACKAGING, steps=steps))["strip"]
    assert [s.get("mod") for s in strip] == ["current", "current", None, None, None]
    ended = {"cluster": Step(1.0, 9.0), "workspace": Step(1.0, 2.0, "reused")}
    strip = job_view(record(Phase.FAILED, steps=ended, failure=Failure("ClusterStartFailed", "x")))["strip"]
    assert [(s.get("mod"), s.get("time", {}).get("text")) for s in strip[:3]] == [
        ("failed", "8.0 s"),
        ("done", "reused"),
        (None, None),
    ]


def test_a_job_that_ended_well_is_a_line_unless_something_is_missing():
    landed, missed = Value("a", state=ValueState.LANDED), Value("b", state=ValueState.NOT_LANDED)
    assert job_view(record(Phase.SUCCEEDED, outputs=(landed,)))["line"]
    view = job_view(record(Phase.SUCCEEDED, outputs=(landed, missed)))
    assert not view["line"] and not view["log"]["shown"]
    assert view["reason"]["action"]["value"] == 'fit.outputs["b"]'


def test_the_line_of_the_cell_that_raised_is_marked():
    trace = ("Cell In[7], line 2\n      1 def f():\n\x1b[32m----> 2\x1b[0m     g()", "File m.py:2\n----> 2 x")
    failure = Failure(ename="E", traceback=trace, line=2)
    traceback = job_view(record(Phase.FAILED, failure=failure))["traceback"]
    assert traceback["marked"] == 2
    assert traceback["lines"][2] == "\x1b[32m----> 2\x1b[0m     g()"


def test_progress_is_not_announced_but_reasons_are():
    busy = record(Phase.UPLOADING, reason="Sending `df`: 1 of 2 MB", progress=(1.0, 2.0))
    assert job_view(busy)["status"] == "Job fit: Uploading"
    stuck = record(Phase.STARTING_CLUSTER, reason="Quota exceeded")
    assert job_view(stuck)["status"] == "Job fit: Starting cluster. Quota exceeded"


@given(
    st.lists(
        st.sampled_from(["a", "B b", "\x1b[31m", "\x1b[1;44m", "\x1b[0m", "\x1b[38;5;9m", "\t", "\x1b[39m"])
    ),
    st.sampled_from([Style(), Style(fg="31", bold=True)]),
)
def test_a_line_that_only_changes_colour_is_folded_as_any_other(parts, style):
    row = _Row(style)
    row.feed("".join(parts), last=True)
    assert fold("".join(parts), style) == (row.text(), row.style)


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "AB", "\x1b[31m", "\x1b[0m", "\r", "\x1b[2K", "\x08"]), max_size=6),
        max_size=9,
    )
)
def test_what_is_found_is_what_is_shown(rows):
    """However a line came about, and whether it is at hand or only in the owner's log."""
    lines = ["".join(row) for row in rows]
    for log in (loglines.LogLines(), loglines.LogLines(lambda first, last: lines[first:last])):
        log.write("".join(f"{line}\n" for line in lines))
        if log._read_log:
            log._buffer._lines.clear()
        for exact in (True, False):
            shown = [strip(line) for line in lines]
            wanted = "ab" if not exact else "AB"
            expected = [n for n, line in enumerate(shown) if wanted in (line if exact else line.lower())]
            assert log.find("AB", exact) == {"lines": expected, "count": len(expected)}
