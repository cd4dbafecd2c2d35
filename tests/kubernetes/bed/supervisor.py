"""The process that owns a bed: makes its namespaces, watches for whom it is there, and removes all of it.

Three things make sure of the end. The supervisor ends the bed when the process that asked for it ends. When
it is itself killed, the kernel kills the bed's first process and all others with it. And what neither could
remove then, files and control groups, goes with the next bed, or ``down``: a bed whose lock is free is
dead.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from typing import IO

import psutil

from . import certificates, namespaces
from .namespaces import sweep
from .places import BEDS, BedError, Place

#: How long processes may take to die, seconds.
END_SECONDS = 30


@contextmanager
def locked(place: Place) -> Iterator[IO[str] | None]:
    """Hold a bed's lock; give nothing if it lives."""
    place.lock.parent.mkdir(parents=True, exist_ok=True)
    with place.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield lock


def all_places() -> list[Place]:
    """Give all beds that there may be on this machine."""
    return [Place(number) for number in range(BEDS)]


def living() -> list[Place]:
    """Give the beds that live."""
    found = []
    for place in all_places():
        if place.lock.exists():
            with locked(place) as lock:
                if lock is None:
                    found.append(place)
    return found


def sweep_all() -> None:
    """Remove what beds have left that were killed together with their supervisors."""
    for place in all_places():
        if place.lock.exists():
            with locked(place) as lock:
                if lock is not None:
                    sweep(place)


def owner(place: Place) -> int | None:
    """Give the supervisor of a living bed."""
    with locked(place) as lock:
        return None if lock is not None else int((place.folder / "supervisor.pid").read_text())


def end(place: Place) -> None:
    """Let the supervisor of a bed remove it, and wait for that."""
    try:
        pid = owner(place)
        if pid is None:
            return
        descriptor = os.pidfd_open(pid)
    except (FileNotFoundError, ProcessLookupError):
        return
    try:
        if owner(place) == pid:  # so it has not ended in between, and the number is nobody else's
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], END_SECONDS * 2)[0]:
            raise BedError(f"bed {place.number} does not end: look at its supervisor, process {pid}")
    finally:
        os.close(descriptor)


def supervise(watched: int, real_nodes: bool) -> None:
    """Run a bed until it is not wanted any more; say on stdout when it is ready, or why it cannot be.

    Parameters
    ----------
    watched : int
        The process with which it ends; 0 for none: it ends by SIGTERM.
    real_nodes : bool
        Whether it has a node that runs pods.
    """
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    ends = [wake]
    if watched:
        ends.append(os.pidfd_open(watched))
        if os.getppid() != watched:  # it has ended before we could look
            return
    sweep_all()
    for place in all_places():
        with locked(place) as lock:
            if lock is not None and _free(place.network):
                _run(place, lock, ends, real_nodes)
                return
    _say({"error": f"there are {BEDS} beds on this machine already, or their networks are in use"})


def _free(network: IPv4Network) -> bool:
    """Give whether nothing on this machine leads to a network."""
    text = subprocess.run(["ip", "-json", "route"], capture_output=True, check=True).stdout
    routes = [route["dst"] for route in json.loads(text) if route["dst"] != "default"]
    return not any(IPv4Network(route, strict=False).overlaps(network) for route in routes)


def _run(place: Place, lock: IO[str], ends: list[int], real_nodes: bool) -> None:
    sweep(place)
    place.folder.mkdir(parents=True, mode=0o700)
    (place.folder / "supervisor.pid").write_text(str(os.getpid()))
    if len(ends) == 1:  # by SIGTERM only: it is there for all runs of this copy of the project
        (place.folder / "stays").write_text(str(namespaces.ROOT))
    shutil.rmtree(place.log, ignore_errors=True)
    place.log.mkdir(parents=True)
    process = None
    try:
        certificates.write_all(place)
        namespaces.make_cgroups(place)
        process = _first_process(place, lock, real_nodes)
        seconds = _ready(process, ends, place)
        if seconds is None:
            return
        _say({"number": place.number, "seconds": seconds})
        _hush(place)
        select.select([*ends, os.pidfd_open(process.pid)], [], [])
    except (BedError, OSError) as error:
        _say({"error": str(error)})
    finally:
        if process is not None:
            _kill(process)
        sweep(place)


def _first_process(place: Place, lock: IO[str], real_nodes: bool) -> subprocess.Popen[str]:
    """Start the first process in the bed's namespaces, and link it with this machine.

    It holds the lock, too, so that the lock is free only when the bed is dead.
    """
    command = namespaces.command_inside(
        "inside", str(place.number), *(["--real-nodes"] if real_nodes else [])
    )
    with (place.log / "bed.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd="/",
            pass_fds=[lock.fileno()],
        )
    assert process.stdin and process.stdout
    if process.stdout.readline().strip() != "namespaces":
        _kill(process)
        raise BedError(f"the bed's namespaces cannot be made:\n{_log(place)}")
    [first] = psutil.Process(process.pid).children()
    namespaces.link(place, first.pid)
    process.stdin.write("linked\n")
    process.stdin.flush()
    return process


def _ready(process: subprocess.Popen[str], ends: list[int], place: Place) -> float | None:
    """Wait until the bed is ready and give how long that took; nothing if it is not wanted any more."""
    assert process.stdout
    answer = process.stdout.fileno()
    if answer not in select.select([answer, *ends], [], [])[0]:
        return None
    word, _, seconds = process.stdout.readline().strip().partition(" ")
    if word != "ready":
        raise BedError(f"the bed does not start:\n{_log(place)}\nThe logs are in {place.log}.")
    return float(seconds)


def _log(place: Place) -> str:
    return (place.log / "bed.log").read_text(errors="replace")[-3000:]


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the bed; its first process dies with this one, and all others with that.

    Only when all of them are dead the first one is, and its link is gone.
    """
    inside = psutil.Process(process.pid).children() if process.poll() is None else []
    process.kill()
    process.wait()
    psutil.wait_procs(inside, END_SECONDS)


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def _hush(place: Place) -> None:
    """Whoever asked for the bed need not listen any longer."""
    with (place.log / "supervisor.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
