"""An array of 100 MB into the store and out of it: against pickling it into Redis."""

from __future__ import annotations

import sys
from secrets import token_hex
from typing import Any

import cloudpickle
import numpy as np
import redis

from jupyter_rayoffload.remote.codec import freeze

from .common import Bench, Figure, alone, timed

REPEAT = 5
BYTES = 100_000_000


def measure(bench: Bench) -> list[Figure]:
    """Measure the way of an input: copied, signed, sent, fetched, checked, unpickled; always other bytes."""
    link = bench.session.call(bench.session.offloader.links.connect())
    address = link.connection.store
    client = redis.Redis.from_url(address.url, password=address.password)
    generator = np.random.default_rng(0)
    array: Any = None

    def fresh() -> None:
        nonlocal array
        array = generator.integers(0, 2**62, BYTES // 8)
        link.store.delete("bench-data")
        for key in client.scan_iter("rayoffload:*blob:*", count=10_000):
            client.unlink(key)
        client.delete("naive")
        link.store.create("bench-data", {"spec": {"id": "bench-data"}})

    def ours() -> None:
        frozen = freeze({"array": array}, {}, link.signer, copy=True)
        link.store.put_payload("bench-data", "inputs", frozen)
        came = link.store.get_payload("bench-data", "inputs", {})["array"]
        if came[-1] != array[-1]:
            raise RuntimeError("another array came back")

    def theirs() -> None:
        client.set("naive", cloudpickle.dumps(array))
        came = cloudpickle.loads(client.get("naive"))
        if came[-1] != array[-1]:
            raise RuntimeError("another array came back")

    pairs = [(timed(ours, 1, fresh)[0], timed(theirs, 1, fresh)[0]) for _ in range(REPEAT)]
    fresh()
    link.store.delete("bench-data")
    mine, other = (list(column) for column in zip(*pairs, strict=True))
    again = _unchanged(link, token_hex(4))
    peer = "`redis.set(cloudpickle.dumps(x))`, get, loads"
    note = "ours is a frozen copy, signed and checked; the peer's is neither. One Redis, one unix socket"
    return [
        Figure("100 MB array, out and back", peer, mine, other, note),
        Figure("The same array as an input again", peer, again, other, "it is known, and not sent"),
    ]


def _unchanged(link: Any, name: str) -> list[float]:
    array = np.random.default_rng(1).integers(0, 2**62, BYTES // 8)
    job = f"bench-{name}"
    link.store.create(job, {"spec": {"id": job}})

    def put() -> None:
        link.store.put_payload(job, "inputs", freeze({"array": array}, {}, link.signer, copy=True))

    put()
    seconds = timed(put, REPEAT)
    link.store.delete(job)
    return seconds


if __name__ == "__main__":
    sys.exit(alone(measure))
