"""The event stream's writer: whole, in order, numbered without a gap, and bounded."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_rayoffload.remote.publisher import ENTRY_SIZE, Publisher


class Away(Exception):
    pass


class Sink:
    """Takes entries; fails as often as it is told."""

    def __init__(self, failures: int = 0, open_: bool = True) -> None:
        self.entries: list[tuple[int, list[dict]]] = []
        self.failures = failures
        self.open = threading.Event()
        if open_:
            self.open.set()

    def __call__(self, number, messages):
        self.open.wait(20)
        if self.failures:
            self.failures -= 1
            raise Away("gone for a while")
        self.entries.append((number, messages))

    @property
    def messages(self):
        return [m for _, messages in self.entries for m in messages]

    def text(self, name):
        return "".join(m["content"]["text"] for m in self.messages if m["content"].get("name") == name)


def flushed(publisher, seconds):
    """Whether all that was put is written within `seconds`."""
    deadline = time.monotonic() + seconds
    while publisher._pending or publisher._sending:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


@pytest.fixture
def publishing():
    made = []

    def make(sink, **options):
        made.append(Publisher(sink, (Away,), **options))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close()


actions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=30)),
        st.tuples(st.just("display_data"), st.integers()),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(actions=actions, failures=st.integers(0, 2))
def test_everything_arrives_once_and_in_order(actions, failures):
    sink = Sink(failures)
    publisher = Publisher(sink, (Away,))
    try:
        for kind, value in actions:
            if kind == "display_data":
                publisher.put(kind, {"data": {"n": value}}, 10)
            else:
                publisher.stream(kind, value)
        assert flushed(publisher, 10)
    finally:
        publisher.close()
    wanted: list = []
    for kind, value in actions:
        if kind != "display_data" and not value:
            continue
        if wanted and wanted[-1][0] == kind != "display_data":
            wanted[-1] = (kind, wanted[-1][1] + value)
        else:
            wanted.append((kind, value))
    found: list = []
    for m in sink.messages:
        c = m["content"]
        kind, value = (c["name"], c["text"]) if m["type"] == "stream" else (m["type"], c["data"]["n"])
        if found and found[-1][0] == kind != "display_data":
            found[-1] = (kind, found[-1][1] + value)
        else:
            found.append((kind, value))
    assert found == wanted
    assert [n for n, _ in sink.entries] == list(range(1, len(sink.entries) + 1))
    assert publisher.lines == sum(v.count("\n") for k, v in actions if k != "display_data")


def test_consecutive_texts_are_merged_and_entries_bounded(publishing):
    sink = Sink(open_=False)
    publisher = publishing(sink)
    for i in range(20_000):
        publisher.stream("stdout", f"line {i}\n")
    sink.open.set()
    assert flushed(publisher, 10)
    assert sink.text("stdout") == "".join(f"line {i}\n" for i in range(20_000))
    assert len(sink.messages) < 10
    assert all(sum(len(m["content"]["text"]) for m in e) < 2 * ENTRY_SIZE for _, e in sink.entries)


def test_a_flood_makes_few_entries_and_a_line_does_not_wait(publishing):
    sink = Sink()
    publisher = publishing(sink)
    began = time.monotonic()
    publisher.stream("stdout", "first")
    while not sink.entries:
        time.sleep(0.001)
    assert time.monotonic() - began < 0.5
    for _ in range(100):
        publisher.stream("stdout", "x")
        time.sleep(0.001)
    assert flushed(publisher, 5)
    assert len(sink.entries) < 40


def test_a_store_that_is_away_is_waited_for_and_named(publishing):
    sink = Sink(failures=3)
    publisher = publishing(sink)
    publisher.stream("stdout", "kept")
    assert not flushed(publisher, 0.05)
    assert publisher.trouble == "gone for a while"
    assert flushed(publisher, 10)
    assert publisher.trouble == "" and sink.text("stdout") == "kept"


def test_too_much_pending_asks_for_a_pause(publishing, monkeypatch):
    monkeypatch.setattr("jupyter_rayoffload.remote.publisher.PENDING_SIZE", 1000)
    sink = Sink(open_=False)
    publisher = publishing(sink)
    assert publisher.has_room()
    publisher.stream("stdout", "x" * 1001)
    assert not publisher.has_room()
    sink.open.set()
    assert flushed(publisher, 5) and publisher.has_room()


def test_the_cut_is_exact_and_said_once(publishing):
    sink = Sink()
    publisher = publishing(sink, limit=10)
    publisher.stream("stdout", "12345678")
    publisher.stream("stdout", "90abc")
    publisher.stream("stdout", "never")
    publisher.put("display_data", {"data": {}}, 1)
    publisher.put("error", {"ename": "E"}, 1)
    publisher.put("phase", {"phase": "failed"}, 1)
    assert flushed(publisher, 5)
    assert sink.text("stdout") == "1234567890"
    assert sink.text("stderr").count("output is cut here") == 1
    assert [m["type"] for m in sink.messages][-2:] == ["error", "phase"]


def test_a_display_alone_beyond_the_limit_is_cut_whole(publishing):
    sink = Sink()
    publisher = publishing(sink, limit=10)
    publisher.put("display_data", {"data": {"image/png": "x" * 20}}, 20)
    assert flushed(publisher, 5)
    assert [m["type"] for m in sink.messages] == ["stream"]


def test_a_beat_only_where_nothing_else_is_a_sign(publishing):
    sink = Sink(open_=False)
    publisher = publishing(sink)
    publisher.stream("stdout", "a")
    time.sleep(0.05)  # taken by the thread, which waits at the sink
    publisher.beat()
    publisher.beat()
    sink.open.set()
    assert flushed(publisher, 5)
    assert [m["type"] for m in sink.messages] == ["stream", "beat"]


def test_times_and_shape(publishing):
    sink = Sink()
    publisher = publishing(sink)
    publisher.put("phase", {"phase": "running"})
    assert flushed(publisher, 5)
    (message,) = sink.messages
    assert set(message) == {"t", "type", "content"} and abs(message["t"] - time.time()) < 5


def test_one_that_is_held_leaves_all_to_the_last_entry(publishing):
    sink = Sink()
    publisher = publishing(sink, held=True)
    publisher.put("phase", {"phase": "running"})
    publisher.stream("stdout", "a line\n")
    number, rest = publisher.last(5)
    assert number == 1 and [m["type"] for m in rest] == ["phase", "stream"]
    assert sink.entries == [] and publisher.lines == 1


def test_one_that_is_held_writes_all_when_it_begins(publishing):
    sink = Sink()
    publisher = publishing(sink, held=True)
    publisher.stream("stdout", "early, ")
    publisher.begin()
    publisher.stream("stdout", "late")
    assert flushed(publisher, 5) and sink.text("stdout") == "early, late"
    assert publisher.last(5) == (len(sink.entries) + 1, [])


def test_what_is_too_much_for_the_last_entry_is_written_before_it(publishing):
    sink = Sink()
    publisher = publishing(sink, held=True)
    for _ in range(5):
        publisher.put("display_data", {"data": {}}, ENTRY_SIZE)
    publisher.stream("stdout", "the end")
    number, rest = publisher.last(5)
    numbers = [n for n, _ in sink.entries]
    assert [*numbers, number] == list(range(1, number + 1)) and number > 3
    said = [*sink.messages, *rest]
    assert len(said) == 6 and said[-1]["content"]["text"] == "the end"


def test_the_last_entry_is_not_the_callers_while_the_store_is_away(publishing):
    sink = Sink(failures=10**6)
    publisher = publishing(sink)
    publisher.stream("stdout", "kept")
    assert not flushed(publisher, 0.2)
    assert publisher.last(0.2) is None and publisher.trouble == "gone for a while"
