"""What every ClusterBackend does, shown on a cluster that runs."""

from __future__ import annotations

import inspect
import os

import pytest

from jupyter_rayoffload.clusters import ClusterBackend
from jupyter_rayoffload.clusters.address import AddressBackend
from jupyter_rayoffload.clusters.connection import read_connection
from jupyter_rayoffload.clusters.embedded.backend import LocalBackend
from jupyter_rayoffload.clusters.kubernetes.backend import KubernetesBackend
from jupyter_rayoffload.clusters.server import ServerBackend
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import UsageError
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, ClusterSpec
from jupyter_rayoffload.rayapi import RayClient
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store
from tests.ray_fixture import RayCluster, make_backend


@pytest.fixture(params=["embedded", "address"])
def backend(request: pytest.FixtureRequest, ray_cluster: RayCluster) -> ClusterBackend:
    file = ray_cluster.connection.file
    if request.param == "address":
        return AddressBackend(RayOffload(connection_file=str(file)))
    return make_backend(file.parents[1])


@pytest.mark.parametrize("made", [LocalBackend, AddressBackend, KubernetesBackend, ServerBackend])
def test_it_has_the_whole_protocol(made: type) -> None:
    for name, method in inspect.getmembers(ClusterBackend, inspect.isfunction):
        if not name.startswith("_"):
            own = getattr(made, name)
            assert list(inspect.signature(own).parameters) == list(inspect.signature(method).parameters), name
            assert inspect.iscoroutinefunction(own) == inspect.iscoroutinefunction(method) or name == "watch"


@pytest.mark.parametrize("made", [LocalBackend, AddressBackend])
@pytest.mark.parametrize("spec", [ClusterSpec(profile="large"), ClusterSpec(choices={"workers": 2})])
@pytest.mark.asyncio
async def test_where_nothing_can_be_chosen_a_choice_is_refused(made: type, spec: ClusterSpec) -> None:
    backend: ClusterBackend = made(RayOffload())
    assert await backend.profiles() == ()
    with pytest.raises(UsageError, match="the embedded cluster has no profiles"):
        await backend.ensure(spec)


@pytest.mark.ray
@pytest.mark.asyncio
async def test_ensure_gives_a_way_that_works(backend: ClusterBackend) -> None:
    heard: list[ClusterInfo] = []
    connection = await backend.ensure(ClusterSpec(), heard.append)
    assert heard and heard[-1] == connection.info and heard[-1].phase is ClusterPhase.RUNNING
    async with RayClient(connection.info.address, connection.ray_token) as client:
        assert (await client.version())["session_name"] == connection.info.session
    with Store(connection.store, connection.owner, Signer(connection.key)) as store:
        store.ping()
    there = read_connection(connection.file)
    assert (there.owner, there.key, there.store) == (connection.owner, connection.key, connection.store)
    assert backend.signer().digest(b"x") == Signer(connection.key).digest(b"x")
    again = await backend.ensure(ClusterSpec())
    assert again.info.session == connection.info.session
    await backend.aclose()


@pytest.mark.ray
@pytest.mark.asyncio
async def test_it_can_be_looked_at(backend: ClusterBackend) -> None:
    connection = await backend.ensure(ClusterSpec())
    info = await backend.get("default")
    assert (info.phase, info.session) == (ClusterPhase.RUNNING, connection.info.session)
    assert info.resources["CPU"] == 2 and set(info.used) <= set(info.resources) and info.nodes == 1
    assert [i.session for i in await backend.list()] == [info.session]
    async for first in backend.watch("default"):
        assert first.session == info.session
        break
    secrets = (connection.ray_token, connection.store.password, connection.key.hex())
    assert not [s for s in secrets if s in str(info.to_json()) + repr(connection)]


@pytest.mark.ray
@pytest.mark.asyncio
async def test_looking_for_it_gives_the_way_and_does_not_keep_it_alive(
    backend: ClusterBackend, ray_cluster: RayCluster
) -> None:
    file, connection = ray_cluster.connection.file, ray_cluster.connection
    os.utime(
        file, (1, 1)
    )  # adopting a cluster touches its file, which tells the keeper that somebody needs it
    try:
        found = await backend.find("default")
        assert found is not None and file.stat().st_mtime == 1
        assert (found.store, found.ray_token) == (connection.store, connection.ray_token)
        assert found.info.address == connection.info.address
    finally:
        os.utime(file)


@pytest.mark.ray
@pytest.mark.asyncio
async def test_what_it_cannot_do_is_a_usage_error(backend: ClusterBackend) -> None:
    for call in (backend.scale("default", 2), backend.suspend("default"), backend.resume("default")):
        with pytest.raises(UsageError) as caught:
            await call
        assert caught.value.hint
