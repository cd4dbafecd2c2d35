"""The back end on a real Kubernetes: what KubeRay, the scheduler and RBAC make of what it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kubernetes import client

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.kubernetes.backend import KubernetesBackend, in_cluster
from jupyter_rayoffload.clusters.kubernetes.manifest import object_name
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import ClusterRefused, ClusterStartFailed, UsageError
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec, PodSpec, WorkerGroup
from jupyter_rayoffload.rayapi import RayClient
from jupyter_rayoffload.remote.store import StoreAddress
from tests.kubernetes.bed import Bed
from tests.kubernetes.bed.image import ray_image, ray_version
from tests.kubernetes.ground import FAREWELL, LIMIT, head_address
from tests.ray_fixture import short_folder
from tests.servers import RedisServer

NAME = object_name("ada", "default")
#: What docs/clusters.md asks a site to grant, and nothing more.
ROLE = [
    {
        "apiGroups": ["ray.io"],
        "resources": ["rayclusters"],
        "verbs": ["get", "list", "watch", "create", "delete", "patch"],
    },
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [NAME], "verbs": ["get"]},
]
POD = PodSpec(
    cpus=1,
    memory=2 << 30,
    requests={"cpu": "100m", "memory": "512Mi"},
    start_params={"object-store-memory": str(100 << 20)},
)
SPEC = ClusterSpec(image=ray_image(), ray=ray_version(), head=POD, groups=(WorkerGroup(pod=POD),))
#: Without workers, for what is about the object and its head alone.
HEAD_ONLY = SPEC.replace(groups=())


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    with short_folder() as folder:
        server = RedisServer(folder)
        server.start()
        yield server
        server.stop()


@pytest_asyncio.fixture
async def make(store: RedisServer, tmp_path: Path) -> AsyncIterator[Callable[..., KubernetesBackend]]:
    """Give what makes a back end with the rights of a kubeconfig, as one more kernel would."""
    file = tmp_path / "connection.json"
    address = StoreAddress(url=store.url, password=store.password)
    Connection(info=ClusterInfo(), store=address, owner="ada", key=bytes(32), file=file).write()
    made = []

    def backend(kubeconfig: Path, **settings: Any) -> KubernetesBackend:
        given = {"backend": "kubernetes", "owner": "ada", "kubernetes_start_timeout": LIMIT, **settings}
        config = RayOffload(kubeconfig=str(kubeconfig), connection_file=str(file), check_timeout=30, **given)
        made.append(KubernetesBackend(config, reach=head_address))
        return made[-1]

    yield backend
    for one in made:
        await one.aclose()
    await asyncio.sleep(FAREWELL)


async def until(look: Callable[[], Any], what: str) -> Any:
    """Give what `look` gives as soon as that is true."""
    deadline = time.monotonic() + LIMIT
    while not (found := await asyncio.to_thread(look)):
        assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}"
        await asyncio.sleep(0.2)
    return found


async def seen(watching: AsyncIterator[ClusterInfo], phase: ClusterPhase) -> ClusterInfo:
    """Watch until the cluster has this phase."""

    async def look() -> ClusterInfo:
        async for info in watching:
            if info.phase is phase:
                return info
        raise AssertionError("a watch does not end")

    return await asyncio.wait_for(look(), LIMIT)


@pytest.mark.asyncio
async def test_the_life_of_a_cluster_with_no_more_rights_than_the_documented_ones(
    account: Callable[..., Path],
    make: Callable[..., KubernetesBackend],
    namespace: str,
    core: client.CoreV1Api,
    custom: client.CustomObjectsApi,
) -> None:
    def pods(group: str = "") -> list[Any]:
        labels = f"ray.io/cluster={NAME}" + (f",ray.io/group={group}" if group else "")
        return list(core.list_namespaced_pod(namespace, label_selector=labels).items)

    def running(group: str) -> int:
        return sum(pod.status.phase == "Running" for pod in pods(group))

    def there() -> Any:
        return custom.get_namespaced_custom_object("ray.io", "v1", namespace, "rayclusters", NAME)

    kubeconfig = account("ada", ROLE)
    backend = make(kubeconfig, backend="auto")
    assert (await backend.get("default")).phase is ClusterPhase.NONE and await backend.list() == []

    heard: list[ClusterInfo] = []
    begin = time.monotonic()
    connection = await backend.ensure(SPEC, heard.append)
    print(f"ready after {time.monotonic() - begin:.1f} s: {[info.reason for info in heard]}")
    assert heard[0].phase is ClusterPhase.STARTING and heard[-1] == connection.info
    assert connection.info.phase is ClusterPhase.RUNNING and connection.info.ray == ray_version()
    for secret in (connection.ray_token, connection.store.password):
        assert secret and secret not in str([info.to_json() for info in heard])

    uid = there()["metadata"]["uid"]
    again = await make(kubeconfig).ensure(SPEC)
    assert again.info.session == connection.info.session and there()["metadata"]["uid"] == uid
    assert [info.session for info in await backend.list()] == [connection.info.session]

    address = in_cluster(there())
    assert ray_version() in await asked_in_a_pod(core, namespace, f"{address}/api/version", again.ray_token)

    await backend.scale("default", 2)
    await until(lambda: running("workers") == 2, "two workers")
    await backend.scale("default", 0)
    await until(lambda: not pods("workers"), "no worker")
    assert (await backend.get("default")).session == connection.info.session, "the head stays"

    watching = backend.watch("default")
    await seen(watching, ClusterPhase.RUNNING)
    await backend.suspend("default")
    await seen(watching, ClusterPhase.SUSPENDED)
    await watching.aclose()
    await until(lambda: not pods(), "no pod")
    resumed = await backend.ensure(SPEC, heard.append)
    assert "Resuming the cluster" in [info.reason for info in heard]
    assert resumed.info.session != connection.info.session and there()["metadata"]["uid"] == uid

    await backend.delete("default")
    assert not pods(), "gone is gone with its pods"
    assert (await backend.get("default")).phase is ClusterPhase.NONE


@pytest.mark.asyncio
async def test_a_worker_group_comes_and_goes_with_its_pods(
    account: Callable[..., Path],
    make: Callable[..., KubernetesBackend],
    namespace: str,
    core: client.CoreV1Api,
) -> None:
    def running(group: str) -> int:
        labels = f"ray.io/cluster={NAME},ray.io/group={group}"
        pods = core.list_namespaced_pod(namespace, label_selector=labels).items
        return sum(pod.status.phase == "Running" for pod in pods)

    backend = make(account("ada", ROLE))
    connection = await backend.ensure(SPEC)
    await until(lambda: running("workers") == 1, "the worker of the start")
    extra = POD.replace(start_params={**POD.start_params, "resources": '"{\\"extra\\": 1}"'})
    await backend.add_group("default", WorkerGroup("extra", extra))
    await until(lambda: running("extra") == 1, "the worker of the new group")

    async def told() -> ClusterInfo:
        async for info in backend.watch("default"):
            if info.resources.get("extra"):
                return info
        raise AssertionError("a watch does not end")

    assert (await asyncio.wait_for(told(), LIMIT)).nodes == 3, "Ray has it, too"
    left = await backend.remove_group("default", "extra")
    assert running("extra") == 0 and running("workers") == 1
    assert left.session == connection.info.session and left.workers == 1


#: What a kernel does: it asks Ray by the name of the service, with the token.
ASK = """
import sys, urllib.request
token = open("/token/auth_token").read()
request = urllib.request.Request(sys.argv[1], headers={"Authorization": "Bearer " + token})
print(urllib.request.urlopen(request, timeout=60).read().decode())
"""


async def asked_in_a_pod(core: client.CoreV1Api, namespace: str, url: str, token: str) -> str:
    """Ask a URL from a pod of the namespace, and give the answer."""
    container = {
        "name": "ask",
        "image": ray_image(),
        "command": ["python", "-c", ASK, url],
        "volumeMounts": [{"name": "token", "mountPath": "/token"}],
    }
    volume = {"name": "token", "secret": {"secretName": NAME}}
    spec = {"containers": [container], "restartPolicy": "Never", "volumes": [volume]}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "ask"}, "spec": spec})

    def ended() -> bool:
        return core.read_namespaced_pod("ask", namespace).status.phase in ("Succeeded", "Failed")

    await until(ended, "the end of the pod that asks")
    log: str = core.read_namespaced_pod_log("ask", namespace)
    assert token not in log
    return log


@pytest.mark.asyncio
async def test_two_kernels_that_start_and_one_that_deletes(
    bed: Bed, make: Callable[..., KubernetesBackend], namespace: str, custom: client.CustomObjectsApi
) -> None:
    def uids() -> list[str]:
        found = custom.list_namespaced_custom_object("ray.io", "v1", namespace, "rayclusters")
        return [cluster["metadata"]["uid"] for cluster in found["items"]]

    one, other = (make(bed.kubeconfig, namespace=namespace) for _ in range(2))
    both = await asyncio.gather(one.ensure(HEAD_ONLY), other.ensure(HEAD_ONLY))
    assert both[0].info.session == both[1].info.session
    [first] = uids()

    deletion = asyncio.create_task(one.delete("default"))
    await until(lambda: _leaving(custom, namespace), "the deletion")
    connection = await other.ensure(HEAD_ONLY)
    await deletion
    [second] = uids()
    assert second != first and connection.info.session != both[0].info.session
    async with RayClient(connection.info.address, connection.ray_token) as ray:
        assert (await ray.version())["session_name"] == connection.info.session


def _leaving(custom: client.CustomObjectsApi, namespace: str) -> bool:
    found = custom.list_namespaced_custom_object("ray.io", "v1", namespace, "rayclusters")
    return not found["items"] or "deletionTimestamp" in found["items"][0]["metadata"]


@pytest.mark.asyncio
async def test_an_account_without_rights_is_told_which(
    account: Callable[..., Path], make: Callable[..., KubernetesBackend], namespace: str
) -> None:
    nobody = account("nobody", [])
    with pytest.raises(
        ClusterStartFailed, match=f"may not create rayclusters.ray.io in the namespace {namespace}"
    ):
        await make(nobody, backend="auto").ensure(HEAD_ONLY)
    with pytest.raises(ClusterRefused) as caught:
        await make(nobody).ensure(HEAD_ONLY)
    assert re.search(
        r'User "system:serviceaccount:\S+:nobody" cannot list resource "\w+"', caught.value.message
    )
    assert 'verbs: ["list"]' in caught.value.hint
    reader = account("reader", [{**rule, "verbs": ["get", "list", "watch"]} for rule in ROLE])
    with pytest.raises(ClusterRefused, match='cannot create resource "rayclusters"') as caught:
        await make(reader).ensure(HEAD_ONLY)
    assert '{apiGroups: ["ray.io"], resources: ["rayclusters"], verbs: ["create"]}' in caught.value.hint
    blind = account("blind", ROLE[:2])
    with pytest.raises(ClusterRefused, match='cannot get resource "secrets"') as caught:
        await make(blind).ensure(HEAD_ONLY)
    assert f'resourceNames: ["{NAME}"]' in caught.value.hint


@pytest.mark.asyncio
async def test_a_spec_that_is_refused_is_no_wait(
    bed: Bed, make: Callable[..., KubernetesBackend], namespace: str
) -> None:
    backend = make(bed.kubeconfig, namespace=namespace)
    wrong = HEAD_ONLY.replace(overlay={"spec": {"headGroupSpec": {"serviceType": 3}}})
    with pytest.raises(ClusterStartFailed, match=r"Kubernetes does not take it: .*serviceType"):
        await asyncio.wait_for(backend.ensure(wrong), 60)
    with pytest.raises(UsageError, match="there is no cluster"):
        await backend.scale("default", 1)
    nowhere = make(bed.kubeconfig, namespace="nowhere")
    with pytest.raises(UsageError, match="there is no namespace 'nowhere'"):
        await nowhere.ensure(HEAD_ONLY)


@pytest.mark.asyncio
async def test_jobs_go_on_while_the_api_server_is_away(
    bed: Bed, make: Callable[..., KubernetesBackend], namespace: str
) -> None:
    backend = make(bed.kubeconfig, namespace=namespace)
    connection = await backend.ensure(HEAD_ONLY)
    watching = backend.watch("default")
    await seen(watching, ClusterPhase.RUNNING)
    with stopped(bed, "kube-apiserver"):
        away = await seen(watching, ClusterPhase.UNKNOWN)
        assert re.search(r"API server does not answer since \d\d:\d\d:\d\d", away.reason)
        assert (await backend.get("default")).phase is ClusterPhase.UNKNOWN
        assert await backend.ensure(HEAD_ONLY) == connection
        async with RayClient(connection.info.address, connection.ray_token) as ray:
            assert (await ray.version())["session_name"] == connection.info.session
    back = await seen(watching, ClusterPhase.RUNNING)
    assert back.session == connection.info.session
    await watching.aclose()


@contextlib.contextmanager
def stopped(bed: Bed, program: str) -> Iterator[None]:
    bed.stop(program)
    try:
        yield
    finally:
        bed.restart(program)
