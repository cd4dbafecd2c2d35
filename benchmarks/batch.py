"""Batches: one job over many items, against a job for each, and against a loop of Ray tasks by hand."""

from __future__ import annotations

import contextlib
import statistics
import sys
from typing import Any

import psutil

from jupyter_rayoffload import submit

from .common import Bench, Figure, alone, progress, timed

#: Sizes of the batches whose growth is shown.
SIZES = (1, 10, 100, 1000, 10_000)
#: Ray jobs that are run one after the other, in place of a thousand.
JOBS = 20
REPEAT = 3
#: What an item does: the function of both loops.
ITEM = "y = x * x"
#: The same by hand, in one job: what somebody writes who knows Ray.
BY_HAND = """
import ray


@ray.remote
def square(x):
    return x * x


y = ray.get([square.remote(x) for x in range({count})])
"""


def run_batch(count: int) -> float:
    job = submit(ITEM, map={"x": range(count)}, label=f"batch{count}")
    job.wait(600)
    if job.outputs["y"] != [x * x for x in range(count)]:
        raise RuntimeError(f"job {job.id} gave something else: {job.record.failure}")
    return _running(job)


def by_hand(count: int) -> float:
    job = submit(BY_HAND.format(count=count), label=f"hand{count}")
    job.wait(600)
    if job.outputs["y"] != [x * x for x in range(count)]:
        raise RuntimeError(f"job {job.id} gave something else: {job.record.failure}")
    return _running(job)


def _peak(job: Any) -> float:
    """Give the most memory that the process of a job's cell has held until its end, bytes."""
    pids: list[int] = []
    job.subscribe(lambda record, event: pids.append(event.content["pid"]) if "pid" in event.content else None)
    peak = 0.0
    while not job.wait(0.02):
        for pid in pids[-1:]:
            with contextlib.suppress(psutil.Error):
                peak = max(peak, psutil.Process(pid).memory_info().rss)
    return peak


def _memory() -> str:
    """Compare what the drivers hold when the items bring 1 MB each."""
    item = "import numpy\ny = numpy.full(125_000, x, dtype=float)"
    hand = (
        "import numpy, ray\n@ray.remote\ndef make(x):\n    return numpy.full(125_000, x, dtype=float)\n"
        "y = ray.get([make.remote(x) for x in range(50)])"
    )
    ours = _peak(submit(item, map={"x": range(50)}, lazy=True))
    theirs = _peak(submit(hand, lazy=True))
    least = _peak(submit("y = 1"))
    mega = 1e6
    return (
        f"Most memory of the driver, 50 items of 1 MB: {ours / mega:.0f} MB, by hand {theirs / mega:.0f} MB, "
        f"of a job with nothing to do {least / mega:.0f} MB"
    )


def _running(job: Any) -> float:
    """Give the seconds of the cell itself: what comes before is the same for every job."""
    step = job.record.steps["running"]
    return float(step.end - step.begin)


def measure(bench: Bench) -> list[Figure]:
    """Measure trivial items, the worst case: all that is seen is what it costs to run them."""
    run_batch(10)
    by_hand(10)
    # In turn: what else the machine does falls on both.
    whole: list[tuple[float, float]] = []
    inner: list[tuple[float, float]] = []
    for _ in range(REPEAT):
        inside: list[float] = []
        ours = timed(lambda: inside.append(run_batch(1000)), 1)[0]  # noqa: B023
        theirs = timed(lambda: inside.append(by_hand(1000)), 1)[0]  # noqa: B023
        whole.append((ours, theirs))
        inner.append((inside[0], inside[1]))
    for size in SIZES:
        begun = timed(lambda: run_batch(size), 1)[0]  # noqa: B023
        progress(f"A batch of {size:,} items: {begun:.2f} s")
    progress(_memory())
    single = timed(lambda: submit("y = 2 * 2").wait(600), JOBS)
    thousand = [1000 * statistics.mean(single)]
    batches, loops = ([pair[i] for pair in whole] for i in (0, 1))
    inside_ours, inside_theirs = ([pair[i] for pair in inner] for i in (0, 1))
    return [
        Figure(
            "1,000 trivial items, from the call to the list",
            "a loop of `ray.get` by hand, in a job",
            batches,
            loops,
            "both are one Ray job, on the same cluster, in turn",
        ),
        Figure(
            "the same, from the first line of the cell to its end",
            "the same loop",
            inside_ours,
            inside_theirs,
        ),
        Figure(
            "1,000 trivial items, from the call to the list",
            "1,000 Ray jobs",
            batches,
            thousand,
            f"the peer is 1,000 times the mean of {JOBS} jobs, one after the other",
        ),
    ]


if __name__ == "__main__":
    sys.exit(alone(measure))
