"""The real store: forged data, servers that die, limits of memory and time, rights."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.signing import Signer, Tampered
from jupyter_rayoffload.remote.store import (
    Lifetimes,
    Missing,
    Store,
    StoreAddress,
    StoreDown,
    StoreNoAuth,
    StoreOutOfMemory,
)
from jupyter_rayoffload.remote.wire import CHUNK
from tests.remote.redis_fixture import KEY, address
from tests.servers import RedisServer, start_redis

pytestmark = pytest.mark.redis

SIGNER = Signer(KEY)
Open = Callable[..., Store]


def prefix(store: Store) -> str:
    return f"rayoffload:{{{store.owner}}}:"


def frozen(values: dict[str, Any]) -> codec.Frozen:
    return codec.freeze(values, {}, SIGNER, copy=True)


def noise(size: int) -> tuple[str, memoryview]:
    data = memoryview(np.random.default_rng().bytes(size))
    return SIGNER.digest(data), data


# ---------------------------------------------------------------------- forged data


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def filled(store: Store, tmp_path: Path) -> str:
    """Make one job with something in every kind of key."""
    store.create("job", {"spec": {"id": "job", "package": "pack"}})
    store.write_state("job", {"phase": "running", "attempt": 1})
    store.claim("job", 1, "runner")
    store.request_stop("job", "ada", "now")
    store.append("job", "run", 1, [{"t": 1, "type": "stream", "content": {}}])
    store.put_payload("job", "inputs", frozen({"x": np.arange(300_000), "s": "text"}))
    (tmp_path / "pack.zip").write_bytes(b"zip" * 1000)
    store.put_package("pack", tmp_path / "pack.zip")
    return str(store.peek_payload("job", "inputs")["buffers"][0]["digest"])


READS: dict[str, Callable[[Store, Path, str], object]] = {
    "spec": lambda s, _, d: s.read("job"),
    "state": lambda s, _, d: s.read_many(["job"]),
    "state, compared": lambda s, _, d: s.write_state("job", {"phase": "failed", "attempt": 1}),
    "claim": lambda s, _, d: s.claim("job", 1, "other"),
    "stop": lambda s, _, d: s.stop_requested("job"),
    "events": lambda s, _, d: s.read_events("job"),
    "payload": lambda s, _, d: s.get_payload("job", "inputs", {}),
    "payload, peeked": lambda s, _, d: s.peek_payload("job", "inputs"),
    "blob header": lambda s, _, d: s.get_payload("job", "inputs", {}),
    "blob chunk": lambda s, _, d: s.get_payload("job", "inputs", {}),
    "package": lambda s, path, d: s.get_package("pack", path / "out.zip"),
    "package content": lambda s, path, d: s.get_package("pack", path / "out.zip"),
}


def spoil(data: bytes) -> bytes:
    return data[:3] + bytes([data[3] ^ 1]) + data[4:]


def forge(client: redis.Redis, base: str, kind: str, digest: str, store: Store) -> None:
    """Change one byte of one value."""
    word = kind.partition(",")[0]
    if word in ("spec", "state", "stop"):
        client.hset(f"{base}job:job", word, spoil(client.hget(f"{base}job:job", word)))
    elif word == "claim":
        client.hset(f"{base}job:job", "claim:1", spoil(client.hget(f"{base}job:job", "claim:1")))
    elif word == "events":
        [(_, fields)] = client.xrange(f"{base}job:job:events")
        client.delete(f"{base}job:job:events")
        client.xadd(f"{base}job:job:events", {**fields, b"d": spoil(fields[b"d"])})
    else:
        package = json.loads(client.get(f"{base}pkg:pack")[:-32])["digest"]
        name = {
            "payload": "job:job:inputs",
            "blob header": f"blob:{digest}",
            "blob chunk": f"blob:{digest}:1",
            "package": "pkg:pack",
            "package content": f"blob:{package}:0",
        }[word]
        client.set(base + name, spoil(client.get(base + name)), keepttl=True)


@pytest.mark.parametrize("kind", READS)
def test_a_changed_byte_is_noticed(
    store: Store, redis_server: RedisServer, tmp_path: Path, kind: str
) -> None:
    digest = filled(store, tmp_path)
    with redis_server.client() as client:
        forge(client, prefix(store), kind, digest, store)
    with pytest.raises(Tampered):
        READS[kind](store, tmp_path, digest)
    assert [p.name for p in tmp_path.iterdir()] == ["pack.zip"], "no file appears that was not checked"


def test_a_stranger_s_pickle_is_not_opened(store: Store, redis_server: RedisServer, tmp_path: Path) -> None:
    store.create("job", {"spec": {}})
    store.put_payload("job", "inputs", frozen({"bomb": 1}))
    with redis_server.client() as client:
        honest = client.get(f"{prefix(store)}job:job:inputs")
        header = honest.partition(b"\n")[0]
        file = tmp_path / "exploded"
        graph = codec.freeze({"bomb": Bomb(file)}, {}, SIGNER, copy=True).graph
        stranger = Signer(b"x" * 32)
        for forged in (
            header + b"\n" + graph + honest[-32:],
            header + b"\n" + pickle.dumps(Bomb(file)) + bytes(32),
            stranger.sign("payload:job:job:inputs", header + b"\n" + graph),
            b"",
            b"short",
        ):
            client.set(f"{prefix(store)}job:job:inputs", forged)
            with pytest.raises(Tampered):
                store.get_payload("job", "inputs", {})
            assert not file.exists()
    # The same bytes, written by the owner, do create it: the check above has seen a live one.
    store.put_payload("job", "inputs", codec.freeze({"bomb": Bomb(file)}, {}, SIGNER, copy=True))
    store.get_payload("job", "inputs", {})["bomb"].close()
    assert file.exists()


def test_what_is_signed_holds_for_its_place_only(
    store: Store, redis_server: RedisServer, tmp_path: Path
) -> None:
    filled(store, tmp_path)
    store.create("other", {"spec": {"id": "other"}})
    base = prefix(store)
    with redis_server.client() as client:
        client.hset(f"{base}job:other", "spec", client.hget(f"{base}job:job", "spec"))
        client.set(f"{base}job:other:inputs", client.get(f"{base}job:job:inputs"))
        client.set(f"{base}job:job:outputs", client.get(f"{base}job:job:inputs"))
        client.set(f"{base}job:job:result", client.hget(f"{base}job:job", "spec"))
        client.set(f"{base}pkg:evil", client.get(f"{base}pkg:pack"))
        [(_, fields)] = client.xrange(f"{base}job:job:events")
        client.xadd(f"{base}job:other:events", fields)
        client.xadd(f"{base}job:job:events", {**fields, b"n": 2})
    for read in (
        lambda: store.read("other"),
        lambda: store.peek_payload("other", "inputs"),
        lambda: store.peek_payload("job", "outputs"),
        lambda: store.peek_payload("job", "result"),
        lambda: store.get_package("evil", tmp_path / "evil.zip"),
        lambda: store.read_events("other"),
        lambda: store.read_events("job"),
    ):
        with pytest.raises(Tampered):
            read()


def test_another_python_s_values_are_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("job", {"spec": {}})
    file = tmp_path / "exploded"
    monkeypatch.setattr(codec, "_python", lambda: "3.9")
    store.put_payload("job", "inputs", codec.freeze({"bomb": Bomb(file)}, {}, SIGNER, copy=True))
    monkeypatch.undo()
    with pytest.raises(codec.WrongFormat, match=r"3\.9"):
        store.get_payload("job", "inputs", {})
    assert not file.exists()


# ---------------------------------------------------------------------- servers that die


def test_an_upload_goes_on_where_it_stopped(own_redis: RedisServer, open_store: Open) -> None:
    store = open_store(own_redis, patience=20)
    digest, data = noise(40 << 20)
    at: list[int] = []

    def crash(done: int, total: int) -> None:
        at.append(done)
        if len(at) in (1, 3):
            own_redis.kill()
            own_redis.start()

    assert store.put_blob(digest, data, crash) == len(data)
    assert at == sorted(at) and at[0] > 0, "what was confirmed is not sent again"
    assert store.get_blob(digest, len(data)) == data


def test_an_upload_that_failed_is_resumed_by_the_next(
    own_redis: RedisServer, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_rayoffload.remote.blobs.BEGUN_SECONDS", 0.2)
    store = open_store(own_redis, patience=0.2)
    with own_redis.client() as client:  # else it may confirm what a busy disk has yet to take
        client.config_set("appendfsync", "always")
    digest, data = noise(40 << 20)
    at: list[int] = []

    def crash(done: int, total: int) -> None:
        at.append(done)
        own_redis.kill()

    with pytest.raises(StoreDown, match=own_redis.url):
        store.put_blob(digest, data, crash)
    own_redis.start()
    assert not store.has_blob(digest), "what is not complete is not there"
    seen: list[tuple[int, int]] = []
    assert store.put_blob(digest, data, lambda *p: seen.append(p)) <= len(data) - at[0]
    assert seen[-1][0] == seen[-1][1] == len(data)
    assert store.get_blob(digest, len(data)) == data


def test_a_store_that_forgot_all_gets_all_again(own_redis: RedisServer, open_store: Open) -> None:
    store = open_store(own_redis, patience=20)
    digest, data = noise(30 << 20)
    at: list[int] = []

    def forget(done: int, total: int) -> None:
        at.append(done)
        if len(at) == 2:
            with own_redis.client() as client:
                client.flushall()
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert store.put_blob(digest, data, forget) == len(data)
    assert at[2] < at[1], "what was confirmed is gone, and is sent again"
    assert store.get_blob(digest, len(data)) == data


def test_a_download_goes_on_where_it_stopped(
    own_redis: RedisServer, open_store: Open, tmp_path: Path
) -> None:
    store = open_store(own_redis, patience=20)
    digest, data = noise(40 << 20)
    store.put_blob(digest, data)
    (tmp_path / "in.zip").write_bytes(data)
    store.put_package("pack", tmp_path / "in.zip")
    crashes: list[int] = []

    def crash(done: int, total: int) -> None:
        if not crashes:
            crashes.append(done)
            own_redis.kill()
            own_redis.start()

    assert store.get_blob(digest, len(data), crash) == data
    crashes.clear()
    store.get_package("pack", tmp_path / "out.zip", crash)
    assert crashes
    assert (tmp_path / "out.zip").read_bytes() == data


def test_a_call_bears_a_restart(own_redis: RedisServer, open_store: Open) -> None:
    store = open_store(own_redis, patience=20)
    store.create("job", {"spec": {"id": "job"}})
    own_redis.kill()
    back = threading.Timer(0.4, own_redis.start)
    back.start()
    assert store.read("job") == {"spec": {"id": "job"}}
    back.join()
    assert store.claim("job", 1, "me")


def test_a_dead_store_is_named_soon(tmp_path: Path) -> None:
    for url in ("redis://127.0.0.1:1/0", f"unix://{tmp_path}/none.sock", "redis://nowhere.invalid:6379/0"):
        begin = time.monotonic()
        with (
            Store(StoreAddress(url, "secret"), "test", SIGNER, patience=0.2) as store,
            pytest.raises(StoreDown, match=url) as raised,
        ):
            store.ping()
        assert "secret" not in str(raised.value)
        assert time.monotonic() - begin < 10


def test_a_hanging_store_is_given_up(own_redis: RedisServer, open_store: Open) -> None:
    store = open_store(own_redis, patience=0.2, timeout=0.5)
    digest, data = noise(3 << 20)
    store.put_blob(digest, data)
    os.kill(own_redis.pid, 19)  # SIGSTOP
    try:
        begin = time.monotonic()
        with pytest.raises(StoreDown, match="does not answer"):
            store.ping()
        assert time.monotonic() - begin < 10
    finally:
        os.kill(own_redis.pid, 18)  # SIGCONT
    assert store.get_blob(digest, len(data)) == data


def test_a_wrong_password_is_told_at_once(redis_server: RedisServer) -> None:
    for password in ("wrong", ""):
        wrong = StoreAddress(redis_server.url, password)
        begin = time.monotonic()
        with Store(wrong, "test", SIGNER, patience=30) as store, pytest.raises(StoreNoAuth, match="password"):
            store.ping()
        assert time.monotonic() - begin < 5


# ---------------------------------------------------------------------- processes

CLAIM = """
import sys, time
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
url, owner, me = sys.argv[1:4]
with Store(StoreAddress(url, sys.stdin.readline().strip()), owner, Signer(bytes(range(32)))) as store:
    store.append("job", me, 1, [])
    while not store.stop_requested("job"):
        time.sleep(0.001)
    print(*(n for n in range(100) if store.claim("job", n, me)))
