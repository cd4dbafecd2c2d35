"""A cluster that is given by its address: each way in which that can be wrong has its own answer."""

from __future__ import annotations

import dataclasses
import platform
import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jupyter_rayoffload.clusters import Connection, open_backend
from jupyter_rayoffload.clusters.address import AddressBackend
from jupyter_rayoffload.clusters.embedded.backend import LocalBackend
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import (
    ClusterMismatch,
    ClusterRefused,
    ClusterStartFailed,
    ClusterUnreachable,
    OffloadError,
    StoreRefused,
    StoreUnreachable,
    UsageError,
)
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec
from jupyter_rayoffload.remote.store import StoreAddress
from tests.ray_fixture import RayCluster, run
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def store() -> Iterator[RedisServer]:
    from tests.ray_fixture import short_folder

    with short_folder() as folder:
        server = RedisServer(folder)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def made(store: RedisServer, tmp_path: Path) -> Connection:
    """A connection file of a working store, and of a Ray that is not there."""
    connection = Connection(
        info=ClusterInfo(address="http://127.0.0.1:9"),
        store=StoreAddress(url=store.url, password=store.password),
        owner="ada",
        key=bytes(32),
        file=tmp_path / "connection.json",
        ray_token="tok",
    )
    connection.write()
    return connection


@asynccontextmanager
async def ray_with(ray: str = "2.60.0", python: str = platform.python_version()) -> Any:
    """Serve what a Ray of other versions would say."""

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer tok":
            missing = "Authorization" not in request.headers
            return web.Response(status=401 if missing else 403)
        if request.path == "/api/version":
            return web.json_response({"ray_version": ray, "session_name": "session_1"})
        if request.path == "/api/v0/cluster_metadata" and python:
            return web.json_response({"data": {"pythonVersion": python}})
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url(""))


async def ensure(connection: Connection, **settings: Any) -> Connection:
    backend = AddressBackend(RayOffload(connection_file=str(connection.file), **settings))
    return await backend.ensure(ClusterSpec())


@pytest.mark.asyncio
async def test_it_connects(made: Connection) -> None:
    heard: list[ClusterInfo] = []
    async with ray_with() as address:
        backend = AddressBackend(RayOffload(connection_file=str(made.file), ray_address=address))
        connection = await backend.ensure(ClusterSpec(), heard.append)
        assert backend.signer().digest(b"x")
    assert connection.info.phase is ClusterPhase.RUNNING and connection.info.session == "session_1"
    assert connection.info.python == platform.python_version().rpartition(".")[0]
    assert (connection.owner, connection.key, connection.file) == ("ada", bytes(32), made.file)
    assert [i.phase for i in heard] == [ClusterPhase.STARTING, ClusterPhase.RUNNING]
    with pytest.raises(UsageError, match="cannot be scaled from here"):
        await backend.scale("default", 2)
    with pytest.raises(UsageError, match="cannot be stopped from here"):
        await backend.delete("default")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("ray", "settings", "error", "said"),
    [
        ({}, {"ray_token": "wrong"}, ClusterRefused, "refuses the token"),
        ({"python": "3.8.10"}, {}, ClusterMismatch, "has Python 3.8, this notebook has"),
        (
            {"ray": "2.40.0"},
            {},
            ClusterMismatch,
            "has Ray 2.40.0, which is too old. It needs Ray 2.52 or newer",
        ),
        ({"ray": ""}, {}, ClusterMismatch, "which is too old"),
    ],
)
async def test_a_wrong_ray(
    made: Connection, ray: dict[str, str], settings: dict[str, str], error: type[OffloadError], said: str
) -> None:
    async with ray_with(**ray) as address:
        with pytest.raises(error, match=said):
            await ensure(made, ray_address=address, **settings)


@pytest.mark.asyncio
async def test_another_ray_and_another_patch_of_python_are_no_obstacle(made: Connection) -> None:
    python = ".".join([*platform.python_version_tuple()[:2], "99"])
    async with ray_with(ray="2.53.1", python=python) as address:
        connection = await ensure(made, ray_address=address)
    assert connection.info.phase is ClusterPhase.RUNNING and connection.info.ray == "2.53.1"


