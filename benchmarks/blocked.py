"""How long the notebook is blocked by a job that it does not wait for: against Ray's own client."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from jupyter_rayoffload import submit
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.remote.codec import freeze

from .common import Bench, Figure, alone, timed

REPEAT = 5


def measure(bench: Bench) -> list[Figure]:
    """Measure a call, and a cell, until it returns; the job itself is not counted."""
    return [_call(bench), *_cells(bench)]


def _call(bench: Bench) -> Figure:
    from ray.job_submission import JobSubmissionClient

    folder = bench.root / "blocked"
    folder.mkdir()
    (folder / "module.py").write_text("limit = 3\n")
    address = bench.session.call(bench.session.offloader.links.connect()).connection.info.address
    client = JobSubmissionClient(address)
    jobs: list[Job] = []
    ids: list[str] = []

    def ours() -> None:
        jobs.append(submit("y = x", inputs={"x": list(range(1000))}, workdir=str(folder)))

    def theirs() -> None:
        ids.append(client.submit_job(entrypoint="true", runtime_env={"working_dir": str(folder)}))

    def settled() -> None:
        for job in jobs:
            job.wait(120)
        while any(not client.get_job_status(job_id).is_terminal() for job_id in ids):
            jobs[0].wait(0.2)

    ours()
    theirs()
    pairs = [(timed(ours, 1, settled)[0], timed(theirs, 1, settled)[0]) for _ in range(REPEAT)]
    settled()
    mine, other = (list(column) for column in zip(*pairs, strict=True))
    note = "with 1,000 numbers as input; the peer sends no inputs"
    return Figure("The notebook is blocked by a job", "`JobSubmissionClient.submit_job`", mine, other, note)


def _inputs() -> dict[str, Any]:
    import numpy as np
    import pandas as pd

    chance = np.random.default_rng(0)
    return {
        "1,000 numbers": list(range(1000)),
        "a 100 MB array": chance.integers(0, 2**62, 100_000_000 // 8),
        "a 40 MB frame with text": pd.DataFrame(
            {"a": chance.random(10**6), "s": pd.Series([f"item {i}" for i in range(10**6)], dtype=object)}
        ),
    }


def _cells(bench: Bench) -> list[Figure]:
    """Measure ``%%ray_job`` in a shell, and beside it what freezing its input takes alone."""
    from IPython.core.interactiveshell import InteractiveShell

    # Without its module IPython puts another one in the place of `__main__`, and what is spawned by a peer
    # later could not import it.
    main = sys.modules["__main__"]
    shell = InteractiveShell.instance(user_module=main, user_ns=bench.session.namespace)
    shell.run_line_magic("load_ext", "jupyter_rayoffload")
    signer = bench.session.offloader.backend.signer()
    figures = []
    for name, value in _inputs().items():
        shell.user_ns["x"] = value
        jobs: list[Job] = []

        def cell(jobs: list[Job] = jobs) -> None:
            jobs.append(shell.run_cell_magic("ray_job", "", "y = len(x)"))

        def settled(jobs: list[Job] = jobs) -> None:
            for job in jobs:
                job.cancel()  # what it would give is nothing to us
                job.wait(120)

        def frozen() -> None:
            freeze({"x": shell.user_ns["x"]}, shell.user_ns, signer, copy=True)

        cell()
        jobs[0].result(240)
        pairs, cpu = [], []
        for _ in range(REPEAT):
            settled()
            begin = time.thread_time()
            [handed] = timed(cell, 1)
            between = time.thread_time()
            settled()
            middle = time.thread_time()
            [alone] = timed(frozen, 1)
            pairs.append((handed, alone))
            cpu.append((between - begin) - (time.thread_time() - middle))
        mine, other = (list(column) for column in zip(*pairs, strict=True))
        beyond = statistics.median(a - b for a, b in pairs)
        figures.append(
            Figure(
                f"A cell is handed over, with {name}",
                "its input is pickled, copied and digested, and no more",
                mine,
                other,
                f"{beyond * 1000:.1f} ms beyond that, the median of the differences; of processor time "
                f"{statistics.median(cpu) * 1000:.1f} ms",
            )
        )
    return figures


if __name__ == "__main__":
    sys.exit(alone(measure))
