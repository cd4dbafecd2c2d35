"""The head of a cluster, as far as a back end asks it before it gives a way to it."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.fake_kubernetes import RAY_TOKEN


class Dashboard:
    """What the head of every cluster of these tests answers."""

    def __init__(self) -> None:
        self.address = ""
        self.session = "session_1"
        self.well = True

    async def answer(self, request: web.Request) -> web.Response:
        if not self.well:
            return web.Response(status=503)
        if request.headers.get("Authorization") != f"Bearer {RAY_TOKEN}":
            return web.Response(status=403)
        data = {
            "/api/version": {"ray_version": "2.60.0", "session_name": self.session},
            "/api/v0/cluster_metadata": {"data": {"pythonVersion": platform.python_version()}},
            "/api/v0/nodes": {"data": {"result": {"result": []}}},
            "/api/cluster_status": {"data": {}},
        }
        return web.json_response(data[request.path])


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Dashboard]:
    dashboard = Dashboard()
    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", dashboard.answer)
    async with TestServer(app) as server:
        dashboard.address = str(server.make_url(""))
        yield dashboard
