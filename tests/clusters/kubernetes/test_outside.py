"""A cluster and its store through the API server alone: what gets through, what is cut, what is refused.

The API server is one of the tests, Redis a real one; tests/kubernetes/test_laptop.py goes through a real one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.kubernetes import outside, passage, portforward
from jupyter_rayoffload.clusters.kubernetes.backend import KubernetesBackend
from jupyter_rayoffload.clusters.kubernetes.manifest import CONNECTION_FILE, object_name
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import (
    ClusterRefused,
    ClusterStartFailed,
    ClusterUnreachable,
    FormatMismatch,
    OffloadError,
    StoreUnreachable,
    UsageError,
)
from jupyter_rayoffload.link import Link, blocking, open_link
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec
from jupyter_rayoffload.remote.events import Entry
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
from tests.fake_kubernetes import ACCOUNT_TOKEN, RAY_TOKEN, FakeKubernetes
from tests.fake_passage import redis_pod, redis_service
from tests.ray_fixture import short_folder
from tests.servers import RedisServer

KEY = bytes(range(32))
SPEC = ClusterSpec(name="default")
HEAD = f"{object_name('ada', 'default')}-head-svc"
URL = "redis://rayoffload-redis.team.svc:6379/0"
BIG = 30 << 20


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with short_folder() as folder:
        server = RedisServer(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture(autouse=True)
def laptop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Be on no pod, and see in a folder of its own, beside `tmp_path`, what is left behind."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with short_folder() as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield


class Head:
    """Ray's dashboard: it says who it is, takes packages, and gives a long log."""

    def __init__(self) -> None:
        self.address, self.token = "", RAY_TOKEN
        self.packages: dict[str, str] = {}
        self.asked: list[web.Request] = []
        self.log = "line\n" * (BIG // 5)

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        if request.headers.get("X-Ray-Authorization") != f"Bearer {self.token}":
            return web.Response(status=403, text="Forbidden: Invalid authentication token")
        if request.path.startswith("/api/packages/gcs/"):
            name = request.path.rpartition("/")[2]
            if request.method == "GET":
                return web.Response(status=200 if name in self.packages else 404)
            self.packages[name] = hashlib.sha256(await request.read()).hexdigest()
            return web.Response()
        data = {
            "/api/version": {"ray_version": "2.60.0", "session_name": "session_1"},
            "/api/v0/cluster_metadata": {"data": {"pythonVersion": platform.python_version()}},
            "/api/v0/nodes": {"data": {"result": {"result": []}}},
            "/api/cluster_status": {"data": {}},
            "/api/jobs/one/logs": {"logs": self.log},
            "/api/jobs/": {"submission_id": "one"},
        }
        if request.path not in data:
            return web.json_response({"result": "no such page"}, status=404)
        return web.json_response(data[request.path])


class Ground:
    """An API server with a head and a Redis behind it, and back ends that reach nothing but it."""

    def __init__(self, server: FakeKubernetes, head: Head, redis: RedisServer, folder: Path) -> None:
        self.server, self.head, self.redis, self.folder = server, head, redis, folder
        self.passages = server.passages
        self.made: list[KubernetesBackend] = []
        self.address = StoreAddress(url=URL, password=redis.password)

    def connection_file(self, address: StoreAddress | None = None) -> Connection:
        """Give what the connection file says."""
        file = self.folder / "connection.json"
        return Connection(ClusterInfo(), address or self.address, "ada", KEY, file)

    def backend(self, **settings: Any) -> KubernetesBackend:
        """Make a back end, as a kernel on a laptop would."""
        file = self.connection_file()
        file.write()
        config = RayOffload(
            **{
                "backend": "kubernetes",
                "owner": "ada",
                "kubeconfig": self.server.kubeconfig,
                "connection_file": str(file.file),
                "kubernetes_start_timeout": 60,
                **settings,
            }
        )
        self.made.append(KubernetesBackend(config))
        return self.made[-1]

    async def link(self) -> Link:
        """Make a cluster and open the way to it."""
        backend = self.backend()
        return await open_link(await backend.ensure(SPEC), backend.config)


@pytest_asyncio.fixture
async def ground(tmp_path: Path, redis: RedisServer) -> AsyncIterator[Ground]:
    head, app = Head(), web.Application(client_max_size=200 << 20)
    app.router.add_route("*", "/{path:.*}", head.answer)
    async with FakeKubernetes(tmp_path) as server, TestServer(app) as dashboard:
        head.address = str(dashboard.make_url("")).rstrip("/")
        ground = Ground(server, head, redis, tmp_path)
        ground.passages.services[HEAD] = head.address
        ground.passages.pods["rayoffload-redis-0"] = redis.port
        server.put("services", redis_service())
        server.put("pods", redis_pod("rayoffload-redis-0"))
        yield ground
        for backend in ground.made:
            await backend.aclose()


def left() -> list[str]:
    """Give what there is in the folder of temporary files."""
    return sorted(os.listdir(tempfile.gettempdir()))


async def until(look: Any, limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not look():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


# ---------------------------------------------------------------------- what gets through


@pytest.mark.asyncio
async def test_a_cluster_is_made_and_used_through_the_api_server_alone(ground: Ground) -> None:
    link = await ground.link()
    assert link.info.phase is ClusterPhase.RUNNING and link.info.session == "session_1"
    assert link.info.address == f"http://{HEAD}.team.svc:8265", "in words it is what pods call it"
    assert str(link.connection.store) == "redis://rayoffload-redis.team.svc:6379/0"
    assert await link.answers()
    assert await link.ray.submit("one", "true") == "one"
    await blocking(link.store.ping)
    for request in ground.head.asked:
        assert "Authorization" not in request.headers and ACCOUNT_TOKEN not in str(request.headers)
        assert request.headers["User-Agent"].startswith("jupyter_rayoffload/")
    found = await ground.made[0].find("default")
    assert found and found.transport and found.store == link.connection.store
    assert (await ground.made[0].get("default")).session == "session_1"
    assert [info.session for info in await ground.made[0].list()] == ["session_1"]
    await link.aclose()


@pytest.mark.asyncio
async def test_thirty_megabytes_pass_unharmed_to_ray_and_back(ground: Ground, tmp_path: Path) -> None:
    link = await ground.link()
    package = tmp_path / "package.zip"
    package.write_bytes(os.urandom(BIG))
    assert not await link.ray.has_package("package.zip")
    await link.ray.put_package("package.zip", package)
    assert ground.head.packages["package.zip"] == hashlib.sha256(package.read_bytes()).hexdigest()
    assert await link.ray.has_package("package.zip")
    assert await link.ray.logs("one") == ground.head.log
    await link.aclose()


@pytest.mark.asyncio
async def test_thirty_megabytes_pass_unharmed_to_the_store_and_back(ground: Ground) -> None:
    link = await ground.link()
    data = memoryview(bytearray(os.urandom(BIG)))
    digest = link.signer.digest(data)
    assert await blocking(link.store.put_blob, digest, data) == BIG
    assert await blocking(link.store.get_blob, digest, BIG) == data
    await link.aclose()


@pytest.mark.asyncio
async def test_many_connections_at_once(ground: Ground) -> None:
    link = await ground.link()
    blobs = [memoryview(bytearray(os.urandom(1 << 20))) for _ in range(20)]
    digests = [link.signer.digest(data) for data in blobs]

    async def there_and_back(digest: str, data: memoryview) -> None:
        address, signer = link.connection.store, link.signer
        store = Store(address, "ada", signer)
        await blocking(store.put_blob, digest, data)
        assert await blocking(store.get_blob, digest, len(data)) == data
        await asyncio.to_thread(store.close)

    await asyncio.gather(*map(there_and_back, digests, blobs))
    await link.aclose()
    await until(lambda: not ground.passages.open)


@pytest.mark.asyncio
async def test_a_connection_lives_longer_than_it_may_take_to_be_made(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passage, "_QUICK", 0.5)
    monkeypatch.setattr(passage, "_HEARTBEAT", 0.3)
    link = await ground.link()
    reader, writer = await asyncio.open_unix_connection(link.connection.store.url[7:].partition("?")[0])
    await asyncio.sleep(1.5)
    writer.write(b"PING\r\n")
    assert (await reader.readline()).startswith(b"-NOAUTH")
    writer.close()
    await link.aclose()


# ---------------------------------------------------------------------- what is lost, and found again


@pytest.mark.asyncio
async def test_a_connection_that_is_cut_in_the_middle_is_made_again(ground: Ground) -> None:
    link = await ground.link()
    data = memoryview(bytearray(os.urandom(BIG)))
    digest = link.signer.digest(data)
    cuts = 0

    def cut(done: int, total: int) -> None:
        nonlocal cuts
        if cuts < 3 and done > total * (cuts + 1) // 5:
            cuts += 1
            loop.call_soon_threadsafe(ground.passages.cut)

    loop = asyncio.get_running_loop()
    await blocking(link.store.put_blob, digest, data, cut)
    assert cuts == 3
    cuts = 0
    assert await blocking(link.store.get_blob, digest, BIG, cut) == data
    assert cuts == 3
    ground.passages.cut()
    await blocking(link.store.ping)
    await link.aclose()


@pytest.mark.asyncio
async def test_who_follows_a_job_misses_nothing(ground: Ground) -> None:
    link = await ground.link()
    heard: list[Entry] = []

    async def listen() -> None:
        async for entry in link.store.follow("job-1"):
            heard.append(entry)

    listening = asyncio.create_task(listen())
    for number in range(1, 6):
        message = {"t": time.time(), "type": "stream", "content": {"text": str(number)}}
        await blocking(link.store.append, "job-1", "writer", number, [message])
        await until(lambda number=number: len(heard) == number)
        ground.passages.cut()
    assert [entry.messages[0]["content"]["text"] for entry in heard] == list("12345")
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await link.aclose()


@pytest.mark.asyncio
async def test_a_pod_that_is_replaced_is_followed_to_the_new_one(ground: Ground) -> None:
    link = await ground.link()
    assert set(ground.passages.opened) == {"rayoffload-redis-0"}
    ground.server.remove("pods", "rayoffload-redis-0")
    del ground.passages.pods["rayoffload-redis-0"]
    ground.passages.cut()
    quick = Store(link.connection.store, "ada", link.signer, patience=0.5)
    with pytest.raises(StoreUnreachable, match=r"the store at redis://rayoffload-redis\.team\.svc:6379"):
        await blocking(quick.ping)
    ground.server.put("pods", redis_pod("rayoffload-redis-1", ready=False))
    waiting = asyncio.create_task(blocking(link.store.ping))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    ground.server.put("pods", redis_pod("rayoffload-redis-1"))
    ground.passages.pods["rayoffload-redis-1"] = ground.redis.port
    await asyncio.wait_for(waiting, 30)
    assert ground.passages.opened[-1] == "rayoffload-redis-1"
    await asyncio.to_thread(quick.close)
    await link.aclose()


@pytest.mark.asyncio
async def test_a_pod_of_the_same_name_at_which_nobody_listens_yet(ground: Ground) -> None:
    link = await ground.link()
    port, ground.passages.pods["rayoffload-redis-0"] = ground.redis.port, 1
    ground.passages.cut()
    waiting = asyncio.create_task(blocking(link.store.ping))
    await until(lambda: len(ground.passages.opened) > 5)
    ground.passages.pods["rayoffload-redis-0"] = port
    await asyncio.wait_for(waiting, 30)
    await link.aclose()


@pytest.mark.asyncio
async def test_an_api_server_that_is_away_for_a_while(ground: Ground) -> None:
    link = await ground.link()
    await ground.server.stop()
    with pytest.raises(ClusterUnreachable, match="Kubernetes API server does not answer"):
        await link.ray.version()
    waiting = asyncio.create_task(blocking(link.store.ping))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await ground.server.start()
    await asyncio.wait_for(waiting, 30)
    assert await link.answers()
    await link.aclose()


@pytest.mark.asyncio
async def test_a_credential_that_has_expired_is_read_again(ground: Ground, tmp_path: Path) -> None:
    link = await ground.link()
    package = tmp_path / "package.zip"
    package.write_bytes(os.urandom(1 << 20))
    ground.server.token = "the-next-one"
    with pytest.raises(ClusterRefused, match="does not accept the credential"):
        await link.ray.version()
    assert ground.server.kubeconfig  # it has been written anew
    await link.ray.put_package("package.zip", package)
    assert ground.head.packages["package.zip"] == hashlib.sha256(package.read_bytes()).hexdigest()
    ground.server.token = "and-the-one-after-it"
    assert ground.server.kubeconfig
    ground.passages.cut()
    await blocking(link.store.ping)
    await link.aclose()


# ---------------------------------------------------------------------- refusals


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "services/proxy"), ("get", "pods/portforward"), ("create", "pods/portforward")],
)
async def test_a_right_that_is_missing_is_named(ground: Ground, verb: str, resource: str) -> None:
    ground.passages.forbidden.add(f"{verb} {resource}")
    with pytest.raises(ClusterRefused) as caught:
        await ground.backend().ensure(SPEC)
    assert f'cannot {verb} resource "{resource}" in API group ""' in caught.value.message
    assert f'{{apiGroups: [""], resources: ["{resource}"], verbs: ["{verb}"]}}' in caught.value.hint


