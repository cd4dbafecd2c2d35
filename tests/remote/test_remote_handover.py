"""Standbys in a real store: one job each, also for many who want them, and nothing that others wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.client import Pipeline
from redis.exceptions import ConnectionError

from jupyter_rayoffload.remote.signing import Signer, Tampered
from jupyter_rayoffload.remote.store import Missing, NewRecord, Store

pytestmark = pytest.mark.redis

Open = Callable[..., Store]


def plan(key: str = "a", **more: Any) -> dict[str, Any]:
    return {"key": key, "package": "", "modules": [], "imports": [], "connect": False, "idle": 60, **more}


def waits(store: Store, standby: str, key: str = "a") -> None:
    """Order a standby, and let it wait."""
    store.handovers.order(standby, plan(key))
    assert store.handovers.announce(standby, {**store.handovers.plan(standby), "since": 1.0, "memory": 5})


def test_each_is_handed_one_job_however_many_want_it(store: Store, open_store: Open) -> None:
    ids = [f"standby-{n}" for n in range(5)]
    for standby in ids:
        waits(store, standby)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: store.handovers.hand(["a"], f"job-{n}", 1), range(20)))
    assert sorted(filter(None, found)) == ids
    letters = [store.handovers.await_letter(standby, 1) for standby in ids]
    assert len({letter["job"] for letter in letters if letter}) == 5


@pytest.mark.parametrize("new", [True, False], ids=["a new job", "a retry"])
def test_a_hand_over_whose_answer_was_lost_reaches_one_standby(
    store: Store, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    for standby in ("one", "two"):
        waits(store, standby)
    if not new:
        store.create("job", {"spec": {}})
    execute, lost = Pipeline.execute, ["once"]

    def answer_lost(pipeline: Pipeline, *args: Any, **kwargs: Any) -> Any:
        answers = execute(pipeline, *args, **kwargs)
        if lost:
            raise ConnectionError(f"lost {lost.pop()}")
        return answers

    monkeypatch.setattr(Pipeline, "execute", answer_lost)
    if new:
        assert store.create_handed(NewRecord("job", {"spec": {}}), ["a"], 1) == "one"
    else:
        assert store.handovers.hand(["a"], "job", 1) == "one"
    assert not lost
    assert store.handovers.await_letter("one", 1) == {"job": "job", "attempt": 1}
    assert store.handovers.await_letter("one", 0.05) is None
    assert store.handovers.await_letter("two", 0.05) is None


def test_a_large_spec_is_read_from_the_record(store: Store) -> None:
    for standby, size in (("small", 10), ("large", 1 << 17)):
        waits(store, standby)
        spec = {"source": "x" * size}
        assert store.handovers.hand(["a"], f"{standby}-job", 1, spec) == standby
        letter = store.handovers.await_letter(standby, 1)
        assert letter is not None and letter.get("spec") == (spec if standby == "small" else None)


def test_one_that_gives_no_sign_of_life_is_struck_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_rayoffload.remote.handover.LIFE_SECONDS", 0.2)
    waits(store, "dead")
    waits(store, "alive")
    monkeypatch.setattr("jupyter_rayoffload.remote.handover.LIFE_SECONDS", 60.0)
    assert store.handovers.beat("alive")
    time.sleep(0.3)
    assert store.handovers.hand(["a"], "job", 1) == "alive"
    assert not store.handovers.beat("dead")
    with pytest.raises(Missing):
        store.handovers.plan("dead")
    assert not store.handovers.announce("dead", plan()), "it is not wanted any more"


def test_what_others_wrote_is_not_acted_upon(store: Store, open_store: Open) -> None:
    waits(store, "standby")
    key = store._link.key("standby:standby:")
    forger = Signer(b"x" * 32)
    store._link.client.rpush(f"{key}job", forger.sign("handover", b'{"job": "evil", "attempt": 1}'))
    with pytest.raises(Tampered):
        store.handovers.await_letter("standby", 1)
    store._link.client.rpush(f"{key}taken", forger.sign("taken:standby", b"job"))
    with pytest.raises(Tampered):
        store.handovers.taken("standby", "job", 1)
    store._link.client.set(f"{key}plan", forger.sign("standby:standby", b"{}"))
    with pytest.raises(Tampered):
        store.handovers.plan("standby")


def test_nothing_of_a_standby_stays_for_ever(store: Store) -> None:
    for standby in ("served", "dismissed", "left"):
        waits(store, standby)
    assert store.handovers.hand(["a"], "job", 1) == "served"
    store.create("job", {"spec": {}})
    assert store.accept_handed("served", "job", 1, "me")[1]
    store.delete("job")
    store.handovers.dismiss("dismissed", "a")
    assert store.handovers.leave("left", "a")
    store.handovers.order("ordered", plan())
    keys = list(store._link.client.scan_iter(store._link.key("*")))
    assert len(keys) >= 4
    assert [key for key in keys if store._link.client.pttl(key) == -1] == []
