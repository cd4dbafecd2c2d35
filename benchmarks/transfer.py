"""Processes between which an array travels: by this package, by pickling it into Redis, and by a bare socket.

A writer and a reader, as a notebook and a runner are, with a Redis as the embedded cluster starts one. The
bare socket is the limit: a third process takes the bytes into its memory and gives them away, and no more.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import redis

from jupyter_rayoffload.clusters.embedded import head
from jupyter_rayoffload.remote.codec import freeze
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
from jupyter_rayoffload.remote.wire import allocate

__all__ = ["Place", "Process", "opened_store"]

#: Bytes of one value of the peer, where the whole is beyond the 512 MB that Redis takes for one.
PIECE = 8 << 20
#: Bytes of one call of the bare socket.
CALL = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where the store and the bare process are; `password` is the store's, `key` the owner's."""

    folder: str
    password: str
    key: bytes

    @property
    def address(self) -> StoreAddress:
        """The store's address: a unix socket."""
        return StoreAddress(f"unix://{self.folder}/redis.sock", self.password)

    @property
    def bare(self) -> str:
        """The path of the bare process' socket."""
        return f"{self.folder}/bare.sock"

    def client(self) -> redis.Redis:
        """Give a plain client of the store."""
        return redis.Redis.from_url(self.address.url, password=self.password)

    def store(self) -> Store:
        """Give the store as a kernel or runner has it."""
        return Store(self.address, "bench", Signer(self.key))


@contextmanager
def opened_store(limit: int = 6 << 30) -> Iterator[Place]:
    """Start a Redis as the embedded cluster does, with room for `limit` bytes, and the bare process."""
    with tempfile.TemporaryDirectory(prefix="ro-") as name:
        folder, place = Path(name), Place(name, secrets.token_hex(16), secrets.token_bytes(32))
        config = folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text(head.redis_config(folder, folder, place.password, limit))
        server = head.redis_server()
        if server is None:
            raise RuntimeError('there is no redis-server: pip install "jupyter_rayoffload[local]"')
        command, env = head.redis_command(server, config, os.environ)
        bare = get_context("spawn").Process(target=_be_bare, args=(place.bare,), daemon=True)
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
            try:
                bare.start()
                _until(lambda: os.path.exists(place.bare) and place.client().ping())
                yield place
            finally:
                process.kill()
                bare.kill()
                bare.join()


def _until(done: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if done():
                return
        except redis.ConnectionError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError("the store does not answer")
        time.sleep(0.02)


class Process:
    """A process that does what it is told: ``process("ours_out", size)`` gives seconds and peak bytes."""

    def __init__(self, place: Place) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(place, theirs), daemon=True)
        self._process.start()
        self._pipe.recv()

    def __call__(self, what: str, size: int) -> Any:
        """Do it there, and give what it gives."""
        self._pipe.send((what, size))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()


def _serve(place: Place, pipe: Connection) -> None:
    worker = _Worker(place)
    pipe.send(None)
    while True:
        what, size = pipe.recv()
        try:
            pipe.send(getattr(worker, what)(size))
        except Exception as error:
            pipe.send(error)


class _Worker:
    """What a writer and a reader can do; a method that ends in out or back gives seconds and peak memory."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._store, self._client = place.store(), place.client()
        self._signer = Signer(place.key)
        self._array: Any = np.empty(0, "u8")

    def make(self, size: int) -> None:
        """Have an array of `size` bytes, none of which is where it was the last time."""
        if self._array.nbytes != size:
            self._array = np.random.default_rng(0).integers(0, 2**62, size // 8, dtype="u8")
        self._array += np.uint64(secrets.randbits(32))

    def clean(self, size: int) -> None:
        """Empty the store, and have a job to put values into."""
        self._client.flushall()
        self._store.create("bench", {"spec": {"id": "bench"}})

    def last(self, size: int) -> int:
        """Give the last number of the array."""
        return int(self._array[-1])

    def touch(self, size: int) -> None:
        """Take `size` bytes of the machine's memory, and give them back."""
        memory = allocate(size)
        for at in range(0, size, 4096):
            memory[at] = 1

    def ours_out(self, size: int) -> tuple[float, int]:
        return _measured(self._put)

    def ours_back(self, size: int) -> tuple[float, int]:
        return _measured(self._get)

    def naive_out(self, size: int) -> tuple[float, int]:
        return _measured(self._set)

    def naive_back(self, size: int) -> tuple[float, int]:
        return _measured(self._fetch)

    def bare_out(self, size: int) -> tuple[float, int]:
        return _measured(self._send)

    def bare_back(self, size: int) -> tuple[float, int]:
        return _measured(lambda: self._receive(size))

    def _put(self) -> None:
        self._store.put_payload("bench", "inputs", freeze({"x": self._array}, {}, self._signer, copy=True))

    def _get(self) -> None:
        self._array = self._store.get_payload("bench", "inputs", {})["x"]

    def _set(self) -> None:
        data = memoryview(cloudpickle.dumps(self._array))
        if data.nbytes < 512 << 20:
            self._client.set("naive", data.obj)
            return
        for at in range(0, data.nbytes, PIECE):
            self._client.set(f"naive:{at}", data[at : at + PIECE])

    def _fetch(self) -> None:
        data = self._client.get("naive")
        if data is None:
            parts, at = [], 0
            while part := self._client.get(f"naive:{at}"):
                parts.append(part)
                at += PIECE
            data = b"".join(parts)
        self._array = cloudpickle.loads(data)

    def _send(self) -> None:
        copy = allocate(self._array.nbytes)
        copy[:] = memoryview(self._array).cast("B")
        with _dialled(self._place.bare) as out:
            out.sendall(b"<" + copy.nbytes.to_bytes(8, "little"))
            for at in range(0, copy.nbytes, CALL):
                out.sendall(copy[at : at + CALL])
            out.recv(1)

    def _receive(self, size: int) -> None:
        with _dialled(self._place.bare) as source:
            source.sendall(b">" + size.to_bytes(8, "little"))
            self._array = np.frombuffer(_taken(source, size), "u8")


def _measured(work: Callable[[], None]) -> tuple[float, int]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, begin = _status("VmRSS"), time.perf_counter()
    work()
    return time.perf_counter() - begin, _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


# ---------------------------------------------------------------------- the bare process


def _dialled(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return made


def _taken(source: socket.socket, size: int) -> memoryview:
    memory, at = allocate(size), 0
    while at < size:
        got = source.recv_into(memory[at : at + CALL])
        if not got:
            raise RuntimeError("the bare process has ended")
        at += got
    return memory


def _be_bare(path: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    held = memoryview(b"")
    while True:
        with listener.accept()[0] as peer:
            asked = peer.recv(9, socket.MSG_WAITALL)
            if asked[:1] == b"<":
                held = memoryview(b"")  # what was held first goes
                held = _taken(peer, int.from_bytes(asked[1:], "little"))
                peer.sendall(b"!")
            else:
                for at in range(0, held.nbytes, CALL):
                    peer.sendall(held[at : at + CALL])
