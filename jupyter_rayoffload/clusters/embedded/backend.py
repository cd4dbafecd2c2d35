"""The embedded cluster: a Ray and a Redis on this machine, shared by all kernels of one user and environment.

It is started on first use by a :mod:`.keeper`, which outlives the kernel that asked for it. Any other kernel,
or the same one after a restart, adopts the cluster by its connection file. An idle one is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ...errors import ClusterError, ClusterStartFailed, StoreError, UsageError, by_name
from ...models import ClusterInfo, ClusterPhase
from ...profiles import pick
from .. import owner
from ..checks import check_store, look
from ..connection import Connection, read_connection
from . import head, machine
from .places import BUSY, Places, Settings, State, alive, keeper_state, last_state, sweep

if TYPE_CHECKING:
    from ...config import RayOffload
    from ...models import ClusterSpec, Profile
    from ...remote.signing import Signer
    from .. import OnChange

__all__ = ["NAME", "LocalBackend"]

#: The only embedded cluster.
NAME = "default"
#: Seconds a keeper may take to stop: Ray 10, what is left 10, Redis 30.
STOP_TIMEOUT = 60.0
_MIB, _GIB = 1 << 20, 1 << 30
# Not `python -m`: a kernel may have found this package where a new process does not look, in its own folder.
_KEEPER = """
import sys
sys.path.append(sys.argv[1])
from jupyter_rayoffload.clusters.embedded.keeper import main
sys.exit(main())
"""


class LocalBackend:
    """The back end of the embedded cluster.

    Parameters
    ----------
    config : RayOffload
    """

    def __init__(self, config: RayOffload) -> None:
        self.config = config
        self.places = Places.here()

    def signer(self) -> Signer:
        """See :class:`.ClusterBackend`."""
        return owner.signer(owner.read_key(owner.key_file(self.config.signing_key_file, self.places.key)))

    async def ensure(self, spec: ClusterSpec, on_change: OnChange | None = None) -> Connection:
        """Adopt the cluster that runs, or start it.

        Raises
        ------
        UsageError
            Another cluster is asked for, or a profile.
        ClusterStartFailed
            With the reason, and the end of the keeper's log.
        """
        _only(spec.name)
        if spec.profile or spec.choices:
            pick((), spec.profile)
        began, told, starts = time.monotonic(), "", 0
        while True:
            state = keeper_state(self.places.lock)
            if state is None:
                if starts:
                    self._raise_last_error(starts)
                starts += 1
                await asyncio.to_thread(self._spawn)
                continue
            if connection := await self._adopt():
                if on_change:
                    on_change(connection.info)
                return connection
            waited = time.monotonic() - began
            if on_change and (info := _starting(state)).reason != told:
                told = info.reason
                on_change(info)
            if waited > self.config.start_timeout + STOP_TIMEOUT:
                raise ClusterStartFailed(
                    f"the embedded cluster has not come up within {waited:.0f} s: {state.reason}",
                    f"See {self.places.log}; %ray cluster down removes what is there",
                )
            await asyncio.sleep(0.1)

    async def profiles(self) -> tuple[Profile, ...]:
        """See :class:`.ClusterBackend`: it has the size of this machine."""
        return ()

    async def find(self, name: str = NAME) -> Connection | None:
        """See :class:`.ClusterBackend`; whoever only looks must not keep an idle cluster from stopping."""
        _only(name)
        if keeper_state(self.places.lock) is None:
            return None
        try:
            return read_connection(self.places.connection)
        except FileNotFoundError:
            return None

    async def get(self, name: str = NAME) -> ClusterInfo:
        """See :class:`.ClusterBackend`."""
        _only(name)
        state = keeper_state(self.places.lock)
        if state is None:
            error = last_state(self.places.lock).error
            if error:
                return ClusterInfo(
                    kind="embedded", phase=ClusterPhase.FAILED, reason=error["message"], detail=error["hint"]
                )
            return ClusterInfo(kind="embedded", reason="It starts with the first job")
        try:
            connection = read_connection(self.places.connection)
        except FileNotFoundError:
            return _starting(state)
        return await look(connection.info, connection.ray_token)

    async def list(self) -> list[ClusterInfo]:
        """See :class:`.ClusterBackend`."""
        info = await self.get()
        return [] if info.phase is ClusterPhase.NONE else [info]

    async def scale(self, name: str, workers: int) -> ClusterInfo:
        """Refuse: there is one machine."""
        _only(name)
        raise UsageError(
            "the embedded cluster cannot be scaled: it has the CPUs of this machine",
            "%ray config num_cpus=N, then %ray cluster down and up, changes how many",
        )

    async def suspend(self, name: str) -> ClusterInfo:
        """Refuse: there is nothing that only a suspended cluster keeps."""
        _only(name)
        raise UsageError(
            "the embedded cluster cannot be suspended",
            "%ray cluster down stops it; what is in its store is kept",
        )

    async def resume(self, name: str) -> ClusterInfo:
        """Refuse, as :meth:`suspend`."""
        _only(name)
        raise UsageError(
            "the embedded cluster cannot be resumed: it is never suspended", "%ray cluster up starts it"
        )

    async def delete(self, name: str = NAME) -> None:
        """Stop the cluster, and return when all of it is gone; what is in its store stays for the next one.

        Raises
        ------
        ClusterError
            Something of it cannot be ended.
        """
        _only(name)
        places = self.places
        run = last_state(places.lock).run
        if (keeper := await self._keeper()) is not None:
            await _end(keeper, signal.SIGTERM, STOP_TIMEOUT)
            await _end(keeper, signal.SIGKILL, 5)
        await asyncio.to_thread(sweep, run)
        if keeper_state(places.lock) is not None:
            raise ClusterError(f"the keeper of the cluster does not end: {keeper}", f"See {places.log}")
        places.connection.unlink(missing_ok=True)
        places.lock.unlink(missing_ok=True)

    async def _keeper(self) -> psutil.Process | None:
        """Give the process that holds the lock."""
        while (state := keeper_state(self.places.lock)) is not None:
            if state.pid:  # nobody else can have its number as long as it holds the lock
                with contextlib.suppress(psutil.NoSuchProcess):
                    return psutil.Process(state.pid)
            await asyncio.sleep(0.05)
        return None

    async def watch(self, name: str = NAME) -> AsyncIterator[ClusterInfo]:
        """See :class:`.ClusterBackend`; looks once a second."""
        last = None
        while True:
            info = await self.get(name)
            if info != last:
                yield info
                last = info
            await asyncio.sleep(1)

    async def aclose(self) -> None:
        """Nothing is open; the cluster stays."""

    async def _adopt(self) -> Connection | None:
        """Give the connection if Ray and Redis answer; touch its file, so that the keeper knows."""
        try:
            connection = read_connection(self.places.connection)
            os.utime(self.places.connection)
        except FileNotFoundError:
            return None
        try:
            async with connection.client() as client:
                await client.version()
            await check_store(connection)
        except ClusterError:
            return None  # the keeper is about to start another head
        except StoreError:
            if self.config.store_url:
                raise  # it is not the keeper's
            return None
        return connection

    def _spawn(self) -> None:
        """Start a keeper; returns when it holds the lock, or another one does."""
        if importlib.util.find_spec("ray") is None:
            raise ClusterStartFailed(
                "Ray is not installed in this environment",
                'pip install "jupyter_rayoffload[local]" installs it; or set ray_address to a cluster',
            )
        if not self.config.store_url and head.redis_server() is None:
            raise ClusterStartFailed(
                "there is no redis-server on PATH",
                'pip install "jupyter_rayoffload[local]" brings one; or set store_url',
            )
        self.places.make()
        settings = json.dumps(dataclasses.asdict(self._settings()))
        log = os.open(self.places.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            done = subprocess.run(
                [sys.executable, "-c", _KEEPER, str(Path(__file__).parents[3])],
                input=settings.encode(),
                stdout=log,
                stderr=log,
                cwd=self.places.data,
                start_new_session=True,  # what stops the kernel's process group must not stop the cluster
                timeout=30,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClusterStartFailed(
                f"the keeper cannot be started: {error}", f"See {self.places.log}"
            ) from error
        finally:
            os.close(log)
        if done.returncode not in (0, BUSY):
            raise ClusterStartFailed(
                f"the keeper ended with exit code {done.returncode}: {self.places.log_tail()}",
                f"See {self.places.log}",
            )

    def _settings(self) -> Settings:
        config, places = self.config, self.places
        memory = config.memory or machine.memory()
        objects = config.object_store_memory or max(128 * _MIB, min(memory // 10, 2 * _GIB))
        return Settings(
            owner=config.owner,
            num_cpus=config.num_cpus or machine.cpus(),
            memory=max(memory - objects, memory // 2),
            object_store_memory=objects,
            store_limit=config.store_limit or memory // 4,
            idle_timeout=config.idle_timeout,
            start_timeout=config.start_timeout,
            key_file=str(owner.key_file(config.signing_key_file, places.key)),
            store_url=config.store_url,
            store_username=config.store_username,
            store_password_file=config.store_password_file,
            connection=str(places.connection),
            lock=str(places.lock),
            data=str(places.data),
        )

    def _raise_last_error(self, starts: int) -> None:
        error = last_state(self.places.lock).error
        if error:
            raise by_name(error["reason"], error["message"], error["hint"])
        if starts >= 3:
            raise ClusterStartFailed("the keeper ended and said nothing", f"See {self.places.log}")


async def _end(process: psutil.Process, number: int, limit: float) -> None:
    deadline = time.monotonic() + limit
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
    while alive(process) and time.monotonic() < deadline:  # noqa: ASYNC110 - it cannot set an event
        await asyncio.sleep(0.05)


def _only(name: str) -> None:
    if name not in ("", NAME):
        raise UsageError(f"there is no cluster {name!r}: the embedded one is {NAME!r}", "Leave out --cluster")


def _starting(state: State) -> ClusterInfo:
    waited = time.time() - state.since
    reason = state.reason or "Starting"
    if waited >= 1:
        reason = f"{reason}: {waited:.0f} s"
    return ClusterInfo(kind="embedded", phase=ClusterPhase.STARTING, reason=reason, since=state.since or None)
