"""What is read from Secrets: Ray's token, and the connection file where this machine has none."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ClusterError, UsageError
from ..connection import Connection, parse_connection
from .api import SECRETS, KubeApi
from .manifest import CONNECTION_FILE
from .refusals import NotThere

if TYPE_CHECKING:
    from ...config import RayOffload
    from ...models import ClusterSpec

__all__ = ["StoreSecret", "secret_text"]

_KEY = Path(CONNECTION_FILE).name


def secret_text(secret: Mapping[str, Any], key: str, hint: str) -> str:
    """Give what a Secret has under `key`.

    Raises
    ------
    ClusterError
        There is no text; `hint` says what to do.
    """
    try:
        return base64.b64decode(secret["data"][key]).decode()
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        raise ClusterError(
            f"the Secret {secret['metadata']['name']} has nothing to read under {key}", hint
        ) from None


class StoreSecret:
    """The connection file as the Secret `store_secret` has it; used where `connection_file` is not set.

    It is held in memory alone.

    Parameters
    ----------
    config : RayOffload
    """

    def __init__(self, config: RayOffload) -> None:
        self._config = config
        self._known: dict[str, Connection] = {}

    def connection(self, spec: ClusterSpec) -> Connection | None:
        """Give its content; None where it is not to be used.

        Asks Kubernetes, and waits, if :meth:`read` has not been called: for the owner's key before there is
        any cluster.
        """
        if not self._applies(spec):
            return None
        if spec.store_secret not in self._known:
            # A loop of its own: whoever calls may be in one, which would not go on meanwhile.
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, self._read_alone(spec)).result()
        return self._known[spec.store_secret]

    async def read(self, api: KubeApi, spec: ClusterSpec, again: bool = True) -> None:
        """Read it where it is to be used; `again` if it is known already.

        Raises
        ------
        UsageError
            There is no such Secret.
        ClusterRefused, ClusterUnreachable, ClusterError, FormatMismatch
        """
        name = spec.store_secret
        if not self._applies(spec) or (name in self._known and not again):
            return
        await api.open()
        try:
            secret = await api.get(SECRETS, name)
        except NotThere:
            raise UsageError(
                f"there is no Secret {name} in the namespace {api.namespace}",
                "Correct store_secret in kubernetes_cluster, or set connection_file",
            ) from None
        text = secret_text(secret, _KEY, "It must hold the connection file: docs/clusters.md")
        self._known[name] = parse_connection(text, Path(CONNECTION_FILE), f"{_KEY} of the Secret {name}")

    def _applies(self, spec: ClusterSpec) -> bool:
        return bool(spec.store_secret) and not self._config.connection_file

    async def _read_alone(self, spec: ClusterSpec) -> None:
        api = KubeApi(self._config.kubeconfig, self._config.namespace)
        try:
            await self.read(api, spec)
        finally:
            await api.aclose()
