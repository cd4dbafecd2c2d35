"""A real Kubernetes with KubeRay on this machine, for tests; see CONTRIBUTING.md."""

from __future__ import annotations

from .handle import Bed
from .places import BedError

__all__ = ["Bed", "BedError"]
