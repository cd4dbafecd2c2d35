"""The head of the cluster dies, and every job with it; what they were made of is kept."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from jupyter_rayoffload import attach, jobs
from jupyter_rayoffload.errors import JobLost
from jupyter_rayoffload.models import Phase

from . import ground as grounds
from .ground import LIMIT, Ground, found, printed, until

#: Within this time a job must be known to be lost, seconds: it gives a sign of life every five.
SECONDS = 60.0


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Make a ground whose cluster nobody has started yet."""
    with grounds.ground() as made:
        yield made


def test_two_kernels_that_start_the_cluster_at_once_get_one(ground: Ground) -> None:
    with ground.kernel() as one, ground.kernel("another") as two:
        kernels = (one, two)
        cell = "%%ray_job born --wait\nimport os\nparent = os.getppid()"
        runs = [kernel.start(cell, headless=False) for kernel in kernels]
        for kernel, run in zip(kernels, runs, strict=True):
            kernel.finish(run, timeout=2 * LIMIT).check()
        sessions = {kernel.value("born.record.session") for kernel in kernels}
        addresses = {kernel.value("born.record.dashboard") for kernel in kernels}
    assert len(sessions) == len(addresses) == 1
    assert sessions == {ground.connection.info.session}
    names = [name for p in ground.processes() for name in p.cmdline()[:1] if name.endswith("gcs_server")]
    assert len(names) == 1


def test_a_job_is_lost_with_its_head_and_runs_again_from_its_frozen_inputs(ground: Ground) -> None:
    ground.start()
    with ground.kernel() as kernel:
        kernel.sit("numbers = list(range(10))")
        kernel.sit("""
            %%ray_job doomed
            import time
            print("so far", sum(numbers))
            time.sleep(1000)
        """).check()
        job = found(kernel.value("doomed.id"))
        assert printed(job, "so far ") == "45"
        session = job.record.session
        kernel.sit("numbers[:] = [1]").check()  # what the notebook does afterwards is no matter

        began = time.monotonic()
        ground.process("gcs_server").send_signal(signal.SIGKILL)
        error = job.exception(timeout=LIMIT)
        seconds = time.monotonic() - began
        print(f"lost after {seconds:.1f} s: {error}")
        assert isinstance(error, JobLost)
        assert seconds < SECONDS
        assert "head died" in str(error)
        assert f"%ray rerun {job.id}" in str(error)
        assert job.phase is Phase.LOST
        assert job.logs() == "so far 45"

        # The kernel knows it too, without being asked.
        until(lambda: kernel.value("doomed.phase.value") == "lost", "the kernel knows")
        assert kernel.value("doomed.logs()") == "so far 45"

        again = kernel.sit(f"again = %ray rerun {job.id}").check()
        assert not again.contents("error")
        twin = found(kernel.value("again.id"))
        assert printed(twin, "so far ") == "45"
        assert twin.record.session != session
        assert twin.running()
        kernel.sit("again.cancel()").check()
        assert twin.wait(LIMIT)
        assert twin.phase is Phase.CANCELLED


def test_a_lost_job_is_lost_for_everybody(ground: Ground) -> None:
    ground.start()
    job = grounds.running(grounds.send("import time\nprint('so far')\ntime.sleep(1000)"))
    printed(job, "so far")
    ground.process("raylet").send_signal(signal.SIGKILL)
    assert isinstance(job.exception(timeout=LIMIT), JobLost)
    with grounds.other_process():
        seen = attach(job.id)
        assert seen.wait(LIMIT)
        assert seen.phase is Phase.LOST
        assert seen.logs() == "so far"


def test_a_job_that_nobody_watched_while_its_head_died_is_found_lost(ground: Ground) -> None:
    ground.start()
    with grounds.other_process():
        job = grounds.running(grounds.send("import time\nprint('so far')\ntime.sleep(1000)"))
        printed(job, "so far")
        name = job.id
    head = ground.process("gcs_server")
    head.send_signal(signal.SIGKILL)
    began = time.monotonic()
    grounds.gone([head.pid])
    with grounds.other_process():
        until(lambda: {r.id: r.phase for r in jobs()}[name] is Phase.LOST, "the list says so")
    with grounds.other_process():
        seen = attach(name)
        assert isinstance(seen.exception(timeout=LIMIT), JobLost)
        assert seen.logs() == "so far"
    print(f"found lost after {time.monotonic() - began:.1f} s")
