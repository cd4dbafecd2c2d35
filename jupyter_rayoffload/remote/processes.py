"""What Linux offers to watch over a process and all that it starts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "adopt_orphans",
    "descendants",
    "die_with_parent",
    "interrupt_main_thread",
    "kill_descendants",
    "limit_memory",
    "oom_kills",
]

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies, so that none escapes by a double fork."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Let this process be killed when its parent, process `parent`, dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    # Other systems have no prctl; there, descendants that leave their parents are not found.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def interrupt_main_thread(pid: int) -> None:
    """Send SIGINT to the main thread of process `pid`.

    A signal to a process goes to any of its threads: to a second one where the main thread has just been
    given another signal. Python only notes it there, for the main thread to handle, and that one, if it
    sleeps, is not woken: it may sleep until it is killed.
    """
    try:
        # A main thread has the id of its process. No success: it has ended.
        ctypes.CDLL(None).tgkill(pid, pid, signal.SIGINT)
    except AttributeError:  # a libc without it, as glibc before 2.30
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)


def descendants(root: int) -> list[int]:
    """Give the ids of all processes below `root`, those in sessions of their own included."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found, unseen = [], [root]
    while unseen:
        below = children.get(unseen.pop(), [])
        found += below
        unseen += below
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                # The command, in brackets, may itself hold spaces and brackets.
                after = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                if after[0] != b"Z":
                    yield int(name), int(after[1])


def kill_descendants(grace: float = 0.0, patience: float = 3.0) -> bool:
    """End every process below this one.

    Parameters
    ----------
    grace : float
        Seconds between the request to end (SIGTERM) and the kill; 0 kills at once.
    patience : float
        Seconds to wait for killed ones to be gone.

    Returns
    -------
    bool
        Whether none is left.
    """
    if grace and _signal_all(signal.SIGTERM):
        _wait_until_gone(grace)
    deadline = time.monotonic() + patience
    while _signal_all(signal.SIGKILL):  # again, because a dying process may have started another
        _wait_until_gone(0.05)
        if time.monotonic() > deadline:
            return False
    return True


def _signal_all(number: int) -> bool:
    reap()
    below = descendants(os.getpid())
    for pid in below:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return bool(below)


def _wait_until_gone(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while descendants(os.getpid()) and time.monotonic() < deadline:
        time.sleep(0.01)
        reap()


def reap() -> dict[int, int]:
    """Collect dead children, adopted ones too: process id to wait status."""
    dead = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            dead[pid] = status
    return dead


def limit_memory(size: int) -> None:
    """Let this process use `size` more bytes than now; beyond that, allocating raises MemoryError.

    RLIMIT_DATA counts private writable memory (since Linux 4.7 also what is mapped), and not, as RLIMIT_AS
    does, address space that libraries reserve and never touch.
    """
    used = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            used = int(line.split()[1]) * 1024
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (used + size, hard))


def unlimit_memory() -> None:
    """Take the limit back: what comes after the cell must not fail for want of memory."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def oom_kills() -> int:
    """Count the processes of this container that were killed for want of memory; 0 where nobody counts."""
    for path, key in (
        ("/sys/fs/cgroup/memory.events", "oom_kill"),
        ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
    ):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == key:
                    return int(count)
    return 0
