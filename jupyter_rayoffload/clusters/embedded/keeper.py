"""The keeper of the embedded cluster: a small process that starts Ray and Redis, minds them, and ends them.

:func:`main` reads its :class:`Settings` from stdin, takes the lock, and goes to the background. It ends

- when no job has been live, and no kernel has asked for the cluster, for the idle time-out, whether or not a
  kernel is connected: the next job starts the cluster again, and all that was in its store is there;
- on SIGTERM (``%ray cluster down``);
- when Ray cannot be kept alive.

If Redis dies it is started again with its data. If Ray's head dies, a new one is started and the connection
file written anew: the jobs that ran are lost, their records and inputs are not. If the keeper is killed, the
operating system sends SIGTERM to Ray and Redis, and the next keeper sweeps up what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import psutil

from ...errors import ClusterError, ClusterStartFailed, OffloadError
from ...models import ClusterInfo, ClusterPhase
from ...rayapi import RayClient
from ...remote.signing import Signer
from ...remote.store import Store, StoreFault, Tampered
from ..connection import Connection, read_secret, write_private
from . import head
from .children import Children
from .places import BUSY, Settings, State, alive, last_state, sweep, take_lock, write_state

__all__ = ["Keeper", "main"]

#: Tries to start Ray; a further one is no likelier to succeed.
START_ATTEMPTS = 5
#: A head that dies more often than this within :data:`RESTART_WINDOW` seconds will die again.
RESTARTS = 3
RESTART_WINDOW = 600.0
#: Unix sockets have 107 bytes at most, of which Ray's session takes about 66.
RUN_PREFIX_LIMIT = 24


class Keeper:
    """Minds one Ray head and one Redis.

    Parameters
    ----------
    settings : Settings
    lock : int
        The locked file.
    """

    def __init__(self, settings: Settings, lock: int) -> None:
        self.settings, self.places = settings, settings.places
        self._lock = lock
        self._run = _run_directory()
        self._state = State(pid=os.getpid(), run=str(self._run))
        self._say("Starting")
        self._children = Children()
        self._stop = asyncio.Event()
        self._env = head.environment(os.environ, self._run)
        self._token = secrets.token_hex(32)
        self._password = secrets.token_urlsafe(32)
        self._redis = self._ray = 0
        self._vital: list[psutil.Process] = []
        self._used = time.time()

    def _say(self, reason: str) -> None:
        self._state = dataclasses.replace(self._state, reason=reason, since=time.time())
        write_state(self._lock, self._state)

    async def run(self) -> None:
        """Keep the cluster until it is no longer needed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._children.watch()
        try:
            write_private(self._run / "token", self._token)
            await self._unless_stopped(self._start_redis())
            deaths: list[float] = []
            while not self._stop.is_set():
                await self._unless_stopped(self._live())
                self._note_death(deaths)
                await self._end_ray()
        except _Stopped:
            pass
        except OffloadError as error:
            self._state = dataclasses.replace(self._state, error=error.to_json())
        except Exception as error:
            failure = ClusterStartFailed(f"the keeper failed: {error!r}", f"See {self.places.log}")
            self._state = dataclasses.replace(self._state, error=failure.to_json())
            raise
        finally:
            await self._end()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise _Stopped
            task.result()
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    # Redis

    async def _start_redis(self) -> None:
        if self.settings.store_url:
            return
        self._say("Starting Redis")
        server = head.redis_server()
        if server is None:
            raise ClusterStartFailed(
                "there is no redis-server on PATH", 'Install one: pip install "jupyter_rayoffload[local]"'
            )
        data = self.places.data / "redis"
        data.mkdir(mode=0o700, exist_ok=True)
        config = self._run / "redis.conf"
        write_private(config, head.redis_config(self._run, data, self._password, self.settings.store_limit))
        command, env = head.redis_command(server, config, self._env)
        self._redis = self._children.start(command, env, self._run, umask=0o077)
        # It loads what it has kept: 1 GiB takes some seconds.
        deadline = time.monotonic() + 5 * self.settings.start_timeout
        while not await self._redis_answers():
            if self._children.exit_code(self._redis) is not None or time.monotonic() > deadline:
                raise ClusterStartFailed(
                    f"Redis did not start: {self.places.log_tail()}",
                    f"If its files are damaged, move {data} away: what jobs have left there is lost then",
                )
            await asyncio.sleep(0.05)

    async def _redis_answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._run / "redis.sock"))
        except OSError:
            return False
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
            answer = await asyncio.wait_for(reader.readuntil(b"PONG\r\n"), 2)
            return answer.startswith(b"+OK")
        except (OSError, EOFError, asyncio.TimeoutError):  # still loading
            return False
        finally:
            writer.close()

    # Ray

    async def _live(self) -> None:
        """Start a head, and return when it has died or is no longer needed."""
        ports = await self._start_ray()
        async with RayClient(f"http://127.0.0.1:{ports.dashboard}", self._token) as client:
            connection = await self._describe(client, ports)
            self._vital = _vital(self._ray)
            connection.write()
            self._say("Running")
            await self._mind(client, connection)

    async def _start_ray(self) -> head.Ports:
        if not _installed("ray"):
            raise ClusterStartFailed(
                "Ray is not installed in this environment",
                'Install it, pip install "jupyter_rayoffload[local]", or set ray_address to a cluster',
            )
        self._say("Starting Ray")
        began = time.monotonic()
        deadline = began + self.settings.start_timeout
        for _ in range(START_ATTEMPTS):
            ports = head.free_ports()
            command = head.ray_command(
                self._run,
                ports,
                num_cpus=self.settings.num_cpus,
                memory=self.settings.memory,
                object_store_memory=self.settings.object_store_memory,
            )
            self._ray = self._children.start(command, self._env, self._run)
            if await self._ray_answers(ports, deadline):
                return ports
            # Another process may have taken one of the ports, and Ray gives up after 30 s on a busy machine.
            await self._end_ray()
            if time.monotonic() > deadline:
                break
        raise ClusterStartFailed(
            f"Ray has not started within {time.monotonic() - began:.0f} s: {self.places.log_tail()}",
            f"See {self.places.log}; start_timeout gives it more time",
        )

    async def _ray_answers(self, ports: head.Ports, deadline: float) -> bool:
        async with RayClient(f"http://127.0.0.1:{ports.dashboard}", self._token) as client:
            while self._children.exit_code(self._ray) is None and time.monotonic() < deadline:
                with contextlib.suppress(ClusterError, OSError):
                    await client.version()
                    # Jobs are started by the agent, which comes last.
                    _, writer = await asyncio.open_connection("127.0.0.1", ports.agent)
                    writer.close()
                    if (await client.cluster_status()).nodes:
                        return True
                await asyncio.sleep(0.1)
        return False

    async def _describe(self, client: RayClient, ports: head.Ports) -> Connection:
        from ...remote.store import StoreAddress

        version, status = await client.version(), await client.cluster_status()
        info = ClusterInfo(
            kind="embedded",
            phase=ClusterPhase.RUNNING,
            address=client.address,
            dashboard=client.address,
            session=version["session_name"],
            python=".".join(map(str, sys.version_info[:2])),
            ray=version["ray_version"],
            resources=status.resources,
            nodes=status.nodes,
            since=time.time(),
        )
        given = self.settings
        if given.store_url:
            file = given.store_password_file
            password = read_secret(file, "password file").strip() if file else ""
            store = StoreAddress(url=given.store_url, username=given.store_username, password=password)
        else:
            store = StoreAddress(url=f"unix://{self._run}/redis.sock", username="", password=self._password)
        return Connection(
            info=info,
            store=store,
            owner=given.owner,
            key=bytes.fromhex(read_secret(given.key_file, "signing key").strip()),
            file=self.places.connection,
            ray_token=self._token,
            gcs=f"127.0.0.1:{ports.gcs}",
        )

    async def _mind(self, client: RayClient, connection: Connection) -> None:
        """Return when the head has died; stop when nobody needs the cluster."""
        idle = self.settings.idle_timeout
        asked = 0.0
        pause = min(5.0, max(1.0, idle / 10))
        self._used = time.time()
        while self._head_lives():
            await asyncio.sleep(0.5)
            if self._redis and self._children.exit_code(self._redis) is not None:
                await self._start_redis()
                self._say("Running")
            if idle and time.monotonic() - asked > pause:
                if await _busy(client, connection):
                    self._used = time.time()
                asked = time.monotonic()
            if not self.places.connection.exists():  # somebody tidied up: kernels would wait for it
                connection.write()
            if idle and self._idle_for() > idle and await self._retire(client, connection):
                self._stop.set()

    def _head_lives(self) -> bool:
        return self._children.exit_code(self._ray) is None and all(alive(p) for p in self._vital)

    def _idle_for(self) -> float:
        with contextlib.suppress(FileNotFoundError):
            self._used = max(self._used, self.places.connection.stat().st_mtime)
        return time.time() - self._used

    async def _retire(self, client: RayClient, connection: Connection) -> bool:
        """Take the connection file away, unless a kernel or a job came in the last moment.

        A kernel touches the file when it adopts the cluster. Once it has another name nobody can touch it, so
        that either we see the touch, or the kernel sees that the file is gone.
        """
        file = self.places.connection
        aside = file.with_suffix(".idle")
        try:
            os.rename(file, aside)
        except FileNotFoundError:
            return False
        touched = aside.stat().st_mtime > self._used
        if touched or await _busy(client, connection):
            os.rename(aside, file)
            return False
        aside.unlink()
        return True

    def _note_death(self, deaths: list[float]) -> None:
        self.places.connection.unlink(missing_ok=True)
        if self._stop.is_set():
            return
        now = time.monotonic()
        deaths[:] = [*(d for d in deaths if now - d < RESTART_WINDOW), now]
        if len(deaths) > RESTARTS:
            raise ClusterStartFailed(
                f"Ray's head has died {len(deaths)} times: {self.places.log_tail()}", f"See {self.places.log}"
            )
        self._say("Ray's head died; starting it again")

    async def _end_ray(self) -> None:
        if self._ray:
            await self._children.end(self._ray, 10)
        await self._children.end_all(but=[self._redis])
        self._ray, self._vital = 0, []

    async def _end(self) -> None:
        """End all, Redis last: jobs write to it until they are gone."""
        self._say("Stopping")
        self.places.connection.unlink(missing_ok=True)
        await self._end_ray()
        if self._redis:
            await self._children.end(self._redis, 30)  # SIGTERM lets it write its append-only file to the end
        await self._children.end_all()
        shutil.rmtree(self._run, ignore_errors=True)
        self._state = dataclasses.replace(self._state, pid=0, run="")
        if self._state.error:
            write_state(self._lock, self._state)
        else:
            self.places.lock.unlink(missing_ok=True)


