"""Printed lines: how late one reaches the notebook, and how many at once; against Ray's own log tail."""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import time
from typing import Any

from jupyter_rayoffload import submit

from .common import Bench, Figure, alone

LINES = 30
FLOOD = 200_000
REPEAT = 3
#: Prints the time at times that are not in step with anybody's.
SLOWLY = f"""
import random, time
time.sleep(0.5)
for _ in range({LINES}):
    time.sleep(0.05 + 0.2 * random.random())
    print(f"at={{time.time():.6f}}", flush=True)
time.sleep(1)
"""
FLOODED = f"""
import time
begin = time.perf_counter()
for number in range({FLOOD}):
    print("line", number)
seconds = time.perf_counter() - begin
"""
INTO_A_FILE = FLOODED.replace('"line", number', '"line", number, file=out').replace(
    "begin =", 'out = open("lines.txt", "w"); begin =', 1
)
_AT = re.compile(r"at=(\d+\.\d+)")


def _late(text: str, now: float) -> list[float]:
    return [now - float(at) for at in _AT.findall(text)]


def _ours() -> list[float]:
    """Give how late each line came to whoever follows the job in this process, seconds."""
    late: list[float] = []

    def observe(record: Any, event: Any) -> None:
        if event.type == "stream":
            late.extend(_late(event.content["text"], time.time()))

    job = submit(SLOWLY)
    job.subscribe(observe)
    if not job.wait(120) or job.exception() is not None or len(late) != LINES:
        raise RuntimeError(f"job {job.id} brought {len(late)} of {LINES} lines: {job.record.phase}")
    return late


def _theirs(client: Any) -> list[float]:
    """Give the same for the log tail of Ray's client."""
    from ray.job_submission import JobStatus

    job = client.submit_job(entrypoint=f"python -c '{SLOWLY}'")
    while client.get_job_status(job) == JobStatus.PENDING:
        time.sleep(0.02)
    late: list[float] = []

    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            late.extend(_late(text, time.time()))

    asyncio.run(follow())
    if len(late) != LINES:
        raise RuntimeError(f"Ray's log tail brought {len(late)} of {LINES} lines")
    return late


def _flood() -> tuple[float, float, float]:
    """Give the seconds of the printing cell, of the same into a file, and until the last line was here."""
    into_a_file = submit(INTO_A_FILE)
    into_a_file.wait(120)
    job, begun = submit(FLOODED), [0.0]
    last = 0.0

    def observe(record: Any, event: Any) -> None:
        nonlocal last
        if event.type == "stream":
            begun[0] = begun[0] or event.at
            last = time.time()

    job.subscribe(observe)
    job.wait(240)
    if job.logs().split("\n") != [f"line {number}" for number in range(FLOOD)]:
        raise RuntimeError(f"job {job.id}: not all lines came, or not in order")
    return job.outputs["seconds"], into_a_file.outputs["seconds"], last - begun[0]


def measure(bench: Bench) -> list[Figure]:
    """Measure both in turn."""
    from ray.job_submission import JobSubmissionClient

    link = bench.session.call(bench.session.offloader.links.connect())
    client = JobSubmissionClient(link.connection.info.address)
    mine: list[float] = []
    other: list[float] = []
    for _ in range(REPEAT):
        mine += _ours()
        other += _theirs(client)
    floods = [_flood() for _ in range(REPEAT)]
    printing, filing, whole = (list(column) for column in zip(*floods, strict=True))
    slow = statistics.quantiles(mine, n=20)[-1]
    note = (
        f"from `print` to the event in the notebook's process; 19 of 20 in {slow * 1000:.3g} ms. All "
        f"{FLOOD:,} lines of a flood came, in order, {statistics.median(whole):.3g} s after the first"
    )
    return [
        Figure("A printed line until it is here", "`JobSubmissionClient.tail_job_logs`", mine, other, note),
        Figure(
            f"A cell that prints {FLOOD:,} lines",
            "the same into a file",
            printing,
            filing,
            "what is printed is out of the process at once, and the file's lines stay in it until it is full",
        ),
    ]


if __name__ == "__main__":
    sys.exit(alone(measure))
