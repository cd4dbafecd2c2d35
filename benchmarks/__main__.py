"""Measure everything and print it; ``--write`` puts it into docs/performance.md."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import psutil

from jupyter_rayoffload import __version__

from . import batch, blocked, bundle, cold, data, files, growth, importing, lines, peers, plot, warm
from .common import Figure, opened, progress, table, version_of

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PICTURE = "images/growth.svg"


def machine(load_before: float) -> str:
    """Say on what this was measured, and how busy it was."""
    names = ("ray", "redis", "ipython", "numpy")
    versions = ", ".join(f"{name} {version_of(name)}" for name in names)
    load = os.getloadavg()[0]
    return (
        f"jupyter_rayoffload {__version__}, Python {platform.python_version()}, {versions}.\n"
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB of memory; "
        f"load average {load_before:.1f} when the run began, {load:.1f} when it ended."
    )


def page(figures: str, grown: str, where: str) -> str:
    """Give the text of docs/performance.md."""
    return f"""# Performance

Written by `python -m benchmarks --write`. `make bench` prints the same on your machine. Each figure is the
median (least to most) of some repetitions, beside what somebody would do without this package, in the same
run on the same cluster. The ratio says more than the times.

{figures}

{where}

Where the load is above the number of CPUs, the times are those of a busy machine, and the ratios are rough.
The first job pays Ray's own start of a job and the start of its Python. The next one is handed to a standby.

{grown}

{bundle.section(bundle.parts())}
"""


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    given = parser.parse_args()
    begin, load = time.monotonic(), os.getloadavg()[0]
    figures: list[Figure] = []
    missing: list[str] = []
    progress("Starting a private cluster")
    with opened() as bench:
        for script in (importing, files, data, peers, lines, blocked, warm, cold, batch):
            progress((script.__doc__ or "").partition(":")[0])
            try:
                figures += script.measure(bench)
            except ModuleNotFoundError as error:  # a peer that is not installed
                missing.append(f"Not measured: `{script.__name__}`, for {error.name} is not installed.")
        series = growth.measure(bench)
    text, where = "\n".join([table(figures), *missing]), machine(load)
    print(f"{text}\n\n{growth.section(series)}\n\n{where}\n{time.monotonic() - begin:.0f} s in all")
    if given.write:
        plot.draw(series, PAGE.parent / PICTURE)
        PAGE.write_text(page(text, growth.section(series, PICTURE), where))
    return 0


if __name__ == "__main__":
    sys.exit(main())
