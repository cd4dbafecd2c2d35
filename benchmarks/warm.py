"""The next cell, for which a standby waits: against ``ray job submit``, ipyparallel and dask of the same."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jupyter_rayoffload import submit

from . import peers
from .cold import CODE
from .common import Bench, Figure, alone, timed

REPEAT, SLOW_REPEAT = 10, 3
#: How long the machine may come to rest when a standby waits, seconds: people read a result first.
REST = 1.0
LIMIT = 120.0


def measure(bench: Bench) -> list[Figure]:
    """Measure a trivial cell and one with a Ray task, from the call to the value here."""
    config = bench.session.config
    before, config.standby = config.standby, 1
    try:
        return [*_against_warm_peers(bench), _against_ray(bench)]
    finally:
        config.standby = before
        peers.close()


def _against_warm_peers(bench: Bench) -> list[Figure]:
    ours: list[float] = []
    theirs: dict[str, tuple[Callable[[], float], list[float]]] = {
        "ipyparallel, `%%px` and `pull`": (peers.ipyparallel_cell, []),
        "dask.distributed, `Client.submit(f).result()`": (peers.dask_cell, []),
    }
    for measured, _ in theirs.values():
        measured()  # starts it
    _cell(peers.CELL)  # behind this one a standby is started
    for _ in range(REPEAT):
        _rest(bench, connected=False)
        ours += timed(lambda: _cell(peers.CELL), 1)
        for measured, seconds in theirs.values():
            time.sleep(REST)  # as before ours: a machine that rests is slower at first
            seconds.append(measured())
    note = "each cell here is a job of its own in a fresh process; the peers have one process for all"
    return [Figure("A trivial cell, to its result", name, ours, s, note) for name, (_, s) in theirs.items()]


def _against_ray(bench: Bench) -> Figure:
    folder = bench.root / "warm"
    folder.mkdir()
    (folder / "cell.py").write_text(CODE)
    address = bench.session.call(bench.session.offloader.links.connect()).connection.info.address
    ray = str(Path(sys.executable).parent / "ray")
    command = [ray, "job", "submit", "--address", address, "--working-dir", str(folder)]

    def theirs() -> None:
        done = subprocess.run([*command, "--", "python", "cell.py"], capture_output=True, timeout=LIMIT)
        if done.returncode or b"42" not in done.stdout:
            raise RuntimeError((done.stdout + done.stderr).decode())

    _cell(CODE)
    ours, other = [], []
    for turn in range(REPEAT):
        _rest(bench, connected=True)
        ours += timed(lambda: _cell(CODE), 1)
        if turn < SLOW_REPEAT:
            _rest(bench, connected=True)
            other += timed(theirs, 1)
    note = "the peer gives the printed text alone, and starts a Python for its command line"
    return Figure("A cell with a Ray task, to its result", "`ray job submit`", ours, other, note)


def _cell(code: str) -> None:
    job = submit(code)
    job.wait(LIMIT)
    if job.outputs.get("value") != 42:
        raise RuntimeError(f"job {job.id} gave {job.outputs}") from job.exception(0)


def next_cell(bench: Bench, number: int) -> bool:
    """Run one more cell, as soon as a standby waits; whether the standby had it."""
    if number > 1:
        _rest(bench, connected=False, seconds=0)
    job = submit("value = 42")
    job.wait(LIMIT)
    if job.outputs.get("value") != 42:
        raise RuntimeError(f"job {job.id} gave {job.outputs}") from job.exception(0)
    return not job.record.submission_id.startswith(job.id)


def _rest(bench: Bench, *, connected: bool, seconds: float = REST) -> None:
    """Wait for a standby; one that is connected may come only after a cell that uses Ray."""
    link = bench.session.offloader.links.used("")
    deadline = time.monotonic() + LIMIT
    while link is not None and time.monotonic() < deadline:
        if any(plan["connect"] >= connected for plan in link.store.handovers.waiting()):
            time.sleep(seconds)
            return
        time.sleep(0.05)
    raise RuntimeError(f"no standby within {LIMIT:.0f} s")


if __name__ == "__main__":
    sys.exit(alone(measure))