@pytest.mark.asyncio
async def test_a_right_that_only_submitting_needs_is_named_too(ground: Ground) -> None:
    link = await ground.link()
    ground.passages.forbidden.add("create services/proxy")
    with pytest.raises(ClusterRefused, match=r'cannot create resource "services/proxy"'):
        await link.ray.submit("one", "true")
    await link.aclose()


@pytest.mark.asyncio
async def test_rays_own_refusals_stay_its_own(ground: Ground) -> None:
    link = await ground.link()
    assert await link.ray.info("another") is None
    ground.head.token = "another one"
    with pytest.raises(ClusterRefused, match="refuses the token"):
        await link.ray.version()
    await link.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, f"the service {HEAD} in the namespace team is not there"),
        ("", f"the service {HEAD} in the namespace team has no pod that is ready"),
        ("http://127.0.0.1:1", "does not reach the service .*connection refused.*NetworkPolicy"),
    ],
)
async def test_a_head_that_is_not_reached(ground: Ground, address: str | None, said: str) -> None:
    del ground.passages.services[HEAD]
    if address is not None:
        ground.passages.services[HEAD] = address
    with pytest.raises(ClusterStartFailed, match=said):
        await ground.backend(kubernetes_start_timeout=2).ensure(SPEC)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.remove("services", "rayoffload-redis"), "the service rayoffload-redis .* is not there"),
        (lambda s: s.remove("pods", "rayoffload-redis-0"), "has no pod that is ready"),
        (lambda s: s.put("pods", redis_pod("rayoffload-redis-0", ready=False)), "has no pod that is ready"),
        (lambda s: s.passages.pods.clear(), "port 6379 of the pod rayoffload-redis-0 is not there"),
        (lambda s: s.objects["services", "rayoffload-redis"]["spec"].pop("selector"), "leads to no pods"),
        (
            lambda s: s.objects["services", "rayoffload-redis"]["spec"]["ports"][0].update(port=6380),
            "has no port 6379",
        ),
    ],
)
async def test_a_store_that_is_not_reached(ground: Ground, change: Any, said: str) -> None:
    change(ground.server)
    with pytest.raises(ClusterStartFailed, match=said):
        await ground.backend(kubernetes_start_timeout=2).ensure(SPEC)


