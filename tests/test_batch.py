"""Batches on the notebook's side: items listed and frozen, the handle's account, and how they look."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

from jupyter_rayoffload import api
from jupyter_rayoffload.display import job_line
from jupyter_rayoffload.drafting import Origin, draft_call, draft_cell, draft_code
from jupyter_rayoffload.errors import JobCrashed, NotPicklable, StillRunning, UsageError
from jupyter_rayoffload.item import ItemStatus
from jupyter_rayoffload.items import Items
from jupyter_rayoffload.mapping import MOST_ITEMS, Mapped, listed, mapped, mapped_by_itself
from jupyter_rayoffload.models import (
    Batch,
    FailedItem,
    Failure,
    ItemCounts,
    JobOptions,
    JobRecord,
    JobSpec,
    Phase,
    Resources,
    Step,
)
from jupyter_rayoffload.pages import row_fact
from jupyter_rayoffload.programs import draft_program
from jupyter_rayoffload.record import bundle, text
from jupyter_rayoffload.remote.chunks import ERROR, ITEMS, RESULT, key_of
from jupyter_rayoffload.remote.codec import freeze, thaw
from jupyter_rayoffload.remote.command import filled
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.view import job_view

SIGNER = Signer(bytes(32))
ORIGIN = Origin("me", "", ".", {}, SIGNER, 1 << 20)


class Counting:
    def __iter__(self) -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")


# ---------------------------------------------------------------------- items listed


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ([1, 2], [1, 2]),
        ((n * n for n in range(3)), [0, 1, 4]),
        ({"b": 1, "a": 2}, ["b", "a"]),
        ("ab", ["a", "b"]),
        (range(0), []),
        (zip("ab", (1, 2), strict=True), [("a", 1), ("b", 2)]),
    ],
)
def test_any_iterable_gives_its_items(value: Any, items: list[Any]) -> None:
    assert listed(value, "--map x=xs") == items


def test_what_cannot_be_listed_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"^--map x=5: an int has no items"):
        listed(5, "--map x=5")  # type: ignore[arg-type]
    with pytest.raises(
        UsageError, match=r"^--map x=xs: item 1: OSError: the disk is gone\. Nothing was sent"
    ) as e:
        listed(Counting(), "--map x=xs")
    assert isinstance(e.value.__cause__, OSError)


def test_an_iterator_without_an_end_is_seen() -> None:
    import itertools

    with pytest.raises(UsageError, match="more than 1,000,000 items"):
        listed(itertools.count(), "map")
    assert MOST_ITEMS == 1_000_000


def test_the_expression_is_evaluated_in_the_notebook_when_its_names_are_there() -> None:
    shell: Any = SimpleNamespace(user_ns={})

    def arrive(names: tuple[str, ...]) -> None:
        assert "xs" in names
        shell.user_ns["xs"] = [1, 2, 3]

    found = mapped("x=[n + 1 for n in xs if n > 1]", 4, shell, arrive)
    assert (found.name, found.items, found.parallel) == ("x", [3, 4], 4)
    for wrong, says in {
        "x=1 +": "this is no expression of Python",
        "x=xs; ys": "this is no expression of Python",
        "x=nowhere": "NameError: name 'nowhere' is not defined",
        "x=xs[7]": "IndexError: list index out of range",
    }.items():
        with pytest.raises(UsageError, match=says):
            mapped(wrong, None, shell, lambda names: None)


def test_a_terminal_has_modules_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").touch()
    monkeypatch.chdir(tmp_path)
    found = mapped_by_itself(" f = sorted(glob.glob('*.csv')) ", 2)
    assert (found.name, found.items, found.parallel) == ("f", ["a.csv"], 2)
    assert mapped_by_itself("n=[math.floor(x) for x in (1.5, 2.5)]", None).items == [1, 2]


def test_an_input_takes_its_place_in_a_command_and_makes_no_words() -> None:
    command = "python train.py --seed {seed} 'of {seed}' {other}"
    for value, words in {
        "3": ["--seed", "3", "of 3"],
        '"a b; rm $HOME"': ["--seed", "a b; rm $HOME", "of a b; rm $HOME"],
        '{"k": [1]}': ["--seed", '{"k": [1]}', 'of {"k": [1]}'],
    }.items():
        found = shlex.split(filled(command, "seed", ("json", value.encode())))
        assert found == ["python", "train.py", *words, "{other}"]
    assert filled(command, "", ("json", b"3")) == command
    assert filled("python train.py", "seed", ("bytes", b"raw")) == "python train.py"


@pytest.mark.parametrize("item", [b"raw", "a\0b"])
def test_what_is_no_word_is_refused_where_a_command_asks_for_one(item: Any) -> None:
    origin = Origin("me", "", ".", {}, SIGNER, 1 << 20)
    items = Mapped("seed", ["fine", item])
    with pytest.raises(UsageError, match=r"inputs: item 1 cannot be a word of the command, where \{seed\}"):
        draft_program(origin, "python train.py {seed}", None, JobOptions(), "", items)
    draft_program(origin, "python train.py", None, JobOptions(), "", items)


# ---------------------------------------------------------------------- drafts


@pytest.fixture(scope="module")
def shell() -> InteractiveShell:
    return InteractiveShell.instance()


def _drafted(shell: InteractiveShell, source: str, namespace: dict[str, Any], **options: Any) -> Any:
    origin = Origin("me", "", ".", namespace, SIGNER, 1 << 20)
    items = Mapped("x", [1, {"k": [2]}])
    return draft_cell(
        origin, source, JobOptions(**options), "", pending=lambda n: None, shell=shell, mapped=items
    )


def test_items_are_frozen_with_the_inputs_and_hide_a_name_of_the_notebook(shell: InteractiveShell) -> None:
    namespace: dict[str, Any] = {"x": object(), "k": 3, "unread": 1}
    drafted = _drafted(shell, "import math\ndef f(): pass\ny = x * k\nz: int = 1", namespace)
    draft, spec = drafted.draft, drafted.draft.spec
    assert {v.name: v.type for v in spec.inputs} == {"k": "int", "x": "list, 2 items"}
    assert set(spec.expected) == drafted.pending == {"y", "z"}, "no lists of modules and functions"
    assert spec.batch == Batch("x", 2)
    assert drafted.possible == frozenset()
    values = thaw(draft.frozen.graph, [b.data for b in draft.frozen.buffers], {})
    assert values == {"k": 3, ITEMS: [1, {"k": [2]}]}
    assert _drafted(shell, "y = x", {}, outputs=("y", "f")).draft.spec.expected == ("y", "f")


def test_a_cell_that_changes_inputs_in_place_gets_copies(shell: InteractiveShell) -> None:
    assert _drafted(shell, "a[0] = x", {"a": [1]}).draft.spec.batch.copies
    assert not _drafted(shell, "y = a[0] + x", {"a": [1]}).draft.spec.batch.copies


def test_an_item_that_cannot_travel_is_named_by_its_number() -> None:
    lock = threading.Lock()
    code = {"options": JobOptions(), "label": ""}
    with pytest.raises(
        NotPicklable, match=r"^item 2 of the batch cannot travel: x\[\"a\"\]\[0\]: a thread lock"
    ):
        draft_code(ORIGIN, "y = x", **code, values={}, mapped=Mapped("x", [1, 2, {"a": [lock]}]))
    with pytest.raises(NotPicklable, match=r"^item 0 of the batch cannot travel: a thread lock"):
        draft_call(ORIGIN, str, (), {}, JobOptions(), "", Mapped("", [lock]))


# ---------------------------------------------------------------------- the handle


class Batched:
    """A job whose payloads are at hand."""

    def __init__(self, total: int) -> None:
        self.id, self.ended = "score-1", False
        self.record = JobRecord(JobSpec(id=self.id, batch=Batch("x", total)), phase=Phase.RUNNING)
        self.payloads: dict[str, Any] = {}
        self.fetched: list[str] = []
        self.items = Items(self)

    def done(self) -> bool:
        return self.ended

    def put(self, slot: int, values: dict[str, Any], *ended: tuple[int, int]) -> None:
        frozen = freeze(values, {}, SIGNER, copy=False)
        self.payloads[f"items-{slot}"] = ({"values": frozen.values}, frozen.graph, [])
        chunk = [slot, [[i, ok, 0.5] for i, ok in ended]]
        self.items.take({"chunks": [chunk], "running": [8, 9]})

    def fetch(self, slot: str) -> Any:
        self.fetched.append(slot)
        return self.payloads[slot]

    def thaw(self, payload: Any, names: Sequence[str], refused: dict[str, str]) -> dict[str, Any]:
        return thaw(payload[1], payload[2], {}, names, refused)

    def given(self, index: int) -> Any:
        return f"item {index}"


def batched() -> Batched:
    job = Batched(10)
    job.put(0, {key_of(3, "y"): [3], key_of(3, RESULT): "three"}, (3, 1))
    job.put(1, {key_of(1, "y"): [1], key_of(2, ERROR): KeyError("two")}, (1, 1), (2, 0))
    return job


def test_items_that_have_ended_are_there_while_others_run() -> None:
    items = batched().items
    assert len(items) == 10
    assert [i.index for i in items.done] == [1, 2, 3]
    assert [i.index for i in items.succeeded] == [1, 3]
    assert [i.index for i in items.failed] == [2]
    assert [i.index for i in items.running] == [8, 9]
    assert [i.index for i in items.waiting] == [0, 4, 5, 6, 7]
    assert [items[i].status for i in (3, 2, 8, -3)] == [
        ItemStatus.SUCCEEDED,
        ItemStatus.FAILED,
        ItemStatus.RUNNING,
        ItemStatus.WAITING,
    ]
    three = items[3]
    assert dict(three.outputs) == {"y": [3]}
    assert (three.result, three.seconds, three.value, three.error) == ("three", 0.5, "item 3", None)
    assert items[1].result is None
    assert str(items[2].error) == "'two'"
    with pytest.raises(KeyError, match="two"):
        _ = items[2].result
    with pytest.raises(StillRunning, match="item 0 has not ended: it is waiting"):
        _ = items[0].outputs
    with pytest.raises(KeyError, match="item 3 has no output 'z'; it has: y"):
        _ = three.outputs["z"]
    with pytest.raises(IndexError, match="job score-1 has 10 items, and no item 10"):
        _ = items[10]
    assert [i.index for i in items[1:3]] == [1, 2]
    assert repr(three) == "<item 3: succeeded, 0.5 s>"


def test_lists_have_none_where_an_item_is_missing() -> None:
    items = batched().items
    assert items.lists(["y"], {}) == {"y": [None, [1], None, [3], *[None] * 6]}


def test_neighbours_are_fetched_together() -> None:
    job = batched()
    for _ in range(5):
        assert job.items[3].outputs["y"] == [3]
        assert job.items[1].outputs["y"] == [1]
    assert job.fetched == ["items-0", "items-1"]


def test_as_completed_gives_each_once_in_the_order_of_their_ends() -> None:
    job = batched()
    found: list[int] = []

    def follow() -> None:
        found.extend(item.index for item in job.items.as_completed())

    thread = threading.Thread(target=follow)
    thread.start()
    job.put(2, {key_of(0, "y"): 0}, (0, 1), (1, 1))
    job.ended = True
    job.items.wake()
    thread.join(30)
    assert found == [3, 1, 2, 0]
    job.ended = False
    with pytest.raises(StillRunning, match=r"4 of 10 items of job score-1 have ended after 0 s"):
        list(job.items.as_completed(timeout=0))


def test_an_item_whose_worker_died_says_so() -> None:
    job = Batched(3)
    lost = {"reason": "JobCrashed", "message": "The worker of the item died", "hint": ""}
    job.items.take({"chunks": [[-1, [[1, 0, 0.0]]]], "lost": [[1, lost]]})
    assert isinstance(job.items[1].error, JobCrashed)
    assert dict(job.items[1].outputs) == {}
    job.items.begin_again()
    assert not job.items.done


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_the_account_is_that_of_the_events(ends: list[tuple[int, bool]]) -> None:
    job, last = Batched(10), {}
    for index, ok in ends:
        job.items.take({"chunks": [[0, [[index, int(ok), 0.1]]]], "running": [0, index]})
        last[index] = ok
    assert {i.index: i.status is ItemStatus.SUCCEEDED for i in job.items.done} == last
    begun = last.keys() | ({0} if ends else set())
    assert {i.index for i in job.items.waiting} == set(range(10)) - begun


# ---------------------------------------------------------------------- how it looks


def record_of(phase: Phase, counts: ItemCounts, **changes: Any) -> JobRecord:
    spec = JobSpec(id="score-1", label="score", batch=Batch("x", counts.total), expected=("y",))
    steps = {"running": Step(100.0)}
    return JobRecord(spec, phase, steps=steps, last_seen=162.0, started=99.0, items=counts, **changes)


FAILED = tuple(FailedItem(i, f"store={i}", "ValueError: no sales", 0.7) for i in range(5))
HALF = ItemCounts(1000, 612, 8, 4, first=FAILED)


def test_a_panel_shows_how_far_a_batch_is() -> None:
    view = job_view(record_of(Phase.RUNNING, HALF))
    assert view["meta"] == ["620 of 1,000 items", "about 38 s left"]
    assert view["batch"]["text"] == "620 of 1,000 done, 8 failed"
    assert view["batch"]["parts"] == [["ok", 61.2], ["failed", 0.8], ["running", 0.4]]
    assert [c["text"] for c in view["batch"]["counts"]] == [
        "612 ok",
        "8 failed",
        "4 running",
        "376 waiting",
    ]
    assert view["failed"]["title"] == "8 failed items"
    assert view["failed"]["rows"][0] == ["0", "store=0", "ValueError: no sales", "0.7 s"]
    assert view["failed"]["more"] == "3 more: `score.items.failed`"
    assert view["failed"]["action"] is None, "nothing can be tried again before the end"
    outputs = view["values"][-1]["items"]
    assert outputs == [{"name": "y", "facts": ["list of 1,000", "612 ready"]}]
    assert row_fact(record_of(Phase.RUNNING, HALF)) == "620 of 1,000"
    assert job_line(record_of(Phase.RUNNING, HALF)).endswith("  620 of 1,000")


def test_no_remaining_time_is_told_of_the_first_items() -> None:
    assert job_view(record_of(Phase.RUNNING, ItemCounts(1000, 40, 0, 4)))["meta"] == ["40 of 1,000 items"]
    kept = ItemCounts(1000, 940, 0, 4, kept=900)  # of a retry what was there before took no time
    assert job_view(record_of(Phase.RUNNING, kept))["meta"] == ["940 of 1,000 items", "about 1 min 33 s left"]


def test_at_the_end_the_failed_items_can_be_tried_again() -> None:
    message = "8 of 1,000 items failed; the error is that of item 0: store=0"
    failure = Failure(message=message, ename="ValueError", evalue="no sales", traceback=("Trace", "back"))
    counts = ItemCounts(1000, 992, 8, first=FAILED)
    record = record_of(Phase.FAILED, counts, failure=failure, ended=200.0)
    view = job_view(record)
    assert view["failed"]["action"]["options"] == {"failed": True}
    assert view["reason"]["main"] == message
    assert view["traceback"]["lines"] == ["Trace", "back"]
    assert row_fact(record) == "8 of 1,000 failed"
    for said in (text(record), bundle(record)["text/html"]):
        assert "1,000 items, 992 ok, 8 failed" in said
        assert message in said


def test_items_that_need_more_memory_are_tried_again_with_more() -> None:
    options = JobOptions(resources=Resources(memory=2**30), map="x=xs")
    record = record_of(
        Phase.FAILED,
        ItemCounts(1000, 992, 8, first=FAILED),
        failure=Failure(reason="OutOfMemory", message="An item needed more"),
        ended=200.0,
        attempt=1,
    )
    steps = {**record.steps, "inputs": Step(1.0, 2.0)}
    record = record.replace(spec=record.spec.replace(options=options), steps=steps)
    action = job_view(record)["reason"]["action"]
    assert action["label"] == "Retry failed with 2 GiB"
    assert action["options"] == {"memory": 2 * 2**30, "failed": True}


def test_a_batch_that_ended_well_is_a_line_with_its_count() -> None:
    record = record_of(Phase.SUCCEEDED, ItemCounts(1000, 1000), ended=200.0)
    view = job_view(record)
    assert view["line"]
    assert view["meta"][0] == "1,000 items"
    assert view["failed"] is None
    assert row_fact(record) == "1,000 items"
    assert job_view(record_of(Phase.SUCCEEDED, ItemCounts(0), ended=200.0))["batch"] is None


# ---------------------------------------------------------------------- calls that are refused


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: api.submit("y = x", map=[1, 2]), "map: code needs one name for its items"),
        (lambda: api.submit("y = x", map={"x": [1], "z": [2]}), "map: code needs one name for its items"),
        (lambda: api.submit("y = x", map={"1x": [1]}), "map: '1x' is not a name"),
        (lambda: api.submit("y = x", map={"x": 5}), "map={'x': …}: an int has no items"),
        (lambda: api.submit(str, map=5), "map: an int has no items"),
        (lambda: api.submit(str, 5, max_parallel=2), "max_parallel is for batches. Add map="),
        (
            lambda: api.submit(str, map=[1], max_parallel=0),
            "max_parallel=0: expected a whole number, one or more",
        ),
        (
            lambda: api.submit_program("true", input=1, inputs=[1]),
            "input and inputs: a program has one of them",
        ),
        (lambda: api.submit_program("true", inputs=[1, {2}]), "inputs: item 1: Object of type set"),
        (lambda: api.submit_program("true", max_parallel=2), "max_parallel is for batches. Add inputs="),
    ],
)
def test_a_bad_call_is_refused_before_anything_is_sent(
    call: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = SimpleNamespace(
        origin=lambda: ORIGIN,
        config=SimpleNamespace(job_options=JobOptions),
        checked=lambda options: options,
        launch=lambda draft: pytest.fail("it was sent"),
    )
    monkeypatch.setattr(api, "session", lambda: here)
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).startswith(says)
