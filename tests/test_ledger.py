"""What is known of jobs that this process does not follow."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_rayoffload.jobclient import JobInfo
from jupyter_rayoffload.ledger import ABANDONED_SECONDS, newest, read_record
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, Phase, ValueState
from tests.fakes import MemoryStore

LONG_AGO = time.time() - 1000
SPEC = {"id": "fit-1", "source": "1", "created": LONG_AGO}


def test_the_runners_last_word_counts_more_than_a_state_that_nobody_updated() -> None:
    end = {"t": 5.0, "phase": "succeeded", "attempt": 1, "outputs": [{"name": "x", "size": 1}]}
    record = read_record({"spec": SPEC, "state": {"phase": "running", "attempt": 1}, "end": end})
    assert (record.phase, record.ended, record.outputs[0].name) == (Phase.SUCCEEDED, 5.0, "x")
    landed = {"outputs": [{"name": "x", "state": "landed"}], "files": [{"path": "a", "state": "fetched"}]}
    record = read_record({"spec": SPEC, "end": end, "settled": landed})
    assert record.phase is Phase.SUCCEEDED
    assert record.outputs[0].state is ValueState.LANDED and record.files[0].state == "fetched"


def test_a_job_whose_kernel_went_before_it_was_submitted_is_lost() -> None:
    assert read_record({"spec": SPEC}).phase is Phase.LOST
    fresh = {**SPEC, "created": time.time() - ABANDONED_SECONDS / 2}
    assert not read_record({"spec": fresh}).phase.ended


class Ray:
    """Knows some submissions."""

    def __init__(self, *known: JobInfo) -> None:
        self.known = known

    async def list(self) -> list[JobInfo]:
        return list(self.known)


def _link(state: dict[str, Any], ray: Ray, answers: bool = True) -> Any:
    store = MemoryStore()
    store.create("fit-1", {"spec": SPEC, "state": state})

    async def says() -> bool:
        return answers

    info = ClusterInfo(phase=ClusterPhase.RUNNING, address="http://head")
    return SimpleNamespace(store=store, ray=ray, answers=says, info=info)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("silent", "ray", "answers", "phase"),
    [
        (1000, Ray(), True, Phase.LOST),
        (1000, Ray(JobInfo("fit-1-1", "RUNNING")), True, Phase.RUNNING),
        (1000, Ray(JobInfo("fit-1-1", "FAILED", exit_code=-9)), True, Phase.FAILED),
        (1000, Ray(JobInfo("fit-1-1", "STOPPED")), True, Phase.CANCELLED),
        (1000, Ray(), False, Phase.RUNNING),  # nobody to ask
        (0, Ray(), True, Phase.RUNNING),  # its last word may yet come
    ],
)
async def test_a_job_that_nobody_follows(silent: float, ray: Ray, answers: bool, phase: Phase) -> None:
    link = _link({"phase": "running", "attempt": 1, "last_seen": time.time() - silent}, ray, answers)
    [record] = await newest(link, 10)
    assert record.phase is phase
    assert link.store.read("fit-1")["state"]["phase"] == phase.value  # for all others
