"""How long the notebook is blocked by a job that it does not wait for: against Ray's own client."""

from __future__ import annotations

import sys

from jupyter_rayoffload import submit
from jupyter_rayoffload.job import Job

from .common import Bench, Figure, alone, timed

REPEAT = 3


def measure(bench: Bench) -> list[Figure]:
    """Measure a call with small inputs until it returns; the job itself is not counted."""
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
    return [Figure("The notebook is blocked by a job", "`JobSubmissionClient.submit_job`", mine, other, note)]


if __name__ == "__main__":
    sys.exit(alone(measure))
