"""What every store does: the fake in memory, and the real one over TCP and a unix socket."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Missing, NewRecord, Store, Taken, Tampered
from tests.fakes import MemoryStore
from tests.remote.redis_fixture import KEY, address, short_folder  # noqa: F401
from tests.servers import start_redis

SIGNER = Signer(KEY)


@pytest.fixture(scope="module", params=["memory", "tcp", "unix"])
def store(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Any]:  # noqa: F811
    if request.param == "memory":
        yield MemoryStore(SIGNER)
        return
    server = start_redis(short_folder / f"contract-{request.param}", unix=request.param == "unix")
    with Store(address(server), "contract", SIGNER) as real:
        yield real
    server.stop()


@pytest.fixture
def job(store: Any) -> str:
    job_id = f"job-{uuid.uuid4().hex[:6]}"
    store.create(job_id, {"spec": {"id": job_id}})
    return job_id


def text(writer: str, number: int) -> list[dict[str, Any]]:
    return [{"t": 1.5, "type": "stream", "content": {"name": "stdout", "text": f"{writer} {number} ü\ud800"}}]


def frozen(values: dict[str, Any]) -> codec.Frozen:
    return codec.freeze(values, {}, SIGNER, copy=True)


# ---------------------------------------------------------------------- records


def test_a_record_is_read_as_it_was_written(store: Any, job: str) -> None:
    store.ping()
    store.write(job, "end", {"phase": "failed", "text": "ü", "n": [1, None, 2.5]})
    end = {"phase": "failed", "text": "ü", "n": [1, None, 2.5]}
    assert store.read(job) == {"spec": {"id": job}, "end": end}
    assert store.read("nobody") is None
    assert store.read_many(["nobody", job]) == {job: store.read(job)}
    assert store.read_many([]) == {}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=20))
def test_any_json_survives(store: Any, job: str, value: Any) -> None:
    store.write(job, "state", value)
    assert store.read(job)["state"] == value


def test_an_id_is_taken_once(store: Any, job: str) -> None:
    with pytest.raises(Taken):
        store.create(job, {"spec": {"id": "another"}})
    assert store.read(job)["spec"] == {"id": job}


def test_two_threads_create_one_job(store: Any) -> None:
    for _ in range(10):
        job_id, barrier, done = f"race-{uuid.uuid4().hex[:6]}", threading.Barrier(2), []

        def create(who: int, job_id: str = job_id, barrier: Any = barrier, done: Any = done) -> None:
            barrier.wait()
            try:
                store.create(job_id, {"spec": {"who": who}})
                done.append(who)
            except Taken:
                pass

        threads = [threading.Thread(target=create, args=(who,)) for who in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(done) == 1
        assert store.read(job_id)["spec"] == {"who": done[0]}


@pytest.mark.parametrize("bad", ["", "a:b", "../x", "a" * 65, "a b", "ü"])
def test_an_id_cannot_name_another_key(store: Any, bad: str) -> None:
    with pytest.raises(ValueError, match="id of a job"):
        store.create(bad, {"spec": {}})
    with pytest.raises(ValueError, match="id of a job"):
        store.read(bad)


def test_writing_to_a_job_that_is_gone_makes_no_job(store: Any, job: str) -> None:
    store.delete(job)
    for write in (
        lambda: store.write(job, "end", {}),
        lambda: store.write_state(job, {"phase": "running"}),
        lambda: store.claim(job, 1, "me"),
        lambda: store.request_stop(job, "me", "soon"),
        lambda: store.touch(job),
    ):
        with pytest.raises(Missing, match=job):
            write()
    assert store.read(job) is None
    assert job not in store.ids(10_000)


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "lost"])
def test_an_ended_phase_is_never_taken_back(store: Any, job: str, end: str) -> None:
    assert store.write_state(job, {"phase": "running", "attempt": 1})
    assert store.write_state(job, {"phase": end, "attempt": 1})
    for phase in ("running", "succeeded", "lost"):
        assert not store.write_state(job, {"phase": phase, "attempt": 1})
        assert not store.write_state(job, {"phase": phase, "attempt": 1}, force=True)
        assert not store.write_state(job, {"phase": phase, "attempt": 2})
    assert store.read(job)["state"] == {"phase": end, "attempt": 1}


def test_a_new_attempt_replaces_an_ended_one_and_forgets_its_stop(store: Any, job: str) -> None:
    store.write_state(job, {"phase": "running", "attempt": 1})
    store.request_stop(job, "ada", "now")
    store.write_state(job, {"phase": "cancelled", "attempt": 1})
    assert store.write_state(job, {"phase": "pending", "attempt": 2}, force=True)
    assert store.read(job)["state"] == {"phase": "pending", "attempt": 2}
    assert store.stop_requested(job) is None
    assert not store.write_state(job, {"phase": "failed", "attempt": 1}), (
        "what the first attempt says is past"
    )


def test_states_of_many_writers_end_once(store: Any, job: str) -> None:
    barrier, won = threading.Barrier(4), []

    def run(who: int) -> None:
        barrier.wait()
        for n in range(20):
            store.write_state(job, {"phase": "running", "attempt": 1, "who": who, "n": n})
        if store.write_state(job, {"phase": "failed", "attempt": 1, "who": who}):
            won.append(who)

    threads = [threading.Thread(target=run, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read(job)["state"] == {"phase": "failed", "attempt": 1, "who": won[0]}


def test_exactly_one_claims_an_attempt(store: Any, job: str) -> None:
    assert store.claim(job, 1, "a")
    assert not store.claim(job, 1, "b")
    assert store.claim(job, 1, "a"), "the same caller asks again when the answer was lost"
    assert store.claim(job, 2, "b")


def test_who_accepts_an_attempt_has_its_record(store: Any, job: str) -> None:
    store.write(job, "end", {"attempt": 1})
    record, mine = store.accept(job, 2, "a")
    assert mine and record == {"spec": {"id": job}, "end": {"attempt": 1}}
    assert store.accept(job, 2, "a")[1], "the same caller asks again when the answer was lost"
    assert not store.accept(job, 2, "b")[1] and not store.claim(job, 2, "b")
    assert store.take_back(job, 3) and not store.accept_handed("standby", job, 3, "standby")[1]
    assert store.accept(job, 3, "own")[1]
    assert store.accept("nothing", 1, "a") == (None, False) and store.read("nothing") is None


def test_a_voided_attempt_cannot_be_claimed(store: Any, job: str) -> None:
    assert store.void(job, 1)
    assert not store.claim(job, 1, "late")
    assert store.claim(job, 2, "next")
    assert not store.void(job, 2)


def test_a_request_to_stop_is_seen(store: Any, job: str) -> None:
    assert store.stop_requested(job) is None
    store.request_stop(job, "ada", "interrupt")
    request = store.stop_requested(job)
    assert (request["by"], request["how"]) == ("ada", "interrupt")
    assert abs(request["time"] - time.time()) < 60


def test_ids_come_newest_first_and_in_pages(store: Any) -> None:
    far = 4e9 + uuid.uuid4().int % 10**6 * 100
    made = [f"page-{uuid.uuid4().hex[:6]}" for _ in range(5)]
    for i, job_id in enumerate(made):
        store.create(job_id, {"spec": {}}, created=far + i)
    assert [i for i in store.ids(10_000) if i in made] == made[::-1]
    assert store.ids(2, before=far + 3) == [made[2], made[1]]
    store.delete(made[1])
    assert store.ids(2, before=far + 3) == [made[2], made[0]]
    for job_id in made:
        store.delete(job_id)


# ---------------------------------------------------------------------- events


def test_events_come_in_order_and_from_where_asked(store: Any, job: str) -> None:
    assert store.read_events(job) == []
    for number in (1, 2, 3):
        store.append(job, "run", number, text("run", number))
    entries = store.read_events(job)
    assert [(e.writer, e.number, e.messages) for e in entries] == [
        ("run", n, text("run", n)) for n in (1, 2, 3)
    ]
    assert store.read_events(job, entries[0].id) == entries[1:]
    assert store.read_events(job, count=2) == entries[:2]
    assert store.read_events(job, entries[2].id) == []


def test_a_read_waits_as_long_as_asked(store: Any, job: str) -> None:
    begin = time.monotonic()
    assert store.read_events(job, block_ms=200) == []
    assert 0.15 < time.monotonic() - begin < 5
    timer = threading.Timer(0.1, store.append, (job, "run", 1, text("run", 1)))
    timer.start()
    assert len(store.read_events(job, block_ms=4000)) == 1
    timer.join()


async def gather(store: Any, job: str, count: int, after: str = "0") -> list[Any]:
    stream, found = store.follow(job, after), []
    try:
        async for entry in stream:
            found.append(entry)
            if len(found) == count:
                return found
    finally:
        await stream.aclose()
    raise AssertionError("the stream ended by itself")


def test_following_drops_what_came_twice_and_reports_what_is_missing(store: Any, job: str) -> None:
    for writer, number in [("a", 1), ("a", 2), ("a", 2), ("b", 3), ("a", 1), ("a", 6), ("b", 4)]:
        store.append(job, writer, number, text(writer, number))
    found = asyncio.run(asyncio.wait_for(gather(store, job, 5), 10))
    assert [(e.writer, e.number, e.lost) for e in found] == [
        ("a", 1, 0),
        ("a", 2, 0),
        ("b", 3, 2),
        ("a", 6, 3),
        ("b", 4, 0),
    ]
    rest = asyncio.run(asyncio.wait_for(gather(store, job, 2, after=found[1].id), 10))
    assert [(e.writer, e.number, e.lost) for e in rest] == [("a", 2, 0), ("b", 3, 0)], (
        "what was before is unknown"
    )


def test_a_follower_hears_of_an_entry_within_50_ms(store: Any, job: str) -> None:
    async def run() -> list[float]:
        loop, lags = asyncio.get_running_loop(), []
        stream = store.follow(job)
        heard = asyncio.ensure_future(anext(stream))
        for number in range(1, 8):
            await asyncio.sleep(0.05)  # the follower is waiting by then
            begin = time.monotonic()
            await loop.run_in_executor(None, store.append, job, "run", number, text("run", number))
            assert (await asyncio.wait_for(heard, 5)).number == number
            lags.append(time.monotonic() - begin)
            heard = asyncio.ensure_future(anext(stream))
        heard.cancel()
        await asyncio.gather(heard, return_exceptions=True)
        await stream.aclose()
        return lags

    lags = asyncio.run(run())
    assert sorted(lags)[len(lags) // 2] < 0.05, lags


# ---------------------------------------------------------------------- values


def test_values_come_back_writable_and_their_own(store: Any, job: str) -> None:
    x = np.arange(300_000, dtype=float)
    sent = store.put_payload(job, "inputs", frozen({"x": x, "twin": x.copy(), "view": x[:10], "n": [1, "ü"]}))
    assert sent > x.nbytes
    values = store.get_payload(job, "inputs", {})
    assert list(values) == ["x", "twin", "view", "n"]
    assert np.array_equal(values["x"], x) and np.array_equal(values["twin"], x)
    assert values["n"] == [1, "ü"]
    values["x"][:] = 0
    assert values["twin"][5] == 5, "equal arrays are not the same array"
    assert np.array_equal(store.get_payload(job, "inputs", {}, ["x"])["x"], x)


def test_small_inputs_are_entered_with_their_job(store: Any) -> None:
    sealed = store.seal_payload("small", "inputs", frozen({"n": [1, "ü"]}))
    store.create("small", {"spec": {}}, None, sealed)
    other = store.seal_payload("small", "inputs", frozen({"n": "not this"}))
    with pytest.raises(Taken):
        store.create("small", {"spec": {}}, None, other)
    assert store.get_payload("small", "inputs", {}) == {"n": [1, "ü"]}
    store.delete("small")
    with pytest.raises(Missing):
        store.peek_payload("small", "inputs")


def test_what_is_large_is_not_written_with_other_things(store: Any, job: str) -> None:
    assert store.seal_payload(job, "outputs", frozen({"x": np.zeros(100_000)})) is None
    assert store.seal_payload(job, "outputs", frozen({"text": "x" * 100_000})) is None


def test_the_end_comes_with_small_values(store: Any, job: str) -> None:
    sealed = {slot: store.seal_payload(job, slot, frozen({slot: 7})) for slot in ("outputs", "result")}
    said, end = text("run", 1), {"phase": "succeeded"}
    store.conclude(job, "run", 1, said, end, sealed)
    [entry] = store.read_events(job)
    assert (entry.writer, entry.number, entry.messages, entry.values) == ("run", 1, said, sealed)
    assert store.read(job)["end"] == end
    assert store.get_payload(job, "outputs", {}) == {"outputs": 7}
    header, graph, buffers = store.open_payload(job, "result", entry.values["result"])
    assert codec.thaw(graph, buffers, {}, ["result"]) == {"result": 7}
    assert header["values"] == store.peek_payload(job, "result")["values"]
    with pytest.raises(Tampered):
        store.open_payload(job, "outputs", entry.values["result"])
    store.delete(job)
    with pytest.raises(Missing):
        store.conclude(job, "run", 2, said, end, {})


def test_a_header_is_seen_without_its_values(store: Any, job: str) -> None:
    store.put_payload(job, "outputs", frozen({"x": np.zeros(100_000), "s": "text"}))
    header = store.peek_payload(job, "outputs")
    assert [value["name"] for value in header["values"]] == ["x", "s"]
    assert [buffer["size"] for buffer in header["buffers"]] == [800_000]
    assert "numpy" in header["libraries"]


def test_what_is_there_is_not_sent_again(store: Any, job: str) -> None:
    values = {"x": np.random.default_rng().random(500_000)}
    first, second = (store.put_payload(job, "inputs", frozen(values)) for _ in range(2))
    assert first > 4_000_000
    assert second < 10_000


def test_an_output_that_is_unchanged_is_known_as_an_input(store: Any, job: str) -> None:
    made = codec.freeze({"x": np.arange(200_000.0)}, {}, SIGNER, copy=False)
    assert store.put_payload(job, "outputs", made) > 1_600_000
    came = store.get_payload(job, "outputs", {})["x"]
    store.landed(job)
    assert store.put_payload(job, "inputs", frozen({"renamed": came, "more": 1})) < 10_000
    came[0] = 1
    assert store.put_payload(job, "inputs", frozen({"x": came})) > 1_600_000


def test_a_rerun_takes_over_frozen_inputs(store: Any, job: str) -> None:
    x = np.random.default_rng().random(50_000)
    store.put_payload(job, "inputs", frozen({"x": x}))
    store.create(f"{job}-2", {"spec": {}})
    store.copy_payload(job, f"{job}-2", "inputs")
    store.delete(job)
    assert np.array_equal(store.get_payload(f"{job}-2", "inputs", {})["x"], x)
    with pytest.raises(Missing):
        store.copy_payload(job, f"{job}-2", "inputs")


def test_what_is_missing_is_said(store: Any, job: str, tmp_path: Path) -> None:
    for ask in (
        lambda: store.get_payload(job, "outputs", {}),
        lambda: store.peek_payload(job, "outputs"),
        lambda: store.get_blob("0" * 64, 10),
        lambda: store.get_package("1" * 64, tmp_path / "x.zip"),
    ):
        with pytest.raises(Missing):
            ask()
    assert not list(tmp_path.iterdir())
    assert not store.has_blob("0" * 64)
    assert not store.has_package("1" * 64)


@pytest.mark.parametrize("size", [0, 1, 524_288, 524_289, 1044479, 1044480, 1044481, 3_000_001])
def test_buffers_of_any_size(store: Any, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    digest = SIGNER.digest(data)
    seen: list[tuple[int, int]] = []
    assert store.put_blob(digest, memoryview(data), lambda *at: seen.append(at)) == size
    assert store.has_blob(digest)
    assert not size or seen[-1] == (size, size)
    assert store.put_blob(digest, memoryview(data)) == 0
    back = store.get_blob(digest, size)
    assert back == data
    assert not back.readonly


@pytest.mark.parametrize("size", [0, 10, 2_500_000])
def test_packages(store: Any, tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    name = uuid.uuid4().hex
    (tmp_path / "package.zip").write_bytes(data)
    assert store.put_package(name, tmp_path / "package.zip") == size
    assert store.has_package(name)
    assert store.put_package(name, tmp_path / "package.zip") == 0
    store.get_package(name, tmp_path / "copy.zip")
    assert (tmp_path / "copy.zip").read_bytes() == data
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy.zip", "package.zip"]


def test_a_deleted_job_leaves_nothing(store: Any, job: str) -> None:
    store.append(job, "run", 1, text("run", 1))
    store.put_payload(job, "inputs", frozen({"x": 1}))
    store.delete(job)
    assert store.read(job) is None
    assert store.read_events(job) == []
    with pytest.raises(Missing):
        store.peek_payload(job, "inputs")
    store.delete(job)


# ---------------------------------------------------------------------- standbys


def waits(store: Any, standby: str, key: str = "a") -> None:
    """Order a standby, and let it wait."""
    store.handovers.order(standby, {"key": key, "idle": 60})
    assert store.handovers.announce(standby, {**store.handovers.plan(standby), "since": 1.0, "memory": 5})


@pytest.fixture
def nobody_waits(store: Any) -> Iterator[None]:
    """Let all standbys of a test go, for the store is shared."""
    yield
    for standby in (
        "first",
        "second",
        "coming",
        "there",
        "idle",
        "busy",
        "one",
        "two",
        "asked",
        "spare",
        "quick",
        "slow",
    ):
        for key in ("a", "b"):
            store.handovers.dismiss(standby, key)


@pytest.mark.usefixtures("nobody_waits")
def test_a_job_goes_to_the_first_that_waits_under_its_keys(store: Any) -> None:
    ours = store.handovers
    assert ours.hand(["a", "b"], "job", 1) == ""
    waits(store, "second", "b")
    waits(store, "first", "a")
    assert ours.hand(["a", "b"], "job", 2) == "first"
    assert ours.await_letter("first", 1) == {"job": "job", "attempt": 2}
    assert ours.hand(["a", "b"], "job", 3) == "second"
    assert ours.hand(["a", "b"], "job", 4) == ""
    assert not ours.taken("first", "job", 0.05)
    store.create("job", {"spec": {}})
    assert store.accept_handed("first", "job", 2, "me") == ({"spec": {}}, True)
    assert ours.taken("first", "job", 1)
    assert store.accept_handed("first", "job", 2, "other")[1] is False
    assert not ours.taken("first", "job", 0.05)
    store.delete("job")


@pytest.mark.usefixtures("nobody_waits")
def test_a_hand_over_that_is_repeated_gives_the_same_standby(store: Any, job: str) -> None:
    ours = store.handovers
    for standby in ("asked", "spare"):
        waits(store, standby)
    assert ours.hand(["a"], job, 1) == "asked"
    assert ours.hand(["a"], job, 1) == "asked", "its answer may have been lost"
    assert ours.await_letter("asked", 1) == {"job": job, "attempt": 1}
    assert ours.await_letter("asked", 0.05) is None
    assert ours.hand(["a"], job, 2) == "spare"


@pytest.mark.usefixtures("nobody_waits")
def test_a_job_is_entered_and_handed_over_in_one_step(store: Any) -> None:
    new = NewRecord("entered", {"spec": {"id": "entered"}})
    waits(store, "quick")
    assert store.create_handed(new, ["b", "a"], 1) == "quick"
    assert store.handovers.await_letter("quick", 1) == {
        "job": "entered",
        "attempt": 1,
        "spec": {"id": "entered"},
    }
    assert store.accept_handed("quick", "entered", 1, "me") == ({"spec": {"id": "entered"}}, True)
    waits(store, "slow")
    with pytest.raises(Taken):
        store.create_handed(NewRecord("entered", {"spec": {}}), ["a"], 2)
    assert store.handovers.await_letter("slow", 0.05) is None, "the job that is there was handed over"
    store.delete("entered")
    assert store.create_handed(new, ["b"], 1) == ""
    assert store.read("entered") == {"spec": {"id": "entered"}}
    store.delete("entered")


@pytest.mark.usefixtures("nobody_waits")
def test_those_that_wait_are_listed_with_what_they_hold(store: Any) -> None:
    ours = store.handovers
    ours.order("coming", {"key": "a", "idle": 60})
    assert ours.waiting() == []
    assert [(plan["id"], plan["key"]) for plan in ours.ordered()] == [("coming", "a")]
    waits(store, "there")
    assert [plan["id"] for plan in ours.ordered()] == ["coming", "there"]
    [found] = ours.waiting()
    assert (found["id"], found["key"], found["memory"]) == ("there", "a", 5)
    ours.hand(["a"], "job", 1)
    store.create("job", {"spec": {}})
    assert store.accept_handed("there", "job", 1, "me")[1]
    store.delete("job")
    assert ours.waiting() == [] and [plan["id"] for plan in ours.ordered()] == ["coming"]


@pytest.mark.usefixtures("nobody_waits")
def test_one_that_is_not_wanted_hears_it_and_one_with_a_job_keeps_it(store: Any) -> None:
    ours = store.handovers
    waits(store, "idle")
    ours.dismiss("idle", "a")
    assert ours.await_letter("idle", 1) == {"end": True}
    assert ours.hand(["a"], "job", 1) == ""
    waits(store, "busy")
    assert ours.hand(["a"], "job", 1) == "busy"
    ours.dismiss("busy", "a")
    assert ours.await_letter("busy", 1) == {"job": "job", "attempt": 1}
    assert ours.await_letter("busy", 0.05) is None


@pytest.mark.usefixtures("nobody_waits")
def test_whoever_leaves_knows_whether_a_letter_is_on_its_way(store: Any) -> None:
    ours = store.handovers
    waits(store, "one")
    assert ours.leave("one", "a") and not ours.waiting()
    waits(store, "two")
    ours.hand(["a"], "job", 1)
    assert not ours.leave("two", "a")
    assert ours.await_letter("two", 1) == {"job": "job", "attempt": 1}


def test_an_attempt_that_was_taken_back_is_claimed_by_its_own_submission_alone(store: Any, job: str) -> None:
    assert store.take_back(job, 1)
    assert not store.claim(job, 1, "standby", standby=True)
    assert store.claim(job, 1, "own") and store.claim(job, 1, "own")
    assert not store.claim(job, 1, "another")
    assert store.claim(job, 2, "standby", standby=True)
    assert not store.take_back(job, 2) and not store.claim(job, 2, "own")
