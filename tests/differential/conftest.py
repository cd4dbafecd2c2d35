"""Kernels that are shared by all cases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The helper is shared with other folders of tests, whichever way pytest was started.
sys.path.insert(0, str(Path(__file__).parents[1]))

from .harness import Stage


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder above those of the kernels; user settings and runtime files are there too."""
    return tmp_path_factory.mktemp("differential")


@pytest.fixture(scope="session")
def environment(base: Path) -> dict[str, str]:
    """Settings of nobody, and a cluster of our own: it is known by a file in the runtime folder."""
    folders = {"IPYTHONDIR": base / "ipython", "JUPYTER_RUNTIME_DIR": base / "runtime"}
    return {name: str(path) for name, path in folders.items()}


@pytest.fixture(scope="session")
def plain(base: Path, environment: dict[str, str]) -> Iterator[Stage]:
    """A kernel in which every cell runs as it is."""
    stage = Stage(base / "plain", offloaded=False, env=environment)
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def second(base: Path, environment: dict[str, str]) -> Iterator[Stage]:
    """Another one."""
    stage = Stage(base / "second", offloaded=False, env=environment)
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def offloaded(base: Path, environment: dict[str, str]) -> Iterator[Stage]:
    """A kernel in which the marked cells are Ray jobs."""
    stage = Stage(base / "offloaded", offloaded=True, env=environment)
    yield stage
    stage.close()
