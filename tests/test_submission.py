"""Ways to clusters and stores: an open one serves again, and whoever only asks for jobs starts nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.kubernetes.backend import KubernetesBackend
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import ClusterRefused, UsageError
from jupyter_rayoffload.models import ClusterInfo, ClusterSpec, JobOptions, Phase
from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
from jupyter_rayoffload.submission import Offloader
from tests.fake_dashboard import served
from tests.fake_kubernetes import FakeKubernetes, forbidden
from tests.ray_fixture import short_folder
from tests.server.fake_service import Parts
from tests.servers import RedisServer

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with short_folder() as folder:
        server = RedisServer(folder)
        server.start()
        yield server
        server.stop()


@dataclass
class Scene:
    """A person whose clusters are on Kubernetes: there is none yet."""

    offloader: Offloader
    kubernetes: FakeKubernetes
    store: Store

    def job(self, job_id: str, **state: Any) -> None:
        now = time.time()
        spec = {"id": job_id, "owner": "ada", "source": "x = 1", "created": now}
        self.store.create(job_id, {"spec": spec}, now)
        self.store.put_payload(job_id, "inputs", codec.freeze({}, {}, Signer(KEY), copy=True))
        self.store.write_state(job_id, {"started": now, "attempt": 1, **state}, force=True)


@pytest_asyncio.fixture
async def scene(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Scene]:
    address, file = StoreAddress(url=redis.url, password=redis.password), tmp_path / "connection.json"
    Connection(info=ClusterInfo(), store=address, owner="ada", key=KEY, file=file).write()
    async with FakeKubernetes(tmp_path) as kubernetes, served() as dashboard:
        config = RayOffload(
            backend="kubernetes",
            kubernetes_reach="service",
            owner="ada",
            kubeconfig=kubernetes.kubeconfig,
            connection_file=str(file),
        )
        offloader = Offloader(config)
        assert isinstance(offloader.backend, KubernetesBackend)
        offloader.backend.reach = lambda _: dashboard.address
        with Store(address, "ada", Signer(KEY)) as store:
            yield Scene(offloader, kubernetes, store)
            for job_id in store.ids(100):
                store.delete(job_id)
        await offloader.aclose()


@pytest.mark.asyncio
async def test_jobs_are_read_and_forgotten_without_a_cluster(scene: Scene) -> None:
    scene.job("fit", phase="succeeded", ended=time.time())
    assert [(r.id, r.phase) for r in await scene.offloader.records()] == [("fit", Phase.SUCCEEDED)]
    course = await scene.offloader.course("fit")
    await asyncio.wait_for(scene.offloader.attach(course), 10)
    draft = await scene.offloader.rerun_draft(course.record, JobOptions())
    assert draft.copy_from == "fit"
    await scene.offloader.delete("fit")
    assert [r.id for r in await scene.offloader.records()] == [draft.spec.id]
    assert not scene.kubernetes.objects, "no cluster was made for any of it"


@pytest.mark.asyncio
async def test_a_suspended_cluster_stays_suspended_and_what_ran_there_is_lost(scene: Scene) -> None:
    await scene.offloader.links.connect()
    await scene.offloader.backend.suspend("default")
    silent = time.time() - 3600
    scene.job("old", phase="running", last_seen=silent, cluster="default")
    scene.job("elsewhere", phase="running", last_seen=silent, cluster="big")
    other = Offloader(scene.offloader.config)
    found = {record.id: record.phase for record in await other.records()}
    assert found == {"old": Phase.LOST, "elsewhere": Phase.RUNNING}, (
        "of another cluster nothing is known here"
    )
    await other.cancel(await other.course("elsewhere"))
    assert scene.store.stop_requested("elsewhere")
    assert scene.kubernetes.cluster()["spec"]["suspend"] is True
    await other.aclose()


@pytest.mark.parametrize("verb", ["suspend", "down", "scale"])
@pytest.mark.asyncio
async def test_standbys_are_let_go_before_their_pods(scene: Scene, verb: str) -> None:
    """Whoever ordered them, those on their way too, and those of no other cluster."""
    await scene.offloader.links.connect()
    ours, seen = scene.store.handovers, list[str]()
    for standby, cluster in (("coming", "default"), ("waits", "default"), ("elsewhere", "big")):
        ours.order(standby, {"key": "a", "idle": 60, "cluster": cluster})
        if standby != "coming":
            assert ours.announce(standby, {**ours.plan(standby), "since": 1.0, "memory": 5})

    def refuse() -> Any:
        seen.extend(plan["id"] for plan in ours.ordered())
        return forbidden("patch", "rayclusters")

    scene.kubernetes.answers = {f"{verb} rayclusters": [refuse] for verb in ("PATCH", "DELETE")}
    asked = {"scale": lambda: scene.offloader.scale("default", 0)}
    with pytest.raises(ClusterRefused):
        await asked.get(verb, lambda: getattr(scene.offloader, verb)("default"))()
    assert seen == ["elsewhere"], "when Kubernetes was asked, the others had been told"
    assert ours.await_letter("waits", 1) == {"end": True}
    assert not ours.announce("coming", {"key": "a", "cluster": "default"})
    ours.dismiss("elsewhere", "a")


@pytest.mark.asyncio
async def test_the_store_that_was_found_first_serves_until_the_cluster_is_needed(scene: Scene) -> None:
    first = await scene.offloader.links.reach()
    assert await scene.offloader.links.reach() is first and not first.info.address
    link = await scene.offloader.links.connect()
    assert link.info.address and await scene.offloader.links.reach() is link
    spec = ClusterSpec(name="big")
    await scene.offloader.backend.ensure(spec)
    assert (await scene.offloader.links.reach("big")).info.address


@pytest.mark.asyncio
async def test_an_open_way_is_not_taken_for_one_to_a_cluster_of_another_size() -> None:
    parts = Parts()
    offloader = parts.make_service().offloader
    link = await offloader.links.connect("big", "large", choices={"workers": "2"})
    assert (link.info.profile, link.info.choices["workers"]) == ("large", 2)
    for profile in ("", "large"):  # it is known, and nobody has to be asked
        assert await offloader.links.connect("big", profile) is link
    assert parts.backend.calls == ["ensure big"]
    with pytest.raises(UsageError, match="cluster 'big' is of profile large, not of profile small"):
        await offloader.links.connect("big", "small")
    with pytest.raises(UsageError, match="has workers=2, not workers=3"):
        await offloader.links.connect("big", "large", choices={"workers": 3})
    assert await offloader.links.connect("big") is link
    await offloader.aclose()
