"""A batch without Ray: which items are next, how they are counted, where their values are."""

from __future__ import annotations

import ast
import io
import json
import pickle
import sys
from contextlib import redirect_stderr
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.remote.batch import Batch, _Flight
from jupyter_rayoffload.remote.chunks import (
    ERROR,
    RESULT,
    Done,
    Parcel,
    dump,
    key_of,
    lists_of,
    load,
    pack,
    slot_of,
    unpack,
)
from jupyter_rayoffload.remote.codec import freeze, thaw
from jupyter_rayoffload.remote.failures import worker_died
from jupyter_rayoffload.remote.files import Folder
from jupyter_rayoffload.remote.ledger import Ledger
from jupyter_rayoffload.remote.outputs import bound_by_definition
from jupyter_rayoffload.remote.planner import CHUNK_ITEMS, WORKER_RETRIES, Planner
from jupyter_rayoffload.remote.signing import Signer

SIGNER = Signer(bytes(32))

# ---------------------------------------------------------------------- which items are next


def test_trivial_items_soon_share_a_task_and_the_last_ones_are_shared_out():
    planner, sizes = Planner(range(10_000)), []
    while chunk := planner.take(2):
        sizes.append(len(chunk))
        planner.learn(len(chunk), 0.0001 * len(chunk), 100.0 * len(chunk))
    assert sizes[0] == 1
    assert max(sizes) == CHUNK_ITEMS
    assert sizes[-1] == 1
    assert sum(sizes) == 10_000
    assert len(sizes) < 100


def test_slow_items_and_those_that_bring_much_have_a_task_each():
    for seconds, size in ((5.0, 10.0), (0.001, 50e6)):
        planner = Planner(range(100))
        for _ in range(100):
            assert len(planner.take(2)) == 1
            planner.learn(1, seconds, size)


def test_items_that_were_not_begun_come_next():
    planner = Planner(range(5))
    planner.learn(100, 0.1, 1.0)
    assert planner.take(1) == [0, 1]
    planner.give_back([1])
    assert [planner.take(1) for _ in range(5)] == [[1, 2], [3], [4], [], []]


def test_of_a_chunk_whose_worker_died_each_is_run_alone_and_the_culprit_is_given_up():
    planner = Planner(range(3))
    assert planner.died([0, 1, 2]) == []
    alone = [planner.take(9) for _ in range(3)]
    assert alone == [[0], [1], [2]]
    for _ in range(WORKER_RETRIES):
        assert planner.died([1]) == []
        assert planner.take(9) == [1]
    assert planner.died([1]) == [1]


def test_a_failed_item_is_tried_as_often_as_was_asked_for():
    planner = Planner([7], retries=2)
    assert planner.take(1) == [7]
    assert [planner.again(7) for _ in range(3)] == [True, True, False]
    assert not Planner([7]).again(7)


@given(st.lists(st.sampled_from(["ok", "rest", "died", "failed"]), max_size=60), st.integers(1, 40))
def test_whatever_happens_each_item_ends_once(story, total):
    planner, ended, course = Planner(range(total), retries=1), [], iter(story)
    while chunk := planner.take(3):
        what = next(course, "ok")
        if what == "died":
            ended += planner.died(chunk)
            continue
        begun = chunk[:1] if what == "rest" else chunk
        planner.give_back(chunk[len(begun) :])
        planner.learn(len(begun), 0.01 * len(begun), 10.0)
        ended += [i for i in begun if what != "failed" or not planner.again(i)]
    assert sorted(ended) == list(range(total))


# ---------------------------------------------------------------------- how they are counted


