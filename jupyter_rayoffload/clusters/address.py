"""A Ray cluster and a Redis that are there already: they are checked, and neither started nor stopped."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ClusterUnreachable, UsageError
from ..models import ClusterInfo, ClusterPhase
from ..profiles import pick
from . import owner
from .checks import check_ray, check_store, look
from .connection import Connection, read_connection, read_secret

if TYPE_CHECKING:
    from ..config import RayOffload
    from ..models import ClusterSpec, Profile
    from ..remote.signing import Signer
    from ..remote.store import StoreAddress
    from . import OnChange

__all__ = ["AddressBackend", "configured_store", "configured_token"]


class AddressBackend:
    """The back end of a cluster that is given by `ray_address` and `store_url`, or by a connection file.

    Its jobs read the connection file too, so it must be on the cluster's nodes, under the path that is
    configured: a runner that does not find it says so and ends.

    Parameters
    ----------
    config : RayOffload
    """

    def __init__(self, config: RayOffload) -> None:
        self.config = config
        self._connection: Connection | None = None

    def signer(self) -> Signer:
        """See :class:`.ClusterBackend`."""
        return owner.signer(self._configured().key)

    async def ensure(self, spec: ClusterSpec, on_change: OnChange | None = None) -> Connection:
        """Check cluster and store, and give the way to them.

        Raises
        ------
        UsageError
            The configuration is not complete, or a profile is asked for.
        ClusterUnreachable, ClusterRefused, ClusterMismatch
            Ray cannot be used.
        StoreUnreachable, StoreRefused
            The store cannot be used.
        """
        if spec.profile or spec.choices:
            pick((), spec.profile)
        connection = self._configured()
        if on_change:
            reason = f"Connecting to {connection.info.address}"
            on_change(connection.info.replace(phase=ClusterPhase.STARTING, reason=reason))
        limit = self.config.check_timeout
        async with connection.client() as client:
            try:
                info = await asyncio.wait_for(check_ray(client, connection.info), limit)
            except asyncio.TimeoutError:
                raise ClusterUnreachable(
                    f"the cluster at {connection.info.address} has not answered within {limit:g} s",
                    "See whether its head is well; check_timeout gives it more time",
                ) from None
        await check_store(connection, limit)
        self._connection = dataclasses.replace(connection, info=info)
        if on_change:
            on_change(info)
        return self._connection

    async def profiles(self) -> tuple[Profile, ...]:
        """See :class:`.ClusterBackend`: it has the size that somebody gave it."""
        return ()

    async def find(self, name: str = "") -> Connection | None:
        """See :class:`.ClusterBackend`."""
        return self._connection or self._configured()

    async def get(self, name: str = "") -> ClusterInfo:
        """See :class:`.ClusterBackend`."""
        connection = self._connection or self._configured()
        return await look(connection.info, connection.ray_token)

    async def list(self) -> list[ClusterInfo]:
        """See :class:`.ClusterBackend`."""
        return [await self.get()]

    async def scale(self, name: str, workers: int) -> ClusterInfo:
        """Refuse: the cluster is not ours."""
        raise self._not_ours("scaled")

    async def suspend(self, name: str) -> ClusterInfo:
        """Refuse: the cluster is not ours."""
        raise self._not_ours("suspended")

    async def resume(self, name: str) -> ClusterInfo:
        """Refuse: the cluster is not ours."""
        raise self._not_ours("resumed")

    async def delete(self, name: str) -> None:
        """Refuse: the cluster is not ours."""
        raise self._not_ours("stopped")

    async def watch(self, name: str = "") -> AsyncIterator[ClusterInfo]:
        """See :class:`.ClusterBackend`; looks every two seconds."""
        last = None
        while True:
            info = await self.get(name)
            if info != last:
                yield info
                last = info
            await asyncio.sleep(2)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _not_ours(self, what: str) -> UsageError:
        return UsageError(
            f"the cluster at {self._configured().info.address} cannot be {what} from here: it is only used",
            "Do that where it was started",
        )

    def _configured(self) -> Connection:
        """Read what the configuration says, without asking anybody."""
        config = self.config
        if not config.connection_file:
            raise UsageError(
                "a cluster that is given by its address needs a connection_file, which its jobs read too",
                "docs/clusters.md says how to write it; put it on every node, and name it in connection_file",
            )
        file = Path(config.connection_file).expanduser()
        try:
            there = read_connection(file)
        except FileNotFoundError:
            if not (config.ray_address and config.store_url and config.signing_key_file):
                raise UsageError(
                    f"the connection file {file} is not here",
                    "Correct connection_file; if it is on the nodes alone, set ray_address, store_url and "
                    "signing_key_file too",
                ) from None
            return self._without_file(file)
        # What is configured besides is the way to the same cluster from here: nodes may know another one.
        address = (config.ray_address or there.info.address).rstrip("/")
        return dataclasses.replace(
            there,
            info=there.info.replace(kind="address", address=address, dashboard=address),
            store=configured_store(self.config, there.store),
            ray_token=configured_token(self.config) or there.ray_token,
        )

    def _without_file(self, file: Path) -> Connection:
        address = self.config.ray_address.rstrip("/")
        return Connection(
            info=ClusterInfo(kind="address", address=address, dashboard=address),
            store=configured_store(self.config, None),
            owner=self.config.owner,
            key=owner.read_key(Path(self.config.signing_key_file).expanduser()),
            file=file,
            ray_token=configured_token(self.config),
        )


def configured_token(config: RayOffload) -> str:
    """Give Ray's token as the settings say; empty where they say nothing."""
    file = config.ray_token_file
    return _secret(file, "token", "ray_token_file") if file else config.ray_token


def configured_store(config: RayOffload, there: StoreAddress | None) -> StoreAddress:
    """Give the way to the store: what is set goes before what the connection file says, `there`."""
    from ..remote.store import StoreAddress

    file = config.store_password_file
    try:
        return StoreAddress(
            url=config.store_url or (there.url if there else ""),
            username=config.store_username or (there.username if there else ""),
            password=_secret(file, "password", "store_password_file")
            if file
            else (there.password if there else ""),
        )
    except ValueError as error:
        raise UsageError(f"store_url: {error}", "See it in %ray config") from None


def _secret(file: str, what: str, setting: str) -> str:
    try:
        return read_secret(Path(file).expanduser(), what).strip()
    except OSError as error:
        raise UsageError(f"{setting}: {file} cannot be read: {error.strerror}", "Correct the path") from None
