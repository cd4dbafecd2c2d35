"""The runner's credentials: a file that only its owner can read, never argv or the environment."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field

from .signing import Signer
from .store import Store, StoreAddress

__all__ = ["CONNECTION_VARIABLE", "BadConnectionFile", "Connection", "read_connection"]

#: Names the file; its content is described in docs/architecture.md.
CONNECTION_VARIABLE = "RAYOFFLOAD_CONNECTION_FILE"


class BadConnectionFile(Exception):
    """The connection file is missing, unreadable, readable by others, or not one."""


@dataclass(frozen=True)
class Connection:
    """What a runner needs in order to reach the store.

    Parameters
    ----------
    owner : str
    key : bytes
        The owner's signing key.
    address : StoreAddress
    """

    owner: str
    key: bytes = field(repr=False)
    address: StoreAddress

    @property
    def signer(self) -> Signer:
        """What signs and checks with the owner's key."""
        return Signer(self.key)

    def open_store(self, patience: float) -> Store:
        """Give a store of this owner; nothing is connected before its first use.

        Parameters
        ----------
        patience : float
            Seconds for which each call bears a store that does not answer.
        """
        return Store(self.address, self.owner, self.signer, patience=patience)


def read_connection(path: str | None = None) -> Connection:
    """Read the connection file.

    Parameters
    ----------
    path : str, optional
        By default what the environment variable :data:`CONNECTION_VARIABLE` says.

    Raises
    ------
    BadConnectionFile
    """
    path = path or os.environ.get(CONNECTION_VARIABLE, "")
    if not path:
        raise BadConnectionFile(
            f"{CONNECTION_VARIABLE} is not set, so this runner knows no store. "
            "Set it in the environment of the cluster's Ray processes, to the path of the connection file"
        )
    try:
        with open(path, encoding="utf-8") as file:
            others = os.fstat(file.fileno()).st_mode & stat.S_IRWXO
            data = json.load(file)
        address = StoreAddress.from_connection(data)
        connection = Connection(data["owner"], bytes.fromhex(data["key"]), address)
    except OSError as error:
        raise BadConnectionFile(
            f"the connection file {path} cannot be read: {error.strerror}. "
            "It must be on every node that runs jobs, readable by the user that Ray runs as"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadConnectionFile(
            f"{path} is not a connection file: {error!r}. Let jupyter_rayoffload write it again"
        ) from None
    if others:
        raise BadConnectionFile(
            f"the connection file {path} holds secrets and is open to every user of this machine: "
            f"chmod o= {path} (for a mounted Secret, set its defaultMode to 0440)"
        )
    return connection
