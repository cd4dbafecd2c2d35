"""What the API server of the tests lets through: requests to services, and connections to ports of pods.

It goes as far as a real one for what is asked here; tests/kubernetes/test_laptop.py asks a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

PROXY = re.compile(r"/api/v1/namespaces/team/services/http:(?P<name>[a-z0-9-]+):8265/proxy(?P<rest>/.*)")
FORWARD = re.compile(r"/api/v1/namespaces/team/pods/(?P<name>[a-z0-9-]+)/portforward")
#: Headers that are of one hop.
HOP = {"host", "authorization", "transfer-encoding", "connection", "keep-alive"}


def status(code: int, message: str, **more: Any) -> web.Response:
    """Refuse as the API does."""
    said = {"kind": "Status", "status": "Failure", "code": code, "message": message, **more}
    return web.json_response(said, status=code)


class Passages:
    """Services and pods that are on this machine."""

    def __init__(self) -> None:
        #: By the name of the service, the address of an HTTP server; empty: it has no endpoints.
        self.services: dict[str, str] = {}
        #: By the name of the pod, the port of this machine that its port 6379 is.
        self.pods: dict[str, int] = {}
        #: What the account may not do: ``get services/proxy``.
        self.forbidden: set[str] = set()
        self.open: set[web.WebSocketResponse] = set()
        #: To which pods there have been connections.
        self.opened: list[str] = []

    async def serve(self, request: web.Request) -> web.StreamResponse | None:
        """Let a request through; None if it is none of those."""
        if found := PROXY.fullmatch(request.path):
            verb = {"POST": "create", "PUT": "update"}.get(request.method, request.method.lower())
            if refused := self._refused(verb, "services/proxy", found["name"]):
                return refused
            return await self._proxy(request, found["name"])
        if found := FORWARD.fullmatch(request.path):
            # Since 1.35 a websocket needs both, and who is no websocket is not asked for the second.
            upgrade = "Sec-WebSocket-Key" in request.headers
            for verb in ("get", "create") if upgrade else ("get",):
                if refused := self._refused(verb, "pods/portforward", found["name"]):
                    return refused
            return await self._forward(request, found["name"]) if upgrade else status(400, "Upgrade required")
        return None

    def cut(self) -> None:
        """Cut all connections to pods, as a node that dies does."""
        for connection in list(self.open):
            transport = connection._req.transport if connection._req else None
            if transport is not None:
                transport.abort()

    def _refused(self, verb: str, resource: str, name: str) -> web.Response | None:
        if f"{verb} {resource}" not in self.forbidden:
            return None
        said = (
            f'{resource.partition("/")[0]} "{name}" is forbidden: User "system:serviceaccount:team:ada" '
            f'cannot {verb} resource "{resource}" in API group "" in the namespace "team"'
        )
        return status(403, said, reason="Forbidden", details={"name": name})

    async def _proxy(self, request: web.Request, name: str) -> web.StreamResponse:
        if name not in self.services:
            return status(404, f'services "http:{name}:8265" not found')
        if not self.services[name]:
            return status(503, f'no endpoints available for service "http:{name}:8265"')
        rest = request.rel_url.raw_path.partition("/proxy")[2]
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
        body = request.content if request.can_read_body else None
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            try:
                answer = await session.request(
                    request.method,
                    self.services[name] + rest + query,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                )
            except aiohttp.ClientConnectorError:
                return status(503, "error trying to reach service: dial tcp: connect: connection refused")
            async with answer:
                return await _passed_on(request, answer)

    async def _forward(self, request: web.Request, name: str) -> web.StreamResponse:
        if name not in self.pods:
            return status(404, f'pods "{name}" not found')
        connection = web.WebSocketResponse(protocols=("v4.channel.k8s.io",), timeout=0.1)
        await connection.prepare(request)
        assert connection.ws_protocol == "v4.channel.k8s.io" and request.query["ports"] == "6379"
        self.open.add(connection)
        self.opened.append(name)
        try:
            for channel in (0, 1):
                await connection.send_bytes(struct.pack("<BH", channel, 6379))
            await self._pump(connection, name)
        except ConnectionError:
            pass  # whoever was connected has gone
        finally:
            self.open.discard(connection)
        return connection

    async def _pump(self, connection: web.WebSocketResponse, name: str) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.pods[name])
        except OSError:
            said = f"error forwarding port 6379 to pod {name}, uid : connect: connection refused"
            await connection.send_bytes(b"\x01" + said.encode())
            await connection.close()
            return

        async def up() -> None:
            async for message in connection:
                assert message.data[0] == 0
                writer.write(message.data[1:])
                await writer.drain()

        async def down() -> None:
            while data := await reader.read(32 << 10):
                await connection.send_bytes(b"\x00" + data)

        both = [asyncio.ensure_future(way) for way in (up(), down())]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in both:
                way.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await connection.close()


async def _passed_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    headers: Mapping[str, str] = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
    passed = web.StreamResponse(status=answer.status, headers=headers)
    await passed.prepare(request)
    async for chunk in answer.content.iter_any():
        await passed.write(chunk)
    await passed.write_eof()
    return passed


def redis_service(name: str = "rayoffload-redis") -> dict[str, Any]:
    """Give the service of a tenant's Redis."""
    spec = {
        "selector": {"app.kubernetes.io/name": name},
        "ports": [{"name": "redis", "port": 6379, "targetPort": "redis"}],
    }
    return {"metadata": {"name": name}, "spec": spec}


def redis_pod(name: str, ready: bool = True) -> dict[str, Any]:
    """Give a pod of that service."""
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "rayoffload-redis"}},
        "spec": {"containers": [{"name": "redis", "ports": [{"name": "redis", "containerPort": 6379}]}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }
