"""The keeper's children: it adopts every process of the cluster, and none outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

__all__ = ["Children"]

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Children:
    """Starts, reaps and ends processes; one per process, on its main thread."""

    def __init__(self) -> None:
        self._ended: dict[int, int] = {}
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        if self._libc:
            # Orphans of Ray's workers become our children: we can end them, and Ray's stop does not wait for
            # zombies that nobody reaps.
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def watch(self) -> None:
        """Begin to reap."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    def reap(self) -> None:
        """Take in all that have ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                if pid in self._started:
                    self._ended[pid] = os.waitstatus_to_exitcode(status)

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: Path, umask: int = -1) -> int:
        """Start a process that gets SIGTERM when we die, and give its id."""
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            umask=umask,
            preexec_fn=self._die_with(os.getpid()),
        )
        self._started[process.pid] = process
        return process.pid

    def _die_with(self, parent: int) -> Callable[[], None]:
        libc = self._libc

        def prepare() -> None:
            if libc:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
                if os.getppid() != parent:  # it died before we asked for its signal
                    os._exit(1)

        return prepare

    def exit_code(self, pid: int) -> int | None:
        """Give the exit code of a process that we started; None while it runs."""
        return self._ended.get(pid)

    async def end(self, pid: int, patience: float) -> None:
        """Send SIGTERM, wait for `patience` seconds, then send SIGKILL."""
        for number, limit in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
            if self.exit_code(pid) is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            await self._gone(lambda: self.exit_code(pid) is not None, limit)

    async def end_all(self, but: Sequence[int] = ()) -> None:
        """Kill every descendant that is not in `but`."""

        def rest() -> list[psutil.Process]:
            self.reap()
            return [p for p in psutil.Process().children(recursive=True) if p.pid not in but]

        def none_left() -> bool:
            for process in (left := rest()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return not left

        # Again and again: one that is killed may just have started another.
        await self._gone(none_left, 10.0)

    async def _gone(self, done: Callable[[], bool], limit: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        while not done() and loop.time() < deadline:  # noqa: ASYNC110 - a process cannot set an event
            await asyncio.sleep(0.05)
