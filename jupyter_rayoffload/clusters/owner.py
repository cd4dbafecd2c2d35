"""The owner's signing key, and the errors of the store as people see them; both back ends need them."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import StoreError, StoreRefused, StoreUnreachable, UsageError
from .connection import read_secret

if TYPE_CHECKING:
    from ..remote.signing import Signer
    from .connection import Connection

__all__ = ["check_store", "key_file", "read_key", "signer"]


def key_file(configured: str, default: Path) -> Path:
    """Give the file of the signing key; the default one is made if it is not there.

    Raises
    ------
    UsageError
        The configured file is not there.
    """
    if configured:
        file = Path(configured).expanduser()
        if not file.exists():
            raise UsageError(f"the signing key {file} does not exist", "See signing_key_file in %ray config")
        return file
    if not default.exists():
        default.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=default.parent, prefix=".key-")
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32))
        try:
            os.link(name, default)  # unlike a rename it fails if another kernel was faster: there is one key
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    return default


def read_key(file: Path) -> bytes:
    """Read a signing key.

    Raises
    ------
    ClusterRefused
        Others can read it.
    UsageError
        It is no key.
    """
    text = read_secret(file, "signing key").strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise UsageError(f"{file} does not hold a signing key", "It is one line of 64 hex digits")
    return key


def signer(key: bytes) -> Signer:
    """Give the signer of `key`."""
    from ..remote.signing import Signer

    return Signer(key)


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
        await asyncio.to_thread(ping)
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
