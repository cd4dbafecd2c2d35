"""The static record, which every viewer of a notebook shows, and the folding of log and outputs."""

from __future__ import annotations

import base64
import itertools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import bleach
import pytest
from bleach.css_sanitizer import CSSSanitizer
from hypothesis import example, given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "browser" / "panel_states"))
from states import states

from jupyter_rayoffload import ansi
from jupyter_rayoffload import record as records
from jupyter_rayoffload.models import Failure, JobRecord, JobSpec, Phase, Value
from jupyter_rayoffload.outputs import Outputs

STATES = {state.caption: state for state in states()}

# ---------------------------------------------------------------------- terminal text


def screen(text: str) -> list[str]:
    """A second, naive terminal: one character after the other, without colours."""
    rows, at = [[]], 0
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    for char in text:
        row = rows[-1]
        if char == "\n":
            rows.append([])
            at = 0
        elif char == "\r":
            at = 0
        elif char == "\b":
            at = max(0, at - 1)
        else:
            row[at : at + 1] = [char]
            at += 1
    return ["".join(row) for row in rows]


colours = st.sampled_from(
    ["\x1b[31m", "\x1b[1;32m", "\x1b[0m", "\x1b[38;5;196m", "\x1b[48;2;1;2;3m", "\x1b[39m"]
)
terminal = st.lists(st.one_of(st.text("ab \t░é", max_size=5), st.sampled_from("\n\r\b"), colours)).map(
    "".join
)
noise = st.lists(
    st.one_of(
        terminal,
        st.sampled_from(
            ["\x1b", "\x1b[", "\x1b]0;title\x07", "\x1b]8;;x\x1b\\", "\x1b[K", "\x1b[2K", "\x1b[A", "\x1b(B"]
        ),
        st.text(max_size=4),
    )
).map("".join)


@given(terminal)
def test_folding_is_what_a_terminal_shows(text):
    buffer = ansi.LogBuffer()
    buffer.write(text)
    shown = [ansi.strip(line) for line in buffer.lines(0, buffer.total)]
    expected = screen(text)
    assert shown + [""] * (len(expected) - len(shown)) == expected
    assert buffer.total in (text.count("\n"), text.count("\n") + 1)


@given(noise, st.lists(st.integers(0, 60), max_size=8))
@example("aaaaa\x1b[2K\r", [9])
def test_where_text_is_cut_does_not_matter(text, cuts):
    whole, pieces = ansi.LogBuffer(), ansi.LogBuffer()
    whole.write(text + "\n")
    places = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    for begin, end in itertools.pairwise(places):
        pieces.write(text[begin:end])
    pieces.write("\n")
    assert pieces.lines(0, 10**6) == whole.lines(0, 10**6)
    assert pieces.total == whole.total


@given(noise)
def test_folding_twice_changes_nothing(text):
    for line in text.split("\n"):
        once, _ = ansi.fold(line)
        assert ansi.fold(once) == (once, ansi.Style())
        assert not re.search(r"[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]", once)


def test_each_line_begins_with_the_colour_in_force():
    buffer = ansi.LogBuffer()
    buffer.write("\x1b[31mred\nstill\x1b[0m\nplain")
    assert buffer.lines(0, 3) == ["\x1b[31mred\x1b[0m", "\x1b[31mstill\x1b[0m", "plain"]


