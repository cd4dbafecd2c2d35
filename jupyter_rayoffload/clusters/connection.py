"""The connection file: what a kernel or runner needs to reach cluster and store, for its owner alone."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ClusterRefused, FormatMismatch
from ..models import ClusterInfo

if TYPE_CHECKING:
    from ..rayapi import RayClient
    from ..remote.store import StoreAddress
    from ..transport import Transport

__all__ = ["VERSION", "Connection", "parse_connection", "read_connection", "read_secret", "write_private"]

#: Version of the file's content.
VERSION = 1


@dataclass(frozen=True)
class Connection:
    """All that is needed to use a cluster and its store.

    Parameters
    ----------
    info : ClusterInfo
        The cluster when the connection was made.
    store : StoreAddress
    owner : str
    key : bytes
        The owner's signing key.
    file : Path
        The file with the same content; its path on the cluster's nodes goes to runners.
    ray_token : str
        Empty for a cluster that asks for none.
    gcs : str
        ``HOST:PORT`` of the head for ``ray.init``; empty where it is not known.
    transport : Transport, optional
        The way to Ray from this process, if it does not lead straight to the address.
    """

    info: ClusterInfo
    store: StoreAddress = field(repr=False)
    owner: str
    key: bytes = field(repr=False)
    file: Path
    ray_token: str = field(default="", repr=False)
    gcs: str = ""
    transport: Transport | None = field(default=None, repr=False, compare=False)

    def client(self) -> RayClient:
        """Give a client of Ray's Jobs API; whoever takes it closes it."""
        from ..rayapi import RayClient

        return RayClient(self.info.address, self.ray_token, self.transport)

    def to_json(self) -> dict[str, Any]:
        """Give the content of the connection file: it holds secrets."""
        return {
            "version": VERSION,
            "owner": self.owner,
            "key": self.key.hex(),
            "store": self.store.to_connection(),
            "ray": {"address": self.info.address, "token": self.ray_token, "gcs": self.gcs},
            "python": self.info.python,
            "ray_version": self.info.ray,
            "cluster": self.info.to_json(),
        }

    def leads_to(self, other: Connection) -> bool:
        """Whether this is the way to the same cluster and store, whatever they do there."""
        mine, theirs = (replace(c, info=ClusterInfo(address=c.info.address)) for c in (self, other))
        return mine == theirs

    def hand_over(self, file: Path) -> None:
        """Write what :func:`read_connection` reads as this very connection, in one step.

        Parameters
        ----------
        file : Path
            For other processes of the owner on this machine; :attr:`file` stays what runners read.
        """
        write_private(file, json.dumps({**self.to_json(), "file": str(self.file)}, indent=1))

    def write(self) -> None:
        """Write the connection file, in one step."""
        write_private(self.file, json.dumps(self.to_json(), indent=1))


def read_connection(file: str | Path) -> Connection:
    """Read a connection file.

    Raises
    ------
    FileNotFoundError
        There is none.
    ClusterRefused
        Somebody else could have written or read it.
    FormatMismatch
        This version cannot read it.
    """
    return parse_connection(read_secret(file, "connection file"), Path(file))


def parse_connection(text: str, file: Path, source: str = "") -> Connection:
    """Read the content of a connection file.

    Parameters
    ----------
    text : str
    file : Path
        The file with the same content.
    source : str
        What the text comes from, if not from that file.

    Raises
    ------
    FormatMismatch
        This version cannot read it.
    """
    from ..remote.store import StoreAddress

    try:
        data: Mapping[str, Any] = json.loads(text)
        if data["version"] != VERSION:
            raise ValueError(f"its version is {data['version']}, not {VERSION}")
        info = ClusterInfo.from_json(
            {
                "address": data["ray"]["address"],
                "python": data.get("python", ""),
                "ray": data.get("ray_version", ""),
                **data.get("cluster", {}),
            }
        )
        return Connection(
            info=info,
            store=StoreAddress.from_connection(data),
            owner=data["owner"],
            key=bytes.fromhex(data["key"]),
            file=Path(data.get("file") or file),
            ray_token=data["ray"].get("token", ""),
            gcs=data["ray"].get("gcs", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatMismatch(
            f"{source or file} is not a connection file that this version can read: "
            f"{type(error).__name__} {error}",
            "docs/clusters.md says what is in it"
            if source
            else "Let the cluster write it anew: %ray cluster down, then %ray cluster up",
        ) from None


def read_secret(file: str | Path, what: str) -> str:
    """Read a file that only its owner may have written and read.

    Parameters
    ----------
    file : str or Path
    what : str
        What the file is, for the message: ``connection file``.

    Raises
    ------
    FileNotFoundError
        There is none.
    ClusterRefused
        It belongs to somebody else, or others may read or write it.
    """
    with open(file, encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())  # of what was opened: the name may mean another file by now
        # Kubernetes mounts Secrets as root for a group of the pod: its owner is not us.
        if status.st_uid not in (os.getuid(), 0):
            raise ClusterRefused(
                f"the {what} {file} belongs to user {status.st_uid}, not to you",
                "Remove it, or set JUPYTER_RUNTIME_DIR to a directory of your own",
            )
        if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP) or (
            status.st_uid == os.getuid() and status.st_mode & stat.S_IRWXG
        ):
            raise ClusterRefused(
                f"the {what} {file} is open to others (mode {stat.S_IMODE(status.st_mode):04o})",
                f"Let only its owner read it: chmod 600 {file}",
            )
        return stream.read()


def write_private(file: Path, text: str) -> None:
    """Write `file` so that only we can read it, and nobody ever sees half of it."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(name, file)
    except BaseException:
        os.unlink(name)
        raise
