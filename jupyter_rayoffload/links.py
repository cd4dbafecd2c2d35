"""The open ways to one owner's clusters: shared by all jobs, and opened anew when they lead nowhere."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .link import Link, Opener
from .models import ClusterInfo, ClusterSpec

if TYPE_CHECKING:
    from .clusters import ClusterBackend, Connection
    from .config import RayOffload

__all__ = ["Links"]


class Links:
    """Opens ways and keeps them, by the name of the cluster.

    Parameters
    ----------
    backend : ClusterBackend
    config : RayOffload
    opener : callable
        Opens one way, as :func:`.open_link` does.
    """

    def __init__(self, backend: ClusterBackend, config: RayOffload, opener: Opener) -> None:
        self.backend, self.config, self.opener = backend, config, opener
        self._used: dict[str, Link] = {}  # to clusters that jobs were sent to
        self._found: dict[str, Link] = {}  # for those who only look
        # Of each name: who starts one cluster does not keep others waiting.
        self._connecting: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._opening = asyncio.Lock()

    async def connect(
        self,
        cluster: str = "",
        profile: str = "",
        on_change: Callable[[ClusterInfo], None] | None = None,
        choices: Mapping[str, Any] | None = None,
    ) -> Link:
        """Give the way to a cluster, which is made where there is none.

        Raises
        ------
        UsageError
            The cluster of that name has another profile, or other choices.
        ClusterError, StoreError
        """
        spec = ClusterSpec(name=cluster or "default", profile=profile, choices=choices or {})
        name = spec.name
        async with self._connecting[name]:
            link = self._used.get(name)
            # Of a cluster of another size, the back end knows what it is now.
            same = link and not choices and profile in ("", link.info.profile)
            if link and same and (link.answered() or await link.answers()):
                return link
            connection = await self.backend.ensure(spec, on_change)
            self._used[name] = opened = await self.opener(connection, self.config)
            if link:
                await link.aclose()
            return opened

    async def reach(self, cluster: str = "") -> Link:
        """Give the way to a store; its cluster is started only where the store is a part of it.

        Raises
        ------
        ClusterError, StoreError
        """
        name = cluster or "default"
        link = self._used.get(name)
        if link is not None and (link.info.kind == "kubernetes" or link.answered()):
            return link  # of a Kubernetes the store is there, whatever has become of the cluster
        connection = await self.backend.find(name)
        if connection is None or connection.info.address:
            return await self.connect(name)
        return await self._look(name, connection)

    async def find(self, name: str) -> Link | None:
        """Give the way to a store, and to its cluster if that runs; nothing is started.

        Returns
        -------
        Link or None
            None where the store is a part of a cluster that does not run.

        Raises
        ------
        ClusterError, StoreError
        """
        connection = await self.backend.find(name)
        return None if connection is None else await self._look(name, connection)

    async def _look(self, name: str, connection: Connection) -> Link:
        async with self._opening:
            known = self._found.get(name)
            if known is not None and known.connection.leads_to(connection):
                return known
            self._found[name] = opened = await self.opener(connection, self.config)
            if known is not None:
                await known.aclose()
            return opened

    def used(self, cluster: str) -> Link | None:
        """Give the way that jobs were sent by; None before that, and after :meth:`close`."""
        return self._used.get(cluster or "default")

    async def close(self, name: str) -> None:
        """Close the ways to one cluster."""
        for links in (self._used, self._found):
            if (link := links.pop(name, None)) is not None:
                await link.aclose()

    async def aclose(self) -> None:
        """Close all ways; clusters and jobs go on."""
        for name in {*self._used, *self._found}:
            await self.close(name)