def test_a_progress_bar_is_one_line():
    buffer = ansi.LogBuffer()
    for done in range(1001):
        buffer.write(f"\r{done:4}/1000 " + "#" * (done // 50))
    assert buffer.total == 1
    assert buffer.lines(0, 1) == ["1000/1000 " + "#" * 20]


def test_memory_is_bounded_and_numbers_stay():
    buffer = ansi.LogBuffer(max_lines=100, max_bytes=1000)
    buffer.write("".join(f"line {n}\n" for n in range(5000)))
    assert buffer.total == 5000
    assert buffer.first == 5000 - 100
    assert buffer.lines(4999, 9999) == ["line 4999"]
    assert buffer.lines(0, 10) == []
    buffer.write("x" * 5000 + "\n")
    assert buffer.lines(5000, 5001) == ["x" * 5000]
    assert buffer.first == 5000


def test_an_endless_line_is_cut_and_says_so():
    buffer = ansi.LogBuffer()
    for _ in range(30):
        buffer.write("x" * 10_000)
    assert buffer.lines(0, 1)[0].endswith("x … 200,000 more characters")


def test_colours_as_inline_style():
    shown = ansi.to_html("\x1b[31m<a>\x1b[1m&\x1b[0m \x1b[38;5;196mx\x1b[0m\x1b[38;2;1;2;3my")
    assert shown == (
        '<span style="color: #e75c58">&lt;a&gt;</span>'
        '<span style="color: #b22b31; font-weight: bold">&amp;</span> '
        '<span style="color: #ff0000">x</span><span style="color: #010203">y</span>'
    )


# ---------------------------------------------------------------------- outputs


def display(text, display_id=None, kind="display_data"):
    transient = {"display_id": display_id} if display_id else {}
    return {"type": kind, "content": {"data": {"text/plain": text}, "metadata": {}, "transient": transient}}


def clear(wait=False):
    return {"type": "clear_output", "content": {"wait": wait}}


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        ([display("a"), display("b")], ["a", "b"]),
        ([display("a", "1"), display("b"), display("c", "1", "update_display_data")], ["c", "b"]),
        ([display("a", "1"), display("b", "1"), display("c", "1", "update_display_data")], ["c", "c"]),
        ([display("c", "9", "update_display_data")], []),
        ([display("a"), clear(), display("b")], ["b"]),
        ([display("a"), clear(wait=True)], ["a"]),
        ([display("a"), clear(wait=True), display("b"), display("c")], ["b", "c"]),
        ([display("a", "1"), clear(), display("b", "1", "update_display_data")], []),
        ([display("a"), {"type": "stream", "content": {"name": "stdout", "text": "x"}}], ["a"]),
    ],
)
def test_messages_fold_as_a_notebook_folds_them(messages, shown):
    assert [o["data"]["text/plain"] for o in records.render_outputs(messages)] == shown


def test_whole_jupyter_messages_and_versions():
    outputs = Outputs()
    result = {"data": {"text/plain": "3"}, "metadata": {}, "execution_count": 7}
    assert outputs.add({"header": {"msg_type": "execute_result"}, "content": result})
    before = outputs.outputs
    assert not outputs.add(clear(wait=True))
    assert outputs.version == 1
    assert outputs.add(display("4"))
    assert outputs.version == 2
    assert [o["output_type"] for o in before] == ["execute_result"]  # a reader's list does not change
    assert before[0]["execution_count"] == 7


# ---------------------------------------------------------------------- the bundle

VOID = {"img", "br"}
TAGS = {
    "div",
    "p",
    "b",
    "code",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "details",
    "summary",
    "pre",
    "span",
    "br",
}
TAGS |= {"ul", "li"}
ATTRIBUTES = {"*": ["style"], "th": ["align"], "td": ["align"], "img": ["src", "alt", "width"]}
STYLES = ["margin", "text-align", "border-collapse", "color", "font-weight", "font-style"]


class Strict(HTMLParser):
    """Fails on markup that is not well-formed; keeps the text."""

    def __init__(self):
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.words.append(data)


def read(html: str) -> str:
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return " ".join(" ".join(parser.words).split())


def canonical(html: str) -> str:
    """Without the freedoms of spelling that a sanitizer takes."""
    html = html.replace("&#x27;", "'").replace("&quot;", '"').replace("<br>", "<br/>")
    return re.sub(r"\s+", " ", re.sub(r';(?=")', "", html))


def log(state):
    return state.log.split("\n")


@pytest.mark.parametrize("caption", STATES)
def test_our_markup_passes_a_sanitizer_unchanged(caption):
    state = STATES[caption]
    html = records.bundle(state.record, (), log(state))["text/html"]
    clean = bleach.clean(
        html, tags=TAGS, attributes=ATTRIBUTES, css_sanitizer=CSSSanitizer(allowed_css_properties=STYLES)
    )
    assert read(clean) == read(html)
    assert canonical(clean) == canonical(html)
    assert not re.search(r"\sclass=|<script|<style|\son\w+=", html)


@pytest.mark.parametrize("caption", STATES)
def test_the_same_facts_without_any_style(caption):
    state = STATES[caption]
    job = state.record
    bundle = records.bundle(job, (), log(state), 105)
    shown = read(bundle["text/html"])
    for text in (shown, " ".join(bundle["text/plain"].split())):
        assert f"%ray attach {job.id}" in text
        for value in (*job.inputs, *job.outputs):
            assert value.name in text
        for file in job.files:
            assert file.path in text
        if job.failure is not None:
            assert (job.failure.evalue or job.failure.message) in text
        for name in job.spec.left_behind:
            assert name in text
    assert "\x1b" not in bundle["text/plain"]