class Told:
    def __init__(self, total: int, kept: list[Done] | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.ledger = Ledger(
            total, kept or [], lambda i: f"x={i}", lambda kind, c: self.events.append(c), lambda counts: None
        )


def test_ten_thousand_items_are_told_in_few_words_and_none_is_missing():
    told = Told(10_000)
    for i in range(10_000):
        told.ledger.add(Done(i, i % 10 != 0, 0.0123, i // 100), {"ename": "E", "evalue": "x" * 1000})
        told.ledger.tell()
    told.ledger.flush()
    seen = {i for event in told.events for _, items in event["chunks"] for i, _, _ in items}
    assert seen == set(range(10_000))
    assert told.events[-1]["counts"] == {
        "total": 10_000,
        "succeeded": 9_000,
        "failed": 1_000,
        "running": 0,
        "kept": 0,
    }
    assert len(told.events) < 50
    assert len(json.dumps(told.events)) < 500_000


def test_nothing_is_told_twice():
    told = Told(3)
    told.ledger.flush()
    told.ledger.flush()
    assert len(told.events) == 1
    told.ledger.running = [0]
    told.ledger.flush()
    assert told.events[-1]["running"] == [0]


def test_the_log_has_the_first_tracebacks_then_lines_and_says_where_the_rest_is():
    told, log = Told(1000), io.StringIO()
    with redirect_stderr(log):
        for i in range(1000):
            failure = {"ename": "ValueError", "evalue": "no\nsales", "traceback": ["Trace", "back"]}
            told.ledger.add(Done(i, False, 0.1, 0), failure)
    lines = log.getvalue().splitlines()
    assert lines[:3] == ["item 0 (x=0) failed:", "Trace", "back"]
    assert lines.count("Trace") == 5
    assert lines[-2] == "item 99 (x=99) failed: ValueError: no sales"
    assert lines[-1] == "more items fail; `job.items.failed` has all of them"
    assert told.ledger.failure()["message"] == "1,000 of 1,000 items failed; the error is that of item 0: x=0"


def test_a_dead_worker_s_item_has_its_reason_in_the_event():
    told = Told(2)

    class WorkerCrashedError(Exception):
        pass

    failure, again = worker_died(WorkerCrashedError())
    assert again
    with redirect_stderr(io.StringIO()):
        told.ledger.add(Done(1, False, 0.0, -1), failure)
    told.ledger.flush()
    assert told.events[-1]["lost"] == [[1, failure]]
    assert told.ledger.failure()["message"].endswith("1 of 2 items failed; the error is that of item 1: x=1")


def test_what_an_earlier_job_has_done_is_told_first():
    told = Told(3, [Done(0, True, 0.1, 0), Done(2, True, 0.1, 4)])
    told.ledger.flush()
    assert told.events[0]["chunks"] == [[0, [[0, 1, 0.1]]], [4, [[2, 1, 0.1]]]]
    assert told.events[0]["counts"]["kept"] == told.events[0]["counts"]["succeeded"] == 2


def test_a_batch_says_what_no_node_has_and_counts_nothing_as_running(monkeypatch, tmp_path):
    told: list[tuple[str, Any]] = []
    there = {"CPU": 2.0}
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(cluster_resources=lambda: there))
    shell: Any = SimpleNamespace(user_ns={})
    store: Any = None
    folder = Folder(tmp_path)
    spec = {"id": "j", "batch": {"parallel": 8}}
    batch = Batch(spec, shell, store, SIGNER, lambda kind, c: told.append((kind, c)), tmp_path, folder)
    batch._options = {"num_cpus": 1, "num_gpus": 1, "resources": {}}
    batch._ledger = Told(9).ledger
    batch._flights = {i: _Flight([i]) for i in range(8)}
    assert batch._room() == 1
    batch._show_running()
    assert told == [("wait", {"reason": "The items wait for 1 GPU: no node has it"})]
    assert batch._ledger.running == []
    there["GPU"], batch._looked = 4.0, 0.0  # a node has come
    assert batch._room() == 2
    batch._show_running()
    assert told[1:] == [("wait", {"reason": ""})]
    assert batch._ledger.running == [0, 1]


# ---------------------------------------------------------------------- where their values are


def test_a_manifest_is_read_as_it_was_written():
    done = [Done(0, True, 0.25, 3), Done(1, False, 0.0, -1)]
    assert load(dump(done)) == done
    assert load(memoryview(dump(done))) == done


def test_lists_are_in_the_order_of_the_items_whatever_the_order_of_their_ends():
    stored = {
        slot_of(0): {key_of(2, "y"): "c", key_of(0, "y"): "a", key_of(0, RESULT): 1},
        slot_of(1): {key_of(3, "y"): "d", key_of(1, ERROR): ValueError()},
    }

    def read(slot: str, keys: set[str]) -> dict[str, Any]:
        return {k: v for k, v in stored[slot].items() if k in keys}

    done = [Done(2, True, 0, 0), Done(0, True, 0, 0), Done(3, True, 0, 1), Done(1, False, 0, 1)]
    assert lists_of(done, 5, ["y", RESULT], read) == {
        "y": ["a", None, "c", "d", None],
        RESULT: [1, None, None, None, None],
    }
    assert lists_of([], 0, ["y"], read) == {"y": []}


def test_a_parcel_survives_ray_s_pickles_with_its_buffers_apart():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(50_000.0)
    parcel = Parcel.of(freeze({"a": array, "b": {"c": array}}, {}, SIGNER, copy=False))
    apart: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(parcel, protocol=5, buffer_callback=apart.append)
    assert len(stream) < 2000
    assert len(apart) == 1
    read_only = [memoryview(bytes(b.raw())) for b in apart]
    again = pickle.loads(stream, buffers=read_only)
    frozen = again.frozen()
    assert frozen.buffers[0].digest == SIGNER.digest(array.tobytes())
    values = thaw(again.graph, again.views(), {})
    assert values["a"] is values["b"]["c"]
    assert not values["a"].flags.writeable, "all items of a node share it"
    copies = thaw(again.graph, again.views(copy=True), {})
    copies["a"][0] = 7.0
    assert values["a"][0] == 0.0


@given(st.lists(st.tuples(st.sampled_from(["json", "bytes"]), st.binary(max_size=20))))
def test_inputs_of_programs_are_read_as_they_were_written(inputs):
    assert unpack(pack(inputs)) == inputs
    assert unpack(b"") == []


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("import a.b, c as d\nfrom e import f", {"a", "d", "f"}),
        ("def g():\n    import h\n    def i(): pass\nclass J:\n    def k(self): pass", {"g", "J"}),
        (
            "if x:\n    import a\nelse:\n    def b(): pass\ntry:\n    from c import d\nexcept E:\n    d = 1",
            {"a", "b", "d"},
        ),
        ("y = [lambda: 1]\nz = 2", set()),
    ],
)
def test_what_a_cell_merely_defines_becomes_no_list(cell, names):
    assert bound_by_definition(ast.parse(cell)) == names
    assert bound_by_definition(None) == frozenset()
