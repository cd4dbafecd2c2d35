"""The Redis of the embedded cluster, started as the keeper starts it."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jupyter_rayoffload.clusters.embedded import head
from tests.servers import redis_executable

pytestmark = pytest.mark.redis
CHUNK = (1 << 20) - 4096


@pytest.fixture
def server() -> Iterator[tuple[redis.Redis, subprocess.Popen[bytes]]]:
    """Give a client, and the process."""
    with tempfile.TemporaryDirectory(prefix="ro-") as name:  # short: it holds a socket
        folder = Path(name)
        config = folder / "redis.conf"
        config.write_text(head.redis_config(folder, folder, "secret", 1 << 30))
        command, env = head.redis_command(redis_executable(), config, os.environ)
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as process:
            try:
                with redis.Redis.from_url(f"unix://{folder}/redis.sock", password="secret") as client:
                    yield client, process
            finally:
                process.terminate()


def answers(client: redis.Redis) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            client.ping()
            return
        except redis.ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_large_values_lie_in_huge_pages_and_the_file_is_not_written_again_for_them(server) -> None:
    client, process = server
    answers(client)
    for number in range(100):  # beyond the size at which Redis would begin to rewrite its file
        client.set(str(number), os.urandom(CHUNK))
    told = client.info("persistence")
    assert told["aof_enabled"] and told["aof_current_size"] > 100 * CHUNK
    assert not told["aof_rewrite_in_progress"] and told["aof_last_rewrite_time_sec"] == -1
    if "[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this machine gives no huge pages")
    if not client.info("memory")["mem_allocator"].startswith("jemalloc"):
        pytest.skip("this Redis was built without jemalloc")
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    found = re.search(r"AnonHugePages: +(\d+) kB", rollup)
    assert found is not None and int(found[1]) > 50 * 1024


@pytest.mark.parametrize(
    ("said", "option"),
    [
        ("Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", []),
        ("Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64", ["--disable-thp", "no"]),
        ("Valkey server v=8.0.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", ["--disable-thp", "no"]),
        ("something else", []),
    ],
)
def test_a_redis_is_asked_only_for_what_it_knows(tmp_path: Path, said: str, option: list[str]) -> None:
    program = tmp_path / "redis-server"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o700)
    command, env = head.redis_command(str(program), tmp_path / "redis.conf", {"A": "b"})
    assert command == [str(program), str(tmp_path / "redis.conf"), *option]
    assert env["A"] == "b"
