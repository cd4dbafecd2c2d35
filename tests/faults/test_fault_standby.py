"""A standby may die at any moment, or be wanted by two: each job runs once, with its result or its reason."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import JobCrashed
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.link import Link, open_link
from jupyter_rayoffload.models import Phase
from jupyter_rayoffload.session import Session
from jupyter_rayoffload.submission import Offloader

from .ground import LIMIT, Ground, gone, other_process, printed, running, send, until

STANDBY = "standby-"
#: A job that leaves a mark each time it is run, and its answer.
MARKS = """
import os
with open({file!r}, "a") as file:
    file.write("x")
answer = {value}
"""
RAY = """
import ray

@ray.remote
def double(x):
    return 2 * x

answer = ray.get(double.remote(21))
"""


class Standing:
    """A session with a standby, and what the store and the machine know of it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def handovers(self) -> Any:
        link = self.session.offloader.links.used("")
        assert link is not None
        return link.store.handovers

    def waits(self) -> str:
        """Wait until a standby waits, and give its id."""
        return str(until(self.handovers.waiting, "a standby waits")[0]["id"])

    def nobody(self) -> None:
        """Wait until no standby is left."""
        until(lambda: not self.handovers.waiting(), "no standby waits")

    def guard(self, standby: str) -> psutil.Process:
        """Give the process that waits for a job."""
        found = [p for p in psutil.process_iter(["cmdline"]) if _runs(p.info["cmdline"], standby)]
        children = {child.pid for p in found for child in p.children()}
        [outer] = [p for p in found if p.pid not in children]
        return outer


def _runs(command: list[str] | None, standby: str) -> bool:
    words = command or []
    return words[-2:] == ["--standby", standby] and "python" in os.path.basename(words[0])


