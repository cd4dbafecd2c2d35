"""What a control group allows, in both versions, as files say it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from jupyter_rayoffload.clusters.embedded import machine

HAS = len(os.sched_getaffinity(0))
TOTAL = psutil.virtual_memory().total


def _files(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"proc__self__cgroup": "0::/user/job\n"}
V1 = {"proc__self__cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n"}


def test_without_a_control_group_it_is_the_affinity(tmp_path: Path) -> None:
    assert (machine.cpus(tmp_path), machine.memory(tmp_path)) == (HAS, TOTAL)


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({**V2, "sys__fs__cgroup__user__job__cpu_dot_max": "50000 100000"}, 1, TOTAL),
        ({**V2, "sys__fs__cgroup__user__job__cpu_dot_max": "max 100000"}, HAS, TOTAL),
        ({**V2, "sys__fs__cgroup__user__cpu_dot_max": "100000 100000"}, 1, TOTAL),
        ({**V2, "sys__fs__cgroup__user__job__memory_dot_max": "1048576"}, HAS, 1 << 20),
        ({**V2, "sys__fs__cgroup__memory_dot_max": "2097152"}, HAS, 2 << 20),
        ({**V2, "sys__fs__cgroup__user__job__memory_dot_max": "max"}, HAS, TOTAL),
        (
            {
                **V1,
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "100000",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000",
                "sys__fs__cgroup__memory__docker__abc__memory.limit_in_bytes": "1048576",
            },
            1,
            1 << 20,
        ),
        (
            {
                **V1,
                "sys__fs__cgroup__cpu__cpu.cfs_quota_us": "-1",
                "sys__fs__cgroup__cpu__cpu.cfs_period_us": "100000",
                # what version 1 says for "no limit"
                "sys__fs__cgroup__memory__memory.limit_in_bytes": "9223372036854771712",
            },
            HAS,
            TOTAL,
        ),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, files: dict[str, str], cpus: int, memory: int) -> None:
    root = _files(tmp_path, **files)
    assert (machine.cpus(root), machine.memory(root)) == (cpus, memory)
