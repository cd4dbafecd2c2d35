"""Clusters and store, as they are reached from outside of the Kubernetes: through its API server alone."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from ...errors import UsageError
from ...remote.store import StoreAddress
from .api import ACCOUNT, KubeApi
from .passage import Passage, ServiceProxy
from .portforward import PortForward

if TYPE_CHECKING:
    from ...config import RayOffload

__all__ = ["Outside", "is_outside"]

#: A service's name for pods: NAME.NAMESPACE.svc, with or without the domain of the cluster.
_SERVICE = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\..+)?")
_REDIS = 6379


def is_outside(config: RayOffload) -> bool:
    """Whether this process is not in the network of the pods, or is to act as if it were not."""
    if config.kubernetes_reach == "auto":
        return not (os.environ.get("KUBERNETES_SERVICE_HOST") or ACCOUNT.exists())
    return config.kubernetes_reach == "proxy"


class Outside:
    """The ways from here to what is in the Kubernetes.

    Parameters
    ----------
    api : KubeApi
    """

    def __init__(self, api: KubeApi) -> None:
        self._passage = Passage(api)
        self._forwards: dict[tuple[str, str, int], PortForward] = {}

    def ray(self, cluster: Mapping[str, Any]) -> ServiceProxy:
        """Give the way to Ray's dashboard from a RayCluster."""
        metadata = cluster["metadata"]
        return ServiceProxy(self._passage, metadata["namespace"], f"{metadata['name']}-head-svc", 8265)

    async def store(self, address: StoreAddress) -> StoreAddress:
        """Give the way from here to a store, which is another one if its address is that of a service.

        Raises
        ------
        UsageError
            It speaks TLS, whose certificate is for another name than there is here.
        """
        if (place := _service(address)) is None:
            return address
        parts = urlsplit(address.url)
        if parts.scheme == "rediss":
            raise UsageError(
                f"the store at {address} speaks TLS, and is not reached by port-forward",
                "Set store_url to an address of it that this machine reaches",
            )
        path = await self._forward(place).open()
        db = parts.path.strip("/") or parse_qs(parts.query).get("db", ["0"])[0]
        return dataclasses.replace(address, url=f"unix://{path}?db={db}", shown=str(address))

    async def check_store(self, address: StoreAddress) -> None:
        """See whether the way to a store is open: what is wrong with it, Redis' client cannot tell.

        Raises
        ------
        ClusterUnreachable, ClusterRefused, ClusterError
        """
        if (place := _service(address)) is not None:
            await self._forward(place).check()

    async def aclose(self) -> None:
        """Close all ways."""
        await asyncio.gather(*(forward.aclose() for forward in self._forwards.values()))
        await self._passage.aclose()

    def _forward(self, place: tuple[str, str, int]) -> PortForward:
        name, namespace, port = place
        if place not in self._forwards:
            self._forwards[place] = PortForward(self._passage, namespace, name, port)
        return self._forwards[place]


def _service(address: StoreAddress) -> tuple[str, str, int] | None:
    """Give name, namespace and port of the service that is the store; None if it is none."""
    parts = urlsplit(address.url)
    found = _SERVICE.fullmatch(parts.hostname or "")
    return (found[1], found[2], parts.port or _REDIS) if found else None
