"""Large values on a connection that breaks: they arrive right, and what had arrived is not sent again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import redis

from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
from jupyter_rayoffload.remote.wire import CHUNK, PIECE, WINDOW
from tests.remote.redis_fixture import KEY
from tests.servers import RedisServer

pytestmark = pytest.mark.redis
SIGNER = Signer(KEY)
Open = Callable[..., Store]


def hang_up(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting(server: RedisServer, after: list[int]) -> Iterator[int]:
    """Stand in front of `server`, and cut each connection that has brought ``after.pop(0)`` bytes or more."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def pump(source: socket.socket, sink: socket.socket, answers: bool) -> None:
            passed = 0
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    if answers and after and passed + len(data) > after[0]:
                        sink.sendall(data[: max(0, after.pop(0) - passed)])
                        break
                    sink.sendall(data)
                    passed += len(data)
            hang_up(source, sink)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    front = stack.enter_context(listener.accept()[0])
                    back = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                    stack.callback(hang_up, front, back)  # before they are closed: it wakes who reads
                    for pair in ((front, back, False), (back, front, True)):
                        threads.append(threading.Thread(target=pump, args=pair))
                        threads[-1].start()

        threads = [threading.Thread(target=serve)]
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        stack.close()
        for thread in threads:
            thread.join(10)


@pytest.mark.parametrize(
    "after", [[PIECE + 1], [CHUNK - 1], [CHUNK + PIECE], [2 * CHUNK + 17, 5 * CHUNK + 3 * PIECE]]
)
def test_a_chunk_that_came_in_part_is_digested_once(own_redis: RedisServer, after: list[int]) -> None:
    values = {"a": np.random.default_rng(1).bytes(3 * CHUNK), "b": np.arange(CHUNK)}
    cuts = list(after)
    with cutting(own_redis, after) as port:
        where = StoreAddress(f"redis://127.0.0.1:{port}/0", own_redis.password)
        with Store(where, "cut", SIGNER, patience=20) as store:
            frozen = codec.freeze(
                {n: np.frombuffer(v, "u1") for n, v in values.items()}, {}, SIGNER, copy=True
            )
            after.clear()  # nothing is cut on the way there
            store.create("job", {"spec": {}})
            store.put_payload("job", "inputs", frozen)
            after += cuts
            back = store.get_payload("job", "inputs", {})
    assert not after, "every cut was made"
    for name, value in values.items():
        assert back[name].tobytes() == bytes(value)


@contextlib.contextmanager
def killing(server: RedisServer) -> Iterator[list[int]]:
    """Let the store cut all its connections again and again; gives how many, each time."""
    ended, killed = threading.Event(), list[int]()

    def kill() -> None:
        while not ended.wait(0.05):
            with contextlib.suppress(redis.RedisError), server.client() as client:
                killed.append(client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def test_300_mb_arrive_right_and_once_while_connections_are_cut(
    own_redis: RedisServer, open_store: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    array = np.random.default_rng(2).integers(0, 2**62, 300_000_000 // 8)
    store = open_store(own_redis, patience=60)
    store.create("job", {"spec": {}})
    frozen = codec.freeze({"x": array}, {}, SIGNER, copy=False)
    with killing(own_redis) as killed:
        assert store.put_payload("job", "inputs", frozen) > array.nbytes
        there = sum(killed)
        back = store.get_payload("job", "inputs", {})["x"]
    assert np.array_equal(back, array)
    with own_redis.client() as client:
        came = client.info("stats")["total_net_input_bytes"]
        names = list(client.scan_iter("*blob:*", count=10_000))
    assert len(names) == 1 + -(-array.nbytes // CHUNK), "each chunk is there once"
    # What was on its way when a connection was cut is all that may have come twice.
    assert came < array.nbytes + (there + 1) * (WINDOW + 1) * CHUNK
    with capsys.disabled():
        print(f"\n{there} connections cut on the way there, {sum(killed) - there} on the way back")


def test_300_mb_arrive_right_while_the_store_is_killed(own_redis: RedisServer, open_store: Open) -> None:
    array = np.random.default_rng(3).integers(0, 2**62, 300_000_000 // 8)
    store = open_store(own_redis, patience=60)
    store.create("job", {"spec": {}})
    told: list[int] = []

    def crash(done: int, total: int) -> None:
        told.append(done)
        if len(told) in (5, 20):
            own_redis.kill()
            own_redis.start()

    store.put_payload("job", "inputs", codec.freeze({"x": array}, {}, SIGNER, copy=False), crash)
    assert len(told) > 20
    told.clear()
    back = store.get_payload("job", "inputs", {}, on_progress=crash)["x"]
    assert len(told) > 20
    assert np.array_equal(back, array)
    # A store that knows it is not sent it again.
    sent = store.put_payload("job", "again", codec.freeze({"y": array}, {}, SIGNER, copy=False))
    assert sent < 10_000


def test_a_transfer_that_has_begun_outlasts_a_store_that_is_away_longer_than_others_bear(
    own_redis: RedisServer, open_store: Open
) -> None:
    array = np.random.default_rng(4).integers(0, 2**62, 100_000_000 // 8)
    store = open_store(own_redis, patience=0.2)
    store.create("job", {"spec": {}})
    came_back: list[threading.Timer] = []

    def crash(done: int, total: int) -> None:
        if not came_back:
            own_redis.kill()
            came_back.append(threading.Timer(2.0, own_redis.start))
            came_back[0].start()

    store.put_payload("job", "inputs", codec.freeze({"x": array}, {}, SIGNER, copy=False), crash)
    came_back.pop().join()
    back = store.get_payload("job", "inputs", {}, on_progress=crash)["x"]
    came_back.pop().join()
    assert np.array_equal(back, array)
