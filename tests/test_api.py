"""The functions of the package, without a cluster."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_rayoffload import api
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.course import Course
from jupyter_rayoffload.drafting import Origin
from jupyter_rayoffload.errors import StoreUnreachable, UsageError
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.models import ClusterInfo, JobOptions, JobRecord, JobSpec, Phase
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.session import Session
from jupyter_rayoffload.submission import Offloader
from tests.fakes import MemoryStore


class Following:
    """What :func:`attach` needs of an offloader, and a reader that is slower than the probe."""

    def __init__(self, store: Any) -> None:
        self.store, self.links = store, self
        self.course = Course(JobRecord(JobSpec(id="fit-1"), phase=Phase.RUNNING, attempt=1))

    async def connect(self, cluster: str = "") -> Any:
        return SimpleNamespace(store=self.store)

    async def take_in(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            for entry in self.store.read_events("fit-1", self.course.read, count=1):
                self.course.read = entry.id


def _printed(store: MemoryStore, count: int) -> None:
    for number in range(1, count + 1):
        store.append("fit-1", "fit-1-1", number, [{"t": 1.0, "type": "stream", "content": {"text": "x\n"}}])


@pytest.mark.asyncio
async def test_a_handle_of_a_running_job_has_the_log_so_far() -> None:
    store = MemoryStore()
    _printed(store, 4)
    following: Any = Following(store)
    reading = asyncio.ensure_future(following.take_in())
    await api._caught_up(following, following.course)
    assert following.course.read == "4-0"
    reading.cancel()


@pytest.mark.asyncio
async def test_a_reader_that_does_not_come_on_is_not_waited_for_long() -> None:
    store = MemoryStore()
    _printed(store, 1)
    following: Any = Following(store)
    began = time.monotonic()
    await api._caught_up(following, following.course, limit=0.2)
    assert 0.1 < time.monotonic() - began < 10

    async def down(cluster: str = "") -> Any:
        raise StoreUnreachable("the store does not answer")

    following.connect = down
    await api._caught_up(following, following.course)


def test_attaching_waits_for_it(monkeypatch: Any) -> None:
    waited = []

    class Here(SimpleNamespace):
        def call(self, work: Any) -> Any:
            return asyncio.run(work)

        def start(self, work: Any) -> None:
            work.close()

    async def caught_up(offloader: Any, course: Course) -> None:
        waited.append(course.record.id)

    async def course(job_id: str) -> Course:
        return Course(JobRecord(JobSpec(id=job_id), phase=Phase.RUNNING, attempt=1))

    async def attach(course: Course) -> None: ...

    here = Here(jobs={}, offloader=SimpleNamespace(course=course, attach=attach))
    here.remember = lambda job: here.jobs.setdefault(job.id, job)
    monkeypatch.setattr(api, "session", lambda: here)
    monkeypatch.setattr(api, "_caught_up", caught_up)
    assert api.attach("fit-1").id == "fit-1"
    assert api.attach("fit-1") is here.jobs["fit-1"]
    assert waited == ["fit-1"]


def test_a_kernel_that_runs_for_weeks_remembers_the_newest_jobs_and_those_that_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jupyter_rayoffload.session.KEPT_JOBS", 2)
    here = Session(RayOffload(), {})
    try:
        for number in range(6):
            phase = Phase.RUNNING if number == 1 else Phase.SUCCEEDED
            here.remember(Job(here, Course(JobRecord(JobSpec(id=f"fit-{number}"), phase=phase))))
        assert list(here.jobs) == ["fit-1", "fit-4", "fit-5"]
    finally:
        here.close()


@pytest.mark.asyncio
async def test_what_nobody_follows_any_more_is_not_kept() -> None:
    offloader = Offloader(RayOffload())
    course = Course(JobRecord(JobSpec(id="fit-1"), phase=Phase.SUCCEEDED))
    offloader.courses["fit-1"] = course
    assert offloader.courses["fit-1"] is course
    del course
    gc.collect()
    assert not offloader.courses
    await offloader.aclose()


BAD_CALLS: list[tuple[Callable[[], object], str]] = [
    (lambda: api.attach(5), "attach: expected the id of a job, such as 'fit-3fbc0e', not 5"),  # type: ignore[arg-type]
    (lambda: api.jobs(limit="a"), "limit='a': expected a whole number, one or more"),  # type: ignore[arg-type]
    (lambda: api.jobs(limit=0), "limit=0: expected a whole number, one or more"),
    (lambda: api.offload(cpus="x"), "cpus='x': expected a number"),
    (lambda: api.offload(label=5), "label=5: expected some text"),
    (lambda: api.offload(4), "offload: expected a function, not an int"),  # type: ignore[type-var]
]


@pytest.mark.parametrize(("call", "says"), BAD_CALLS, ids=lambda v: v[:30] if isinstance(v, str) else "call")
def test_a_bad_call_is_refused_at_once_in_one_line(call: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_code_that_cannot_be_parsed_is_a_plain_syntax_error(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = Origin("me", "", ".", {}, Signer(bytes(32)), 1 << 20)
    here = SimpleNamespace(
        origin=lambda: origin,
        config=SimpleNamespace(job_options=JobOptions),
        checked=lambda options: options,
    )
    monkeypatch.setattr(api, "session", lambda: here)
    with pytest.raises(SyntaxError) as caught:
        api.submit("1 +")
    assert caught.value.__context__ is None
    files = {Path(entry.path).name for entry in caught.traceback}
    assert files == {"test_api.py", "api.py"}, files


@pytest.fixture
def of_a_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session whose site declares two sizes, and has no Kubernetes that anybody could ask."""
    workers = {"name": "workers", "path": "groups.workers.replicas", "maximum": 1}
    profiles = [{"name": "small"}, {"name": "large", "fields": [workers]}]
    made = Session(RayOffload(backend="kubernetes", profiles=profiles), {})
    monkeypatch.setattr(api, "session", lambda: made)
    yield made
    made.close()


@pytest.mark.usefixtures("of_a_site")
@pytest.mark.parametrize(
    "call",
    [
        lambda: api.submit("1 + 1", profile="lage"),
        lambda: api.submit(len, "abc", profile="lage"),
        lambda: api.submit_program("true", profile="lage"),
        lambda: api.start_cluster(profile="lage"),
    ],
)
def test_a_profile_that_there_is_not_is_refused_at_once(call: Callable[[], Any]) -> None:
    with pytest.raises(UsageError, match=r"there is no profile 'lage'\. Did you mean large\?"):
        call()


def test_a_cluster_is_started_as_it_is_chosen(of_a_site: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def connect(name: str, profile: str, choices: Any) -> Any:
        asked.append((name, profile, choices))
        return SimpleNamespace(info=ClusterInfo(name))

    async def get(name: str) -> ClusterInfo:
        return ClusterInfo(name, profile="large")

    monkeypatch.setattr(of_a_site.offloader.links, "connect", connect)
    monkeypatch.setattr(of_a_site.offloader.backend, "get", get)
    assert api.start_cluster("big", "large", workers=1).profile == "large"
    assert asked == [("big", "large", {"workers": 1})]
    monkeypatch.undo()
    monkeypatch.setattr(api, "session", lambda: of_a_site)
    with pytest.raises(UsageError, match="workers cannot be 4: profile large has 0 to 1"):
        api.start_cluster("big", "large", workers=4)
