"""A running server with fakes behind it, one for each file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from jupyter_rayoffload.models import ClusterSpec
from tests.ray_fixture import short_folder
from tests.server.fake_service import Parts
from tests.server.running import RunningServer, running_server


@dataclass
class Scene:
    """A server, and what stands behind it."""

    server: RunningServer
    parts: Parts

    def up(self) -> None:
        """Let the cluster run."""
        self.server.run(self.parts.backend.ensure(ClusterSpec()))


@pytest.fixture(scope="module")
def serving() -> Iterator[Scene]:
    parts = Parts()
    with short_folder() as root, running_server(root, parts.make_service) as server:
        yield Scene(server, parts)


@pytest.fixture
def scene(serving: Scene) -> Scene:
    """The server with a new, empty service that runs nothing."""
    extension = serving.server.extension

    async def renew() -> None:
        if extension._service is not None:
            await extension._service.aclose()
        serving.parts.__init__(serving.parts.address)  # type: ignore[misc]
        extension._service = serving.parts.make_service()

    serving.server.run(renew())
    return serving
