"""Standbys in a real store: one job each, also for many who want them, and nothing that others wrote."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jupyter_rayoffload.remote.signing import Signer, Tampered
from jupyter_rayoffload.remote.store import Missing, Store

pytestmark = pytest.mark.redis

Open = Callable[..., Store]


def plan(key: str = "a", **more: Any) -> dict[str, Any]:
    return {"key": key, "package": "", "modules": [], "imports": [], "connect": False, "idle": 60, **more}


def waits(store: Store, standby: str, key: str = "a") -> None:
    """Order a standby, and let it wait."""
    store.handovers.order(standby, plan(key))
    assert store.handovers.announce(standby, {**store.handovers.plan(standby), "since": 1.0, "memory": 5})


def test_a_job_goes_to_the_first_that_waits_under_its_keys(store: Store) -> None:
    ours = store.handovers
    assert ours.hand(["a", "b"], "job", 1) == ""
    waits(store, "second", "b")
    waits(store, "first", "a")
    assert ours.hand(["a", "b"], "job", 2) == "first"
    assert ours.await_letter("first", 1) == {"job": "job", "attempt": 2}
    assert ours.hand(["a", "b"], "job", 3) == "second"
    assert ours.hand(["a", "b"], "job", 4) == ""
    assert not ours.taken("first", "job", 0.05)
    ours.take("first", "job")
    assert ours.taken("first", "job", 1)


def test_those_that_wait_are_listed_with_what_they_hold(store: Store) -> None:
    ours = store.handovers
    ours.order("coming", plan())
    assert ours.waiting() == [] and ours.pending("a") == 1
    waits(store, "there")
    [found] = ours.waiting()
    assert (found["id"], found["key"], found["memory"]) == ("there", "a", 5)
    assert ours.pending("a") == 2 and ours.pending("b") == 0
    ours.hand(["a"], "job", 1)
    ours.take("there", "job")
    assert ours.waiting() == [] and ours.pending("a") == 1


def test_each_is_handed_one_job_however_many_want_it(store: Store, open_store: Open) -> None:
    ids = [f"standby-{n}" for n in range(5)]
    for standby in ids:
        waits(store, standby)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: store.handovers.hand(["a"], f"job-{n}", 1), range(20)))
    assert sorted(filter(None, found)) == ids
    letters = [store.handovers.await_letter(standby, 1) for standby in ids]
    assert len({letter["job"] for letter in letters if letter}) == 5


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


def test_one_that_is_not_wanted_hears_it_and_one_with_a_job_keeps_it(store: Store) -> None:
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


def test_whoever_leaves_knows_whether_a_letter_is_on_its_way(store: Store) -> None:
    ours = store.handovers
    waits(store, "one")
    assert ours.leave("one", "a") and not ours.waiting()
    waits(store, "two")
    ours.hand(["a"], "job", 1)
    assert not ours.leave("two", "a")
    assert ours.await_letter("two", 1) == {"job": "job", "attempt": 1}


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


def test_an_attempt_that_was_taken_back_is_claimed_by_its_own_submission_alone(store: Store) -> None:
    store.create("job", {"spec": {}})
    assert store.take_back("job", 1)
    assert not store.claim("job", 1, "standby", standby=True)
    assert store.claim("job", 1, "own") and store.claim("job", 1, "own")
    assert not store.claim("job", 1, "another")
    assert store.claim("job", 2, "standby", standby=True)
    assert not store.take_back("job", 2) and not store.claim("job", 2, "own")
