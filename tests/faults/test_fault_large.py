"""The store is killed, and comes back, while a value of a gigabyte is on one of its ways."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jupyter_rayoffload.job import Job

from .ground import LIMIT, Ground, running, send, until

#: Bytes of the value.
SIZE = 1_000_000_000
#: The store is killed when so much of it has gone in or out, bytes.
BEGUN = 200_000_000

TAKE = """
import hashlib
open(ran, "a").write("once\\n")
hashlib.blake2b(big).hexdigest()
"""
MAKE = """
import os, time, numpy
open(ran, "a").write("once\\n")
while not os.path.exists(gate):
    time.sleep(0.05)
big = numpy.random.default_rng(7).integers(0, 2**62, size)
"""


def _digest(array: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
    return hashlib.blake2b(array.data).hexdigest()


class _Kill:
    """Kills the store once, as soon as so much has gone `in` or `out` of it since the block began."""

    def __init__(self, ground: Ground, way: str) -> None:
        self._ground, self._field = ground, f"total_net_{way}put_bytes"
        self._ended = threading.Event()
        self.passed = 0
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            passed = self._counted() - self._begun
            if passed > BEGUN:
                self._process.kill()
                self.passed = passed
                return

    def _counted(self) -> int:
        return int(self._client.info("stats")[self._field])

    def __enter__(self) -> _Kill:
        until(lambda: self._ground.backend.places.connection.exists(), "a cluster that answers")
        self._client, self._process = self._ground.redis(), self._ground.process("redis-server")
        self._begun = self._counted()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def check(self) -> None:
        """Fail unless the value was on its way then."""
        assert BEGUN < self.passed < SIZE, f"killed after {self.passed:,} bytes"


@contextlib.contextmanager
def _deleted(job: Job) -> Iterator[Job]:
    """Delete a job in the end: the store has no room for all of these values."""
    try:
        yield job
    finally:
        job.delete()


def _said(began: float, kill: _Kill, what: str) -> None:
    print(f"{what}: killed after {kill.passed / 1e6:.0f} MB, whole after {time.monotonic() - began:.1f} s")


def test_an_input_of_a_gigabyte_survives_the_store_on_its_way_there(ground: Ground, tmp_path: Path) -> None:
    big, ran = np.random.default_rng(5).integers(0, 2**62, SIZE // 8), tmp_path / "ran"
    began = time.monotonic()
    with _Kill(ground, "in") as kill, _deleted(send(TAKE, inputs={"big": big, "ran": str(ran)})) as job:
        assert job.result(timeout=LIMIT) == _digest(big)
        kill.check()
        assert ran.read_text() == "once\n"
        assert job.record.attempt == 1
    _said(began, kill, "input")


def test_an_output_of_a_gigabyte_survives_the_store_on_both_of_its_ways(
    ground: Ground, tmp_path: Path
) -> None:
    gate, ran = tmp_path / "gate", tmp_path / "ran"
    given = {"gate": str(gate), "ran": str(ran), "size": SIZE // 8}
    with _deleted(running(send(MAKE, inputs=given, outputs=["big"]))) as job:
        began = time.monotonic()
        with _Kill(ground, "in") as kill:
            gate.touch()
            until(lambda: kill.passed, "the output is on its way to the store")
            assert not job.done()
            assert job.exception(timeout=LIMIT) is None
        kill.check()
        _said(began, kill, "output")
        assert ran.read_text() == "once\n"
        assert job.record.attempt == 1
        began = time.monotonic()
        with _Kill(ground, "out") as kill:
            big = job.outputs["big"]
        kill.check()
        _said(began, kill, "home")
        assert _digest(big) == _digest(np.random.default_rng(7).integers(0, 2**62, SIZE // 8))
