"""A private embedded cluster, and the kernels and handles that use it, for tests that break things."""

from __future__ import annotations

import contextlib
import os
import re
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import redis

import jupyter_rayoffload.session
from jupyter_rayoffload import attach, submit
from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.connection import read_connection
from jupyter_rayoffload.clusters.embedded.backend import LocalBackend
from jupyter_rayoffload.clusters.embedded.places import alive
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import JobNotFound
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.models import ClusterSpec, Phase
from jupyter_rayoffload.session import Session
from tests.kernel_client import Kernel, Run
from tests.ray_fixture import jupyter_environment, run, short_folder, tree

_T = TypeVar("_T")

#: Terminal colours.
ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: How long anything may take, seconds: the machine may be busy. Nothing waits that long in vain.
LIMIT = 180.0
#: Settings of the cluster and of all who use it.
SETTINGS = {
    "num_cpus": 2,
    "object_store_memory": 100 << 20,
    "store_limit": 4 << 30,
    "idle_timeout": 0,
    "start_timeout": 200,
    "owner": "tester",
}


def until(look: Callable[[], _T], what: str, limit: float = LIMIT) -> _T:
    """Give what `look` gives as soon as that is true."""
    deadline = time.monotonic() + limit
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.05)
    return found


@dataclass
class Ground:
    """A cluster of its own, and a folder for notebooks."""

    root: Path
    backend: LocalBackend

    @property
    def folder(self) -> Path:
        """Where the notebooks are."""
        return self.root / "work"

    @property
    def connection(self) -> Connection:
        """The cluster's connection, secrets included."""
        return read_connection(self.backend.places.connection)

    def start(self) -> None:
        """Start the cluster, or adopt it."""
        run(self.backend.ensure(ClusterSpec()))

    def processes(self) -> list[psutil.Process]:
        """Give the keeper and all below it."""
        return tree(self.backend)

    def process(self, name: str) -> psutil.Process:
        """Give the one process of the cluster whose program is called `name`."""
        [found] = [p for p in self.processes() if name in _programs(p)]
        return found

    def redis(self) -> Any:
        """Give a client of the store's Redis."""
        store = self.connection.store
        return redis.Redis.from_url(store.url, password=store.password)

    @contextlib.contextmanager
    def kernel(self, name: str = "notebook") -> Iterator[Notebook]:
        """Start a kernel with the extension loaded, in a folder of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        with Notebook(folder) as kernel:
            kernel.run("%load_ext jupyter_rayoffload", timeout=LIMIT).check()
            yield kernel


class Notebook(Kernel):
    """A kernel in front of which someone sits: its cells do not wait for their jobs."""

    def sit(self, source: str, timeout: float = LIMIT) -> Run:
        """Run a cell that does not wait by itself."""
        return self.run(textwrap.dedent(source).strip(), timeout=timeout, headless=False)

    def value(self, expression: str) -> str:
        """Give what an expression shows; no cell of the notebook."""
        run = self.run(f"print(({expression}))", timeout=LIMIT, headless=False, history=False).check()
        return run.stdout.removesuffix("\n")


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    """Make a ground on which this process, its kernels and its scripts all stand."""
    with short_folder() as root, pytest.MonkeyPatch.context() as patch:
        own = {**jupyter_environment(root), "IPYTHONDIR": str(root / "ipython")}
        own |= {f"RAYOFFLOAD_{name.upper()}": str(value) for name, value in SETTINGS.items()}
        for name, value in own.items():
            patch.setenv(name, value)
        made = Ground(root, LocalBackend(RayOffload.load()))
        made.folder.mkdir()
        patch.chdir(made.folder)
        try:
            with other_process():
                yield made
        finally:
            run(made.backend.delete())


@contextlib.contextmanager
def other_process() -> Iterator[Session]:
    """Let ``submit``, ``attach`` and ``jobs`` mean a session that knows nothing of the present one."""
    with pytest.MonkeyPatch.context() as patch:
        session = Session(RayOffload.load(), {})
        patch.setattr(jupyter_rayoffload.session, "_session", session)
        try:
            yield session
        finally:
            session.close()


def found(job_id: str) -> Job:
    """Attach to a job of another process as soon as that has a cluster for it, and so a record."""

    def look() -> Job | None:
        try:
            return attach(job_id)
        except JobNotFound:
            return None

    return until(look, f"the record of {job_id}")  # type: ignore[return-value]


def send(source: str, **options: Any) -> Job:
    """Submit a piece of code."""
    return submit(textwrap.dedent(source), **options)


def running(job: Job) -> Job:
    """Wait until the cell of `job` runs."""
    until(lambda: job.running() or job.done(), f"{job} runs")
    assert job.phase is Phase.RUNNING, job.record.failure
    return job


def printed(job: Job, text: str) -> str:
    """Wait until `job` has printed a line that begins with `text`, and give the rest of the line."""

    def look() -> str | None:
        ended = job.done()
        found = [line for line in job.spool.text().split("\n")[:-1] if line.startswith(text)]
        assert found or not ended, job.record.failure
        return found[0] if found else None

    return until(look, f"{text!r} in what {job} prints").removeprefix(text)


def gone(pids: list[int], limit: float = LIMIT) -> None:
    """Wait until none of the processes is alive."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    until(lambda: not any(alive(p) for p in processes), f"the end of {pids}", limit)


def _programs(process: psutil.Process) -> list[str]:
    """Give the names that may be those of its program: of the interpreter, or of its script."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return []
    # A title may take the place of the command: `redis-server *:0`.
    return [os.path.basename(word.split()[0]) for word in words[:4] if word.strip()]
