"""A private embedded cluster for tests: real Ray, real Redis, in directories of its own.

A start costs five seconds of two cores, so one cluster serves the whole run: ask for `ray_cluster`,
and leave no job running. Tests that kill things start their own with :func:`private_backend`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import psutil
import pytest

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.embedded.backend import LocalBackend
from jupyter_rayoffload.clusters.embedded.places import alive, keeper_state
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.models import ClusterSpec

_T = TypeVar("_T")

#: Small, and patient: the machine may be busy with other tests.
SETTINGS = {
    "num_cpus": 2,
    "object_store_memory": 100 << 20,
    "store_limit": 256 << 20,
    "idle_timeout": 3600,  # a run that is killed leaves nothing for ever
    "start_timeout": 200,
    "owner": "tester",
}


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` to its end, also where a loop is running (a fixture that an async one asks for)."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def jupyter_environment(root: Path) -> dict[str, str]:
    """Give the variables that keep Jupyter's files below `root`."""
    return {
        "JUPYTER_RUNTIME_DIR": str(root / "run"),
        "JUPYTER_DATA_DIR": str(root / "data"),
        "JUPYTER_CONFIG_DIR": str(root / "etc"),
    }


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a private folder whose path leaves room for unix sockets."""
    root = Path(tempfile.mkdtemp(prefix="ro-"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def make_backend(root: Path, **settings: Any) -> LocalBackend:
    """Give a back end whose files are below `root`; starts nothing."""
    with mock.patch.dict(os.environ, jupyter_environment(root)):
        return LocalBackend(RayOffload(**{**SETTINGS, **settings}))


@contextmanager
def private_backend(**settings: Any) -> Iterator[LocalBackend]:
    """Give a back end of its own, and end its cluster afterwards, whatever has happened to it."""
    with short_folder() as root:
        backend = make_backend(root, **settings)
        try:
            yield backend
        finally:
            run(backend.delete())


def start(backend: LocalBackend) -> Connection:
    """Start or adopt the cluster."""
    return run(backend.ensure(ClusterSpec()))


def tree(backend: LocalBackend) -> list[psutil.Process]:
    """Give the keeper and all that it has started."""
    state = keeper_state(backend.places.lock)
    if state is None:
        return []
    keeper = psutil.Process(state.pid)
    return [p for p in (keeper, *keeper.children(recursive=True)) if alive(p)]


@dataclass
class RayCluster:
    """The cluster of the run."""

    backend: LocalBackend
    connection: Connection


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """Start the cluster of the run at its first use."""
    with private_backend() as backend:
        yield RayCluster(backend, start(backend))
