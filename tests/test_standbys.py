"""Standbys that reserve a CPU: where one is ordered, and when those that wait give way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jupyter_rayoffload import standbys
from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.course import Course
from jupyter_rayoffload.jobclient import ClusterStatus
from jupyter_rayoffload.link import Link
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, JobRecord, JobSpec, Phase
from jupyter_rayoffload.remote.store import StoreAddress
from jupyter_rayoffload.standbys import Standbys, standing
from tests.fake_jobclient import FakeJobClient
from tests.fakes import MemoryStore

#: How long anything may take, seconds.
LIMIT = 30.0


class Ray(FakeJobClient):
    """A cluster of two CPUs, of which the test says how many are used, and what waits."""

    used = 0.0
    waiting: tuple[tuple[dict[str, float], int], ...] = ()
    looks = 0

    async def cluster_status(self) -> ClusterStatus:
        self.looks += 1
        return ClusterStatus(1, {"CPU": 2.0}, {"CPU": self.used}, self.waiting)

    async def submit(self, submission_id: str, entrypoint: str, **more: Any) -> str:
        return await super().submit(submission_id, "sleep 0", **more)


class Pods:
    """A cluster of pods, and who has sent jobs to it."""

    def __init__(self, name: str = "default", store: Any = None) -> None:
        connection = Connection(
            ClusterInfo(name, "kubernetes", ClusterPhase.RUNNING, session="session_1"),
            StoreAddress("redis://127.0.0.1:1/0", ""),
            "ada",
            bytes(32),
            Path("/nowhere"),
        )
        self.store, self.ray = store or MemoryStore(), Ray()
        self.link = Link(connection, self.store, self.ray)
        self.standbys = Standbys(RayOffload(owner="ada", standby=1))

    def behind(self, phase: Phase = Phase.RUNNING, **spec: Any) -> Course:
        course = Course(JobRecord(JobSpec(id="job", versions={"runner": "runner"}, **spec), phase))
        self.standbys.behind(course, self.link)
        return course

    def ordering(self) -> bool:
        return self.standbys._ordering.locked()

    def ordered(self) -> list[str]:
        return [plan["id"] for plan in self.store.handovers.ordered()]

    async def aclose(self) -> None:
        await self.standbys.aclose()
        await self.ray.aclose()

    async def looked(self) -> None:
        """Let it look twice at what the cluster has."""
        seen = self.ray.looks
        await until(lambda: self.ray.looks > seen + 1, "it looks again")


async def until(look: Callable[[], Any], what: str) -> None:
    async def found() -> None:
        while not look():
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(found(), LIMIT)
    except asyncio.TimeoutError:
        pytest.fail(f"not within {LIMIT:g} s: {what}")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ORDER_AFTER", "YIELD_SECONDS", "ROOM_SECONDS"):
        monkeypatch.setattr(standbys, name, 0.02)


@pytest.mark.asyncio
async def test_one_is_ordered_where_a_cpu_is_free_and_nothing_waits() -> None:
    pods = Pods()
    pods.ray.used = 2.0
    pods.behind()
    await pods.looked()
    assert not pods.ordered(), "an autoscaler would start a worker for it"
    pods.ray.used, pods.ray.waiting = 1.0, (({"CPU": 1.0}, 3),)
    await pods.looked()
    assert not pods.ordered(), "that CPU is another one's"
    pods.ray.waiting = ()
    await until(pods.ordered, "it is ordered")
    await pods.aclose()


@pytest.mark.asyncio
async def test_a_cpu_that_the_running_job_has_is_not_taken_for_a_free_one() -> None:
    """Ray renews what is used every five seconds: the first look may be of a time before the job."""

    class Late(Ray):
        async def cluster_status(self) -> ClusterStatus:
            self.used = 2.0 if self.looks else 1.0
            return await super().cluster_status()

    pods = Pods()
    pods.ray = pods.link.ray = Late()
    pods.behind()
    await pods.looked()
    await pods.looked()
    assert not pods.ordered()
    await pods.aclose()


@pytest.mark.asyncio
async def test_those_that_have_served_are_forgotten() -> None:
    pods = Pods()
    for turn in range(3):
        pods.behind()
        await until(
            lambda turn=turn: len(pods.ray.jobs) == turn + 1 and not pods.ordering(), "one is ordered"
        )
        [standby] = pods.ordered()
        assert list(pods.standbys._ordered) == [standby]
        pods.store.handovers.take(standby, "job")
    await pods.aclose()


@pytest.mark.asyncio
async def test_none_is_ordered_where_others_have_taken_the_place_of_its_job() -> None:
    pods = Pods()
    pods.ray.used = 2.0
    pods.behind(Phase.SUCCEEDED)
    await until(lambda: not pods.standbys._tasks, "it is given up, and nobody watches any more")
    assert not pods.ordered()


@pytest.mark.parametrize("waiting", [{"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}])
@pytest.mark.asyncio
async def test_those_that_wait_end_when_something_waits_for_a_cpu(waiting: dict[str, float]) -> None:
    """Whoever has ordered them: this process wants none."""
    pods = Pods()
    elsewhere = Pods("big", pods.store)
    pods.standbys._config.standby = 0
    for name, cluster in (("ours", "default"), ("other", "big")):
        pods.store.handovers.order(name, {"key": "a", "cluster": cluster})
        pods.store.handovers.announce(name, {"key": "a", "cluster": cluster, "since": 1.0, "memory": 5})
    for info in (pods.link.info, elsewhere.link.info):
        assert (await standing(info, pods.link)).standbys == 1, "each cluster has its own"
    pods.ray.waiting = (({"GPU": 1.0}, 1),)
    course = pods.behind()
    await pods.looked()
    assert pods.ordered() == ["ours", "other"], "it holds no GPU"
    pods.ray.waiting = ((waiting, 1),)
    await until(lambda: pods.ordered() == ["other"], "it gives way")
    assert pods.store.handovers.await_letter("ours", 1) == {"end": True}
    course.tell("cancelled")
    await until(lambda: not pods.standbys._tasks, "with jobs and standbys the watch ends")


@pytest.mark.asyncio
async def test_what_is_about_to_be_ordered_is_not_where_a_cluster_ends() -> None:
    pods = Pods()
    pods.ray.used = 2.0
    pods.behind()
    await pods.looked()
    await pods.standbys.send_off(pods.link)
    pods.ray.used = 0.0
    await until(lambda: "default" not in pods.standbys._tasks.values(), "nobody orders")
    assert not pods.ordered() and not pods.ray.jobs
    await pods.aclose()
