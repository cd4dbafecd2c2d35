"""The back end of Kubernetes, where the API refuses, forgets, vanishes, or somebody else is faster.

The server is a small one of the tests, and everything above it is real: the client, the store.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from jupyter_rayoffload.clusters import Connection, open_backend
from jupyter_rayoffload.clusters.address import AddressBackend
from jupyter_rayoffload.clusters.kubernetes import api as kubeapi
from jupyter_rayoffload.clusters.kubernetes import backend as kubernetes
from jupyter_rayoffload.clusters.kubernetes import starting
from jupyter_rayoffload.clusters.kubernetes.backend import KubernetesBackend, in_cluster
from jupyter_rayoffload.clusters.kubernetes.manifest import CONNECTION_FILE, labels_of, object_name
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import (
    ClusterError,
    ClusterRefused,
    ClusterStartFailed,
    ClusterUnreachable,
    OffloadError,
    UsageError,
)
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec, PodSpec, WorkerGroup
from jupyter_rayoffload.remote.store import StoreAddress
from tests.fake_dashboard import Dashboard, served
from tests.fake_kubernetes import ACCOUNT_TOKEN, RAY_TOKEN, FakeKubernetes, forbidden, leaving, status
from tests.ray_fixture import short_folder
from tests.servers import RedisServer

KEY = bytes(range(32))
SPEC = ClusterSpec(name="default")


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    with short_folder() as folder:
        server = RedisServer(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def connection_file(store: RedisServer, tmp_path: Path) -> str:
    """A connection file without a Ray: the store is there before any cluster."""
    made = Connection(
        info=ClusterInfo(),
        store=StoreAddress(url=store.url, password=store.password),
        owner="ada",
        key=KEY,
        file=tmp_path / "connection.json",
    )
    made.write()
    return str(made.file)


class Ground:
    """An API server, a head, and back ends that use them."""

    def __init__(self, server: FakeKubernetes, dashboard: Dashboard, connection_file: str) -> None:
        self.server, self.dashboard, self.connection_file = server, dashboard, connection_file
        self.made: list[KubernetesBackend] = []

    def backend(self, **settings: Any) -> KubernetesBackend:
        """Make a back end, as another kernel would."""
        config = RayOffload(
            **{
                "backend": "kubernetes",
                "owner": "ada",
                "kubeconfig": self.server.kubeconfig,
                "connection_file": self.connection_file,
                "kubernetes_start_timeout": 60,
                **settings,
            }
        )
        self.made.append(KubernetesBackend(config, reach=lambda _: self.dashboard.address))
        return self.made[-1]


@pytest_asyncio.fixture
async def ground(tmp_path: Path, connection_file: str) -> AsyncIterator[Ground]:
    async with FakeKubernetes(tmp_path) as server, served() as dashboard:
        ground = Ground(server, dashboard, connection_file)
        yield ground
        for backend in ground.made:
            await backend.aclose()


async def until(look: Any, limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not look():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


# ---------------------------------------------------------------------- ensure


@pytest.mark.asyncio
async def test_it_is_made_on_first_use_and_adopted_by_the_next_kernel(ground: Ground) -> None:
    heard: list[ClusterInfo] = []
    connection = await ground.backend().ensure(SPEC, heard.append)
    assert [info.phase for info in heard] == [ClusterPhase.STARTING, ClusterPhase.RUNNING]
    assert heard[-1] == connection.info and connection.info.session == "session_1"
    assert (connection.owner, connection.key, connection.ray_token) == ("ada", KEY, RAY_TOKEN)
    made = ground.server.cluster()
    assert made["metadata"]["name"] == object_name("ada", "default")
    assert made["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"].startswith(
        "rayproject/ray:"
    )
    again = await ground.backend().ensure(SPEC)
    assert again.info == connection.info
    assert ground.server.requests.count("POST rayclusters") == 1


@pytest.mark.asyncio
async def test_the_image_is_the_sites_for_this_python_and_ray(ground: Ground) -> None:
    key = f"py{sys.version_info[0]}{sys.version_info[1]}"
    images = {key: "site/ray:any", f"{key}-ray2.59.0": "site/ray:2.59.0"}
    await ground.backend(images=images, ray_version="2.59.0").ensure(ClusterSpec())
    spec = ground.server.cluster()["spec"]
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    assert {pod["template"]["spec"]["containers"][0]["image"] for pod in pods} == {"site/ray:2.59.0"}
    assert spec["rayVersion"] == "2.59.0"


@pytest.mark.asyncio
async def test_without_an_image_for_this_python_nothing_is_made(ground: Ground) -> None:
    with pytest.raises(UsageError, match="there are images for py38") as caught:
        await ground.backend(images={"py38": "old"}).ensure(ClusterSpec())
    assert "set image" in caught.value.hint
    assert "POST rayclusters" not in ground.server.requests


@pytest.mark.asyncio
async def test_two_kernels_at_once_make_one_cluster(ground: Ground) -> None:
    ground.server.posts_at_once = 2
    both = await asyncio.gather(*(ground.backend().ensure(SPEC) for _ in range(2)))
    assert both[0].info == both[1].info
    assert ground.server.requests.count("POST rayclusters") == 2 and ground.server.requests.count("409") == 1
    assert ground.server.cluster()["metadata"]["uid"]


@pytest.mark.asyncio
async def test_one_that_is_being_deleted_is_awaited_and_made_anew(ground: Ground) -> None:
    backend = ground.backend()
    await backend.ensure(SPEC)
    old = ground.server.cluster()
    ground.server.put("rayclusters", leaving(old))
    heard: list[ClusterInfo] = []
    start = asyncio.create_task(ground.backend().ensure(SPEC, heard.append))
    await until(lambda: heard)
    assert heard[0].reason == "The cluster that was there is being deleted"
    assert ground.server.requests.count("POST rayclusters") == 1
    ground.server.remove("rayclusters", old["metadata"]["name"])
    assert (await start).info.phase is ClusterPhase.RUNNING
    assert ground.server.cluster()["metadata"]["uid"] != old["metadata"]["uid"]


@pytest.mark.asyncio
async def test_a_suspended_one_is_resumed(ground: Ground) -> None:
    backend = ground.backend()
    await backend.ensure(SPEC)
    assert (await backend.suspend("default")).phase is ClusterPhase.SUSPENDED
    assert not (await backend.get("default")).address
    heard: list[ClusterInfo] = []
    await ground.backend().ensure(SPEC, heard.append)
    assert ground.server.requests.count("PATCH rayclusters") == 2  # suspended once, resumed once
    assert heard[0].reason == "Resuming the cluster" and heard[-1].phase is ClusterPhase.RUNNING
    assert ground.server.cluster()["spec"]["suspend"] is False
    await backend.suspend("default")
    assert (await backend.resume("default")).phase is ClusterPhase.RUNNING


@pytest.mark.asyncio
async def test_one_in_a_queue_of_the_site_is_not_resumed_by_us(ground: Ground) -> None:
    backend = ground.backend()
    await backend.ensure(SPEC)
    queued = ground.server.cluster()
    queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team"
    ground.server.put("rayclusters", {**queued, "spec": {**queued["spec"], "suspend": True}})
    with pytest.raises(ClusterStartFailed, match=r"not ready after 1 s: Waiting in the queue"):
        await ground.backend(kubernetes_start_timeout=1).ensure(SPEC)
    assert "PATCH rayclusters" not in ground.server.requests


@pytest.mark.asyncio
async def test_a_start_ends_in_time_and_says_what_it_waited_for(ground: Ground) -> None:
    ground.server.operator = False
    late = "cluster 'default' is not ready after 1 s: Waiting for the KubeRay operator"
    with pytest.raises(ClusterStartFailed, match=late):
        await ground.backend(kubernetes_start_timeout=1).ensure(SPEC)
    ground.server.operator = True
    ground.server.operate(ground.server.cluster())
    ground.dashboard.address = "http://127.0.0.1:9"
    with pytest.raises(ClusterStartFailed, match=r"Ray does not answer yet.*NetworkPolicy"):
        await ground.backend(kubernetes_start_timeout=2).ensure(SPEC)


@pytest.mark.asyncio
async def test_what_waiting_cannot_help_fails_at_once(ground: Ground) -> None:
    ground.server.operator = False
    start = asyncio.create_task(ground.backend().ensure(SPEC))
    await until(lambda: ground.server.objects)
    metadata = ground.server.cluster()["metadata"]
    about = {"kind": "RayCluster", "name": metadata["name"], "uid": metadata["uid"]}
    event = {
        "metadata": {"name": "e1"},
        "type": "Warning",
        "reason": "InvalidRayClusterSpec",
        "message": "the spec is not valid: no such thing",
        "involvedObject": about,
        "lastTimestamp": "2026-11-26T10:00:00Z",
    }
    ground.server.put("events", event)
    with pytest.raises(ClusterStartFailed, match=r"cannot start.*no such thing.*%ray cluster down"):
        await asyncio.wait_for(start, 20)
    # Events outlive the cluster that they are about: a new one is not judged by them.
    ground.server.remove("rayclusters", metadata["name"])
    ground.server.operator = True
    assert (await ground.backend().ensure(SPEC)).info.phase is ClusterPhase.RUNNING


@pytest.mark.asyncio
async def test_a_head_that_answers_is_used_before_the_kubelet_has_asked_it(ground: Ground) -> None:
    ground.server.ready, ground.dashboard.well = False, False
    backend, heard = ground.backend(), list[ClusterInfo]()
    start = asyncio.create_task(backend.ensure(SPEC, heard.append))
    await until(lambda: heard and heard[-1].reason == "Starting Ray")
    assert (await backend.get("default")).phase is ClusterPhase.STARTING
    assert (await backend.list())[0].reason == "Starting Ray"
    found = await backend.find("default")
    assert found is not None and not found.info.address
    ground.dashboard.well = True
    connection = await asyncio.wait_for(start, 3)  # well before the next look at what no watch tells
    assert connection.info.phase is ClusterPhase.RUNNING and heard[-1] == connection.info
    for info in (await backend.get("default"), *await backend.list()):
        assert (info.phase, info.session) == (ClusterPhase.RUNNING, "session_1")
    found = await backend.find("default")
    assert found is not None and found.ray_token == RAY_TOKEN


@pytest.mark.asyncio
async def test_the_store_is_waited_for_too(ground: Ground, store: RedisServer) -> None:
    store.stop()
    try:
        heard: list[ClusterInfo] = []
        start = asyncio.create_task(ground.backend().ensure(SPEC, heard.append))
        await until(lambda: heard and "waiting for the store" in heard[-1].reason)
    finally:
        store.restart()
    assert (await asyncio.wait_for(start, 30)).info.phase is ClusterPhase.RUNNING


@pytest.mark.asyncio
async def test_pods_read_the_connection_file_of_their_secret(ground: Ground, connection_file: str) -> None:
    plain = await ground.backend().ensure(SPEC)
    assert str(plain.file) == connection_file
    cluster = {"image": "site/ray:1", "ray": "2.60.0", "store_secret": "store"}
    secret = await ground.backend(kubernetes_cluster=cluster).ensure(ClusterSpec(name="other"))
    assert str(secret.file) == CONNECTION_FILE


# ---------------------------------------------------------------------- profiles

FIELDS = [{"name": "workers", "path": "groups.workers.replicas", "default": 1, "maximum": 4}]
GROUPS = [{"name": "workers", "maximum": 4, "pod": {"cpus": 2}}]
CAPPED = {"head": {"cpus": 1}}
PROFILES = [
    {"name": "small", "cluster": {"groups": []}},
    {"name": "large", "cluster": {"groups": GROUPS, "store_secret": "store"}, "fields": FIELDS},
]


def asked(profile: str = "", **choices: Any) -> ClusterSpec:
    return ClusterSpec(profile=profile, choices=choices)


@pytest.mark.asyncio
async def test_a_cluster_is_made_as_it_was_chosen(ground: Ground) -> None:
    backend = ground.backend(profiles=PROFILES)
    assert [p.name for p in await backend.profiles()] == ["small", "large"]
    connection = await backend.ensure(asked("large", workers="3"))
    assert (connection.info.profile, connection.info.choices) == ("large", {"workers": 3})
    made = ground.server.cluster()
    assert [g["replicas"] for g in made["spec"]["workerGroupSpecs"]] == [3]
    assert made["metadata"]["annotations"]["rayoffload/profile"] == "large"
    # Whoever asks for nothing gets it as it is; and so it is seen by all.
    plain = await ground.backend(profiles=PROFILES).ensure(SPEC)
    assert plain.info.profile == "large" and str(plain.file) == CONNECTION_FILE
    found = await ground.backend().find("default")
    assert found is not None and str(found.file) == CONNECTION_FILE
    assert (await ground.backend().get("default")).choices == {"workers": 3}
    assert [info.profile for info in await ground.backend().list()] == ["large"]
    again = await ground.backend(profiles=PROFILES).ensure(asked("large", workers=3))
    assert again.info.profile == "large" and ground.server.requests.count("POST rayclusters") == 1


@pytest.mark.asyncio
async def test_without_a_name_it_is_the_default_one(ground: Ground) -> None:
    assert (await ground.backend(profiles=PROFILES).ensure(SPEC)).info.profile == "small"
    assert "workerGroupSpecs" not in ground.server.cluster()["spec"]


@pytest.mark.asyncio
async def test_a_cluster_of_another_size_is_never_taken_silently(ground: Ground) -> None:
    first = ground.backend(profiles=PROFILES)
    await first.ensure(asked("large", workers=2))
    other = ground.backend(profiles=PROFILES)
    for spec, said in (
        (asked("small"), "cluster 'default' is of profile large, not of profile small"),
        (asked("large", workers=4), "cluster 'default' has workers=2, not workers=4"),
    ):
        for backend in (first, other):
            with pytest.raises(UsageError) as caught:
                await backend.ensure(spec)
            assert said in caught.value.message and "%ray cluster down" in caught.value.hint
    await first.suspend("default")
    with pytest.raises(UsageError, match="is of profile large"):
        await other.ensure(asked("small"))
    assert ground.server.cluster()["spec"]["suspend"] is True  # it is not resumed for that
    by_hand = ground.server.cluster()
    del by_hand["metadata"]["annotations"]["rayoffload/profile"]
    ground.server.put("rayclusters", by_hand)
    with pytest.raises(UsageError, match="made without a profile"):
        await other.ensure(asked("large"))


@pytest.mark.asyncio
async def test_scaling_stays_within_the_profile(ground: Ground) -> None:
    backend = ground.backend(profiles=PROFILES)
    await backend.ensure(asked("large", workers=2))
    with pytest.raises(UsageError, match="workers cannot be 5: profile large has 0 to 4"):
        await backend.scale("default", 5)
    assert (await backend.scale("default", 4)).choices == {"workers": 4}
    assert [g["replicas"] for g in ground.server.cluster()["spec"]["workerGroupSpecs"]] == [4]
    await backend.ensure(asked("large", workers=4))
    capped = [{**PROFILES[1], "caps": {"cpus": 7}, "cluster": {**CAPPED, "groups": GROUPS}}]
    with pytest.raises(UsageError, match=r"may have 7 CPUs in all, and this is 9 CPUs: workers=4"):
        await ground.backend(profiles=capped).scale("default", 4)
    # A profile that is no longer declared binds nobody.
    assert (await ground.backend().scale("default", 6)).profile == "large"


@pytest.mark.asyncio
async def test_one_that_leaves_does_not_stand_in_the_way(ground: Ground) -> None:
    await ground.backend(profiles=PROFILES).ensure(asked("large"))
    old = ground.server.cluster()
    ground.server.put("rayclusters", leaving(old))
    heard: list[ClusterInfo] = []
    start = asyncio.create_task(ground.backend(profiles=PROFILES).ensure(asked("small"), heard.append))
    await until(lambda: heard)
    ground.server.remove("rayclusters", old["metadata"]["name"])
    assert (await start).info.profile == "small"


@pytest.mark.asyncio
async def test_what_cannot_be_chosen_asks_nobody(ground: Ground) -> None:
    backend = ground.backend(profiles=PROFILES)
    for spec, said in (
        (asked("huge"), "there is no profile 'huge'. There are: small, large"),
        (asked("large", workers=5), "workers cannot be 5: profile large has 0 to 4"),
        (asked(workers=2), "profile small has no field 'workers'"),
    ):
        with pytest.raises(UsageError) as caught:
            await backend.ensure(spec)
        assert said in str(caught.value)
    assert not ground.server.requests


# ---------------------------------------------------------------------- refusals


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("asked", "group"), [("POST rayclusters", "ray.io"), ("LIST pods", ""), ("WATCH events", "")]
)
async def test_a_missing_right_is_named_with_the_rule_that_gives_it(
    ground: Ground, asked: str, group: str
) -> None:
    verb, plural = asked.split()
    verb = {"POST": "create"}.get(verb, verb.lower())
    ground.server.operator = False  # or it could be ready before the refusal comes
    ground.server.answers[asked] = [lambda: forbidden(verb, plural, group)] * 3
    with pytest.raises(ClusterRefused) as caught:
        await ground.backend().ensure(SPEC)
    assert f'cannot {verb} resource "{plural}" in API group "{group}"' in caught.value.message
    assert f'{{apiGroups: ["{group}"], resources: ["{plural}"], verbs: ["{verb}"]}}' in caught.value.hint


@pytest.mark.asyncio
async def test_the_rule_for_the_secret_is_for_this_one_alone(ground: Ground) -> None:
    name = object_name("ada", "default")
    ground.server.answers["GET secrets"] = [lambda: forbidden("get", "secrets", details={"name": name})]
    with pytest.raises(ClusterRefused, match=re.escape(f'resources: ["secrets"], resourceNames: ["{name}"]')):
        await ground.backend().ensure(SPEC)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "message", "error", "hint"),
    [
        (403, "is forbidden: exceeded quota: q, used: 1, limited: 1", ClusterRefused, "larger quota"),
        (403, "is forbidden: policy 'p' denied request: no hostPath", ClusterRefused, "rule of your site"),
        (422, "RayCluster is invalid: spec.x: Required value", ClusterStartFailed, "kubernetes_cluster"),
        (404, 'namespaces "team" not found', UsageError, "setting namespace"),
        (401, "Unauthorized", ClusterRefused, "Sign in again"),
    ],
)
async def test_other_refusals(
    ground: Ground, code: int, message: str, error: type[OffloadError], hint: str
) -> None:
    said = [lambda: web.json_response(status(code, message), status=code)] * 2
    ground.server.answers["POST rayclusters"] = said
    with pytest.raises(error) as caught:
        await ground.backend().ensure(SPEC)
    assert hint in caught.value.hint
    if code not in (401, 404):
        assert message in caught.value.message


@pytest.mark.asyncio
async def test_without_kuberay_the_answer_says_so(ground: Ground) -> None:
    absent = [lambda: web.Response(status=404, text="404 page not found")] * 3
    ground.server.answers["LIST rayclusters"] = absent
    backend = ground.backend()
    with pytest.raises(ClusterStartFailed, match="KubeRay is not installed"):
        await backend.ensure(SPEC)
    with pytest.raises(ClusterStartFailed, match="KubeRay is not installed"):
        await backend.list()


@pytest.mark.asyncio
async def test_without_kuberay_the_answer_says_so_also_if_it_goes_between_list_and_watch(
    ground: Ground,
) -> None:
    ground.server.answers["WATCH rayclusters"] = [lambda: web.Response(status=404, text="404 page not found")]
    watching = ground.backend().watch("default")
    with pytest.raises(ClusterStartFailed, match="KubeRay is not installed"):
        async for _ in watching:
            pass


@pytest.mark.asyncio
async def test_a_busy_server_is_asked_again_when_it_says(ground: Ground) -> None:
    headers = {"Retry-After": "2"}
    busy = [lambda: web.json_response(status(429, "slow down"), status=429, headers=headers)]
    ground.server.answers["LIST rayclusters"] = busy
    begin = time.monotonic()
    assert await ground.backend().list() == []
    assert time.monotonic() - begin >= 2
    assert ground.server.requests == ["LIST rayclusters"] * 2


@pytest.mark.asyncio
async def test_what_an_expired_watch_has_missed_is_seen(ground: Ground) -> None:
    backend = ground.backend()
    await backend.ensure(SPEC)
    watching = backend.watch("default")
    assert (await anext(watching)).phase is ClusterPhase.RUNNING
    lists = ground.server.requests.count("LIST rayclusters")
    await ground.server.stop()
    ground.server.remove("rayclusters", object_name("ada", "default"))
    ground.server.forget()
    await ground.server.start()
    async for info in watching:
        if info.phase is ClusterPhase.NONE:
            break
    assert ground.server.requests.count("LIST rayclusters") > lists
    await watching.aclose()


@pytest.mark.asyncio
async def test_a_credential_that_has_expired_is_read_again(ground: Ground) -> None:
    backend = ground.backend()
    watching = backend.watch("default")
    assert (await anext(watching)).phase is ClusterPhase.NONE
    await until(
        lambda: {f"WATCH {p}" for p in ("rayclusters", "pods", "events")} <= {*ground.server.requests}
    )
    ground.server.token = "the-next-one"
    with pytest.raises(ClusterRefused, match="does not accept the credential"):
        await backend.list()
    assert ground.server.kubeconfig  # it has been written anew
    assert await backend.list() == []
    await backend.ensure(SPEC)
    assert (await asyncio.wait_for(anext(watching), 10)).phase is not ClusterPhase.NONE, "it watches still"
    await watching.aclose()


# ---------------------------------------------------------------------- a server that vanishes


@pytest.mark.asyncio
async def test_a_server_that_vanishes_is_told_since_when_and_jobs_go_on(ground: Ground) -> None:
    backend = ground.backend(backend="auto")
    connection = await backend.ensure(SPEC)
    watching = backend.watch("default")
    assert (await anext(watching)).phase is ClusterPhase.RUNNING
    await ground.server.stop()
    gone = await asyncio.wait_for(anext(watching), 30)
    assert gone.phase is ClusterPhase.UNKNOWN
    assert re.fullmatch(r"The Kubernetes API server does not answer since \d\d:\d\d:\d\d", gone.reason)
    assert gone.session == connection.info.session, (
        "Ray still answers: a job must not be told that it is lost"
    )
    assert (await backend.get("default")).reason == gone.reason
    assert await backend.ensure(SPEC) == connection
    await ground.server.start()
    assert (await asyncio.wait_for(anext(watching), 30)).phase is ClusterPhase.RUNNING
    await watching.aclose()


@pytest.mark.asyncio
async def test_a_server_that_hangs_is_not_waited_for_and_who_watches_hears_of_its_return(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeapi, "_QUICK", 0.5)
    backend = ground.backend()
    await backend.ensure(SPEC)
    ground.server.hanging = True
    began = time.monotonic()
    assert (await backend.get("default")).phase is ClusterPhase.UNKNOWN
    watching = backend.watch("default")
    assert (await asyncio.wait_for(anext(watching), 20)).phase is ClusterPhase.UNKNOWN
    assert time.monotonic() - began < 10
    ground.server.hanging = False
    assert (await asyncio.wait_for(anext(watching), 30)).phase is ClusterPhase.RUNNING
    await watching.aclose()


@pytest.mark.asyncio
async def test_a_server_that_has_never_answered_is_not_waited_for(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "FIRST_ANSWER", 0.5)
    monkeypatch.setattr(starting, "TICK", 0.5)
    backend = ground.backend()
    await ground.server.stop()
    with pytest.raises(ClusterUnreachable, match="kubeconfig says where it is"):
        await backend.ensure(SPEC)


@pytest.mark.asyncio
async def test_who_only_watches_asks_for_nothing(ground: Ground) -> None:
    backend = ground.backend()
    await backend.ensure(SPEC)
    ground.server.requests.clear()
    watching = backend.watch("default")
    await anext(watching)
    watched = {f"WATCH {plural}" for plural in ("rayclusters", "pods", "events")}  # they begin in any order
    await until(lambda: watched <= {*ground.server.requests})
    asked = len(ground.server.requests)
    next_one = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(3)
    assert len(ground.server.requests) == asked
    ground.server.remove("rayclusters", object_name("ada", "default"))
    assert (await asyncio.wait_for(next_one, 2)).phase is ClusterPhase.NONE, "it must be told, not ask"
    await watching.aclose()


# ---------------------------------------------------------------------- verbs


@pytest.mark.asyncio
async def test_it_scales_the_first_group_or_the_one_that_is_named(ground: Ground) -> None:
    groups = [{"name": "small", "replicas": 1}, {"name": "large", "replicas": 0}]
    backend = ground.backend(kubernetes_cluster={"groups": groups})
    await backend.ensure(SPEC)
    await backend.scale("default", 3)
    await backend.scale_group("default", "large", 2)
    made = ground.server.cluster()["spec"]["workerGroupSpecs"]
    assert [(g["groupName"], g["replicas"], g["maxReplicas"]) for g in made] == [
        ("small", 3, 3),
        ("large", 2, 2),
    ]
    with pytest.raises(UsageError, match=r"no worker group 'huge'.*small, large"):
        await backend.scale_group("default", "huge", 2)
    with pytest.raises(UsageError, match="there is no cluster 'other'"):
        await backend.scale("other", 2)


@pytest.mark.asyncio
async def test_scaling_keeps_what_somebody_else_has_changed_meanwhile(ground: Ground) -> None:
    backend = ground.backend()
    await backend.ensure(SPEC)
    stale = status(409, "the object has been modified")
    ground.server.answers["PATCH rayclusters"] = [lambda: web.json_response(stale, status=409)]
    await backend.scale("default", 4)
    assert ground.server.requests.count("PATCH rayclusters") == 2
    assert ground.server.cluster()["spec"]["workerGroupSpecs"][0]["replicas"] == 4


def group_names(ground: Ground) -> list[str]:
    return [group["groupName"] for group in ground.server.cluster()["spec"]["workerGroupSpecs"]]


@pytest.mark.asyncio
async def test_worker_groups_come_and_go(ground: Ground) -> None:
    more = {"volumes": [{"name": "home", "path": "/home/ray", "claim": "home"}]}
    await ground.backend(kubernetes_cluster={"groups": [{"name": "small"}], **more}).ensure(SPEC)
    image = ground.server.cluster()["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
    # The image is the cluster's, whatever the settings say by now; volumes are the settings' own.
    backend = ground.backend(image="another:1", ray_version="2.60.0", kubernetes_cluster=more)
    large = WorkerGroup("large", PodSpec(cpus=8, memory=1 << 30, gpus=1), replicas=2)
    assert (await backend.add_group("default", large)).workers is None, "no one number says it"
    [small, made] = ground.server.cluster()["spec"]["workerGroupSpecs"]
    assert (made["groupName"], made["replicas"], made["maxReplicas"]) == ("large", 2, 2)
    [container] = made["template"]["spec"]["containers"]
    assert container["image"] == image
    assert container["resources"]["limits"] == {
        "cpu": "8000m",
        "memory": str(1 << 30),
        "nvidia.com/gpu": "1",
    }
    volumes = [group["template"]["spec"]["volumes"] for group in (small, made)]
    assert volumes[0] == volumes[1]
    for wrong, said in (
        (large, "has a worker group 'large' already"),
        (WorkerGroup("Too Large"), "'Too Large' is no name for a worker group"),
        (WorkerGroup("more", replicas=3, maximum=2), "cannot have 3 workers: it goes from 0 to 2"),
    ):
        with pytest.raises(UsageError, match=said):
            await backend.add_group("default", wrong)
    await backend.remove_group("default", "small")
    assert group_names(ground) == ["large"]
    with pytest.raises(UsageError, match=r"no worker group 'small'.*It has: large"):
        await backend.remove_group("default", "small")
    with pytest.raises(UsageError, match=r"'large' is the last worker group.*Scale it to 0"):
        await backend.remove_group("default", "large")
    assert group_names(ground) == ["large"]
    for refused in (backend.add_group("other", large), backend.remove_group("other", "large")):
        with pytest.raises(UsageError, match="there is no cluster 'other'"):
            await refused


@pytest.mark.asyncio
async def test_a_group_that_was_added_to_a_head_alone_can_be_removed(ground: Ground) -> None:
    backend = ground.backend(kubernetes_cluster={"groups": []})
    await backend.ensure(SPEC)
    await backend.add_group("default", WorkerGroup("extra"))
    assert group_names(ground) == ["extra"]
    await backend.remove_group("default", "extra")
    assert group_names(ground) == []


@pytest.mark.asyncio
async def test_worker_groups_stay_within_the_caps_of_the_profile(ground: Ground) -> None:
    backend = ground.backend(profiles=PROFILES)
    await backend.ensure(asked("large", workers=3))
    capped = [{**PROFILES[1], "caps": {"cpus": 8}, "cluster": {**CAPPED, "groups": GROUPS}}]
    there = ground.backend(profiles=capped)
    with pytest.raises(UsageError, match=r"may have 8 CPUs in all, and this is 11 CPUs"):
        await there.add_group("default", WorkerGroup("more", PodSpec(cpus=4)))
    await there.add_group("default", WorkerGroup("more", PodSpec(cpus=1)))
    # A group that the profile has no field for is within them, too.
    with pytest.raises(UsageError, match=r"may have 8 CPUs in all, and this is 9 CPUs"):
        await there.scale_group("default", "more", 2)
    # What was chosen of a group goes with it: the cluster is none with so many workers any more.
    assert (await there.remove_group("default", GROUPS[0]["name"])).choices == {}
    with pytest.raises(UsageError, match="has no workers, not workers=3"):
        await there.ensure(asked("large", workers=3))


@pytest.mark.asyncio
async def test_an_autoscaled_cluster_is_not_scaled_by_hand(ground: Ground) -> None:
    backend = ground.backend(kubernetes_cluster={"autoscale": True, "groups": [{"name": "w"}]})
    await backend.ensure(SPEC)
    with pytest.raises(UsageError, match="autoscaler decides"):
        await backend.scale("default", 4)


@pytest.mark.asyncio
async def test_a_deletion_ends_when_the_cluster_is_gone(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ground.backend()
    await backend.delete("default")  # there is none
    await backend.ensure(SPEC)
    ground.server.slow_delete = True
    deletion = asyncio.create_task(backend.delete("default"))
    await until(lambda: "deletionTimestamp" in ground.server.cluster()["metadata"])
    await asyncio.sleep(0.3)
    assert not deletion.done()
    ground.server.remove("rayclusters", object_name("ada", "default"))
    await asyncio.wait_for(deletion, 10)
    await backend.ensure(SPEC)
    monkeypatch.setattr(kubernetes, "DELETE_TIMEOUT", 1.0)
    with pytest.raises(ClusterError, match=r"waits for foregroundDeletion.*kubectl describe"):
        await backend.delete("default")


@pytest.mark.asyncio
async def test_it_acts_on_its_owners_objects_alone(ground: Ground) -> None:
    ada, bob = ground.backend(), ground.backend(owner="bob")
    await ada.ensure(SPEC)
    assert [info.name for info in await ada.list()] == ["default"] and await bob.list() == []
    await bob.delete("default")
    assert (await ada.get("default")).phase is ClusterPhase.RUNNING
    foreign = {**ground.server.cluster(), "metadata": {"name": object_name("ada", "by-hand"), "labels": {}}}
    ground.server.put("rayclusters", foreign)
    for refused in (
        ada.delete("by-hand"),
        ada.scale("by-hand", 0),
        ada.suspend("by-hand"),
        ada.ensure(ClusterSpec(name="by-hand")),
    ):
        with pytest.raises(ClusterRefused, match="lacks the label of its owner, 'ada'"):
            await refused
    assert len(await ada.list()) == 1


@pytest.mark.asyncio
async def test_no_secret_is_shown_or_logged(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    heard: list[ClusterInfo] = []
    backend = ground.backend()
    connection = await backend.ensure(SPEC, heard.append)
    ground.server.answers["POST rayclusters"] = [lambda: forbidden("create", "rayclusters", "ray.io")]
    with pytest.raises(ClusterRefused) as caught:
        await backend.ensure(ClusterSpec(name="other"))
    shown = "".join(
        [caplog.text, repr(connection), repr(backend), repr(caught.value), *(str(i.to_json()) for i in heard)]
    )
    assert "default" in shown
    for secret in (ACCOUNT_TOKEN, RAY_TOKEN, KEY.hex(), connection.store.password):
        assert secret not in shown


# ---------------------------------------------------------------------- settings


def pod(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process look like one of a pod with a service account."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    (folder / "token").write_text(ACCOUNT_TOKEN)
    (folder / "namespace").write_text("team")
    monkeypatch.setattr(kubeapi, "ACCOUNT", folder)


def test_which_back_end_is_chosen_in_a_pod(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, connection_file: str
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert isinstance(open_backend(RayOffload(backend="kubernetes")), KubernetesBackend)
    assert isinstance(open_backend(RayOffload(connection_file=connection_file)), AddressBackend)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setattr(kubeapi, "ACCOUNT", tmp_path)
    with pytest.raises(ClusterStartFailed, match="has no token"):
        open_backend(RayOffload())
    pod(tmp_path, monkeypatch)
    assert isinstance(open_backend(RayOffload()), KubernetesBackend)
    assert isinstance(open_backend(RayOffload(connection_file=connection_file)), KubernetesBackend)
    assert isinstance(open_backend(RayOffload(ray_address="http://h:8265")), AddressBackend)
    assert isinstance(open_backend(RayOffload(connection_file="/absent")), AddressBackend)


@pytest.mark.asyncio
async def test_a_pod_without_rights_is_told_which(ground: Ground) -> None:
    ground.server.allowed = False
    with pytest.raises(
        ClusterStartFailed, match=r"may not create rayclusters\.ray\.io in the namespace team"
    ):
        await ground.backend(backend="auto").ensure(SPEC)
    ground.server.allowed = True
    assert (await ground.backend(backend="auto").ensure(SPEC)).info.phase is ClusterPhase.RUNNING


@pytest.mark.asyncio
async def test_settings_that_are_not_complete(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="there is no connection_file"):
        await ground.backend(connection_file="").ensure(SPEC)
    with pytest.raises(UsageError, match="is not here"):
        ground.backend(connection_file="/absent").signer()
    for call in ("get", "delete", "suspend"):
        with pytest.raises(UsageError, match="there is no credential for Kubernetes"):
            await getattr(ground.backend(kubeconfig="/absent"), call)("default")
    monkeypatch.setitem(sys.modules, "kubernetes.aio.config", None)
    with pytest.raises(UsageError, match=r'pip install "jupyter_rayoffload\[kubernetes\]"'):
        await ground.backend().get("default")


def test_the_cluster_of_the_settings() -> None:
    config = RayOffload()
    version = f"{sys.version_info[0]}{sys.version_info[1]}"
    assert config.pod_image()[0] == f"rayproject/ray:{config.pod_image()[1]}-py{version}"
    config.set_from_text("kubernetes_cluster", '{"image": "i", "head": {"cpus": 2}}')
    assert ClusterSpec.from_json(config.kubernetes_cluster).head.cpus == 2
    for text in ("[]", "x", '{"hed": {}}', '{"head": 3}'):
        with pytest.raises(UsageError, match="kubernetes_cluster cannot be"):
            config.set_from_text("kubernetes_cluster", text)


def test_ray_is_reached_by_the_name_of_its_service() -> None:
    metadata = {"name": "ray-ada-1", "namespace": "team", "labels": labels_of("ada")}
    assert in_cluster({"metadata": metadata}) == "http://ray-ada-1-head-svc.team.svc:8265"
