"""The owner's signing key, and the errors of the store as people see them; both back ends need them."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .connection import read_secret

if TYPE_CHECKING:
    from ..remote.signing import Signer

__all__ = ["key_file", "read_key", "signer"]


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
