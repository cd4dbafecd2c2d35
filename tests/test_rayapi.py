"""The Jobs API: what goes over the wire, and what every failure is called."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from jupyter_rayoffload import rayapi
from jupyter_rayoffload.errors import (
    ClusterError,
    ClusterRefused,
    ClusterUnreachable,
    JobNotFound,
    UsageError,
    WorkspaceTooLarge,
)
from jupyter_rayoffload.rayapi import RayClient
from tests.ray_fixture import RayCluster

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def ray_that(answer: Answer, token: str = "tok") -> AsyncIterator[RayClient]:
    """Give a client of a server that answers every request with `answer`."""
    app = web.Application(client_max_size=200 << 20)
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server, RayClient(str(server.make_url("")), token) as client:
        yield client


def says(status: int, text: str) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, text=text)

    return answer


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "text", "error", "said"),
    [
        (401, "Unauthorized: Missing authentication token", ClusterRefused, "asks for a token"),
        (403, "Forbidden: Invalid authentication token", ClusterRefused, "refuses the token"),
        (
            500,
            "Traceback\n  File x\nValueError: no such agent",
            ClusterError,
            "500 .*: ValueError: no such agent",
        ),
        (502, "bad gateway " * 500, ClusterError, "answers 502 .* …"),
        (302, "", ClusterError, "answers 302"),
    ],
)
async def test_answers_become_errors(status: int, text: str, error: type[ClusterError], said: str) -> None:
    async with ray_that(says(status, text)) as client:
        for call in (
            client.list(),
            client.info("a"),
            client.version(),
            client.stop("a"),
            client.submit("a", "true"),
        ):
            with pytest.raises(error, match=said) as caught:
                await call
            assert len(str(caught.value)) < 800 and caught.value.hint


@pytest.mark.asyncio
async def test_nobody_there() -> None:
    with socket.socket() as taken:  # bound and not listening: refused, and nobody else can have it
        taken.bind(("127.0.0.1", 0))
        async with RayClient(f"http://127.0.0.1:{taken.getsockname()[1]}") as client:
            with pytest.raises(ClusterUnreachable, match="cannot be reached"):
                await client.version()


@pytest.mark.asyncio
async def test_a_head_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rayapi, "_QUICK", 0.3)
    never = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async with ray_that(hang) as client:
        with pytest.raises(ClusterUnreachable, match="has not answered within"):
            await client._call("GET", "/api/version", timeout=0.3)
        never.set()


@pytest.mark.asyncio
@pytest.mark.parametrize("address", ["", "nonsense", "ftp://host", "http://"])
async def test_an_address_that_is_none(address: str) -> None:
    async with RayClient(address) as client:
        with pytest.raises((UsageError, ClusterUnreachable)):
            await client.version()


@pytest.mark.asyncio
async def test_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, dict[str, str], Any]] = []

    async def record(request: web.Request) -> web.Response:
        seen.append((request.path, dict(request.headers), await request.json()))
        return web.json_response({"submission_id": "a"})

    async with ray_that(record) as client:
        # Ray's own client would go there.
        monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        await client.submit("a", "true", resources={"CPU": 1.0, "memory": 2.0**30, "accelerator": 2.0})
        assert "tok" not in repr(client)
    ((path, headers, body),) = seen
    assert path == "/api/jobs/" and headers["Authorization"] == "Bearer tok"
    assert headers["User-Agent"].startswith("jupyter_rayoffload/")
    assert not {h.lower() for h in headers} & {"origin", "referer", "cookie", "sec-fetch-mode"}
    assert body == {
        "submission_id": "a",
        "entrypoint": "true",
        "runtime_env": {},
        "metadata": {},
        "entrypoint_num_cpus": 1.0,
        "entrypoint_memory": 2**30,
        "entrypoint_resources": {"accelerator": 2.0},
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", ["lost answer", "no agent", "agent gone"])
async def test_submitting_survives_a_bad_moment_and_runs_once(trouble: str) -> None:
    jobs: dict[str, dict[str, Any]] = {}
    requests = []

    async def flaky(request: web.Request) -> web.Response:
        requests.append(request.method)
        if request.method == "GET":
            return web.json_response(jobs["a"])
        body = await request.json()
        if len(requests) == 1 and trouble == "no agent":
            return web.Response(status=500, text="No available agent to submit job, please try again later.")
        if len(requests) == 1 and trouble == "agent gone":
            text = "Traceback\naiohttp.client_exceptions.ServerDisconnectedError: Server disconnected"
            return web.Response(status=500, text=text)
        if "a" in jobs:
            return web.Response(
                status=400, text="ValueError: Job with submission_id a already exists. Please"
            )
        jobs["a"] = {**body, "status": "PENDING"}
        if trouble == "lost answer":
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"submission_id": "a"})

    async with ray_that(flaky) as client:
        assert await client.submit("a", "true", metadata={"owner": "x"}) == "a"
    assert len(jobs) == 1 and requests.count("POST") == 2


@pytest.mark.asyncio
async def test_packages_are_streamed_and_limited(tmp_path: Path) -> None:
    sizes = []

    async def take(request: web.Request) -> web.Response:
        sizes.append((request.path, len(await request.read()), request.headers.get("Content-Length")))
        return web.Response()

    fits, large = tmp_path / "fits", tmp_path / "large"
    for path, size in ((fits, 100 << 20), (large, (100 << 20) + 1)):
        with open(path, "wb") as file:
            os.truncate(file.fileno(), size)
    async with ray_that(take) as client:
        await client.put_package("_ray_pkg_ab.zip", fits)
        with pytest.raises(WorkspaceTooLarge, match="no more than 100 MiB"):
            await client.put_package("_ray_pkg_ab.zip", large)
        for name in ("../x.zip", "a/b.zip", "x.txt", ""):
            with pytest.raises(UsageError, match="cannot be the name of a package"):
                await client.has_package(name)
    assert sizes == [("/api/packages/gcs/_ray_pkg_ab.zip", 100 << 20, str(100 << 20))]


@pytest.mark.asyncio
@pytest.mark.parametrize("job", ["..", "a/b", "", "a b", "ü", "x" * 65])
async def test_an_id_never_becomes_another_path(job: str) -> None:
    async with ray_that(says(200, "{}")) as client:
        for call in (client.info(job), client.stop(job), client.delete(job), client.logs(job)):
            with pytest.raises(JobNotFound, match="is no submission id"):
                await call


def test_used_resources_keep_their_names() -> None:
    nodes = [
        {"state": "ALIVE", "resources_total": {"CPU": 2, "my_big_gpu": 1, "node:1.2.3.4": 1, "memory": 5}},
        {"state": "ALIVE", "resources_total": {"CPU": 4, "object_store_memory": 9}},
        {"state": "DEAD", "resources_total": {"CPU": 64}},
    ]
    usage = {"CPU": [1.5, 6], "myBigGpu": [1, 1], "memory": [0, 5]}
    status = rayapi._read_status(nodes, {"usage": usage, "resourceDemand": [[{"GPU": 1.0}, 3]]})
    assert status.nodes == 2
    assert status.resources == {"CPU": 6, "my_big_gpu": 1, "memory": 5}
    assert status.used == {"CPU": 1.5, "my_big_gpu": 1, "memory": 0}
    assert status.waiting == (({"GPU": 1.0}, 3),)


@pytest.mark.ray
def test_rays_own_client_agrees(ray_cluster: RayCluster) -> None:
    """Ours and Ray's see the same jobs, with the same fields."""
    from ray.job_submission import JobSubmissionClient

    from tests.ray_fixture import run

    connection = ray_cluster.connection
    oracle = JobSubmissionClient(
        connection.info.address, headers={"Authorization": f"Bearer {connection.ray_token}"}
    )

    async def with_ours() -> None:
        async with RayClient(connection.info.address, connection.ray_token) as client:
            await client.submit("ours", "echo from ours; exit 4", metadata={"by": "us"})
            oracle.submit_job(entrypoint="echo from theirs", submission_id="theirs")
            for job in ("ours", "theirs"):
                while (info := await client.info(job)) is None or info.live:
                    await asyncio.sleep(0.2)
                theirs = oracle.get_job_info(job)
                assert info.status == str(theirs.status)
                assert info.message == (theirs.message or "")
                assert info.error_type == (theirs.error_type or "")
                assert info.exit_code == theirs.driver_exit_code
                assert info.node_id == theirs.driver_node_id
                assert info.metadata == (theirs.metadata or {})
                assert info.start is not None and abs(info.start * 1000 - theirs.start_time) < 1
                assert await client.logs(job) == oracle.get_job_logs(job)
            listed = {j.submission_id for j in await client.list()}
            assert listed == {j.submission_id for j in oracle.list_jobs()} >= {"ours", "theirs"}
            assert (await client.version())["version"] == oracle.get_version()

    run(with_ours())