class _Stopped(Exception):
    """We are asked to stop."""


def _installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def _run_directory() -> Path:
    base = tempfile.gettempdir()
    if len(base) > RUN_PREFIX_LIMIT:
        base = "/tmp"
    path = Path(tempfile.mkdtemp(prefix="rayoffload-", dir=base))
    path.chmod(stat.S_IRWXU)
    return path


def _vital(ray: int) -> list[psutil.Process]:
    """Give the processes without which a head is none.

    ``ray start --block`` does not mind if one of them ends by SIGTERM.
    """
    names = ("gcs_server", "raylet", "dashboard.py")
    found = []
    for child in psutil.Process(ray).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a helper that has just ended has no command line
            if any(Path(word).name in names for word in child.cmdline()[:4]):
                found.append(child)
    return found


async def _busy(client: RayClient, connection: Connection) -> bool:
    """Whether a job is live; standbys that wait for one do not count."""
    try:
        # Briefly: a head that has died takes the question and never answers.
        live = {job.submission_id for job in await asyncio.wait_for(client.list(), 3) if job.live}
    except (ClusterError, asyncio.TimeoutError):
        return True  # a Ray that is too busy to answer is not idle
    return bool(live) and bool(live - await asyncio.to_thread(_waiting, connection))


def _waiting(connection: Connection) -> set[str]:
    store = Store(connection.store, connection.owner, Signer(connection.key), patience=0)
    with contextlib.suppress(StoreFault, Tampered), store:
        return {plan["id"] for plan in store.handovers.waiting()}
    return set()


def main() -> int:
    """Take the lock and go to the background; the exit code says whether that worked."""
    settings = Settings(**json.load(sys.stdin))
    for _ in range(20):
        lock = take_lock(settings.places.lock)
        if lock is not None:
            break
        time.sleep(0.02)  # somebody may just be looking whether it is locked
    else:
        return BUSY
    left = last_state(settings.places.lock)
    write_state(lock, State(run=left.run))  # its process id is nobody's now
    if os.fork():
        # The lock stays with the child, and nobody has to wait for it: it is init's.
        os._exit(0)
    os.ftruncate(sys.stdout.fileno(), 0)
    write_state(lock, State(pid=os.getpid(), run=left.run, reason="Starting", since=time.time()))
    sweep(left.run)
    settings.places.connection.unlink(missing_ok=True)
    asyncio.run(Keeper(settings, lock).run())
    return 0
