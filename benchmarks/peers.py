"""The same with ipyparallel and with dask.distributed, each with one process on this machine that is warm.

They keep a process and hand cells to it: nothing of a job is left when its client ends, and nothing is signed
for its place. ``pip install "jupyter_rayoffload[bench]"`` has both.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from .common import Bench, Figure, alone
from .transfer import Process, opened_store

__all__ = ["close", "dask_array", "dask_cell", "ipyparallel_array", "ipyparallel_cell", "measure"]

REPEAT = 5
BYTES = 100_000_000
#: A cell that does next to nothing, so that what is measured is the way to it and back.
CELL = "value = 6 * 7"
_opened = contextlib.ExitStack()


@functools.cache
def _engine() -> Any:
    """Give a view of one engine of ipyparallel, in a process of its own."""
    import ipyparallel

    cluster = ipyparallel.Cluster(n=1, log_level=logging.ERROR)
    client = cluster.start_and_connect_sync()
    _opened.callback(cluster.stop_cluster_sync)
    _opened.callback(client.close)
    view = client[:]
    view.execute(CELL, block=True)
    return view


@functools.cache
def _dask() -> Any:
    """Give a client of dask with one worker, in a process of its own."""
    from distributed import Client, LocalCluster

    cluster = _opened.enter_context(
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None)
    )
    client = _opened.enter_context(Client(cluster))
    client.submit(lambda: None, pure=False).result()
    return client


def close() -> None:
    """End what the functions of this module have started."""
    _opened.close()
    _engine.cache_clear()
    _dask.cache_clear()


def ipyparallel_cell() -> float:
    """Give the seconds from a cell to its result: what ``%%px`` does, and a pull of the name."""
    view = _engine()
    begin = time.perf_counter()
    view.execute(CELL, block=True)
    _expect(view.pull("value", block=True)[0] == 42)
    return time.perf_counter() - begin


def dask_cell() -> float:
    """Give the seconds from a call to its result: dask has functions, and no cells."""
    client = _dask()
    begin = time.perf_counter()
    _expect(client.submit(lambda: 6 * 7, pure=False).result() == 42)
    return time.perf_counter() - begin


def ipyparallel_array(size: int = BYTES) -> float:
    """Give the seconds for an array of `size` bytes to an engine and back."""
    view, array = _engine(), _array(size)
    begin = time.perf_counter()
    view.push({"x": array}, block=True)
    came = view.pull("x", block=True)[0]
    seconds = time.perf_counter() - begin
    _expect(came[-1] == array[-1])
    return seconds


def dask_array(size: int = BYTES) -> float:
    """Give the seconds for an array of `size` bytes to a worker and back."""
    client, array = _dask(), _array(size)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is large
        came = client.submit(lambda x: x, array, pure=False).result()
    seconds = time.perf_counter() - begin
    _expect(came[-1] == array[-1])
    return seconds


def _array(size: int) -> Any:
    import numpy as np

    return np.random.default_rng().integers(0, 2**62, size // 8)


def _expect(right: Any) -> None:
    if not right:
        raise RuntimeError("something else came back")


def measure(bench: Bench | None = None) -> list[Figure]:
    """Measure an array out and back in turn with ours, which goes by the store."""
    ours: list[float] = []
    others: dict[str, tuple[Callable[[], float], list[float]]] = {
        "ipyparallel: `push`, `pull`": (ipyparallel_array, []),
        "dask.distributed: `Client.submit(lambda x: x, array).result()`": (dask_array, []),
    }
    try:
        with opened_store() as place:
            writer, reader = Process(place), Process(place)
            try:
                for _ in range(REPEAT):
                    writer("make", BYTES)
                    reader("make", 0)
                    writer("clean", 0)
                    ours.append(writer("ours_out", BYTES)[0] + reader("ours_back", BYTES)[0])
                    for take, seconds in others.values():
                        seconds.append(take())
            finally:
                writer.close()
                reader.close()
    finally:
        close()
    note = "ours is a frozen copy, signed, kept in the store, checked; theirs goes from process to process"
    return [
        Figure("100 MB array, out and back", peer, ours, seconds, note)
        for peer, (_, seconds) in others.items()
    ]


if __name__ == "__main__":
    sys.exit(alone(measure, cluster=False))
