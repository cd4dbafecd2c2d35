"""Ray's dashboard, to be looked at: asked with the cluster's token, and nothing of the user's goes there.

Ray's front end has relative links and routes behind ``#``, so it works below any path that ends with a slash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from tornado import web
from tornado.iostream import StreamClosedError

from ..errors import ClusterError, OffloadError
from .handlers import OWN_QUERY, RESOURCE

if TYPE_CHECKING:
    import aiohttp

    from ..transport import Transport
    from .service import Service

__all__ = ["DashboardHandler", "SlashHandler"]

#: What of a request goes on, and what of an answer comes back; cookies and credentials are in neither.
TO_RAY = ("Accept", "Accept-Language", "If-None-Match", "If-Modified-Since", "Range")
FROM_RAY = (
    "Content-Type",
    "Content-Encoding",
    "Content-Range",
    "Accept-Ranges",
    "ETag",
    "Last-Modified",
    "Cache-Control",
)
#: Ray masks environment variables of jobs for browsers, and it takes this for one.
AGENT = "Mozilla/5.0 (jupyter_rayoffload)"
#: GETs of Ray that do more than show: they end actors, or stop processes to look into them.
NO_VIEW = re.compile(
    r"kill|(cpu|gpu|jax|memory)_profile|(worker|task)/traceback|api/v0/delay|test/dump", re.I
)
CHUNK = 64 * 1024
#: Seconds until Ray must answer, and for which a stream may be silent.
TIMEOUT, SILENCE = 15.0, 300.0


class Away(ClusterError):
    """Nothing answers there."""

    reason = "ClusterUnreachable"  # a property of the base


class SlashHandler(JupyterHandler):
    """The dashboard without its slash, behind which relative links would lead elsewhere."""

    auth_resource = RESOURCE

    @web.authenticated
    @authorized
    async def get(self, name: str) -> None:
        """Send the browser to the folder."""
        self.redirect(f"{self.request.path}/", permanent=False)


class DashboardHandler(JupyterHandler):
    """GET and HEAD of a cluster's dashboard."""

    auth_resource = RESOURCE
    _track_activity = False

    @web.authenticated
    @authorized
    async def get(self, name: str, rest: str) -> None:
        """Show a page of the dashboard."""
        await self._show(name, rest)

    @web.authenticated
    @authorized
    async def head(self, name: str, rest: str) -> None:
        """Tell of a page of the dashboard."""
        await self._show(name, rest)

    async def _show(self, name: str, rest: str) -> None:
        if "Upgrade" in self.request.headers:
            return self._refuse(400, "the dashboard is shown without websockets")
        if NO_VIEW.search(rest):
            return self._refuse(403, "the dashboard is read-only here, and this page does more than show")
        service: Service = self.settings["jupyter_rayoffload"].service
        try:
            connection = await service.backend.find(name)
            if connection is None or not connection.info.address:
                raise Away(f"cluster {name} does not run", "Start it, then load this page again")
            answer = await self._ask(service.transport(connection), connection.ray_token)
        except OffloadError as error:
            return self._refuse(502 if isinstance(error, ClusterError) else error.status, str(error))
        async with answer:
            await self._pass_on(answer, rest)

    async def _ask(self, transport: Transport, token: str) -> aiohttp.ClientResponse:
        import aiohttp

        headers = {n: self.request.headers[n] for n in TO_RAY if n in self.request.headers}
        headers |= {"User-Agent": AGENT, "Accept-Encoding": "gzip"}
        if token:
            headers["X-Ray-Authorization"] = f"Bearer {token}"
        limits = aiohttp.ClientTimeout(total=None, connect=TIMEOUT, sock_read=SILENCE)
        path = "/" + self._rest() + self._query()
        try:
            return await transport.send(str(self.request.method), path, headers, timeout=limits, raw=True)
        except OffloadError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise Away("the Ray dashboard does not answer", "See whether its cluster is well") from None

    def _rest(self) -> str:
        """Give the path behind the name as it was sent; never one that leads upwards."""
        start = self.request.path.index("/rayoffload/dashboard/") + len("/rayoffload/dashboard/")
        rest = self.request.path[start:].partition("/")[2]
        return "/".join(part for part in rest.split("/") if part not in (".", ".."))

    def _query(self) -> str:
        pairs = parse_qsl(self.request.query, keep_blank_values=True)
        kept = [(key, value) for key, value in pairs if key not in OWN_QUERY]
        return f"?{urlencode(kept)}" if kept else ""

    async def _pass_on(self, answer: aiohttp.ClientResponse, rest: str) -> None:
        if answer.status in (301, 302, 303, 307, 308) or answer.status in (401, 403):
            return self._refuse(502, "the Ray dashboard does not let this server in")
        self.set_status(answer.status, answer.reason or responses.get(answer.status, "Unknown"))
        self._headers_of(answer.headers, front=rest in ("", "index.html"))
        if answer.status >= 400:  # short, and read already where somebody on the way looked at it
            self.write(await answer.read())
        elif self.request.method != "HEAD":
            try:
                async for chunk in answer.content.iter_chunked(CHUNK):
                    self.write(chunk)
                    await self.flush()
            except StreamClosedError:  # the browser has gone
                return
        await self.finish()

    def _headers_of(self, given: Mapping[str, str], front: bool) -> None:
        for name in FROM_RAY:
            if name in given:
                self.set_header(name, given[name])
        self.set_header("X-Content-Type-Options", "nosniff")
        if not front:
            # Logs of jobs are served here, too: opened as a page, they must not act as this server's own.
            policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'self'"
            self.set_header("Content-Security-Policy", policy)

    def _refuse(self, status: int, text: str) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(text if self.request.method != "HEAD" else None)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what was refused, in plain text."""
        self._refuse(status_code, responses.get(status_code, "Error"))
