"""RayClusters by way of the kernel's own Jupyter server, whose extension asks Kubernetes for all kernels.

A kernel needs neither the Kubernetes client nor its memory then, and many kernels watch a cluster only once.
Where the server does not answer, or lacks the extension, the kernel asks Kubernetes itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from .. import errors
from ..errors import (
    ClusterError,
    ClusterMismatch,
    ClusterRefused,
    ClusterStartFailed,
    ClusterUnreachable,
    OffloadError,
    StoreUnreachable,
)
from ..models import ClusterInfo, ClusterPhase
from .checks import check_ray, check_store
from .connection import read_connection
from .kubernetes.backend import KubernetesBackend

if TYPE_CHECKING:
    import aiohttp

    from ..config import RayOffload
    from ..models import ClusterSpec, Profile
    from ..remote.signing import Signer
    from . import Connection, OnChange

__all__ = ["JupyterServer", "ServerBackend", "server_of_this_kernel"]

_T = TypeVar("_T")
#: Between two looks at a cluster on its way, and at one that a panel shows, seconds.
STEP, LOOK = 0.5, 1.0
#: How long the server may take for an answer, and how long one that has gone is waited for, seconds.
ANSWER, RESTART = 40.0, 20.0
#: How long a deletion may take, seconds; the server says what holds it before that.
DELETE = 120.0


class ServerAway(ClusterUnreachable):
    """The Jupyter server does not answer, does not let this kernel in, or lacks the extension."""


@dataclasses.dataclass(frozen=True)
class JupyterServer:
    """Where this kernel's Jupyter server is.

    Parameters
    ----------
    url : str
        With the base URL, and a slash at its end.
    token : str
    socket : str
        Path of its unix socket, where it has no port.
    """

    url: str
    token: str = dataclasses.field(repr=False)
    socket: str = ""


def server_of_this_kernel(environment: Mapping[str, str] = os.environ) -> JupyterServer | None:
    """Find the server that has started this kernel, if one has.

    JupyterHub says it in the environment. Without it there is the file in which a server describes itself,
    named after its process.
    """
    bound, token = environment.get("JUPYTERHUB_SERVICE_URL", ""), environment.get("JUPYTERHUB_API_TOKEN", "")
    if bound and token:
        there = urlsplit(bound)
        prefix = environment.get("JUPYTERHUB_SERVICE_PREFIX") or there.path or "/"
        # It listens at every address, and this kernel is beside it.
        return JupyterServer(f"{there.scheme}://127.0.0.1:{there.port or 8888}{prefix.rstrip('/')}/", token)
    if not (parent := environment.get("JPY_PARENT_PID", "")).isdigit():
        return None
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        told = json.loads(Path(jupyter_runtime_dir(), f"jpserver-{parent}.json").read_text())
        socket = told.get("sock") or ""
        url = f"http://localhost{told['base_url']}" if socket else told["url"]
        return JupyterServer(url.rstrip("/") + "/", told["token"], socket)
    except (OSError, ValueError, KeyError, AttributeError):
        return None


class ServerBackend:
    """The back end of a kernel whose Jupyter server has the extension, and serves the same owner.

    Parameters
    ----------
    config : RayOffload
    server : JupyterServer
    """

    def __init__(self, config: RayOffload, server: JupyterServer) -> None:
        self.config = config
        self.server = server
        self.direct = KubernetesBackend(config)
        self._serves: bool | None = None
        self._http: aiohttp.ClientSession | None = None

    def signer(self) -> Signer:
        """See :class:`.ClusterBackend`."""
        return self.direct.signer()

    async def profiles(self) -> tuple[Profile, ...]:
        """See :class:`.ClusterBackend`; the site declares them for server and kernels alike."""
        return await self.direct.profiles()

    async def ensure(self, spec: ClusterSpec, on_change: OnChange | None = None) -> Connection:
        """Let the server make the cluster, and check from here what it gives.

        Raises
        ------
        ClusterStartFailed, ClusterError, StoreError, UsageError
        """

        async def asked() -> Connection:
            wanted = {"name": spec.name, "profile": spec.profile, "options": dict(spec.choices)}
            await self._ask("POST", "clusters", {key: value for key, value in wanted.items() if value})
            return await self._awaited(spec.name, on_change)

        return await self._either(asked, lambda: self.direct.ensure(spec, on_change))

    async def find(self, name: str) -> Connection | None:
        """See :class:`.ClusterBackend`."""

        async def asked() -> Connection | None:
            return self._connection(await self._ask("GET", f"{_path(name)}?connection=true"))

        return await self._either(asked, lambda: self.direct.find(name))

    async def get(self, name: str) -> ClusterInfo:
        """See :class:`.ClusterBackend`."""

        async def asked() -> ClusterInfo:
            return ClusterInfo.from_json(await self._ask("GET", _path(name)))

        return await self._either(asked, lambda: self.direct.get(name))

    async def list(self) -> list[ClusterInfo]:
        """See :class:`.ClusterBackend`."""

        async def asked() -> list[ClusterInfo]:
            found = await self._ask("GET", "clusters")
            return [ClusterInfo.from_json(body) for body in found["clusters"]]

        return await self._either(asked, self.direct.list)

    async def scale(self, name: str, workers: int) -> ClusterInfo:
        """See :class:`.ClusterBackend`."""

        async def asked() -> ClusterInfo:
            return ClusterInfo.from_json(await self._ask("PATCH", _path(name), {"workers": workers}))

        return await self._either(asked, lambda: self.direct.scale(name, workers))

    async def suspend(self, name: str) -> ClusterInfo:
        """See :class:`.ClusterBackend`."""

        async def asked() -> ClusterInfo:
            return ClusterInfo.from_json(await self._ask("POST", f"{_path(name)}/suspend"))

        return await self._either(asked, lambda: self.direct.suspend(name))

    async def resume(self, name: str) -> ClusterInfo:
        """See :class:`.ClusterBackend`."""

        async def asked() -> ClusterInfo:
            return ClusterInfo.from_json(await self._ask("POST", f"{_path(name)}/resume"))

        return await self._either(asked, lambda: self.direct.resume(name))

    async def delete(self, name: str) -> None:
        """Remove the cluster, and return when it is gone.

        Whether jobs may be lost with it, the caller has asked.
        """

        async def asked() -> None:
            body = await self._ask("DELETE", f"{_path(name)}?force=true")
            deadline = time.monotonic() + DELETE
            while body and body["phase"] != ClusterPhase.NONE.value:
                _raise_fault(body)
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"cluster {name!r} is not gone after {DELETE:.0f} s",
                        "%ray cluster shows what it is doing",
                    )
                await asyncio.sleep(STEP)
                body = await self._ask("GET", _path(name))

        return await self._either(asked, lambda: self.direct.delete(name))

    async def watch(self, name: str) -> AsyncIterator[ClusterInfo]:
        """See :class:`.ClusterBackend`; looks every second."""
        last = None
        while True:
            info = await self.get(name)
            if info != last:
                yield info
                last = info
            await asyncio.sleep(LOOK)

    async def aclose(self) -> None:
        """Close the connections; the clusters stay."""
        if self._http is not None:
            await self._http.close()
            self._http = None
        await self.direct.aclose()

    # ------------------------------------------------------------------ a cluster on its way

    async def _awaited(self, name: str, on_change: OnChange | None) -> Connection:
        """Look at the cluster until it can be used from here, or cannot start."""
        last, limit = None, self.config.kubernetes_start_timeout
        deadline = time.monotonic() + limit + ANSWER  # the server gives up first, and says why
        while time.monotonic() < deadline:
            body = await self._patiently(f"{_path(name)}?connection=true")
            _raise_fault(body)
            info = ClusterInfo.from_json(body)
            connection = await self._usable(info, self._connection(body))
            if connection is not None:
                info = connection.info
            if info != last and on_change:
                on_change(info)
            last = info
            if connection is not None:
                return connection
            await asyncio.sleep(STEP)
        raise ClusterStartFailed(
            f"cluster {name!r} is not ready after {limit:.0f} s" + (f": {last.reason}" if last else ""),
            "kubernetes_start_timeout gives it more time; %ray cluster down removes it",
        )

    async def _patiently(self, path: str) -> dict[str, Any]:
        """Look once more where the server is away for a moment: it may be restarting."""
        deadline = time.monotonic() + RESTART
        while True:
            try:
                return await self._ask("GET", path)
            except ServerAway:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(STEP)

    def _connection(self, body: Mapping[str, Any]) -> Connection | None:
        """Read what the server has written for its kernels; a file that is not ours to read is no way."""
        file = body.get("connection")
        if not file:
            return None
        try:
            return read_connection(file)
        except FileNotFoundError:
            raise ServerAway(
                f"the connection file {file} of the Jupyter server is not here",
                "Does this kernel run on another machine? backend settings of its own help there",
            ) from None

    async def _usable(self, info: ClusterInfo, connection: Connection | None) -> Connection | None:
        """Give the way to a cluster if it can be used.

        Where Kubernetes is silent, nobody knows how the cluster is: whether it answers, it says itself.
        """
        if connection is None or not connection.info.address:
            return None
        if info.phase is ClusterPhase.RUNNING:
            return await self._checked(connection)
        if info.phase is not ClusterPhase.UNKNOWN:
            return None
        try:
            return await self._checked(connection)
        except (ClusterRefused, ClusterMismatch):
            raise
        except (ClusterError, StoreUnreachable, asyncio.TimeoutError):
            return None

    async def _checked(self, connection: Connection) -> Connection:
        """Check Ray and the store from here: this kernel may have another Python than its server."""
        limit = self.config.check_timeout
        async with connection.client() as client:
            info = await asyncio.wait_for(check_ray(client, connection.info), limit)
        await check_store(connection, limit)
        return dataclasses.replace(connection, info=info)

    # ------------------------------------------------------------------ the server

    async def _either(self, asked: Callable[[], Awaitable[_T]], direct: Callable[[], Awaitable[_T]]) -> _T:
        """Ask the server; where it cannot serve this kernel, ask Kubernetes."""
        if await self._is_served():
            try:
                return await asked()
            except ServerAway:
                pass  # what has been asked for goes on all the same, and Kubernetes knows of it
        return await direct()

    async def _is_served(self) -> bool:
        """Whether the server has the extension, for this owner, for Kubernetes, and for this Python."""
        if self._serves is None:
            try:
                status = await self._ask("GET", "status")
            except OffloadError:
                return False
            found = (status["cluster"].get("kind"), status["owner"], status.get("python"))
            # The image goes by the Python of whoever makes the cluster.
            self._serves = found == ("kubernetes", self.config.owner, python_version())
        return self._serves

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask the extension; an empty answer is an empty mapping.

        Raises
        ------
        ServerAway
        OffloadError
            What it has refused, as its own class.
        """
        import aiohttp

        url, headers = f"{self.server.url}rayoffload/api/{path}", {}
        if self.server.token:
            headers["Authorization"] = f"token {self.server.token}"
        try:
            client = await self._client()
            async with client.request(method, url, json=body, headers=headers) as answer:
                text, status = await answer.text(), answer.status
            found = json.loads(text) if text else {}
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise ServerAway(
                f"the Jupyter server does not answer: {type(error).__name__}", "Is it still running?"
            ) from None
        if status < 400 and isinstance(found, dict):
            return found
        reason = str(found.get("reason", "")) if isinstance(found, dict) else ""
        if reason not in errors.__all__:  # Jupyter Server has refused it, or has no such path
            raise ServerAway("the Jupyter server does not serve this kernel", "jupyter rayoffload doctor")
        raise errors.by_name(reason, found["message"], found.get("hint", ""))

    async def _client(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._http is None:
            connector = aiohttp.UnixConnector(self.server.socket) if self.server.socket else None
            limits = aiohttp.ClientTimeout(total=ANSWER)
            self._http = aiohttp.ClientSession(connector=connector, timeout=limits, trust_env=False)
        return self._http


def python_version() -> str:
    """Give the minor version of this Python."""
    return ".".join(map(str, sys.version_info[:2]))


def _path(name: str) -> str:
    return f"clusters/{quote(name or 'default', safe='')}"


def _raise_fault(body: Mapping[str, Any]) -> None:
    """Raise why the server could not do what it was asked for."""
    if fault := body.get("fault"):
        raise errors.by_name(fault["reason"], fault["message"], fault.get("hint", ""))