"""


def test_two_processes_never_claim_the_same_attempt(store: Store, redis_server: RedisServer) -> None:
    store.create("job", {"spec": {}})
    command = [sys.executable, "-c", CLAIM, redis_server.url, store.owner]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runners = [subprocess.Popen([*command, me], **pipes) for me in "ab"]  # type: ignore[call-overload]
    try:
        for runner in runners:
            runner.stdin.write(redis_server.password + "\n")
            runner.stdin.flush()
        deadline = time.monotonic() + 60
        while len(store.read_events("job")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        store.request_stop("job", "test", "go")
        won = [set(map(int, runner.communicate(timeout=60)[0].split())) for runner in runners]
    finally:
        for runner in runners:
            runner.kill()
            runner.wait()
    assert not won[0] & won[1]
    assert won[0] | won[1] == set(range(100))


def test_threads_share_a_store(store: Store) -> None:
    store.create("job", {"spec": {}})
    errors: list[BaseException] = []

    def work(who: int) -> None:
        try:
            for n in range(1, 6):
                values = {"x": np.full(200_000, who * 10 + n)}
                store.put_payload("job", f"slot-{who}", frozen(values))
                assert store.get_payload("job", f"slot-{who}", {})["x"][-1] == who * 10 + n
                store.append("job", f"w{who}", n, [{"n": n}])
                store.write("job", f"field{who}", n)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    entries = store.read_events("job")
    assert sorted((e.writer, e.number) for e in entries) == [
        (f"w{w}", n) for w in range(6) for n in range(1, 6)
    ]
    assert store.read("job") == {"spec": {}, **{f"field{who}": 5 for who in range(6)}}


# ---------------------------------------------------------------------- memory


def test_a_full_store_says_so_and_loses_nothing(tmp_path: Path, open_store: Open) -> None:
    server = start_redis(
        tmp_path / "full", options=("--maxmemory", "24mb", "--maxmemory-policy", "noeviction")
    )
    try:
        store = open_store(server, patience=30)
        store.create("job", {"spec": {"id": "job"}})
        before = store.room()
        assert before is not None and 10e6 < before < 25e6
        digest, data = noise(40 << 20)
        begin = time.monotonic()
        with pytest.raises(StoreOutOfMemory, match="memory limit"):
            store.put_blob(digest, data)
        with server.client() as client:
            client.config_set("maxmemory", 1_000_000)  # now not even the smallest write fits
        for write in (
            lambda: store.create("other", {"spec": {"text": "x" * 1000}}),
            lambda: store.write_state("job", {"phase": "running"}),
            lambda: store.append("job", "run", 1, [{"text": "x" * 1000}]),
            lambda: store.put_payload("job", "inputs", frozen({"x": "x" * 1000})),
        ):
            with pytest.raises(StoreOutOfMemory):
                write()
        assert time.monotonic() - begin < 20, "no use to try again"
        assert not store.has_blob(digest)
        assert store.read("job") == {"spec": {"id": "job"}}
        assert store.room() == 0
        with server.client() as client:
            client.config_set("maxmemory", 24_000_000)
            for key in client.scan_iter(f"{prefix(store)}blob:*"):
                client.unlink(key)
        small, part = noise(2 << 20)
        store.put_blob(small, part)
        assert store.get_blob(small, len(part)) == part
    finally:
        server.stop()


def test_a_blob_that_lost_a_chunk_is_mended(store: Store, redis_server: RedisServer) -> None:
    digest, data = noise(5 * CHUNK)
    store.put_blob(digest, data)
    with redis_server.client() as client:
        client.unlink(f"{prefix(store)}blob:{digest}:3")
    assert not store.has_blob(digest)
    with pytest.raises(Missing, match=digest[:12]):
        store.get_blob(digest, len(data))
    assert store.put_blob(digest, data) == CHUNK
    assert store.get_blob(digest, len(data)) == data


@pytest.mark.parametrize("size", [1000, 3 << 20])
@pytest.mark.parametrize(("spoilt", "error"), [(None, Missing), (b"short", Tampered)])
def test_a_chunk_that_goes_while_it_is_fetched(
    store: Store,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    spoilt: bytes | None,
    error: type[Exception],
) -> None:
    digest, data = noise(size)
    store.put_blob(digest, data)
    expect = store._blobs._expect

    def then_spoil(*args: Any) -> Any:
        found = expect(*args)
        with redis_server.client() as client:
            key = f"{prefix(store)}blob:{digest}:0"
            client.set(key, spoilt) if spoilt else client.delete(key)
        return found

    monkeypatch.setattr(store._blobs, "_expect", then_spoil)
    with pytest.raises(error, match=f"{digest}:0 is not"):
        store.get_blob(digest, size)


def test_a_large_graph_travels_in_chunks(store: Store, redis_server: RedisServer) -> None:
    store.create("job", {"spec": {}})
    texts = [uuid.uuid4().hex for _ in range(100_000)]
    assert store.put_payload("job", "inputs", frozen({"texts": texts})) > 3_000_000
    with redis_server.client() as client:
        assert client.strlen(f"{prefix(store)}job:job:inputs") < 2000
    assert store.get_payload("job", "inputs", {})["texts"] == texts
    assert store.put_payload("job", "outputs", frozen({"texts": texts})) == 0


# ---------------------------------------------------------------------- time


def lives(server: RedisServer, store: Store) -> dict[str, int]:
    """Give the seconds that each key of the owner has left."""
    base = prefix(store)
    with server.client() as client:
        keys = [key.decode() for key in client.scan_iter(f"{base}*", count=1000)]
        return {key.removeprefix(base): client.ttl(key) for key in keys}


def test_everything_expires_in_its_time(own_redis: RedisServer, open_store: Open, tmp_path: Path) -> None:
    life = Lifetimes(record=7000, input=1000, landed=100)
    store = open_store(own_redis, lifetimes=life)
    digest = filled(store, tmp_path)
    store.put_payload("job", "outputs", frozen({"y": np.random.default_rng().random(300_000)}))
    result = str(store.peek_payload("job", "outputs")["buffers"][0]["digest"])
    left = lives(own_redis, store)
    assert len(left) > 10
    assert all(6900 < seconds <= 7000 for seconds in left.values()), left

    store.write_state("job", {"phase": "succeeded", "attempt": 1})
    left = lives(own_redis, store)
    short = {name for name, seconds in left.items() if seconds <= 1000}
    assert {"job:job:inputs", f"blob:{digest}", f"blob:{digest}:0", "pkg:pack"} <= short
    assert {"job:job", "job:job:events", "jobs", "job:job:outputs", f"blob:{result}"} & short == set()

    store.landed("job")
    left = lives(own_redis, store)
    assert {n for n, s in left.items() if s <= 100} == {
        "job:job:outputs",
        *(n for n in left if n.startswith(f"blob:{result}")),
    }
    store.get_payload("job", "inputs", {})  # reading never shortens
    assert 900 < lives(own_redis, store)[f"blob:{digest}"] <= 1000


def test_use_keeps_a_job_alive(own_redis: RedisServer, open_store: Open, tmp_path: Path) -> None:
    life = Lifetimes(record=7000, input=1000, landed=100)
    store = open_store(own_redis, lifetimes=life)
    filled(store, tmp_path)
    store.create("next", {"spec": {"after": {"y": "job"}}})
    store.put_payload("job", "outputs", frozen({"y": np.random.default_rng().random(300_000)}))
    base = prefix(store)
    with own_redis.client() as client:
        for name in lives(own_redis, store):
            client.expire(base + name, 50)
    store.touch("job")
    left = lives(own_redis, store)
    assert {n for n, seconds in left.items() if seconds <= 50} == {"job:next"}
    assert all(seconds > 6900 for name, seconds in left.items() if name != "job:next"), left

    with own_redis.client() as client:  # a chained job keeps what it waits for
        for name in lives(own_redis, store):
            client.expire(base + name, 50)
    store.touch("next")
    result = str(store.peek_payload("job", "outputs")["buffers"][0]["digest"])
    left = lives(own_redis, store)
    kept = {"job:next", "jobs", "job:job:outputs"} | {n for n in left if n.startswith(f"blob:{result}")}
    assert {n for n, seconds in left.items() if seconds > 50} == kept

    with own_redis.client() as client:
        before = client.info("commandstats")
        for _ in range(10):
            store.touch("next")
        after = client.info("commandstats")
    assert after["cmdstat_pttl"]["calls"] - before["cmdstat_pttl"]["calls"] == 10
    assert after["cmdstat_eval"] == before["cmdstat_eval"], "a heartbeat costs one look"


def test_expired_jobs_are_struck_off_the_list(own_redis: RedisServer, open_store: Open) -> None:
    store = open_store(own_redis)
    for n in range(6):
        store.create(f"job-{n}", {"spec": {}}, created=1000.0 + n)
    with own_redis.client() as client:
        for n in (5, 3, 2):
            client.unlink(f"{prefix(store)}job:job-{n}")
        assert store.ids(2) == ["job-4", "job-1"]
        assert client.zcard(f"{prefix(store)}jobs") == 3


def test_a_deleted_job_leaves_no_key_of_its_own(
    own_redis: RedisServer, open_store: Open, tmp_path: Path
) -> None:
    store = open_store(own_redis)
    filled(store, tmp_path)
    store.delete("job")
    assert {name.partition(":")[0] for name in lives(own_redis, store)} == {"blob", "pkg"}


# ---------------------------------------------------------------------- rights and addresses


def test_a_user_with_that_key_prefix_can_do_everything(own_redis: RedisServer, tmp_path: Path) -> None:
    with own_redis.client() as client:
        rule = ["on", ">secret", "~rayoffload:{ada}:*", "+@all", "-@admin", "-@dangerous"]
        client.execute_command("ACL", "SETUSER", "ada", *rule)
    where = StoreAddress(own_redis.url, "secret", "ada")
    with Store(where, "ada", SIGNER) as store:
        filled(store, tmp_path)
        assert store.room() is None
        store.write_state("job", {"phase": "succeeded", "attempt": 1})
        assert store.get_payload("job", "inputs", {})["s"] == "text"
        store.get_package("pack", tmp_path / "out.zip")
        store.landed("job", "inputs")
        store.touch("job")
        assert store.ids() == ["job"]
        store.delete("job")
    with Store(where, "bob", SIGNER) as store, pytest.raises(StoreNoAuth):
        store.create("job", {"spec": {}})


def test_addresses_show_no_secret(redis_server: RedisServer) -> None:
    where = address(redis_server)
    assert redis_server.password not in repr(where) + str(where) + repr(Store(where, "test", SIGNER))
    assert StoreAddress.from_connection(where.to_connection()) == where
    assert StoreAddress.from_connection({"store": where.to_connection(), "owner": "x"}) == where
    for url in ("redis://:secret@host/0", "unix:///x?password=secret", "http://host"):
        with pytest.raises(ValueError, match="store's") as raised:
            StoreAddress(url)
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("owner", ["", "a:b", "a}b", "a b", "x" * 129])
def test_an_owner_stays_in_its_corner(redis_server: RedisServer, owner: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        Store(address(redis_server), owner, SIGNER)


@pytest.mark.parametrize("slot", ["", "events", "slots", "a:b", "x y"])
def test_a_slot_cannot_name_another_key(store: Store, slot: str) -> None:
    with pytest.raises(ValueError, match="slot"):
        store.put_payload("job", slot, frozen({}))
