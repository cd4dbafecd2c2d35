"""Fixtures of all tests, and which of them run side by side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.ray_fixture import ray_cluster  # noqa: F401  (pytest finds fixtures by name)

HERE = Path(__file__).parent

# What is started ahead would take cores from the tests; those of standbys ask for them.
os.environ["RAYOFFLOAD_STANDBY"] = "0"

# No test fails because the machine is busy. CI tries the same examples each time, and others new ones.
settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("patient")

#: Tests that share a cluster, a kernel or a page stay together in one process, and so do those of one file.
#: What is named here comes after all others, the longest first: no process is left alone with a long one.
GROUPS = {
    "cells": ("differential/test_differential.py",),
    "faults": ("faults/",),
    "heads": (
        "clusters/embedded/test_embedded.py",
        "clusters/embedded/test_bare_head.py",
        "faults/test_fault_head.py",
    ),
    "examples": ("differential/test_examples.py",),
    "batches": ("faults/test_fault_batch.py",),
    "standbys": ("faults/test_fault_standby.py",),
    "binder": ("test_binder.py",),
    "places": (
        "browser/test_notebook7.py",
        "browser/test_sidebar_places.py",
        "browser/test_sidebar_site.py",
    ),
    "sidebar": ("browser/test_sidebar.py", "browser/test_sidebar_looks.py"),
    "lab": ("browser/test_lab.py",),
    "server": ("server/",),
    "ray": (
        "clusters/embedded/test_exposure.py",
        "clusters/test_address.py",
        "contract/",
        "remote/test_remote_ray.py",
        "test_docs.py",
        "test_rayapi.py",
    ),
    "kubernetes": ("kubernetes/",),
}


def _group(path: str) -> tuple[int, str]:
    """Give the place of a test's group among the groups, and its name."""
    exact = [n for n, files in enumerate(GROUPS.values()) if path in files]
    below = [n for n, files in enumerate(GROUPS.values()) if path.startswith(files)]
    for number in (*exact, *below):
        return number + 1, list(GROUPS)[number]
    return 0, path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put fast tests first."""
    items.sort(key=lambda item: _group(item.path.relative_to(HERE).as_posix())[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each group to one process (pytest-xdist's own groups do nothing under pytest 9.2)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid.partition("::")[0].removeprefix(f"{HERE.name}/"))[1]

    return ByGroup(config, log)
