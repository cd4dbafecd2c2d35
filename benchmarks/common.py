"""What the benchmarks share: a private cluster, timing, and how a figure is told."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.session import Session, session

__all__ = ["Bench", "Figure", "alone", "duration", "opened", "table", "timed"]


@dataclass(frozen=True)
class Figure:
    """Something that was measured, and what somebody would do without this package, in the same run.

    Parameters
    ----------
    what, peer : str
    ours, theirs : sequence of float
        Seconds of each repetition.
    note : str
        What is not obvious about the comparison.
    """

    what: str
    peer: str
    ours: Sequence[float]
    theirs: Sequence[float]
    note: str = ""

    @property
    def ratio(self) -> float:
        """How many times the peer takes as long."""
        return statistics.median(self.theirs) / statistics.median(self.ours)


@dataclass(frozen=True)
class Bench:
    """Where the benchmarks run.

    Parameters
    ----------
    root : Path
        A folder for files.
    session : Session
        The link to a private cluster, which runs.
    """

    root: Path
    session: Session


def timed(work: Callable[[], object], repeat: int, before: Callable[[], object] | None = None) -> list[float]:
    """Give the seconds of each repetition of `work`, with `before` in front of each, not counted."""
    seconds = []
    for _ in range(repeat):
        if before is not None:
            before()
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds


@contextmanager
def opened() -> Iterator[Bench]:
    """Start a private cluster, and end it."""
    root = Path(tempfile.mkdtemp(prefix="ro-"))
    for variable, folder in (("RUNTIME", "run"), ("DATA", "data"), ("CONFIG", "etc")):
        os.environ[f"JUPYTER_{variable}_DIR"] = str(root / folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the cluster must not stay
    workspace = root / "notebook"
    workspace.mkdir()
    os.chdir(workspace)
    link = session(RayOffload(standby=0, idle_timeout=0, start_timeout=240, store_limit=2 << 30))
    try:
        connection = link.call(link.offloader.links.connect()).connection
        # For Ray's own tools, which are the peers.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=connection.ray_token)
        yield Bench(root, link)
    finally:
        link.call(link.offloader.down())
        link.close()
        os.chdir("/")
        shutil.rmtree(root, ignore_errors=True)


def alone(measure: Callable[..., list[Figure]], *, cluster: bool = True) -> int:
    """Run one script by itself: ``python -m benchmarks.cold``; without a cluster, where it needs none."""
    load = os.getloadavg()[0]
    with opened() if cluster else nullcontext() as bench:
        print(table(measure(bench) if bench else measure()))
    print(f"\nLoad average {load:.1f} when it began, {os.getloadavg()[0]:.1f} when it ended.")
    return 0


def duration(seconds: float) -> str:
    """Give a time with its unit."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _seconds(values: Sequence[float]) -> str:
    least, middle, most = (duration(of(values)) for of in (min, statistics.median, max))
    return f"{middle} ({least} to {most}, n={len(values)})"


def table(figures: Sequence[Figure]) -> str:
    """Give the figures as a Markdown table."""
    rows = ["| what | here | peer | the peer takes |", "|---|---|---|---|"]
    for f in figures:
        peer = f"{f.peer}: {_seconds(f.theirs)}"
        rows.append(f"| {f.what} | {_seconds(f.ours)} | {peer} | {f.ratio:.2g} times as long |")
    notes = [f"- {f.what}: {f.note}" for f in figures if f.note]
    return "\n".join([*rows, "", *notes]).strip()


def progress(text: str) -> None:
    """Say on stderr what is being measured."""
    print(text, file=sys.stderr, flush=True)


def version_of(name: str) -> Any:
    """Give the version of an installed distribution."""
    from importlib.metadata import version

    return version(name)
