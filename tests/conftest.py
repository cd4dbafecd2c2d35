"""Fixtures of all tests."""

from __future__ import annotations

from tests.ray_fixture import ray_cluster  # noqa: F401  (pytest finds fixtures by name)
