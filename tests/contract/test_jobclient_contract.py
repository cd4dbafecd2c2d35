"""What every JobClient does: the real Jobs API and the fake that other tests use."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from jupyter_rayoffload.errors import JobNotFound, UsageError
from jupyter_rayoffload.rayapi import JobClient, JobInfo, RayClient
from tests.fake_jobclient import FakeJobClient
from tests.ray_fixture import RayCluster

PYTHON = sys.executable


@pytest_asyncio.fixture(params=["fake", pytest.param("ray", marks=pytest.mark.ray)])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[JobClient]:
    made: FakeJobClient | RayClient
    if request.param == "fake":
        made = FakeJobClient()
    else:
        cluster: RayCluster = request.getfixturevalue("ray_cluster")
        made = RayClient(cluster.connection.info.address, cluster.connection.ray_token)
    yield made
    await made.aclose()


def new_id() -> str:
    return f"test-{secrets.token_hex(4)}"


async def ended(client: JobClient, submission_id: str) -> JobInfo:
    for _ in range(1200):
        info = await client.info(submission_id)
        assert info is not None
        if not info.live:
            return info
        await asyncio.sleep(0.1)
    raise AssertionError(f"{submission_id} has not ended: {info}")


async def running(client: JobClient, submission_id: str, word: str) -> None:
    for _ in range(1200):
        if word in await client.logs(submission_id):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{submission_id} has not printed {word}")


@pytest.mark.asyncio
async def test_it_says_who_it_is(client: JobClient) -> None:
    version = await client.version()
    assert version["ray_version"] and version["session_name"]
    assert (await client.python_version()).startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    status = await client.cluster_status()
    assert status.nodes == 1 and status.resources["CPU"] == 2


@pytest.mark.asyncio
async def test_a_job_from_submission_to_deletion(client: JobClient) -> None:
    job = new_id()
    entrypoint = f'{PYTHON} -c \'import os; print("hello", os.environ["GREETED"])\''
    given = {
        "runtime_env": {"env_vars": {"GREETED": "world"}},
        "metadata": {"owner": "tester"},
        "resources": {"CPU": 0.5, "memory": 1e6},
    }
    assert await client.submit(job, entrypoint, **given) == job
    # An answer that got lost: the second request starts nothing.
    assert await client.submit(job, entrypoint, **given) == job
    info = await ended(client, job)
    assert (info.status, info.exit_code, info.submission_id) == ("SUCCEEDED", 0, job)
    assert info.metadata["owner"] == "tester" and info.entrypoint == entrypoint
    assert info.start is not None and info.end is not None and info.start <= info.end
    assert info.node_id
    assert (await client.logs(job)).count("hello world\n") == 1
    assert [j.submission_id for j in await client.list()].count(job) == 1
    assert await client.stop(job) is False
    assert await client.delete(job) is True
    assert await client.info(job) is None
    assert await client.delete(job) is False


@pytest.mark.asyncio
async def test_an_id_that_another_job_has_is_refused(client: JobClient) -> None:
    job = new_id()
    await client.submit(job, f"{PYTHON} -c 'print(1)'")
    with pytest.raises(UsageError, match="already has another job"):
        await client.submit(job, f"{PYTHON} -c 'print(2)'")
    assert (await ended(client, job)).status == "SUCCEEDED"


@pytest.mark.asyncio
async def test_exit_codes_arrive(client: JobClient) -> None:
    job = await client.submit(new_id(), f"{PYTHON} -c 'import sys; sys.exit(3)'")
    info = await ended(client, job)
    assert (info.status, info.exit_code) == ("FAILED", 3)
    assert info.error_type == "JOB_ENTRYPOINT_COMMAND_ERROR" and "exit code 3" in info.message


@pytest.mark.asyncio
async def test_a_running_job_is_stopped(client: JobClient) -> None:
    job = await client.submit(new_id(), f"{PYTHON} -uc 'import time; print(\"up\"); time.sleep(300)'")
    # Ray's log repeats the entrypoint, with the quotes.
    await running(client, job, "up\n")
    assert await client.stop(job) is True
    assert (await ended(client, job)).status == "STOPPED"


@pytest.mark.asyncio
async def test_unknown_jobs(client: JobClient) -> None:
    job = new_id()
    assert await client.info(job) is None
    assert await client.stop(job) is False
    assert await client.delete(job) is False
    with pytest.raises(JobNotFound, match=job):
        await client.logs(job)


@pytest.mark.asyncio
async def test_packages(client: JobClient, tmp_path: Path) -> None:
    name = f"_ray_pkg_{secrets.token_hex(20)}.zip"
    assert await client.has_package(name) is False
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("blob", os.urandom(3 << 20))
    path = tmp_path / "package.zip"
    path.write_bytes(content.getvalue())
    await client.put_package(name, path)
    assert await client.has_package(name) is True


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"entrypoint": "x" * 70_000}, "the entrypoint has 70,000 bytes"),
        ({"metadata": {"a": "ü" * 40_000}}, "the metadata has"),
        ({"runtime_env": {"env_vars": {"BIG": "x" * 70_000}}}, "the variable BIG has 70,004 bytes"),
        ({"runtime_env": {"pip": ["x" * 100] * 20_000}}, "the runtime environment has"),
        ({"submission_id": "a/b"}, "'a/b' cannot be a submission id"),
        ({"submission_id": ".."}, "cannot be a submission id"),
        ({"submission_id": "x" * 65}, "cannot be a submission id"),
    ],
)
async def test_what_would_wedge_a_node_is_refused(
    client: JobClient, given: dict[str, object], said: str
) -> None:
    job = new_id()
    call = {"submission_id": job, "entrypoint": "true", **given}
    with pytest.raises(UsageError, match=said):
        await client.submit(**call)  # type: ignore[arg-type]
    assert await client.info(job) is None
