"""Bulk transfer, over real Redis servers and with peers that misbehave."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import AuthenticationError, ConnectionError, ResponseError

from jupyter_rayoffload.remote.link import Missing, StoreAddress
from jupyter_rayoffload.remote.signing import Tampered
from jupyter_rayoffload.remote.wire import CHUNK, Wire, allocate
from tests.remote.redis_fixture import address
from tests.servers import RedisServer, start_redis

pytestmark = pytest.mark.redis


def key() -> str:
    return f"rayoffload:{{wire}}:{uuid.uuid4().hex}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.binary(min_size=1, max_size=3 * 4096), min_size=1, max_size=30))
def test_what_goes_in_comes_out(redis_server: RedisServer, values: list[bytes]) -> None:
    name = key()
    with Wire(address(redis_server)) as wire:
        sizes = list(wire.put([(f"{name}:{i}", memoryview(v)) for i, v in enumerate(values)], 60))
        places = [allocate(len(v)) for v in values]
        read = list(wire.get([(f"{name}:{i}", place) for i, place in enumerate(places)]))
    assert sizes == read == [len(v) for v in values]
    assert [bytes(place) for place in places] == values


def test_chunks_expire(redis_server: RedisServer) -> None:
    name = key()
    with Wire(address(redis_server)) as wire:
        list(wire.put([(name, memoryview(b"x"))], 60))
    with redis_server.client() as client:
        assert 50_000 < client.pttl(name) <= 60_000


def test_the_database_of_the_address_is_used(redis_server: RedisServer) -> None:
    url = redis_server.url.rpartition("/")[0] + "/3" if not redis_server.unix else f"{redis_server.url}?db=3"
    name = key()
    with Wire(StoreAddress(url, redis_server.password)) as wire:
        list(wire.put([(name, memoryview(b"x"))], 60))
    with redis_server.client() as client:
        assert not client.exists(name)
        client.select(3)
        assert client.exists(name)


def test_a_wrong_password_is_told_from_a_dead_server(redis_server: RedisServer) -> None:
    with pytest.raises(AuthenticationError, match="invalid"):
        Wire(StoreAddress(redis_server.url, "wrong"))
    with Wire(StoreAddress(redis_server.url)) as wire, pytest.raises(AuthenticationError, match="required"):
        list(wire.get([("any", allocate(1))]))
    with pytest.raises(ConnectionError):
        Wire(StoreAddress("redis://127.0.0.1:1/0"))
    with pytest.raises(ConnectionError):
        Wire(StoreAddress("unix:///nowhere/redis.sock"))


def test_a_missing_and_a_short_chunk(redis_server: RedisServer) -> None:
    name = key()
    with Wire(address(redis_server)) as wire:
        list(wire.put([(name, memoryview(b"12345"))], 60))
        with pytest.raises(Missing, match=f"{name}x"):
            list(wire.get([(name, allocate(5)), (f"{name}x", allocate(5))]))
    for size in (4, 6):
        with Wire(address(redis_server)) as wire, pytest.raises(Tampered, match=name):
            list(wire.get([(name, allocate(size))]))


def test_a_full_store_refuses_in_the_middle(tmp_path: Path) -> None:
    server = start_redis(
        tmp_path / "full", options=("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    )
    try:
        data, confirmed = memoryview(bytes(CHUNK)), []
        with Wire(address(server)) as wire, pytest.raises(ResponseError, match="OOM command not allowed"):
            for size in wire.put([(f"{key()}:{i}", data) for i in range(40)], 60):
                confirmed.append(size)
        assert 0 < len(confirmed) < 12
    finally:
        server.stop()


# ---------------------------------------------------------------------- peers that misbehave


@contextmanager
def peer(behave: Callable[[socket.socket], None]) -> Iterator[StoreAddress]:
    """Listen, and give the first connection to `behave`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield StoreAddress(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "closed the connection"),
        (b"$10\r\n", "in the middle of a chunk"),
        (b"$10\r\n12345", "in the middle of a chunk"),
        (b"$10\r\n1234567890", "in the middle of a chunk"),
        (b"$1", "closed the connection"),
        (b"-ERR something new\r\n", "something new"),
    ],
)
def test_a_connection_that_breaks_is_an_error(answer: bytes, error: str) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(answer)

    with (
        peer(behave) as where,
        pytest.raises((ConnectionError, ResponseError), match=error),
        Wire(where, 5) as wire,
    ):
        list(wire.get([("k", allocate(10))]))


def test_answers_in_small_pieces() -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(100)
        for piece in b"$10\r\n1234567890\r\n":
            connection.sendall(bytes([piece]))
            time.sleep(0.001)

    place = allocate(10)
    with peer(behave) as where, Wire(where, 5) as wire:
        assert list(wire.get([("k", place)])) == [10]
    assert bytes(place) == b"1234567890"


