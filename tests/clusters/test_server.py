"""Clusters by way of a real Jupyter server with the extension, in front of a Kubernetes of the tests."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from jupyter_rayoffload.clusters import Connection, open_backend, server
from jupyter_rayoffload.clusters.kubernetes.backend import KubernetesBackend
from jupyter_rayoffload.clusters.kubernetes.manifest import CONNECTION_FILE
from jupyter_rayoffload.clusters.server import JupyterServer, ServerBackend, server_of_this_kernel
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import ClusterRefused, ClusterStartFailed, UsageError
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec
from jupyter_rayoffload.remote.store import StoreAddress
from jupyter_rayoffload.server.service import Service
from jupyter_rayoffload.submission import Offloader
from tests.fake_dashboard import Dashboard, served
from tests.fake_kubernetes import RAY_TOKEN, FakeKubernetes, forbidden
from tests.ray_fixture import short_folder
from tests.server.running import BASE, TOKEN, RunningServer, running_server
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


@dataclass
class Pod:
    """A notebook pod: its server, and whoever is one of its kernels."""

    config: Callable[..., RayOffload]
    kubernetes: FakeKubernetes
    dashboard: Dashboard
    jupyter: RunningServer
    made: list[ServerBackend] = field(default_factory=list)

    def kernel(self, token: str = TOKEN, **settings: Any) -> ServerBackend:
        where = JupyterServer(f"http://127.0.0.1:{self.jupyter.port}{BASE}", token)
        backend = ServerBackend(self.config(**settings), where)
        backend.direct.reach = lambda _: self.dashboard.address
        self.made.append(backend)
        return backend


@pytest_asyncio.fixture
async def pod(tmp_path: Path, store: RedisServer) -> AsyncIterator[Pod]:
    file = tmp_path / "connection.json"
    address = StoreAddress(url=store.url, password=store.password)
    Connection(info=ClusterInfo(), store=address, owner="ada", key=KEY, file=file).write()
    async with FakeKubernetes(tmp_path) as kubernetes, served() as dashboard:

        def config(**settings: Any) -> RayOffload:
            given = {
                "backend": "kubernetes",
                "kubernetes_reach": "service",
                "owner": "ada",
                "kubernetes_start_timeout": 60,
                **settings,
            }
            spec = {"store_secret": "store"}
            return RayOffload(
                kubeconfig=kubernetes.kubeconfig,
                connection_file=str(file),
                kubernetes_cluster=spec,
                **given,
            )

        def make_service() -> Service:
            offloader = Offloader(config(through_server=False))
            offloader.backend.reach = lambda _: dashboard.address
            return Service(offloader)

        with short_folder() as root:
            running = running_server(root, make_service)
            jupyter = await asyncio.to_thread(running.__enter__)
            made = Pod(config, kubernetes, dashboard, jupyter)
            try:
                yield made
            finally:
                for backend in made.made:
                    await backend.aclose()
                await asyncio.to_thread(running.__exit__, None, None, None)


@pytest.mark.asyncio
async def test_a_kernel_gets_a_cluster_that_works_from_its_server_alone(pod: Pod, store: RedisServer) -> None:
    kernel, heard = pod.kernel(), list[ClusterInfo]()
    assert (await kernel.get("default")).phase is ClusterPhase.NONE and await kernel.list() == []
    found = await kernel.find("default")
    assert found is not None and found.info.phase is ClusterPhase.NONE and not found.info.address
    assert found.store.password == store.password and not found.ray_token
    connection = await kernel.ensure(SPEC, heard.append)
    assert heard[-1] == connection.info
    assert connection.info.phase is ClusterPhase.RUNNING and connection.info.session == "session_1"
    assert connection.ray_token == RAY_TOKEN and connection.store.password == store.password
    assert connection.key == KEY and str(connection.file) == CONNECTION_FILE, (
        "runners read what is in their pods"
    )
    found = await kernel.find("default")
    assert found is not None and found.ray_token == RAY_TOKEN and found.file == connection.file
    assert [info.name for info in await kernel.list()] == ["default"]
    assert kernel.direct.api._client is None, "this kernel has not asked Kubernetes"
    assert kernel.signer().digest(b"x") == found_signer(pod).digest(b"x")


def found_signer(pod: Pod) -> Any:
    return KubernetesBackend(pod.config()).signer()


@pytest.mark.asyncio
async def test_the_way_is_in_a_file_for_its_user_alone_and_in_no_answer(pod: Pod, store: RedisServer) -> None:
    await pod.kernel().ensure(SPEC)
    answer = pod.jupyter.api
    plain = await asyncio.to_thread(answer, "GET", "clusters/default")
    assert "connection" not in plain.json
    asked = await asyncio.to_thread(answer, "GET", "clusters/default?connection=true")
    file = Path(asked.json["connection"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for secret in (RAY_TOKEN, store.password, KEY.hex()):
        assert secret in file.read_text() and secret not in asked.raw.decode()


@pytest.mark.asyncio
async def test_scale_suspend_resume_and_delete(pod: Pod) -> None:
    kernel = pod.kernel()
    await kernel.ensure(SPEC)
    with pytest.raises(UsageError, match="worker"):
        await kernel.scale("default", 3)  # this one has no group
    assert (await kernel.suspend("default")).phase in (ClusterPhase.STOPPING, ClusterPhase.SUSPENDED)
    await kernel.resume("default")
    await kernel.ensure(SPEC)
    watching = kernel.watch("default")
    assert (await anext(watching)).phase is ClusterPhase.RUNNING
    await kernel.delete("default")
    assert (await asyncio.wait_for(anext(watching), 30)).phase is not ClusterPhase.RUNNING
    await watching.aclose()
    assert (await kernel.get("default")).phase is ClusterPhase.NONE
    assert kernel.direct.api._client is None


@pytest.mark.asyncio
async def test_what_the_server_is_refused_is_the_kernels_error(pod: Pod) -> None:
    kernel = pod.kernel()
    pod.kubernetes.answers["POST rayclusters"] = [lambda: forbidden("create", "rayclusters", "ray.io")]
    with pytest.raises(ClusterRefused, match="rayclusters") as caught:
        await kernel.ensure(SPEC)
    assert "rayclusters" in caught.value.hint
    await kernel.ensure(SPEC)  # an old fault is no answer to a new question


@pytest.mark.asyncio
async def test_without_its_server_a_kernel_asks_kubernetes_itself(pod: Pod) -> None:
    await pod.kernel().ensure(SPEC)
    for kernel in (pod.kernel(token="wrong"), pod.kernel(owner="bob")):
        assert (await kernel.get("default")).kind == "kubernetes"
        assert kernel.direct.api._client is not None
    nobody = pod.kernel()
    nobody.server = JupyterServer("http://127.0.0.1:1/", TOKEN)
    assert (await nobody.ensure(SPEC)).info.session == "session_1"


@pytest.mark.asyncio
async def test_a_kernel_of_another_python_needs_another_image_and_asks_itself(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "python_version", lambda: "3.99")
    kernel = pod.kernel()
    assert (await kernel.get("default")).phase is ClusterPhase.NONE
    assert kernel.direct.api._client is not None


@pytest.mark.asyncio
async def test_a_server_that_ends_in_the_middle_costs_no_cluster(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "RESTART", 0.5)
    pod.kubernetes.operator = False
    kernel = pod.kernel()
    ensuring = asyncio.ensure_future(kernel.ensure(SPEC))
    while not pod.kubernetes.objects:
        await asyncio.sleep(0.05)
    kernel.server = JupyterServer("http://127.0.0.1:1/", TOKEN)
    pod.kubernetes.operator = True
    pod.kubernetes.operate(pod.kubernetes.cluster())
    assert (await asyncio.wait_for(ensuring, 60)).info.session == "session_1"
    assert pod.kubernetes.requests.count("POST rayclusters") == 1


def test_the_server_of_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    hub = {
        "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:8888/user/ann/",
        "JUPYTERHUB_SERVICE_PREFIX": "/user/ann/",
        "JUPYTERHUB_API_TOKEN": "secret",
    }
    there = server_of_this_kernel({**hub, "JPY_PARENT_PID": "17"})
    assert there == JupyterServer("http://127.0.0.1:8888/user/ann/", "secret") and "secret" not in repr(there)
    assert server_of_this_kernel({}) is None and server_of_this_kernel({"JPY_PARENT_PID": "17"}) is None
    (tmp_path / "jpserver-17.json").write_text("{")
    assert server_of_this_kernel({"JPY_PARENT_PID": "17"}) is None
    told = {"url": "http://localhost:8889/", "base_url": "/", "token": "t", "sock": ""}
    (tmp_path / "jpserver-17.json").write_text(json.dumps(told))
    assert server_of_this_kernel({"JPY_PARENT_PID": "17"}) == JupyterServer("http://localhost:8889/", "t")
    (tmp_path / "jpserver-17.json").write_text(json.dumps({**told, "sock": "/tmp/s"}))
    assert server_of_this_kernel({"JPY_PARENT_PID": "17"}) == JupyterServer(
        "http://localhost/", "t", "/tmp/s"
    )


def test_only_a_kernel_of_a_server_in_a_pod_leaves_its_clusters_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_URL", "http://0.0.0.0:8888/")
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "secret")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert isinstance(open_backend(RayOffload(backend="kubernetes")), KubernetesBackend)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert isinstance(open_backend(RayOffload(backend="kubernetes")), ServerBackend)
    assert isinstance(open_backend(RayOffload(backend="kubernetes", through_server=False)), KubernetesBackend)


@pytest.mark.asyncio
async def test_a_start_says_what_it_waits_for_and_ends_with_it_when_it_takes_too_long(pod: Pod) -> None:
    pod.kubernetes.operator = False
    pod.jupyter.extension.service.config.kubernetes_start_timeout = 2
    heard: list[ClusterInfo] = []
    with pytest.raises(ClusterStartFailed, match=r"is not ready after 2 s: .*KubeRay") as caught:
        await asyncio.wait_for(pod.kernel().ensure(SPEC, heard.append), 60)
    assert heard and heard[-1].phase is ClusterPhase.STARTING and heard[-1].reason in caught.value.message


@pytest.mark.asyncio
async def test_a_new_kernel_gets_the_cluster_while_the_api_server_is_away(pod: Pod) -> None:
    first = await pod.kernel().ensure(SPEC)
    await pod.kubernetes.stop()
    assert (await pod.kernel().get("default")).phase is ClusterPhase.UNKNOWN
    heard: list[ClusterInfo] = []
    second = await asyncio.wait_for(pod.kernel().ensure(SPEC, heard.append), 20)
    assert second.info.session == first.info.session
    # Ray does not answer either: that is waited for, and said.
    pod.dashboard.well = False
    waiting = asyncio.create_task(pod.kernel().ensure(SPEC, heard.append))
    await asyncio.sleep(3)
    assert not waiting.done() and "not answer since" in heard[-1].reason
    pod.dashboard.well = True
    assert (await asyncio.wait_for(waiting, 20)).info.session == first.info.session
