"""Clusters: the embedded Ray of this machine, one on Kubernetes, or one that is there already.

Each back end is bound to one owner and does what :class:`ClusterBackend` says.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from ..errors import OffloadError
from .connection import Connection, read_connection

if TYPE_CHECKING:
    from ..config import RayOffload
    from ..models import ClusterInfo, ClusterSpec, Profile
    from ..remote.signing import Signer

__all__ = ["ClusterBackend", "Connection", "OnChange", "open_backend"]

#: Told of every change while a cluster comes up.
OnChange = Callable[["ClusterInfo"], None]


class ClusterBackend(Protocol):
    """What can be done with the clusters of one owner."""

    def signer(self) -> Signer:
        """Give the owner's signer, which needs no cluster yet."""

    async def ensure(self, spec: ClusterSpec, on_change: OnChange | None = None) -> Connection:
        """Make the cluster where there is none, wait until it and its store answer, give the way to them.

        One that is there, of another profile or other choices than `spec` names, is refused.
        """

    async def profiles(self) -> tuple[Profile, ...]:
        """Give the named sizes that clusters may have; none where there is nothing to choose."""

    async def find(self, name: str) -> Connection | None:
        """Give the way to a store, and to the cluster if that seems to run; nothing is started or kept alive.

        Without a cluster its information has no address. Where the store ends with the cluster, this is None.
        """

    async def get(self, name: str) -> ClusterInfo:
        """Look at one cluster; one that does not exist has the phase ``none``."""

    async def list(self) -> list[ClusterInfo]:
        """Look at all clusters that exist."""

    async def scale(self, name: str, workers: int) -> ClusterInfo:
        """Give the cluster so many workers."""

    async def suspend(self, name: str) -> ClusterInfo:
        """Stop what costs, and keep what is needed to resume."""

    async def resume(self, name: str) -> ClusterInfo:
        """Take back :meth:`suspend`."""

    async def delete(self, name: str) -> None:
        """Remove the cluster, and wait until it is gone."""

    def watch(self, name: str) -> AsyncIterator[ClusterInfo]:
        """Yield the cluster as it is now, and again whenever it has changed."""

    async def aclose(self) -> None:
        """Close connections; the clusters stay."""


def open_backend(config: RayOffload) -> ClusterBackend:
    """Choose the back end that `config` asks for.

    Raises
    ------
    ClusterStartFailed
        This is a Kubernetes pod without a cluster in its configuration.
    """
    if config.backend == "kubernetes" or (config.backend == "auto" and _kubernetes_pod(config)):
        return _on_kubernetes(config)
    given = bool(config.ray_address or config.connection_file)
    if config.backend == "address" or (config.backend == "auto" and given):
        from .address import AddressBackend

        return AddressBackend(config)
    if config.backend == "auto" and os.environ.get("KUBERNETES_SERVICE_HOST"):
        # A Ray inside a small notebook pod would get the pod killed, with everything that is in it.
        from .kubernetes.backend import no_rights

        raise no_rights("ask Kubernetes for anything: it has no token")
    from .embedded.backend import LocalBackend

    return LocalBackend(config)


def _on_kubernetes(config: RayOffload) -> ClusterBackend:
    """Choose who asks Kubernetes: in a pod the Jupyter server, if this is one of its kernels."""
    from .kubernetes.backend import KubernetesBackend
    from .server import ServerBackend, server_of_this_kernel

    if config.through_server and os.environ.get("KUBERNETES_SERVICE_HOST"):
        server = server_of_this_kernel()
        if server is not None:
            return ServerBackend(config, server)
    return KubernetesBackend(config)


def _kubernetes_pod(config: RayOffload) -> bool:
    """Whether this is a pod with a service account, and no cluster is given that is there already.

    What the account may do is asked when a cluster is wanted: it takes a request.
    """
    if not os.environ.get("KUBERNETES_SERVICE_HOST") or config.ray_address:
        return False
    from .kubernetes.api import ACCOUNT

    return (ACCOUNT / "token").exists() and not _has_ray(config.connection_file)


def _has_ray(file: str) -> bool:
    """Whether a connection file says where a Ray is, and not only where the store is."""
    if not file:
        return False
    try:
        return bool(read_connection(os.path.expanduser(file)).info.address)
    except (OffloadError, OSError):
        return True  # the back end of addresses says what is wrong with it
