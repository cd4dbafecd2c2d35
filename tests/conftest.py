"""Fixtures of all tests, and which of them run side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.ray_fixture import ray_cluster  # noqa: F401  (pytest finds fixtures by name)

HERE = Path(__file__).parent

# No test fails because the machine is busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

#: Tests that share a cluster, a kernel or a page stay together in one process (pytest-xdist's `loadgroup`),
#: and so do those of one file. What is named here comes after all others: it takes longest.
GROUPS = {
    "faults": ("faults/",),
    "cells": ("differential/test_differential.py",),
    "heads": ("clusters/test_local.py", "clusters/test_bare_head.py", "faults/test_fault_head.py"),
    "examples": ("differential/test_examples.py",),
    "lab": ("browser/test_lab.py",),
    "binder": ("test_binder.py",),
    "kubernetes": ("kubernetes/",),
}


def _group(item: pytest.Item) -> tuple[int, str]:
    """Give the group of a test, and its place among the groups."""
    path = item.path.relative_to(HERE).as_posix()
    exact = [n for n, (name, files) in enumerate(GROUPS.items()) if path in files]
    below = [n for n, (name, files) in enumerate(GROUPS.items()) if path.startswith(files)]
    for number in (*exact, *below):
        return number + 2, list(GROUPS)[number]
    if item.get_closest_marker("ray"):
        return 1, "ray"
    return 0, path


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put fast tests first, and each test into its group."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)[1]))
    items.sort(key=lambda item: _group(item)[0])
