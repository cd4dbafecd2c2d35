"""Nobody without a credential can use the embedded cluster, and no credential lies open."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import aiohttp
import grpc
import psutil
import pytest
import redis

from jupyter_rayoffload.rayapi import RayClient
from tests.ray_fixture import RayCluster, run, tree

pytestmark = pytest.mark.ray

#: What Ray answers to everybody: that it is alive, and that it wants a token.
HEALTH = {"/", "/api/gcs_healthz", "/api/authentication_mode", "/api/healthz", "/api/local_raylet_healthz"}
PATHS = [
    *sorted(HEALTH),
    "/api/version",
    "/api/jobs/",
    "/api/job_agent/jobs/",
    "/api/v0/nodes",
    "/api/v0/logs",
    "/api/cluster_status",
    "/nodes?view=summary",
    "/api/serve/applications/",
    "/logs",
    "/metrics",
    "/worker/traceback",
    "/get_or_create_runtime_env",
    "/delete_runtime_env_if_possible",
    "/get_runtime_envs_info",
]
#: One method of every gRPC service of Ray; whichever a server has must refuse.
METHODS = [
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVGet",
    "/ray.rpc.ActorInfoGcsService/GetAllActorInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.NodeManagerService/ShutdownRaylet",
    "/ray.rpc.ObjectManagerService/FreeObjects",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.CoreWorkerService/Exit",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.LogService/ListLogs",
    "/ray.rpc.RayletDriver/Init",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.RayletDataStreamer/Datapath",
    "/ray.rpc.RayletLogStreamer/Logstream",
    "/ray.rpc.events.RayEventExportGcsService/AddEvents",
    "/opencensus.proto.agent.metrics.v1.MetricsService/Export",
]
# What a server says that does not know the method, or refuses the caller.
REFUSALS = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
UNKNOWN = {grpc.StatusCode.UNIMPLEMENTED}


def listeners(cluster: RayCluster) -> dict[tuple[str, int], str]:
    found = {}
    for process in tree(cluster.backend):
        try:
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found[connection.laddr.ip, connection.laddr.port] = process.name()
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(scope="module")
def busy_cluster(ray_cluster: RayCluster) -> RayCluster:
    """The cluster while a job with a task runs, so that drivers and workers listen too."""

    code = (
        "import ray, time; ray.init(); f = ray.remote(lambda: time.sleep(600)).remote();"
        "print(chr(117) + chr(112), flush=True); ray.get(f)"
    )

    async def begin() -> None:
        connection = ray_cluster.connection
        async with RayClient(connection.info.address, connection.ray_token) as client:
            await client.submit("exposure", f"python -c '{code}'")
            for _ in range(600):
                if "\nup\n" in await client.logs("exposure"):
                    return
                await asyncio.sleep(0.2)
            raise AssertionError(await client.logs("exposure"))

    async def end() -> None:
        connection = ray_cluster.connection
        async with RayClient(connection.info.address, connection.ray_token) as client:
            await client.stop("exposure")

    run(begin())
    yield ray_cluster
    run(end())


def test_every_socket_is_on_the_loopback_interface(busy_cluster: RayCluster) -> None:
    found = listeners(busy_cluster)
    assert len(found) >= 8, found
    open_to_others = {k: v for k, v in found.items() if k[0].removeprefix("::ffff:") != "127.0.0.1"}
    assert not open_to_others


def test_http_answers_nothing_without_a_token(busy_cluster: RayCluster) -> None:
    async def ask(port: int) -> list[str]:
        told = []
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for path in PATHS:
                for method in ("GET", "POST"):
                    try:
                        async with session.request(method, f"http://127.0.0.1:{port}{path}") as answer:
                            status = answer.status
                    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
                        break  # it does not speak HTTP
                    # 404 and 405: there is no such thing here, whoever asks.
                    if status not in (401, 403, 404, 405) and not (method == "GET" and path in HEALTH):
                        told.append(f"{method} {port}{path}: {status}")
        return told

    ports = {port for _, port in listeners(busy_cluster)}
    assert [line for port in sorted(ports) for line in run(ask(port))] == []


def test_grpc_answers_nothing_without_a_token(busy_cluster: RayCluster) -> None:
    token = busy_cluster.connection.ray_token
    refused, told = set(), []
    for _, port in listeners(busy_cluster):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            for method in METHODS:
                code = _call(channel, method, [])
                if code in REFUSALS:
                    refused.add(port)
                elif code is grpc.StatusCode.UNAVAILABLE:
                    break  # it does not speak gRPC
                elif code not in UNKNOWN:
                    told.append(f"{port} {method}: {code}")
                wrong = _call(channel, method, [("authorization", "Bearer " + "0" * 64)])
                assert wrong is not grpc.StatusCode.OK
    assert told == []
    assert len(refused) >= 4, "gcs, raylet, driver and worker speak gRPC"
    # It is the missing token that is refused, not the call.
    gcs = busy_cluster.connection.gcs
    with grpc.insecure_channel(gcs) as channel:
        assert _call(channel, METHODS[0], [("authorization", f"Bearer {token}")]) is grpc.StatusCode.OK


def _call(channel: grpc.Channel, method: str, metadata: list[tuple[str, str]]) -> grpc.StatusCode:
    try:
        channel.unary_unary(method)(b"", metadata=metadata, timeout=5)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_redis_refuses_without_a_password(ray_cluster: RayCluster) -> None:
    store = ray_cluster.connection.store
    for password in (None, "wrong"):
        client = redis.Redis.from_url(store.url, password=password)
        with pytest.raises(redis.AuthenticationError):
            client.ping()
        client.close()
    with redis.Redis.from_url(store.url, password=store.password) as client:
        assert client.ping()


def test_no_secret_in_any_command_line_or_environment(busy_cluster: RayCluster) -> None:
    connection = busy_cluster.connection
    secrets = [connection.ray_token, connection.store.password, connection.key.hex()]
    looked = 0
    for process in tree(busy_cluster.backend):
        for name in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{process.pid}/{name}").read_bytes().decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            looked += bool(text)
            assert not [s for s in secrets if s in text], f"{process.name()} {name}"
    assert looked > 20


def test_only_the_owner_can_open_its_files(ray_cluster: RayCluster) -> None:
    places = ray_cluster.backend.places
    run_directory = Path(ray_cluster.connection.store.url.removeprefix("unix://")).parent
    for folder in (places.data.parent, places.data, places.data / "redis", run_directory):
        assert _mode(folder) == 0o700, folder
    files = [places.connection, places.lock, places.key, places.log, run_directory / "token"]
    files += [run_directory / "redis.conf", *(places.data / "redis").iterdir()]
    for file in files:
        assert _mode(file) in (0o600, 0o700) and file.stat().st_uid == os.getuid(), file
    assert _mode(run_directory / "redis.sock") == 0o700


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
