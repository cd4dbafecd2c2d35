"""A kernel dies, and its jobs do not; whoever comes later sees all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from .ground import LIMIT, Ground, until

LINES = [f"line {i}" for i in range(200)]
COUNT = """
%%ray_job counted
import time
for i in range(200):
    print("line", i)
    time.sleep(0.025)
answer = {"lines": i + 1}
answer
"""
SCRIPT = """
import sys
from jupyter_rayoffload import attach, jobs
print([record.id for record in jobs()])
job = attach(sys.argv[1])
print([(v.name, v.state.value) for v in job.record.outputs])
print(job.outputs["value"])
"""


def test_a_job_outlives_its_kernel_and_is_attached_with_every_line(ground: Ground) -> None:
    with ground.kernel() as kernel:
        kernel.sit(COUNT).check()
        job = kernel.value("counted.id")
        until(lambda: kernel.value("counted.spool.total > 20") == "True", "the first lines")
        assert kernel.value("counted.done()") == "False"
        os.kill(kernel.pid, signal.SIGKILL)
    with ground.kernel("another") as kernel:
        attached = kernel.sit(f"again = %ray attach {job}\nat_once = again.logs()").check()
        assert kernel.value("at_once.split('\\n')[:20]") == str(LINES[:20]), "the log so far"
        kernel.sit("again.wait(120)").check()
        assert kernel.value("again.logs()").split("\n") == LINES
        assert kernel.sit(f"%ray logs {job}").check().stdout.splitlines() == LINES
        assert kernel.sit(f"%ray result {job}").check().value == "{'lines': 200}"
        assert kernel.value("again.outputs['answer'], again.outputs['i']") == "({'lines': 200}, 199)"
        # The record stands below whichever comes later: the attaching, or the end of the job.
        shown = attached.outputs + kernel.sit("again").check().outputs
        assert "line 199" in str(shown), "the record has the end of the log"


def test_a_job_whose_kernel_died_before_it_ended_is_watched_live_by_another(ground: Ground) -> None:
    with ground.kernel() as kernel, ground.kernel("another") as other:
        kernel.sit(COUNT).check()
        job = kernel.value("counted.id")
        until(lambda: kernel.value("counted.running()") == "True", "the job runs")
        os.kill(kernel.pid, signal.SIGKILL)
        shown = other.sit(f"%ray attach {job}").check()
        assert other.value(f"__import__('jupyter_rayoffload').attach({job!r}).done()") == "False"
        other.sit(f"__import__('jupyter_rayoffload').attach({job!r}).wait(120)").check()
        until(lambda: other.drain() or "Succeeded" in str(shown.outputs), "the record in place of the panel")
        assert "line 199" in str(shown.outputs)


def test_notebooks_scripts_and_the_terminal_see_the_same_jobs(ground: Ground) -> None:
    with ground.kernel() as kernel, ground.kernel("another") as other:
        kernel.sit("%%ray_job mine\nprint('from one notebook')\nvalue = 6 * 7").check()
        job = kernel.value("mine.id")
        kernel.sit("mine.wait()").check()
        assert job in other.sit("%ray jobs").check().stdout
        assert other.sit(f"%ray logs {job}").check().stdout == "from one notebook\n"
        assert kernel.sit("value").check().value == "42"
        kernel.sit("mine.settled.result(60)").check()
    listed, landed, value = _python("-c", SCRIPT, job).splitlines()
    assert repr(job) in listed
    assert landed == "[('value', 'landed')]"
    assert value == "42"
    assert job in _python("-m", "jupyter_rayoffload.cli", "jobs")
    assert _python("-m", "jupyter_rayoffload.cli", "logs", job) == "from one notebook\n"


def test_a_job_that_waits_in_its_kernel_is_seen_from_another(ground: Ground) -> None:
    with ground.kernel() as kernel, ground.kernel("another") as other:
        kernel.sit("%%ray_job first\nimport time\ntime.sleep(5)\nvalue = 20").check()
        kernel.sit("%%ray_job second\nvalue + 1").check()
        job = kernel.value("second.id")
        until(lambda: job in other.sit("%ray jobs").check().stdout, "the record of the second job")
        other.sit(f"seen = %ray attach {job}").check()
        assert other.value("seen.record.attempt, seen.done()") == "(0, False)"
        assert other.sit("seen.result(180)").check().value == "21"


@pytest.mark.timeout(600)  # two processors have twenty Pythons to start, beside other tests
def test_twenty_jobs_of_one_kernel_keep_apart(ground: Ground) -> None:
    with ground.kernel() as kernel:
        began = time.monotonic()
        for i in range(20):
            kernel.sit(f"%%ray_job job{i} --quiet\nprint('this is {i}')\nvalue{i} = {i} ** 2").check()
        blocked = time.monotonic() - began
        kernel.sit("for i in range(20):\n    globals()[f'job{i}'].wait()", timeout=450).check()
        seconds = time.monotonic() - began
        for i in range(20):
            assert kernel.value(f"job{i}.phase.value, job{i}.logs(), value{i}") == str(
                ("succeeded", f"this is {i}", i**2)
            )
    print(f"20 jobs submitted in {blocked:.1f} s, ended after {seconds:.1f} s")


def _python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=LIMIT)
    assert not done.returncode, done.stderr
    return done.stdout
