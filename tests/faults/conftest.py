"""The cluster that the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import ground as grounds

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them start Ray, and most start kernels; patience is for busy machines."""
    for item in items:
        if HERE in item.path.parents and "ground" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
            item.add_marker(pytest.mark.kernel)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="package")
def ground() -> Iterator[grounds.Ground]:
    """Start the cluster of these tests."""
    with grounds.ground() as made:
        made.start()
        yield made
