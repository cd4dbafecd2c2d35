"""A bed leaves nothing behind, even if whoever started it is killed, and its supervisor too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from kubernetes import client, config

from tests.kubernetes.bed import Bed, supervisor
from tests.kubernetes.bed.image import ray_image
from tests.kubernetes.bed.namespaces import CGROUPS, ROOT, SETTINGS
from tests.kubernetes.bed.places import Place
from tests.kubernetes.ground import until

#: A run of tests that starts a bed and is in the middle of something.
RUN = """
import time
from tests.kubernetes.bed import Bed
print(Bed.start(say=lambda _: None).place.number, flush=True)
time.sleep(3600)
"""
#: Where the programs of a bed write when nobody tells them otherwise.
OUTSIDE = [
    Path(path)
    for path in (
        "/opt/containerd /run/containerd /run/netns /run/flannel /run/xtables.lock "
        "/var/lib/cni /var/lib/kubelet /var/lib/containerd /var/log/pods /var/log/containers "
        "/etc/cni/net.d /etc/kubernetes /usr/libexec/kubernetes"
    ).split()
]
#: How long all may take to go, seconds.
END_SECONDS = 60


@dataclass(frozen=True)
class Traces:
    """What of a bed is to be seen on this machine."""

    links: set[str]
    routes: set[str]
    mounts: set[str]
    rules: set[str]
    cgroups: set[Path]
    folders: set[Path]
    settings: dict[str, str]

    @classmethod
    def of(cls, place: Place) -> Traces:
        """Look for them."""
        prefix = str(place.network.network_address).removesuffix("0.0")
        return cls(
            links=_lines("ip", "-oneline", "link", having=place.link),
            routes=_lines("ip", "route", having=prefix) | _lines("ip", "address", having=prefix),
            mounts={line for line in _read("/proc/self/mountinfo") if str(place.folder) in line},
            rules=_lines("iptables-save", having=prefix) | _lines("iptables-save", having="KUBE-"),
            cgroups={path for path in CGROUPS.glob("**/" + place.link)},
            folders={path for path in (place.folder, *OUTSIDE) if path.exists()},
            settings={name: Path("/proc/sys", name).read_text() for name in SETTINGS},
        )


def _read(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _lines(*command: str, having: str) -> set[str]:
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line for line in text.splitlines() if having in line}


@dataclass(frozen=True)
class Run:
    """A run that has started a bed, and what belongs to it."""

    process: subprocess.Popen[str]
    bed: Bed
    before: Traces

    @property
    def owner(self) -> psutil.Process:
        """The supervisor."""
        pid = supervisor.owner(self.bed.place)
        assert pid is not None
        return psutil.Process(pid)


@pytest.fixture
def run() -> Iterator[Run]:
    """Start one, with a real pod in its bed."""
    supervisor.sweep_all()
    before = {place: Traces.of(place) for place in supervisor.all_places()}
    command = [sys.executable, "-c", RUN]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        bed = Bed(Place(int(process.stdout.readline())))
        _start_pod(bed)
        yield Run(process, bed, before[bed.place])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _start_pod(bed: Bed) -> None:
    with config.new_client_from_config(str(bed.kubeconfig)) as admin:
        core = client.CoreV1Api(admin)
        container = {"name": "sleeper", "image": ray_image(), "command": ["sleep", "3600"]}
        core.create_namespaced_pod(
            "default", {"metadata": {"name": "pod"}, "spec": {"containers": [container]}}
        )
        until(lambda: core.read_namespaced_pod("pod", "default").status.phase == "Running", "a pod")


@pytest.mark.parametrize("supervisor_too", [False, True], ids=["run", "run-and-supervisor"])
def test_nothing_is_left_of_a_killed_run(run: Run, supervisor_too: bool) -> None:
    place, owner = run.bed.place, run.owner
    processes = [owner, *owner.children(recursive=True)]
    names = {process.name() for process in processes}
    assert {"kube-apiserver", "kubelet", "containerd", "kube-proxy", "sleep"} <= names
    kernel_name = os.readlink(f"/proc/{next(p for p in processes if p.name() == 'sleep').pid}/ns/net")
    there = Traces.of(place)
    assert there.links and there.routes and there.cgroups and place.folder in there.folders
    # These are the bed's own from the beginning.
    assert not there.mounts and not there.rules and there.settings == run.before.settings

    if supervisor_too:
        os.kill(owner.pid, signal.SIGSTOP)  # so that it cannot tidy up first
        run.process.kill()
        os.kill(owner.pid, signal.SIGKILL)
    else:
        run.process.kill()
    _, alive = psutil.wait_procs(processes, END_SECONDS)
    assert not alive
    assert kernel_name not in {_namespace(process) for process in psutil.process_iter()}
    until(lambda: place not in supervisor.living(), "its lock is free", END_SECONDS)
    if supervisor_too:
        supervisor.sweep_all()  # as the next bed does, and `make kube-down`
    left = Traces.of(place)
    assert left == run.before


def _namespace(process: psutil.Process) -> str:
    try:
        return os.readlink(f"/proc/{process.pid}/ns/net")
    except OSError:  # it has just ended
        return ""
