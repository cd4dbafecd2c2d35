"""Fixtures around a real Redis; a conftest imports those that its tests need."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
from tests.servers import RedisServer, start_redis

KEY = bytes(range(32))


def address(server: RedisServer) -> StoreAddress:
    """Give the address of `server` with its password."""
    return StoreAddress(server.url, server.password)


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="ro-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=["tcp", "unix"])
def redis_server(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[RedisServer]:
    """One server for the whole session, once on TCP and once on a unix socket; tests keep apart by owner."""
    server = start_redis(short_folder / request.param, unix=request.param == "unix")
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to be killed and changed."""
    server = start_redis(tmp_path / "redis")
    yield server
    server.stop()


@pytest.fixture
def open_store() -> Iterator[Callable[..., Store]]:
    """Open stores that are closed at the end; each test has an owner of its own."""
    owner, stores = f"test-{uuid.uuid4().hex[:8]}", []

    def opened(server: RedisServer, **options: object) -> Store:
        stores.append(Store(address(server), owner, Signer(KEY), **options))  # type: ignore[arg-type]
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(redis_server: RedisServer, open_store: Callable[..., Store]) -> Store:
    """A store on the session's server."""
    return open_store(redis_server)
