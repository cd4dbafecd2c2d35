"""What the bed needs of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .places import BedError

#: Debian package: a file that says that it is there.
PACKAGES = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "/usr/sbin/iptables",
    "iproute2": "/sbin/ip",
    "util-linux": "/usr/bin/setpriv",
    "libc-bin": "/usr/bin/ldd",
    "redis-server": "/usr/bin/redis-server",
    "redis-tools": "/usr/bin/redis-cli",
}
#: Those that a bed with simulated nodes alone does with.
REAL_NODES_ONLY = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "libc-bin",
    "redis-server",
    "redis-tools",
)


def missing(real_nodes: bool = True) -> list[str]:
    """Give the Debian packages that are not there.

    Parameters
    ----------
    real_nodes : bool
        Whether pods are to run.
    """
    wanted = {p: f for p, f in PACKAGES.items() if real_nodes or p not in REAL_NODES_ONLY}
    return [package for package, file in wanted.items() if not Path(file).exists()]


def provide(real_nodes: bool = True) -> None:
    """Install what is missing.

    Parameters
    ----------
    real_nodes : bool
        Whether pods are to run.

    Raises
    ------
    BedError
        If this is not Linux's root, or something cannot be installed; it says what to install.
    """
    if os.name != "posix" or os.geteuid():
        raise BedError("the bed makes namespaces, links and control groups: run it as root, on Linux")
    if not (packages := missing(real_nodes)):
        return
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    advice = f"install {' '.join(packages)} (the names are Debian's)"
    if not shutil.which("apt-get"):
        raise BedError(advice)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update", "-qq"], command):
        done = subprocess.run(step, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise BedError(f"{advice}: apt-get could not\n{done.stderr[-2000:]}")
