"""The ways to clusters: one each, for everybody."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.links import Links
from jupyter_rayoffload.models import ClusterInfo, ClusterSpec
from jupyter_rayoffload.remote.store import StoreAddress


class Backend:
    """Has clusters by name; one of them takes its time."""

    def __init__(self, **clusters: str) -> None:
        self.addresses = clusters
        self.slow = asyncio.Event()

    async def ensure(self, spec: ClusterSpec, on_change: Any = None) -> Connection:
        if spec.name == "slow":
            await self.slow.wait()
        self.addresses.setdefault(spec.name, f"http://{spec.name}")
        return self._connection(spec.name)

    async def find(self, name: str) -> Connection | None:
        return self._connection(name) if name in self.addresses else None

    def _connection(self, name: str) -> Connection:
        info = ClusterInfo(name=name, kind="kubernetes", address=self.addresses[name])
        return Connection(info, StoreAddress("unix:///nowhere"), "ada", b"k" * 32, Path("/nowhere"))


class Way:
    """What is opened; remembers whether it was closed."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.info, self.closed = connection, connection.info, False

    def answered(self) -> bool:
        return False

    async def answers(self) -> bool:
        return bool(self.info.address)

    async def aclose(self) -> None:
        self.closed = True


def links_to(backend: Backend) -> Links:
    async def opener(connection: Connection, _: RayOffload) -> Any:
        await asyncio.sleep(0.01)
        return Way(connection)

    return Links(backend, RayOffload(), opener)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_cluster_that_starts_keeps_no_other_one_waiting() -> None:
    backend = Backend()
    links = links_to(backend)
    slow = asyncio.ensure_future(links.connect("slow"))
    await asyncio.sleep(0)
    quick = await asyncio.wait_for(links.connect("quick"), 5)
    assert quick.info.name == "quick" and not slow.done()
    backend.slow.set()
    assert (await slow).info.name == "slow"


@pytest.mark.asyncio
async def test_whoever_comes_at_once_gets_the_same_way() -> None:
    links = links_to(Backend(default=""))
    looks = [links.reach() for _ in range(5)] + [links.find("default") for _ in range(5)]
    assert len({id(way) for way in await asyncio.gather(*looks)}) == 1
    links = links_to(Backend())
    assert len({id(way) for way in await asyncio.gather(*(links.connect() for _ in range(5)))}) == 1


@pytest.mark.asyncio
async def test_nothing_is_started_by_those_who_look() -> None:
    backend = Backend()
    links = links_to(backend)
    assert await links.find("default") is None and backend.addresses == {}
    assert links.used("") is None
    assert (await links.reach()).info.address == "http://default"


@pytest.mark.asyncio
async def test_a_way_that_leads_elsewhere_is_closed_and_opened_anew() -> None:
    backend = Backend(default="http://one")
    links = links_to(backend)
    one: Any = await links.find("default")
    backend.addresses["default"] = "http://two"
    two: Any = await links.find("default")
    assert one.closed and two.info.address == "http://two" and not two.closed
    used: Any = await links.connect()
    assert links.used("") is used
    await links.aclose()
    assert two.closed and used.closed and links.used("") is None
