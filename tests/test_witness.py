"""Following a job: what it leaves behind, and what a job in Ray's queue is said to wait for."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_rayoffload import witness
from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.course import Course
from jupyter_rayoffload.errors import ClusterUnreachable
from jupyter_rayoffload.jobclient import JobInfo
from jupyter_rayoffload.link import Link
from jupyter_rayoffload.models import (
    ClusterInfo,
    ClusterPhase,
    JobOptions,
    JobRecord,
    JobSpec,
    Phase,
    Resources,
)
from jupyter_rayoffload.phase import Event
from jupyter_rayoffload.remote.store import Store
from jupyter_rayoffload.witness import UNREACHABLE_SECONDS, Witness, waits_for
from tests.fakes import MemoryStore
from tests.remote.redis_fixture import (  # noqa: F401  (pytest finds fixtures by name)
    KEY,
    open_store,
    own_redis,
)
from tests.servers import RedisServer


@pytest.mark.redis
def test_a_job_that_ends_as_its_loop_does_leaves_no_connection_open(
    own_redis: RedisServer,  # noqa: F811
    open_store: Callable[..., Store],  # noqa: F811
    tmp_path: Path,
) -> None:
    store = open_store(own_redis)
    store.append("job", "run", 1, [{"type": "phase", "t": 1.0, "content": {"phase": "succeeded"}}])
    there = Connection(ClusterInfo(), store.address, store.owner, KEY, tmp_path / "connection.json")
    ray: Any = object()  # it is not asked: the job ends before

    async def cut_off(turns: int) -> None:
        link, course = Link(there, store, ray), Course(JobRecord(JobSpec(id="job")))
        witness = Witness(course, link, look=never, save=forgotten, crowd=lambda: 1)
        following = asyncio.ensure_future(witness.follow())
        await asyncio.wait_for(course.ended.wait(), 10)
        for _ in range(turns):
            await asyncio.sleep(0)
        everything = asyncio.all_tasks() - {asyncio.current_task()}
        for task in everything:
            task.cancel()  # as a session does that closes
        await asyncio.gather(following, *everything, return_exceptions=True)
        await link.aclose()

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for turns in range(10):
            asyncio.run(cut_off(turns))
        gc.collect()
    assert not [str(w.message) for w in said if w.category is ResourceWarning]


async def never(name: str) -> ClusterInfo:
    raise AssertionError("the job has ended by its own word")


async def forgotten(course: Course) -> None:
    """Save nothing."""


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


@pytest.mark.parametrize(
    ("outside", "phase", "lost"),
    [
        (False, ClusterPhase.UNKNOWN, True),
        (True, ClusterPhase.UNKNOWN, False),
        (True, ClusterPhase.RUNNING, True),  # another head: it has another session name
    ],
)
@pytest.mark.asyncio
async def test_a_way_that_is_shut_says_nothing_of_a_head(
    tmp_path: Path, outside: bool, phase: ClusterPhase, lost: bool
) -> None:
    there: Any = SimpleNamespace(transport=object() if outside else None)
    link: Any = SimpleNamespace(info=ClusterInfo(session="one"), connection=there)

    async def look(name: str) -> ClusterInfo:
        return ClusterInfo(name, "kubernetes", phase)

    spec = JobSpec(id="job")
    course = Course(JobRecord(spec, phase=Phase.RUNNING, last_seen=time.time() - 3600))
    witness = Witness(course, link, look=look, save=forgotten, crowd=lambda: 1)
    since = time.time() - 10 * UNREACHABLE_SECONDS
    assert await witness._head_died(since, ClusterUnreachable("nothing answers")) is lost
    assert (course.record.phase is Phase.LOST) is lost
    assert lost or "has not answered for" in course.record.reason


@pytest.mark.asyncio
async def test_a_job_ends_although_the_reader_of_its_stream_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(witness, "POLL_SECONDS", 0.01)
    store = MemoryStore()
    store.create("job", {"spec": {"id": "job"}})
    store.append("job", "job-1", 1, [{"type": "stream", "t": 1.0, "content": {"text": "a line\n"}}])
    end = {"phase": "succeeded", "attempt": 1, "t": 2.0}
    store.append("job", "job-1", 2, [{"type": "phase", "t": 2.0, "content": end}])
    store.write("job", "end", end)

    async def hangs(*_: Any) -> AsyncIterator[Any]:
        yield store.read_events("job")[0]
        await asyncio.sleep(3600)

    async def ended(submission: str) -> JobInfo:
        return JobInfo(submission, "SUCCEEDED")

    link: Any = SimpleNamespace(store=store, follow=hangs, ray=SimpleNamespace(info=ended))
    course, told = Course(JobRecord(JobSpec(id="job"), attempt=1)), []
    course.subscribe(lambda _, event: told.append(event.type))
    following = Witness(course, link, look=never, save=forgotten, crowd=lambda: 0).follow()
    await asyncio.wait_for(following, 30)
    assert course.record.phase is Phase.SUCCEEDED
    assert told == ["stream", "phase"], "each once"


def test_whoever_fails_at_an_event_keeps_nobody_else_from_hearing_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(record: JobRecord, event: Event) -> None:
        raise RuntimeError("a panel that is half gone")

    course, told = Course(JobRecord(JobSpec(id="job"))), []
    course.subscribe(fails)
    course.subscribe(lambda _, event: told.append(event.type))
    course.tell("phase", phase="succeeded")
    assert course.ended.is_set() and told == ["phase"]
    assert "a panel that is half gone" in caplog.text
