"""Where a bed keeps its files, and which addresses it has."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

#: How many beds there may be on one machine at once.
BEDS = 8
#: Where each bed finds its own folder, in its own view of the file system: sockets need short paths.
HERE = Path("/run/bed")


class BedError(Exception):
    """The bed cannot be had; the text says why, and what to do."""


def cache() -> Path:
    """Give the folder that outlives every bed: binaries, the image, logs.

    Returns
    -------
    Path
        ``$XDG_CACHE_HOME/jupyter_rayoffload/bed``; made if it is not there.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "jupyter_rayoffload" / "bed"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Let one process at a time do what makes `name` in the cache."""
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Place:
    """The folder, the names and the addresses of one bed.

    Parameters
    ----------
    number : int
        Which of the beds of this machine, below `BEDS`.
    """

    number: int

    @property
    def folder(self) -> Path:
        """What it writes while it lives; removed with it."""
        return cache() / "beds" / str(self.number)

    @property
    def lock(self) -> Path:
        """A file that is locked for as long as the bed lives, however it ends."""
        return cache() / "beds" / f"{self.number}.lock"

    @property
    def log(self) -> Path:
        """What its programs say; kept until the next bed of this number starts."""
        return cache() / "log" / str(self.number)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's way in."""
        return self.folder / "admin.kubeconfig"

    @property
    def link(self) -> str:
        """The network link that leads to it, and the name of its cgroups."""
        return f"rayoffload{self.number}"

    @property
    def network(self) -> IPv4Network:
        """All addresses of the bed."""
        return IPv4Network(f"10.{220 + self.number}.0.0/16")

    @property
    def pods(self) -> IPv4Network:
        """Addresses of pods on the real node."""
        return self._part(0)

    @property
    def simulated_pods(self) -> IPv4Network:
        """Addresses that simulated pods claim to have."""
        return self._part(253)

    @property
    def services(self) -> IPv4Network:
        """Addresses of services."""
        return self._part(254)

    @property
    def link_network(self) -> IPv4Network:
        """Both ends of the link."""
        return self._part(255)

    @property
    def machine(self) -> str:
        """This machine, as the bed sees it: what listens here is reached from pods."""
        return str(self.link_network[1])

    @property
    def node(self) -> str:
        """The bed's end of the link: the real node, the API server and the name server."""
        return str(self.link_network[2])

    @property
    def api(self) -> str:
        """The address of the API server."""
        return f"https://{self.node}:6443"

    def _part(self, third: int) -> IPv4Network:
        return IPv4Network(f"10.{220 + self.number}.{third}.0/24")