@pytest.mark.asyncio
async def test_other_wrong_addresses(made: Connection, tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable, match="cannot be reached"):
        await ensure(made)
    dataclasses.replace(made, ray_token="").write()
    async with ray_with() as address:
        with pytest.raises(ClusterRefused, match="asks for a token, and none is configured"):
            await ensure(made, ray_address=address)
        token = tmp_path / "token"
        token.write_text("tok\n")
        token.chmod(0o600)
        assert (await ensure(made, ray_address=address, ray_token_file=str(token))).ray_token == "tok"
        token.chmod(0o644)
        with pytest.raises(ClusterRefused, match=r"the token .* is open to others"):
            await ensure(made, ray_address=address, ray_token_file=str(token))
        with pytest.raises(UsageError, match="ray_token_file: /nowhere/t cannot be read"):
            await ensure(made, ray_address=address, ray_token_file="/nowhere/t")
    # A Ray that does not tell its Python: the runner compares at first contact.
    made.write()
    async with ray_with(python="") as address:
        assert (await ensure(made, ray_address=address)).info.python == ""


@pytest.mark.asyncio
async def test_a_wrong_store(made: Connection, tmp_path: Path) -> None:
    async with ray_with() as address:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            with pytest.raises(StoreUnreachable, match="See store_url"):
                await ensure(
                    made, ray_address=address, store_url=f"redis://127.0.0.1:{taken.getsockname()[1]}"
                )
        wrong = tmp_path / "password"
        wrong.touch(mode=0o600)
        for password in ("", "wrong"):
            wrong.write_text(password)
            with pytest.raises(StoreRefused, match="store_password_file"):
                await ensure(made, ray_address=address, store_password_file=str(wrong))
        with pytest.raises(UsageError, match="store_url: the store's address must begin with redis://"):
            await ensure(made, ray_address=address, store_url="http://x")


@pytest.mark.asyncio
async def test_without_the_connection_file(made: Connection, tmp_path: Path) -> None:
    spec = ClusterSpec()
    with pytest.raises(UsageError, match="needs a connection_file, which its jobs read too"):
        await AddressBackend(RayOffload(ray_address="http://127.0.0.1:9")).ensure(spec)
    absent = RayOffload(connection_file="/nodes/only", ray_address="http://127.0.0.1:9")
    with pytest.raises(UsageError, match="the connection file /nodes/only is not here"):
        await AddressBackend(absent).ensure(spec)
    key, password = tmp_path / "key", tmp_path / "password"
    for file, text in ((key, "11" * 32), (password, made.store.password)):
        file.touch(mode=0o600)
        file.write_text(text)
    async with ray_with() as address:
        config = RayOffload(
            connection_file="/nodes/only",
            ray_address=address,
            ray_token="tok",
            store_url=made.store.url,
            store_password_file=str(password),
            signing_key_file=str(key),
            owner="bob",
        )
        connection = await AddressBackend(config).ensure(spec)
    assert (connection.owner, connection.key) == ("bob", b"\x11" * 32)
    assert str(connection.file) == "/nodes/only"


def test_which_back_end_is_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert isinstance(open_backend(RayOffload()), LocalBackend)
    assert isinstance(open_backend(RayOffload(ray_address="http://h:1")), AddressBackend)
    assert isinstance(open_backend(RayOffload(connection_file="f")), AddressBackend)
    assert isinstance(open_backend(RayOffload(backend="embedded", ray_address="http://h:1")), LocalBackend)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ClusterStartFailed, match=r"Kubernetes pod.*rayclusters\.ray\.io"):
        open_backend(RayOffload())
    assert isinstance(open_backend(RayOffload(ray_address="http://h:1")), AddressBackend)
    assert isinstance(open_backend(RayOffload(backend="embedded")), LocalBackend)


@pytest.mark.ray
def test_a_real_cluster_is_used(ray_cluster: RayCluster) -> None:
    file = ray_cluster.connection.file
    backend = AddressBackend(RayOffload(connection_file=str(file)))
    connection = run(backend.ensure(ClusterSpec()))
    assert connection.info.session == ray_cluster.connection.info.session
    assert connection.info.resources["CPU"] == 2 and connection.info.kind == "address"
