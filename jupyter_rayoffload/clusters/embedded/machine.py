"""What this process may use of the machine: its control group and CPU affinity, not the machine's size.

A notebook in a container of 2 CPUs on a node of 64 must not start a Ray of 64.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["cpus", "memory"]


def cpus(root: Path = Path("/")) -> int:
    """Count the CPUs: the smallest of affinity and control group quota, at least 1.

    Parameters
    ----------
    root : Path
        Where ``/proc`` and ``/sys`` are.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [q for folder, v2 in _groups(root, "cpu") if (q := _quota(folder, v2)) is not None]
    return max(1, min([count, *(math.ceil(q) for q in quotas)]))


def memory(root: Path = Path("/")) -> int:
    """Give the bytes of memory: the smallest of the machine's and the control group's limits.

    Parameters
    ----------
    root : Path
        Where ``/proc`` and ``/sys`` are.
    """
    name = {True: "memory.max", False: "memory.limit_in_bytes"}
    limits = [n for folder, v2 in _groups(root, "memory") if (n := _number(folder / name[v2])) is not None]
    return int(min([psutil.virtual_memory().total, *limits]))


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield the folders of our control groups, each with those above it, and whether it is version 2.

    A limit may be set on any level above. Inside a container the path that /proc shows is often the host's,
    which is not there: then only the top remains, which is the container's own group.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        v2 = not controllers
        if not v2 and controller not in controllers.split(","):
            continue
        top = base if v2 else base / controller
        folder = top / path.lstrip("/")
        yield folder, v2
        while folder != top and top in folder.parents:
            folder = folder.parent
            yield folder, v2


def _quota(folder: Path, v2: bool) -> float | None:
    if v2:
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            return int(quota) / int(period)
        except (OSError, ValueError):  # not there, or "max"
            return None
    quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None