@pytest.mark.asyncio
async def test_a_store_with_tls_is_refused_with_what_to_do(ground: Ground) -> None:
    with pytest.raises(UsageError, match=r"speaks TLS.*Set store_url"):
        await ground.backend(store_url=URL.replace("redis:", "rediss:", 1)).ensure(SPEC)


# ---------------------------------------------------------------------- what is left behind


@pytest.mark.asyncio
async def test_nothing_listens_but_a_socket_of_this_user_and_nothing_is_left(ground: Ground) -> None:
    def listening() -> set[int]:
        found = psutil.Process().net_connections("tcp")
        return {c.laddr.port for c in found if c.status == psutil.CONN_LISTEN}

    before = listening()
    link = await ground.link()
    [folder] = [Path(tempfile.gettempdir(), name) for name in left()]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and os.listdir(folder) == ["s"]
    assert listening() == before
    reader, writer = await asyncio.open_unix_connection(str(folder / "s"))
    await until(lambda: ground.passages.open)
    backend = ground.made[0]
    began = time.monotonic()
    await backend.aclose()
    assert time.monotonic() - began < 5
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    await until(lambda: not ground.passages.open)
    assert left() == []
    quick = Store(link.connection.store, "ada", link.signer, patience=0.1)
    with pytest.raises(StoreUnreachable):
        await blocking(quick.ping)
    await asyncio.to_thread(quick.close)
    await backend.aclose()  # once more does no harm
    await link.aclose()