@pytest.fixture
def standing(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    """Sit in front of a session that has run a job, so that a standby waits behind it."""
    monkeypatch.setenv("RAYOFFLOAD_STANDBY", "1")
    folder = ground.folder / "standing"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    with other_process() as session:
        answer(send("answer = 1"))
        made = Standing(session)
        yield made
        session.config.standby = 0
        for plan in made.handovers.waiting():
            made.handovers.dismiss(plan["id"], plan["key"])
        made.nobody()


def answer(job: Job) -> Any:
    """Wait for the end of a job, and give what it assigned."""
    assert job.exception(timeout=LIMIT) is None, job.record.failure
    return job.outputs["answer"]


def marking(folder: Path, value: int) -> tuple[Path, str]:
    """Give a file, and a piece of code that leaves a mark in it."""
    file = folder / f"marks{value}"
    return file, MARKS.format(file=str(file), value=value)


def test_the_next_cell_is_handed_over_and_another_one_is_ordered_behind_it(standing: Standing) -> None:
    first = standing.waits()
    job = send("import os\nanswer = os.getpid()\nleft = 1")
    pid = answer(job)
    assert job.record.submission_id == first and job.record.attempt == 1
    second = standing.waits()
    assert second != first
    after = send("import os\nanswer = os.getpid(), 'left' in globals()")
    assert answer(after) != (pid, False) and answer(after)[1] is False, "each in a process of its own"
    assert after.record.submission_id == second
    link = standing.session.offloader.links.used("")
    assert link is not None
    info = until(lambda: _ended(standing, first), "Ray knows of its end")
    assert info.status == "SUCCEEDED" and info.metadata["label"] == "standby"
    gone([pid])


def _ended(standing: Standing, submission: str) -> Any:
    link = standing.session.offloader.links.used("")
    assert link is not None
    info = standing.session.call(link.ray.info(submission))
    return info if info and not info.live else None


def test_one_that_was_killed_before_is_no_loss(standing: Standing, tmp_path: Path) -> None:
    guard = standing.guard(standing.waits())
    guard.send_signal(signal.SIGKILL)
    gone([guard.pid])
    file, code = marking(tmp_path, 2)
    job = send(code)
    assert answer(job) == 2 and file.read_text() == "x"
    assert job.record.submission_id == f"{job.id}-1"


@pytest.mark.parametrize("dies", [False, True])
def test_what_it_does_not_take_is_taken_back_and_runs_once(
    standing: Standing, tmp_path: Path, dies: bool
) -> None:
    standby = standing.waits()
    guard = standing.guard(standby)
    guard.suspend()  # the job lies in its queue, and it does nothing
    file, code = marking(tmp_path, 3)
    try:
        job = send(code)
        assert answer(job) == 3
        assert job.record.submission_id == f"{job.id}-1", "it was run by a submission of its own"
    finally:
        guard.send_signal(signal.SIGKILL if dies else signal.SIGCONT)
    if dies:
        gone([guard.pid])
    else:  # it finds that the job is not its own any more, and waits for another one or is gone
        until(
            lambda: standby in [p["id"] for p in standing.handovers.waiting()] or not guard.is_running(),
            "it has read what lay in its queue",
        )
    assert file.read_text() == "x", "it ran once"
    assert answer(send("answer = 4")) == 4


def test_one_that_is_killed_with_its_job_fails_it_and_no_other(standing: Standing, tmp_path: Path) -> None:
    standby = standing.waits()
    guard = standing.guard(standby)
    file, code = marking(tmp_path, 5)
    job = running(send(f"{code}\nimport time\nprint('there', flush=True)\ntime.sleep(1000)"))
    assert job.record.submission_id == standby
    printed(job, "there")
    guard.send_signal(signal.SIGKILL)
    error = job.exception(timeout=LIMIT)
    assert isinstance(error, JobCrashed) and job.phase is Phase.FAILED
    assert file.read_text() == "x", "it is not run again unasked"
    assert answer(send("answer = 6")) == 6


def test_a_cell_that_crashes_its_standby_harms_no_other(standing: Standing) -> None:
    standby = standing.waits()
    job = send("import os\nos._exit(3)")
    assert isinstance(job.exception(timeout=LIMIT), JobCrashed)
    assert job.record.submission_id == standby
    assert standing.waits() != standby
    assert answer(send("answer = 7")) == 7


def test_two_kernels_want_the_same_one(standing: Standing, tmp_path: Path) -> None:
    standby = standing.waits()
    made = [marking(tmp_path, value) for value in (8, 9)]
    with other_process() as session:
        session.config.standby = 1
        other = session.offloader
        session.call(other.links.connect())
        with ThreadPoolExecutor(2) as threads:
            sent = list(threads.map(lambda code: send(code), [code for _, code in made]))
        mine = [job for job in sent if job.record.submission_id == standby]
        assert [answer(job) for job in sent] == [8, 9]
    mine = [job for job in sent if job.record.submission_id == standby]
    assert len(mine) == 1, "exactly one job was handed to it"
    assert [file.read_text() for file, _ in made] == ["x", "x"]


def test_a_workspace_that_changed_is_bound_late_also_for_tasks(standing: Standing) -> None:
    standing.waits()
    text = Path("note.txt")
    text.write_text("first")
    answer(send("answer = open('note.txt').read()"))  # whatever runs it: behind it, one without a workspace
    standby = standing.waits()
    text.write_text("second")
    task = "import ray\n@ray.remote\ndef read():\n    return open('note.txt').read()\n"
    job = send(f"{task}answer = open('note.txt').read(), ray.get(read.remote())")
    assert answer(job) == ("second", "second")
    assert job.record.submission_id == standby


def test_one_that_is_connected_serves_a_cell_with_tasks(standing: Standing) -> None:
    until(lambda: _connected(standing), "one is connected, after some cells that use Ray")
    job = send(RAY)
    assert answer(job) == 42 and job.record.submission_id.startswith(STANDBY)
    assert "Calling ray.init() again" not in job.logs()


def test_a_cell_that_wants_another_connection_gets_it(standing: Standing) -> None:
    until(lambda: _connected(standing), "one is connected, after some cells that use Ray")
    source = "import ray\nray.init(namespace='mine')\nanswer = ray.get_runtime_context().namespace"
    job = send(source)
    assert answer(job) == "mine" and job.record.submission_id.startswith(STANDBY)


def test_what_workers_print_is_caught(standing: Standing) -> None:
    until(lambda: _connected(standing), "one is connected, after some cells that use Ray")
    source = RAY.replace("    return", "    print('from a worker')\n    return")
    job = send(source)
    assert answer(job) == 42 and "from a worker" in job.logs()


def _connected(standing: Standing) -> bool:
    if not any(plan["connect"] for plan in standing.handovers.waiting()):
        answer(send(RAY))
        standing.waits()
    return any(plan["connect"] for plan in standing.handovers.waiting())


@pytest.mark.parametrize(
    ("source", "options"),
    [("import os\nos.environ['A'] = 'b'\nanswer = 1", {}), ("answer = 1", {"cpus": 1})],
    ids=["environment", "resources"],
)
def test_what_a_standby_cannot_serve_is_submitted_by_itself(
    standing: Standing, source: str, options: dict[str, Any]
) -> None:
    standing.waits()
    job = send(source, **options)
    assert answer(job) == 1 and job.record.submission_id == f"{job.id}-1"


def test_one_that_waits_in_vain_ends(standing: Standing) -> None:
    standing.session.config.standby_idle = 1.0
    standing.waits()
    answer(send("answer = 1"))
    standby = standing.waits()
    guard = standing.guard(standby)
    gone([guard.pid])
    standing.nobody()
    assert until(lambda: _ended(standing, standby), "Ray knows of its end").status == "SUCCEEDED"


def test_none_is_started_where_none_is_wanted(standing: Standing) -> None:
    standby = standing.waits()
    standing.session.config.standby = 0
    job = send("answer = 1")
    assert answer(job) == 1 and job.record.submission_id == f"{job.id}-1"
    time.sleep(2)  # longer than it takes to order one
    assert [plan["id"] for plan in standing.handovers.waiting()] == [standby]


def test_a_job_in_a_standby_is_cancelled_as_any_other(standing: Standing) -> None:
    standby = standing.waits()
    job = running(send("import time\nprint('there', flush=True)\ntime.sleep(1000)"))
    assert job.record.submission_id == standby
    printed(job, "there")
    job.cancel()
    until(job.done, "it is cancelled")
    assert job.phase is Phase.CANCELLED


def test_its_memory_is_stated(standing: Standing) -> None:
    standing.waits()
    [plan] = standing.handovers.waiting()
    assert 10e6 < plan["memory"] < 1e9


# ---------------------------------------------------------------------- where a standby reserves a CPU


async def open_as_pods(connection: Connection, config: RayOffload) -> Link:
    """Open the way to the cluster as to one of pods: of its two CPUs, a standby and a job hold one each."""
    info = connection.info.replace(kind="kubernetes")
    return await open_link(dataclasses.replace(connection, info=info), config)


async def offloader(config: RayOffload) -> Offloader:
    return Offloader(config, open_as_pods)


@pytest.fixture
def reserving(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    """Sit in front of a session whose standbys reserve a CPU."""
    monkeypatch.setenv("RAYOFFLOAD_STANDBY", "1")
    folder = ground.folder / "reserving"
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    with other_process() as session:
        session._offloader = session.call(offloader(session.config))
        made = Standing(session)
        yield made
        session.config.standby = 0
        link = session.offloader.links.used("")
        assert link is not None
        session.call(session.offloader.standbys.send_off(link))
        made.nobody()


def test_one_that_holds_what_a_job_waits_for_ends(reserving: Standing) -> None:
    answer(send("answer = 1"))
    standby = reserving.waits()
    job = send("answer = 2", cpus=2)
    assert answer(job) == 2 and job.record.submission_id == f"{job.id}-1"
    assert _ended(reserving, standby).status == "SUCCEEDED"
    later = send("answer = 3")
    assert answer(later) == 3
    assert reserving.waits() != standby, "where there is room again, the next one waits"


def test_one_ends_for_a_job_of_a_process_that_wants_none(reserving: Standing) -> None:
    answer(send("answer = 1"))
    standby = reserving.waits()
    reserving.session.call(reserving.session.offloader.standbys.aclose())  # whoever ordered it has gone
    with other_process() as session:
        session._offloader = session.call(offloader(session.config))
        session.config.standby = 0
        assert answer(send("answer = 2", cpus=2)) == 2
    assert _ended(reserving, standby).status == "SUCCEEDED"


def test_one_ends_for_the_tasks_of_the_job_before_it(reserving: Standing, tmp_path: Path) -> None:
    answer(send("answer = 1"))
    first, go = reserving.waits(), tmp_path / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.1)\n"
    task = "import ray\n@ray.remote(num_cpus=1)\ndef two():\n    return 2\n"
    job = send(f"{wait}{task}answer = ray.get(two.remote())")
    second = until(lambda: reserving.waits() not in (first, "") and reserving.waits(), "another one waits")
    go.touch()
    assert answer(job) == 2 and job.record.submission_id == first
    assert _ended(reserving, second).status == "SUCCEEDED"


def test_none_is_ordered_where_it_would_have_to_wait_for_its_cpu(reserving: Standing) -> None:
    """Of an autoscaler it would get a node of its own."""
    job = running(send("import time\nprint('there', flush=True)\ntime.sleep(1000)", cpus=1))
    printed(job, "there")
    other = running(send("import time\nfor _ in range(10):\n    time.sleep(1)\nanswer = 1"))
    seen = set()
    while not other.done():
        seen |= {plan["id"] for plan in reserving.handovers.ordered()}
        time.sleep(0.2)
    assert answer(other) == 1 and not seen
    standby = reserving.waits()
    assert standby, "it waits now that the other has ended"
    job.cancel()
    until(job.done, "it is cancelled")
