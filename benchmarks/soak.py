"""Many jobs in a row through standbys: whether anything grows, in the kernel, the cluster or the store.

``python -m benchmarks.soak [JOBS]``, 500 by default; no part of the page. It prints a row now and then: what
grows with the jobs shows as a column that never stops. Ray itself remembers each job until its head ends.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import psutil

from .common import Bench, opened, progress
from .warm import next_cell

JOBS, EVERY = 500, 50
COLUMNS = (
    "jobs",
    "in a standby",
    "kernel: threads",
    "files and sockets",
    "memory, MB",
    "cluster: processes",
    "threads",
    "memory, MB",
    "store: keys",
    "without end",
    "memory, MB",
)


def row(bench: Bench, jobs: int, served: int) -> list[int]:
    """Count once."""
    link = bench.session.offloader.links.used("")
    if link is None:
        raise RuntimeError("no job was sent")
    gc.collect()  # what only waits for that is no growth
    kernel = psutil.Process()
    cluster = _cluster(kernel)
    client: Any = link.store._link.client
    keys, endless = _keys(client)
    return [
        jobs,
        served,
        kernel.num_threads(),
        kernel.num_fds(),
        kernel.memory_info().rss // 10**6,
        len(cluster),
        sum(_of(p, "num_threads") for p in cluster),
        sum(_of(p, "memory") for p in cluster) // 10**6,
        keys,
        len(endless),
        client.info("memory")["used_memory"] // 10**6,
    ]


def _keys(client: Any) -> tuple[int, list[str]]:
    """Give how many keys the store has, and the names of those that have no time to live: there is none."""
    keys = list(client.scan_iter("*", count=1000))
    return len(keys), [key.decode() for key in keys if client.pttl(key) == -1]


def _cluster(kernel: psutil.Process) -> list[psutil.Process]:
    """Give the processes of the cluster: those whose environment names its runtime folder, but this one."""
    mark = os.environ["JUPYTER_RUNTIME_DIR"]
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != kernel.pid and process.environ().get("JUPYTER_RUNTIME_DIR") == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def _of(process: psutil.Process, what: str) -> int:
    try:
        if what == "memory":
            return int(process.memory_full_info().pss)
        return int(getattr(process, what)())
    except psutil.Error:
        return 0


def main() -> int:
    """Run the jobs, and print how things are."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else JOBS
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    with opened() as bench:
        bench.session.config.standby = 1
        served = 0
        for number in range(1, jobs + 1):
            served += next_cell(bench, number)
            if number == 1 or number % EVERY == 0 or number == jobs:
                print("| " + " | ".join(map(str, row(bench, number, served))) + " |", flush=True)
                progress(f"{number} of {jobs} jobs")
        link = bench.session.offloader.links.used("")
        endless = _keys(link.store._link.client)[1] if link else []
    print(f"\nKeys without a time to live: {', '.join(endless) or 'none'}")
    return 1 if endless else 0


if __name__ == "__main__":
    sys.exit(main())
