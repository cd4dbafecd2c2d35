"""What the package costs a notebook that does not use it yet: against importing Ray."""

from __future__ import annotations

import subprocess
import sys

from .common import Bench, Figure, alone

REPEAT = 5


def _import_seconds(name: str) -> float:
    code = f"import time; begin = time.perf_counter(); import {name}; print(time.perf_counter() - begin)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


def measure(bench: Bench) -> list[Figure]:
    """Measure both in new processes; the magics are what ``%load_ext`` imports."""
    ours, theirs = "IPython, jupyter_rayoffload.magics", "IPython, ray"
    base = "IPython"
    _import_seconds(ours), _import_seconds(theirs)
    mine, other = [], []
    for _ in range(REPEAT):
        without = _import_seconds(base)
        mine.append(max(_import_seconds(ours) - without, 1e-4))
        other.append(max(_import_seconds(theirs) - without, 1e-4))
    note = "both beyond importing IPython, which a kernel has done"
    return [Figure("`%load_ext jupyter_rayoffload`", "`import ray`", mine, other, note)]


if __name__ == "__main__":
    sys.exit(alone(measure))
