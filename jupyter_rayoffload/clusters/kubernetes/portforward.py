"""A service's port as a unix socket on this machine, by port-forward through the API server."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ClusterUnreachable, OffloadError
from .api import PODS, SERVICES
from .passage import Passage, hang_up
from .refusals import NotThere

if TYPE_CHECKING:
    import aiohttp

__all__ = ["PortForward"]

log = logging.getLogger(__name__)

_PREFIX, _SOCKET = "rayoffload-forward-", "s"
#: Seconds for which nobody takes a new folder for one that was left.
_YOUNG = 60.0
#: Bytes that are read at once.
_CHUNK = 1 << 18
# First byte of a message.
_DATA, _ERROR = 0, 1


class PortForward:
    """A unix socket that leads to a pod of a service; only this user can reach it.

    Each connection to it is one through the API server, to a pod that is ready then. One that is lost is
    closed here: whoever uses it connects again, and so comes to the pod that is there by then.

    Parameters
    ----------
    passage : Passage
    namespace, name : str
        Of the service.
    port : int
        Of the service.
    """

    def __init__(self, passage: Passage, namespace: str, name: str, port: int) -> None:
        self._passage, self._namespace, self._name, self._port = passage, namespace, name, port
        self._target: tuple[str, int] | None = None
        self._folder, self._lock = Path(), -1
        self._server: asyncio.AbstractServer | None = None
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> Path:
        """Listen, and give the socket; nobody is asked yet."""
        async with self._opening:
            if self._server is None:
                self._folder, self._lock = _private_folder()
                try:
                    self._server = await asyncio.start_unix_server(self._accept, self._folder / _SOCKET)
                except BaseException:
                    self._leave()
                    raise
            return self._folder / _SOCKET

    async def aclose(self) -> None:
        """Stop listening, and cut off who is connected."""
        async with self._opening:
            server, self._server = self._server, None
            if server is None:
                return
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._leave()

    def _leave(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    async def check(self) -> None:
        """See whether the way to the pod is open.

        Raises
        ------
        ClusterUnreachable, ClusterRefused, ClusterError
        """
        await hang_up(await self._connect())

    # ------------------------------------------------------------------ one connection

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._server is None:
                return  # closed before this task has begun
            await self._serve(reader, writer)
        except (OffloadError, OSError) as error:
            log.info("A connection to the service %s has ended: %s", self._name, error)
        except asyncio.CancelledError:
            pass  # asyncio's streams would log it as an error; this is the end of the task
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = await self._connect()
        there = asyncio.ensure_future(_send(reader, connection))
        here = asyncio.ensure_future(_receive(connection, writer))
        try:
            await asyncio.wait({there, here}, return_when=asyncio.FIRST_COMPLETED)
            if here.done():
                self._target = None  # the pod may have ended
                here.result()
        finally:
            there.cancel()
            here.cancel()
            try:
                await asyncio.gather(there, here, return_exceptions=True)
            finally:  # also where this is cancelled while it ends
                await hang_up(connection)

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        """Open a connection to the pod that is known, or to another one if that is gone."""
        known, self._target = self._target, None
        if known is not None:
            with contextlib.suppress(ClusterUnreachable):
                return await self._connect_to(known)
        return await self._connect_to(await self._find())

    async def _connect_to(self, target: tuple[str, int]) -> aiohttp.ClientWebSocketResponse:
        opened = await self._passage.connect(self._namespace, *target)
        self._target = target
        return opened

    async def _find(self) -> tuple[str, int]:
        """Give a pod of the service that is ready, and its port."""
        place = f"the service {self._name} in the namespace {self._namespace}"
        try:
            service = await self._passage.api.get(SERVICES, self._name, self._namespace)
        except NotThere:
            raise ClusterUnreachable(f"{place} is not there", "See store_url in %ray config") from None
        selector = ",".join(f"{k}={v}" for k, v in (service["spec"].get("selector") or {}).items())
        ports = [port for port in service["spec"]["ports"] if port["port"] == self._port]
        if not selector or not ports:
            raise ClusterUnreachable(
                f"{place} " + ("leads to no pods" if ports else f"has no port {self._port}"),
                "Set store_url to an address of the store that this machine reaches",
            )
        pods, _ = await self._passage.api.list(PODS, self._namespace, labelSelector=selector)
        for pod in filter(_ready, pods):
            return pod["metadata"]["name"], _port_of(pod, ports[0].get("targetPort") or self._port)
        raise ClusterUnreachable(
            f"{place} has no pod that is ready", "See them with kubectl get pods; it is tried again"
        )


async def _send(reader: asyncio.StreamReader, connection: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(_CHUNK):
        await connection.send_bytes(bytes((_DATA,)) + data)


async def _receive(connection: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, until it ends.

    Raises
    ------
    ClusterUnreachable
        The node that has the pod says why it has ended.
    """
    from aiohttp import WSMsgType

    ports = {_DATA: True, _ERROR: True}  # whether the first message, which has the port, is still to come
    async for message in connection:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, first = message.data[0], ports.get(message.data[0])
        ports[channel] = False
        data = memoryview(message.data)[3 if first else 1 :]
        if channel == _ERROR and data:
            raise ClusterUnreachable(bytes(data).decode(errors="replace"), "It is tried again")
        if channel == _DATA:
            writer.write(data)
            await writer.drain()


def _ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _port_of(pod: Mapping[str, Any], target: int | str) -> int:
    """Give the number of a port that a service may call by its name."""
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == target:
                return int(port["containerPort"])
    if isinstance(target, str):
        raise ClusterUnreachable(
            f"the pod {pod['metadata']['name']} has no port {target!r}", "Correct the service of the store"
        )
    return target


def _private_folder() -> tuple[Path, int]:
    """Make a folder that nobody else may enter; give it and its lock, which ends with this process."""
    for found in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's
            if time.time() - found.stat().st_mtime > _YOUNG:
                lock = _lock(found)  # so its process was killed
                try:
                    shutil.rmtree(found)
                finally:
                    os.close(lock)
    made = Path(tempfile.mkdtemp(prefix=_PREFIX))  # mode 0700
    return made, _lock(made)


def _lock(folder: Path) -> int:
    """Lock a folder; raises OSError where another process has locked it."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(opened)
        raise
    return opened
