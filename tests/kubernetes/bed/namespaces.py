"""Everything of a bed lives in namespaces of its own: processes, mounts, network, IPC, host name.

So the kernel cleans up: when the first process in them ends, by whatever signal, all others are killed, and
mounts, links, routes and rules go with the namespaces. What it cannot take away is in the file system: the
bed's folder, and control groups. `sweep` does that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .places import HERE, BedError, Place

ROOT = Path(__file__).parents[3]
CGROUPS = Path("/sys/fs/cgroup")
#: Settings of the whole machine that the kubelet would change: it finds them as it wants them.
SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
#: How long processes that are being killed may take to leave their control groups, seconds.
SWEEP_SECONDS = 30


def command_inside(*arguments: str) -> list[str]:
    """Give the command that runs a part of this package as the first process of new namespaces.

    Parameters
    ----------
    *arguments : str
        For ``python -m tests.kubernetes.bed``. The process dies with the thread that starts it.
    """
    tie = ["setpriv", "--pdeathsig", "KILL"]
    kinds = ["--pid", "--mount", "--net", "--ipc", "--uts"]
    unshare = ["unshare", *kinds, "--fork", "--kill-child=KILL", "--mount-proc"]
    # Not by -m: the working directory of whoever starts a bed is not ours to ask for.
    package = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tests.kubernetes.bed import __main__"
    return [*tie, *unshare, sys.executable, "-c", f"{package}; __main__.main()", *arguments]


def mount_own(place: Place | None = None) -> None:
    """Put folders of our own in front of those in which programs leave things; first in new namespaces.

    Parameters
    ----------
    place : Place, optional
        The bed; its folder becomes ``/run/bed``. Without one only ``/run`` is our own.
    """
    if os.getpid() != 1:
        raise BedError("this is for the first process of a namespace only")
    layers = ("var/lib", "var/log")  # CNI's results, logs of pods: what is there stays visible
    if place is not None:
        folder = place.folder
        for name in layers:
            upper, work = folder / "layers" / name, folder / "layers" / f"{name}.work"
            upper.mkdir(parents=True)
            work.mkdir()
            options = f"lowerdir=/{name},upperdir={upper},workdir={work}"
            _run("mount", "-t", "overlay", "bed", "-o", options, f"/{name}")
        descriptor = os.open(folder, os.O_PATH)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "bed", "/run")
    if place is not None:
        HERE.mkdir()
        # By its descriptor: the folder itself may be below /run.
        _run("mount", "--bind", f"/proc/self/fd/{descriptor}", str(HERE), keep=descriptor)
        os.close(descriptor)


def shield_settings() -> None:
    """Put files of our own in front of the machine's settings, so that it keeps them; after `mount_own`."""
    for name, value in SETTINGS.items():
        own = Path("/run/settings") / name
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(value)
        _run("mount", "--bind", str(own), f"/proc/sys/{name}")


def link(place: Place, pid: int) -> None:
    """Link this machine with a bed.

    Parameters
    ----------
    place : Place
        The bed.
    pid : int
        A process in its namespaces.
    """
    _run("ip", "link", "add", place.link, "type", "veth", "peer", "name", "machine", "netns", str(pid))
    _run("ip", "address", "add", f"{place.machine}/24", "dev", place.link)
    _run("ip", "link", "set", place.link, "up")
    _run("ip", "route", "add", str(place.network), "via", place.node, "dev", place.link)


def link_inside(place: Place) -> None:
    """Set up the bed's end of the link, and let it forward."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{place.node}/24", "dev", "machine")
    _run("ip", "link", "set", "machine", "up")
    _run("ip", "route", "add", "default", "via", place.machine)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def make_cgroups(place: Place) -> None:
    """Make the control groups below which the kubelet makes its own."""
    for hierarchy in _hierarchies():
        group = hierarchy / place.link
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):  # version 1: empty, no process may enter
            if (hierarchy / name).exists() and not (group / name).read_text().strip():
                (group / name).write_text((hierarchy / name).read_text())
    control = CGROUPS / "cgroup.subtree_control"
    if control.exists():
        control.write_text("+cpu +cpuset +memory +pids")


def sweep(place: Place) -> None:
    """Remove what a bed leaves in the file system; none of its processes may be alive.

    Parameters
    ----------
    place : Place
        The bed; its lock must be held.
    """
    deadline = time.monotonic() + SWEEP_SECONDS
    while left := [group for group in _hierarchies() if not _removed(group / place.link)]:
        if time.monotonic() > deadline:
            raise BedError(f"{left[0] / place.link} is not empty: a process of an ended bed is still in it")
        time.sleep(0.05)
    shutil.rmtree(place.folder, ignore_errors=True)
    if place.folder.exists():
        raise BedError(f"{place.folder} cannot be removed")


def _hierarchies() -> list[Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and (path / "cgroup.procs").exists()]


def _removed(group: Path) -> bool:
    """Remove a control group with those below it, deepest first; give whether it is gone."""
    if not group.exists():
        return True
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:  # busy
            return False
    return True


def _run(*command: str, keep: int | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, pass_fds=[] if keep is None else [keep])
    if done.returncode:
        raise BedError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
