"""What a job in Ray's queue is said to wait for."""

from __future__ import annotations

import pytest

from jupyter_rayoffload.models import JobOptions, JobRecord, JobSpec, Resources
from jupyter_rayoffload.witness import waits_for


@pytest.mark.parametrize(
    ("resources", "pip", "said"),
    [
        (Resources(), (), ""),
        (Resources(cpus=4), (), "Waiting for 4 CPUs: other jobs hold them"),
        (
            Resources(),
            ("polars>=1", "xgboost"),
            "Making the environment: pip installs `polars>=1`, `xgboost`",
        ),
        (Resources(), tuple("abcde"), "Making the environment: pip installs `a`, `b`, `c` and 2 more"),
        (Resources(cpus=4), ("polars",), "Waiting for 4 CPUs, or pip installs `polars`"),
    ],
)
def test_what_a_queued_job_waits_for(resources: Resources, pip: tuple[str, ...], said: str) -> None:
    options = JobOptions(resources=resources, pip=pip)
    assert waits_for(JobRecord(JobSpec(id="fit-1", options=options))) == said
