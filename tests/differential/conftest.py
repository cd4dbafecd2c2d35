"""Kernels that are shared by all cases, and end with them: an idle cluster takes a twentieth of a core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_fixture import jupyter_environment, make_backend, run, short_folder

from .harness import Stage


@pytest.fixture(scope="package")
def base() -> Iterator[Path]:
    """One folder above those of the kernels; user settings and runtime files are there too.

    The cluster that the kernels have started there ends with it, whatever has become of them.
    """
    with short_folder() as folder:
        yield folder
        run(make_backend(folder).delete())


@pytest.fixture(scope="package")
def environment(base: Path) -> dict[str, str]:
    """Settings of nobody, and a cluster of our own: it is known by a file in the runtime folder."""
    return {
        **jupyter_environment(base),
        "IPYTHONDIR": str(base / "ipython"),
        "RAYOFFLOAD_START_TIMEOUT": "200s",  # the machine may be busy with other tests
        "RAYOFFLOAD_NUM_CPUS": "2",
    }


@pytest.fixture(scope="package")
def plain(base: Path, environment: dict[str, str]) -> Iterator[Stage]:
    """A kernel in which every cell runs as it is."""
    stage = Stage(base / "plain", offloaded=False, env=environment)
    yield stage
    stage.close()


@pytest.fixture(scope="package")
def second(base: Path, environment: dict[str, str]) -> Iterator[Stage]:
    """Another one."""
    stage = Stage(base / "second", offloaded=False, env=environment)
    yield stage
    stage.close()


@pytest.fixture(scope="package")
def offloaded(base: Path, environment: dict[str, str]) -> Iterator[Stage]:
    """A kernel in which the marked cells are Ray jobs."""
    stage = Stage(base / "offloaded", offloaded=True, env=environment)
    yield stage
    stage.close()
