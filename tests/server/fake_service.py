"""A service whose cluster and store are in memory, behind the seams that the real ones have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

from jupyter_rayoffload import submission
from jupyter_rayoffload.clusters import Connection, OnChange
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.declared import read_profiles
from jupyter_rayoffload.errors import ClusterStartFailed, OffloadError, UsageError
from jupyter_rayoffload.link import Link
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec, Profile
from jupyter_rayoffload.profiles import apply, check_same, pick
from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import StoreAddress
from jupyter_rayoffload.server.service import Service
from tests.fake_jobclient import FakeJobClient
from tests.fakes import MemoryStore

OWNER = "tester"
KEY = bytes(32)
RAY_TOKEN = "token-of-ray"
PASSWORD = "password-of-the-store"

PROFILES = read_profiles(
    [
        {"name": "small", "title": "Small", "description": "For a try"},
        {
            "name": "large",
            "fields": [
                {"name": "workers", "path": "groups.workers.replicas", "maximum": 8},
                {"name": "memory", "path": "head.memory", "kind": "size", "maximum": "16GiB"},
                {"name": "image", "path": "image", "kind": "choice", "choices": ["stable", "nightly"]},
            ],
        },
    ],
    {"head": {"memory": "4GiB"}, "groups": [{"name": "workers", "maximum": 8}]},
)


class FakeBackend:
    """Clusters in memory; they start and end at once, unless `gate` is shut."""

    def __init__(self, address: str = "http://127.0.0.1:1") -> None:
        self.address = address
        self.there: dict[str, ClusterInfo] = {}
        self.calls: list[str] = []
        self.fault: OffloadError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.told = asyncio.Condition()

    def signer(self) -> Signer:
        return Signer(KEY)

    async def ensure(self, spec: ClusterSpec, on_change: OnChange | None = None) -> Connection:
        self.calls.append(f"ensure {spec.name}")
        made = apply(pick(PROFILES, spec.profile), spec.choices)
        if (there := self.there.get(spec.name)) and there.profile:
            check_same(spec.replace(choices={name: made.choices[name] for name in spec.choices}), there)
        await self.gate.wait()
        if self.fault:
            raise self.fault
        if there and there.phase is ClusterPhase.RUNNING:
            return self.connection(spec.name)
        await self.change(
            spec.name,
            ClusterInfo(
                name=spec.name,
                kind="kubernetes",
                profile=made.profile,
                choices=made.choices,
                phase=ClusterPhase.RUNNING,
                address=self.address,
                dashboard=self.address,
                resources={"CPU": 4.0},
                nodes=1,
            ),
        )
        return self.connection(spec.name)

    async def change(self, name: str, info: ClusterInfo) -> None:
        async with self.told:
            self.there[name] = info
            self.told.notify_all()

    def connection(self, name: str) -> Connection:
        store = StoreAddress("redis://127.0.0.1:1/0", PASSWORD)
        info = self.there[name].replace(used={})
        return Connection(info, store, OWNER, KEY, Path("/nowhere"), RAY_TOKEN)

    async def profiles(self) -> tuple[Profile, ...]:
        return PROFILES

    async def find(self, name: str) -> Connection | None:
        if self.fault and not isinstance(self.fault, ClusterStartFailed):
            raise self.fault
        there = self.there.get(name)
        return self.connection(name) if there and there.phase is ClusterPhase.RUNNING else None

    async def get(self, name: str) -> ClusterInfo:
        return self.there.get(name) or ClusterInfo(name=name, kind="kubernetes")

    async def list(self) -> list[ClusterInfo]:
        return list(self.there.values())

    async def scale(self, name: str, workers: int) -> ClusterInfo:
        await self.change(name, self._there(name).replace(nodes=workers + 1))
        return self.there[name]

    async def suspend(self, name: str) -> ClusterInfo:
        await self.change(name, self._there(name).replace(phase=ClusterPhase.SUSPENDED))
        return self.there[name]

    async def resume(self, name: str) -> ClusterInfo:
        await self.change(name, self._there(name).replace(phase=ClusterPhase.RUNNING))
        return self.there[name]

    def _there(self, name: str) -> ClusterInfo:
        if name not in self.there:
            raise UsageError(f"there is no cluster {name!r}", "Start it first")
        return self.there[name]

    async def delete(self, name: str) -> None:
        self.calls.append(f"delete {name}")
        await self.gate.wait()
        self.there.pop(name, None)

    async def watch(self, name: str) -> AsyncIterator[ClusterInfo]:
        self.calls.append(f"watch {name}")
        last = None
        while True:
            if (info := await self.get(name)) != last:
                last = info
                yield info
            async with self.told:
                await self.told.wait()

    async def aclose(self) -> None:
        pass


class Parts:
    """What stands behind a server: change it to set a scene, and ask it what was done."""

    def __init__(self, address: str = "http://127.0.0.1:1") -> None:
        self.address = address
        self.store = MemoryStore(Signer(KEY))
        self.backend: Any = None
        self.ray: Any = None

    def make_service(self) -> Service:
        """Make the service; in the server's loop."""
        self.backend = FakeBackend(self.address)
        self.ray = FakeJobClient()

        async def opened(connection: Connection, config: RayOffload) -> Link:
            return Link(connection, self.store, self.ray)  # type: ignore[arg-type]

        with mock.patch.object(submission, "open_backend", lambda config: self.backend):
            return Service(submission.Offloader(RayOffload(owner=OWNER), opened))

    def job(self, job_id: str, phase: str = "succeeded", *, owner: str = OWNER, **more: Any) -> None:
        """Put a job into the store."""
        now = more.pop("created", time.time())
        spec = {"id": job_id, "owner": owner, "source": "x = 1", "created": now, **more}
        attempt = 0 if phase == "pending" else 1
        state = {"phase": phase, "attempt": attempt, "started": now, "last_seen": now}
        self.store.create(job_id, {"spec": spec, "state": state}, now)

    def inputs(self, job_id: str, **values: Any) -> None:
        """Put the frozen inputs of a job into the store."""
        self.store.put_payload(job_id, "inputs", codec.freeze(values, {}, Signer(KEY), copy=True))

    def says(self, job_id: str, number: int, type_: str, **content: Any) -> None:
        """Write one message into a job's stream."""
        message = {"t": time.time(), "type": type_, "content": content}
        self.store.append(job_id, f"{job_id}-1", number, [message])