@pytest.mark.asyncio
async def test_what_a_killed_process_has_left_goes_and_what_lives_stays(ground: Ground) -> None:
    folder = Path(tempfile.gettempdir())
    dead, young, living = (folder / f"rayoffload-forward-{n}" for n in ("dead", "young", "living"))
    for made in (dead, young, living):
        made.mkdir()
        (made / "s").touch()
    code = (
        "import fcntl, os, sys; opened = os.open(sys.argv[1], os.O_RDONLY); "
        "fcntl.flock(opened, fcntl.LOCK_EX); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(living)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline() == b"locked\n"
        for made in (dead, living):
            os.utime(made, (time.time() - 100,) * 2)
        link = await ground.link()
        assert len(left()) == 3 and not dead.exists() and young.exists() and living.exists()
        [mine] = [folder / name for name in left() if folder / name not in (young, living)]
        with pytest.raises(BlockingIOError):
            opened = os.open(mine, os.O_RDONLY)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            finally:
                os.close(opened)
        assert other.stdin
        other.stdin.close()
    await link.aclose()


@pytest.mark.asyncio
async def test_no_secret_is_shown_or_logged(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    link = await ground.link()
    ground.passages.forbidden.add("get services/proxy")
    with pytest.raises(ClusterRefused) as caught:
        await link.ray.version()
    shown = "".join([caplog.text, repr(link), repr(ground.made[0]), repr(caught.value)])
    assert HEAD in shown
    for secret in (ACCOUNT_TOKEN, RAY_TOKEN, KEY.hex(), ground.redis.password):
        assert secret not in shown
    await link.aclose()


# ---------------------------------------------------------------------- the connection file in a Secret


def stored(ground: Ground, text: str) -> None:
    data = {"connection.json": base64.b64encode(text.encode()).decode()}
    ground.server.put("secrets", {"metadata": {"name": "rayoffload-store"}, "data": data})


def from_secret(ground: Ground) -> KubernetesBackend:
    backend = ground.backend(connection_file="", kubernetes_cluster={"store_secret": "rayoffload-store"})
    (ground.folder / "connection.json").unlink()
    return backend


@pytest.mark.asyncio
async def test_the_connection_file_is_read_from_the_secret_and_written_nowhere(ground: Ground) -> None:
    stored(ground, json.dumps(ground.connection_file().to_json()))
    backend = from_secret(ground)
    before = set(ground.folder.rglob("*"))
    signer = await asyncio.to_thread(backend.signer)  # before there is any cluster
    assert signer.digest(b"x") == Signer(KEY).digest(b"x")
    asked = ground.server.requests.count("GET secrets")
    connection = await backend.ensure(SPEC)
    assert (connection.owner, connection.key, connection.store.password) == (
        "ada",
        KEY,
        ground.redis.password,
    )
    assert connection.file == Path(CONNECTION_FILE), "runners find it where it is mounted"
    found = await backend.find("default")
    assert found and (found.key, found.store) == (KEY, connection.store)
    assert ground.server.requests.count("GET secrets") == asked + 3, "once more; Ray's token by each of both"
    link = await open_link(connection, backend.config)
    await link.aclose()
    assert set(ground.folder.rglob("*")) == before
    assert not any(KEY.hex() in p.read_text() for p in before if p.is_file() and p.suffix != ".sock")


@pytest.mark.asyncio
async def test_a_new_password_is_found_by_the_next_start(ground: Ground) -> None:
    wrong = ground.connection_file(StoreAddress(url=URL, password="old"))
    stored(ground, json.dumps(wrong.to_json()))
    backend = from_secret(ground)
    with pytest.raises(OffloadError, match="refuses our user or password"):
        await backend.ensure(SPEC)
    stored(ground, json.dumps(ground.connection_file().to_json()))
    assert (await backend.ensure(SPEC)).store.password == ground.redis.password


@pytest.mark.asyncio
async def test_a_secret_that_is_not_there_or_no_connection_file(ground: Ground) -> None:
    backend = from_secret(ground)
    with pytest.raises(UsageError, match="there is no Secret rayoffload-store in the namespace team"):
        await asyncio.to_thread(backend.signer)
    stored(ground, "{}")
    with pytest.raises(FormatMismatch, match=r"connection\.json of the Secret rayoffload-store is not"):
        await backend.ensure(SPEC)
    ground.server.put("secrets", {"metadata": {"name": "rayoffload-store"}, "data": {}})
    with pytest.raises(OffloadError, match=r"rayoffload-store has nothing to read under connection\.json"):
        await backend.ensure(SPEC)


# ---------------------------------------------------------------------- who is outside


@pytest.mark.parametrize(
    ("reach", "host", "account", "expected"),
    [
        ("auto", "", False, True),
        ("auto", "10.0.0.1", False, False),
        ("auto", "", True, False),
        ("proxy", "10.0.0.1", True, True),
        ("service", "", False, False),
    ],
)
def test_who_is_outside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reach: str, host: str, account: bool, expected: bool
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setattr(outside, "ACCOUNT", tmp_path if account else tmp_path / "absent")
    config = RayOffload(backend="kubernetes", kubernetes_reach=reach)
    assert outside.is_outside(config) is expected
    assert (KubernetesBackend(config).outside is not None) is expected
    assert KubernetesBackend(config, reach=lambda _: "http://h:8265").outside is None


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("redis://r.team.svc", ("r", "team", 6379)),
        ("redis://r.team.svc.cluster.local:6380/3", ("r", "team", 6380)),
        ("redis://redis.example.org:6379/0", None),
        ("redis://127.0.0.1:6379", None),
        ("unix:///tmp/redis.sock", None),
    ],
)
def test_which_stores_are_services(url: str, service: tuple[str, str, int] | None) -> None:
    assert outside._service(StoreAddress(url)) == service


@pytest.mark.asyncio
async def test_a_store_elsewhere_is_reached_straight(ground: Ground) -> None:
    connection = await ground.backend(store_url=ground.redis.url).ensure(SPEC)
    assert connection.store.url == ground.redis.url and connection.transport
    assert ground.passages.opened == [] and left() == []


def test_the_port_of_a_pod() -> None:
    pod = redis_pod("r")
    assert portforward._port_of(pod, "redis") == 6379 and portforward._port_of(pod, 7000) == 7000
    with pytest.raises(ClusterUnreachable, match="the pod r has no port 'other'"):
        portforward._port_of(pod, "other")