def test_a_record_in_reading_order():
    state = STATES["7 Succeeded, opened"]
    text = read(records.bundle(state.record, (), ["one", "two"], 105)["text/html"])
    assert text == (
        "✓ Succeeded fit 2 min 19 s, 2024-06-30, 14:27:13 to 14:29:32 UTC, cluster default (1 GPU) "
        "Name Type Size Input df DataFrame 1,000,000 × 12 96 MB reused Input params dict, 4 keys 312 B sent "
        "Output model Model 41 MB landed Output history list, 100 items 3.4 kB landed "
        "2 files made or changed by the cell "
        "out/forecast.csv 14.6 kB, fetched out/model.pt 41 MB, not fetched "
        "Log: the last 2 of 105 lines one two To see it live or again: %ray attach fit-3f9a1c"
    ).replace("1 GPU", state.record.spec.options.resources.words())


EVIL = "<script>alert(1)</script>\"'&\x1b[31m`x`"


@given(st.one_of(st.just(EVIL), st.text(max_size=30)))
def test_everything_that_others_wrote_is_escaped(text):
    job = JobRecord(
        JobSpec(id="a-1", label=text, left_behind=(text,), notes=(text,)),
        Phase.FAILED,
        cluster=text,
        inputs=(Value(text, text, 1, reason=text),),
        failure=Failure("JobCrashed", text, text, traceback=(text,), ename=text, evalue=text),
    )
    html = records.bundle(job, [{"data": {"text/plain": text}}], [text])["text/html"]
    read(html)
    assert set(re.findall(r"<(\w+)", html)) <= TAGS


def test_outputs_stand_at_the_end_by_their_richest_type():
    outputs = [
        {
            "data": {"image/png": "QUJD\nRA==", "text/plain": "<Figure>"},
            "metadata": {"image/png": {"width": 320}},
        },
        {"data": {"image/svg+xml": "<svg/>"}},
        {"data": {"text/html": "<table class='dataframe'><tr><td>1</td></tr></table>", "text/plain": "1"}},
        {"data": {"text/plain": "\x1b[31mModel\x1b[0m()"}},
        {"data": {"application/x-unknown": "?"}},
        {"data": {"text/plain": ["a\n", "b"]}},
    ]
    bundle = records.bundle(JobRecord(JobSpec(id="a-1"), Phase.SUCCEEDED), outputs)
    html = bundle["text/html"]
    places = [
        html.index(piece)
        for piece in (
            "%ray attach a-1",
            '<img src="data:image/png;base64,QUJDRA==" alt="&lt;Figure&gt;" width="320"/>',
            f'<img src="data:image/svg+xml;base64,{base64.b64encode(b"<svg/>").decode()}"',
            "<table class='dataframe'>",
            '<span style="color: #e75c58">Model</span>()',
            "An output of the type application/x-unknown",
            ">a\nb</pre>",
        )
    ]
    assert places == sorted(places)
    assert bundle["text/plain"].endswith("<Figure>\n1\n\x1b[31mModel\x1b[0m()\na\nb")


def test_what_is_too_large_for_a_notebook_is_said_and_not_carried():
    small, large = (
        {"data": {"text/html": "<b>small</b>"}},
        {"data": {"text/html": "x" * (records.MAX_OUTPUT + 1)}},
    )
    html = records.bundle(JobRecord(JobSpec(id="a-1"), Phase.SUCCEEDED), [large, small])["text/html"]
    assert len(html) < 2000
    assert "Output 1 is 5 MB, more than a record carries: <code>%ray attach a-1</code> shows it" in html
    assert "<b>small</b>" in html
    many = [{"data": {"text/html": "y" * records.MAX_OUTPUT}}] * 6
    html = records.bundle(JobRecord(JobSpec(id="a-1"), Phase.SUCCEEDED), many)["text/html"]
    assert len(html) < records.MAX_OUTPUTS + 2000
    assert "Output 5 is" in html and "Output 6 is" in html and "Output 4 is" not in html


def test_the_tail_of_a_log_is_bounded_and_named():
    job = JobRecord(JobSpec(id="a-1"), Phase.SUCCEEDED, lines=500)
    html = records.bundle(job, (), [f"line {n}" for n in range(500)])["text/html"]
    assert f"Log: the last {records.TAIL_LINES} of 500 lines" in html
    assert "line 499" in html and "line 100\n" not in html


def test_what_stands_where_the_live_panel_cannot():
    state = STATES["4 Running"]
    bundle = records.live_bundle(state.record)
    assert set(bundle) == {"text/html", "text/plain"}
    shown = read(bundle["text/html"])
    assert "Running fit" in shown and "cluster default" in shown and "%ray attach fit-3f9a1c" in shown


def test_colours_stay_for_a_terminal_that_has_them():
    job = STATES["8 Failed: the cell’s own exception"].record
    assert "\x1b[31mValueError" in records.text(job, colour=True)
    assert "\x1b" not in records.text(job)
