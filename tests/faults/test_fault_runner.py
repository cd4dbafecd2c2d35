"""A runner that is killed writes no last word: the job fails within seconds all the same, and says why."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from jupyter_rayoffload import attach
from jupyter_rayoffload.errors import JobCrashed
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.models import Phase

from .ground import LIMIT, gone, other_process, printed, send

pytestmark = pytest.mark.usefixtures("ground")

CELL = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "1000"])
print("pids", os.getpid(), child.pid)
for i in range(100):
    print("line", i)
print("last words")
time.sleep(1000)
"""
#: Within this time the failure must be known, seconds; a quiet machine needs five.
SECONDS = 30.0


def _started() -> tuple[Job, int, int]:
    job = send(CELL)
    cell, child = map(int, printed(job, "pids ").split())
    printed(job, "last words")
    return job, cell, child


def _failed(job: Job, began: float) -> None:
    error = job.exception(timeout=LIMIT)
    seconds = time.monotonic() - began
    print(f"{seconds:.1f} s: {error}")
    assert isinstance(error, JobCrashed)
    assert seconds < SECONDS
    assert "SIGKILL" in str(error)
    assert job.phase is Phase.FAILED
    assert job.logs().endswith("line 99\nlast words")
    with other_process():  # and everybody else can read the same
        again = attach(job.id)
        # The process that has just learnt it may not have written it down yet.
        assert str(again.exception(timeout=LIMIT)) == str(error)
        assert again.phase is Phase.FAILED
        assert again.logs().endswith("line 99\nlast words")


def test_a_killed_cell_fails_its_job_and_leaves_no_child() -> None:
    job, cell, child = _started()
    began = time.monotonic()
    os.kill(cell, signal.SIGKILL)
    _failed(job, began)
    gone([cell, child])


def test_a_killed_guard_fails_its_job_and_takes_the_cell_along() -> None:
    job, cell, child = _started()
    guard = psutil.Process(cell).ppid()
    began = time.monotonic()
    os.kill(guard, signal.SIGKILL)
    try:
        _failed(job, began)
        gone([guard, cell])
    finally:  # nobody is left who could end what the cell had started
        os.kill(child, signal.SIGKILL)


def test_a_cell_that_crashes_in_c_code_says_by_which_signal() -> None:
    job = send("print('so far')\nimport ctypes\nctypes.string_at(0)")
    error = job.exception(timeout=LIMIT)
    assert isinstance(error, JobCrashed)
    assert "signal 11 (SIGSEGV)" in str(error)
    assert job.logs().startswith("so far\n")
    assert "Segmentation fault" in job.logs()