def test_a_silent_peer_is_given_up() -> None:
    done = threading.Event()

    def behave(connection: socket.socket) -> None:
        done.wait(10)

    begin = time.monotonic()
    with peer(behave) as where:
        with pytest.raises(ConnectionError, match="lost while receiving"), Wire(where, 0.3) as wire:
            list(wire.get([("k", allocate(10))]))
        assert 0.2 < time.monotonic() - begin < 5
        done.set()
    done.clear()
    with peer(behave) as where:  # takes nothing: the sender must not wait for ever either
        with pytest.raises(ConnectionError, match="lost while sending"), Wire(where, 0.3) as wire:
            list(wire.put([("k", memoryview(bytes(64 << 20)))], 60))
        done.set()


# ---------------------------------------------------------------------- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate of this test")
    file = tmp_path / "cert.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=store -addext subjectAltName=IP:127.0.0.1"
    made = subprocess.run(
        ["openssl", *command.split(), "-keyout", tmp_path / "key.pem", "-out", file], capture_output=True
    )
    assert made.returncode == 0, made.stderr
    with open(file, "ab") as out:
        out.write((tmp_path / "key.pem").read_bytes())
    return file


@contextmanager
def tls_front(server: RedisServer, certificate: Path) -> Iterator[int]:
    """Put TLS in front of a Redis that was built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def serve(listener: socket.socket, threads: list[threading.Thread], sockets: list[socket.socket]) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            try:
                front = context.wrap_socket(plain, server_side=True)
            except OSError:  # a client that does not trust us
                plain.close()
                continue
            back = socket.create_connection(("127.0.0.1", server.port))
            sockets += [front, back]
            for pair in ((front, back), (back, front)):
                threads.append(threading.Thread(target=pump, args=pair))
                threads[-1].start()

    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=serve, args=(listener, threads, sockets))
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(10)
    for thread in threads:
        thread.join(10)
    for end in sockets:
        end.close()


def test_tls_checks_the_certificate_and_carries_chunks(own_redis: RedisServer, certificate: Path) -> None:
    data = bytes(range(256)) * 10_000
    with tls_front(own_redis, certificate) as port:
        url, password = f"rediss://127.0.0.1:{port}/0", own_redis.password
        with pytest.raises(ConnectionError, match="certificate"):
            Wire(StoreAddress(url, password))
        with Wire(StoreAddress(f"{url}?ssl_ca_certs={certificate}", password)) as wire:
            list(wire.put([("k", memoryview(data))], 60))
            place = allocate(len(data))
            list(wire.get([("k", place)]))
        assert place == data
        with Wire(StoreAddress(f"{url}?ssl_cert_reqs=none", password)) as wire:
            list(wire.get([("k", place)]))


# ---------------------------------------------------------------------- memory and speed

MEMORY = """
import sys, time
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
from jupyter_rayoffload.remote.wire import allocate

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

url, password, role, size = sys.argv[1], sys.stdin.readline().strip(), sys.argv[2], int(sys.argv[3])
signer = Signer(bytes(32))
store = Store(StoreAddress(url, password), "memory", signer)
digest = "d" * 64
tile = bytes(range(251)) * 40000
if role == "put":
    data = allocate(size)
    for at in range(0, size, len(tile)):
        data[at : at + len(tile)] = tile[: size - at]
    digest = signer.digest(data)
    store.ping()
    before, begin = peak(), time.perf_counter()
    assert store.put_blob(digest, data) == size
else:
    digest = sys.argv[4]
    store.ping()
    before, begin = peak(), time.perf_counter()
    back = store.get_blob(digest, size)
    assert bytes(back[: len(tile)]) == tile and back[size - 1] == tile[(size - 1) % len(tile)]
print(digest, peak() - before, time.perf_counter() - begin)
"""


def test_300_mb_take_no_second_copy(redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    size = 300_000_000

    def run(*args: str) -> tuple[str, int, float]:
        command = [sys.executable, "-c", MEMORY, redis_server.url, *args]
        done = subprocess.run(
            command, input=redis_server.password, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        digest, extra, seconds = done.stdout.split()
        return digest, int(extra), float(seconds)

    try:
        digest, put_extra, put_seconds = run("put", str(size))
        _, get_extra, get_seconds = run("get", str(size), digest)
    finally:
        with redis_server.client() as client:
            for name in client.scan_iter("rayoffload:{memory}:*", count=1000):
                client.unlink(name)
    with capsys.disabled():
        print(
            f"\n300 MB, {redis_server.url.partition(':')[0]}: put {size / put_seconds / 1e9:.2f} GB/s"
            f" (+{put_extra / 1e6:.0f} MB), get {size / get_seconds / 1e9:.2f} (+{get_extra / 1e6:.0f} MB)"
        )
    assert put_extra < 16e6
    # The result itself, and the 10 MB with which it is compared here.
    assert get_extra < size + 40e6
