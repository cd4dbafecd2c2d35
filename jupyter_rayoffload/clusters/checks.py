"""Whether a Ray and a store that are there can be used from here, and what they say of themselves."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from ..errors import (
    ClusterError,
    ClusterMismatch,
    ClusterRefused,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from ..models import ClusterInfo, ClusterPhase
from ..threads import in_store_thread
from .owner import signer

if TYPE_CHECKING:
    from ..rayapi import RayClient
    from ..transport import Transport
    from .connection import Connection

__all__ = ["MINIMUM_RAY", "check_ray", "check_store", "look"]

#: The first version with token authentication that works for jobs.
MINIMUM_RAY = (2, 52)


async def check_ray(client: RayClient, info: ClusterInfo) -> ClusterInfo:
    """Give `info` with what the cluster says of itself.

    Raises
    ------
    ClusterMismatch
        Values cannot cross between this Python, or this package, and the cluster.
    ClusterUnreachable, ClusterRefused, ClusterError
    """
    version = await client.version()
    ray, session = version.get("ray_version", ""), version.get("session_name", "")
    if _numbers(ray) < MINIMUM_RAY:
        raise ClusterMismatch(
            f"the cluster at {client.address} has Ray {ray}, which is too old",
            f"It needs Ray {'.'.join(map(str, MINIMUM_RAY))} or newer",
        )
    python = ".".join((await client.python_version() or info.python).split(".")[:2])
    here = ".".join(map(str, sys.version_info[:2]))
    if python and python != here:
        raise ClusterMismatch(
            f"the cluster at {client.address} has Python {python}, this notebook has {here}, and pickled "
            "code cannot pass between them",
            f"Use rayproject/ray:{ray}-py{here.replace('.', '')}, or a notebook with Python {python}",
        )
    try:
        status = await client.cluster_status()
        nodes, resources, used = status.nodes, status.resources, status.used
    except ClusterError as error:
        if isinstance(error, ClusterRefused):
            raise
        nodes, resources, used = 0, {}, {}  # what it has is good to know, and not needed
    return info.replace(
        phase=ClusterPhase.RUNNING,
        session=session,
        ray=ray,
        python=python,
        nodes=nodes,
        resources=resources,
        used=used,
    )


async def look(info: ClusterInfo, token: str, transport: Transport | None = None) -> ClusterInfo:
    """Give what Ray says of its resources now.

    Parameters
    ----------
    info : ClusterInfo
        With the address.
    token : str
    transport : Transport, optional
        As in :class:`.Connection`.
    """
    from ..rayapi import RayClient

    try:
        async with RayClient(info.address, token, transport) as client:
            session = (await client.version())["session_name"]
            status = await client.cluster_status()
    except ClusterError as error:
        return info.replace(phase=ClusterPhase.UNKNOWN, reason=error.message, session="")
    return info.replace(session=session, resources=status.resources, used=status.used, nodes=status.nodes)


async def check_store(connection: Connection, timeout: float = 10.0) -> None:
    """Ask the store for a sign of life.

    Parameters
    ----------
    connection : Connection
    timeout : float
        Seconds that its answer may take.

    Raises
    ------
    StoreUnreachable, StoreRefused
    """
    from ..remote.store import Store, StoreDown, StoreNoAuth

    def ping() -> None:
        address, key = connection.store, connection.key
        store = Store(address, connection.owner, signer(key), patience=1.0, timeout=timeout)
        try:
            store.ping()
        finally:
            store.close()

    try:
        await in_store_thread(ping)
    except StoreNoAuth as error:
        raise StoreRefused(
            str(error), "Set store_password_file to the file that holds its password"
        ) from None
    except StoreDown as error:
        raise StoreUnreachable(
            str(error), "See store_url in %ray config, and whether Redis runs there"
        ) from None
    except Exception as error:  # redis-py lets some errors of the network through
        raise StoreError(f"the store at {connection.store} cannot be used: {error}") from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])
