"""How cost grows with data, files, items and jobs at once: ``python -m benchmarks.growth``.

From one kilobyte to one gigabyte, from one file and one item to ten thousand, from one job to fifty.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jupyter_rayoffload import submit
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.workspace import snapshot

from .batch import by_hand, run_batch
from .common import Bench, duration, opened, progress, timed
from .data import rounds
from .files import tree
from .transfer import opened_store

SIZES = {"1 kB": 10**3, "10 kB": 10**4, "100 kB": 10**5, "1 MB": 10**6, "10 MB": 10**7, "100 MB": 10**8}
LARGEST = {"1 GB": 10**9}
FILES = (1, 10, 100, 1_000, 10_000)
ITEMS = (1, 10, 100, 1_000, 10_000)
AT_ONCE = (1, 5, 20, 50)
REPEAT, FEW = 5, 3
#: How long the jobs of one measurement may take, seconds.
LIMIT = 1200.0
#: How often a peer's jobs are asked after, seconds: as often as Ray's own client does it.
POLL = 0.5


@dataclass(frozen=True)
class Point:
    """One size: seconds of each repetition, ours and the peer's."""

    size: int
    name: str
    ours: Sequence[float]
    theirs: Sequence[float]


@dataclass
class Series:
    """How the cost of one thing grows.

    Parameters
    ----------
    what, axis, peer : str
        The peer may have Markdown in it.
    points : list of Point
    """

    what: str
    axis: str
    peer: str
    points: list[Point] = field(default_factory=list)

    def measure(
        self, size: int, repeat: int, ours: Callable[[], object], theirs: Callable[[], object]
    ) -> None:
        """Add a size; in turn, so that what else the machine does falls on both."""
        progress(f"{self.what}: {size:,}")
        pairs = [(timed(ours, 1)[0], timed(theirs, 1)[0]) for _ in range(repeat)]
        mine, other = (list(column) for column in zip(*pairs, strict=True))
        self.points.append(Point(size, f"{size:,}", mine, other))

    def table(self) -> str:
        """Give the medians as a Markdown table."""
        rows = [[self.what, *(point.name for point in self.points)], ["---"] * (1 + len(self.points))]
        for who, of in (("here", "ours"), (self.peer, "theirs")):
            rows.append([who, *(duration(statistics.median(getattr(p, of))) for p in self.points)])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def of_data(sizes: dict[str, int]) -> Series:
    """Measure an array of each size, out and back; the peer pickles it into Redis."""
    series = Series("An array, out and back", "bytes", "`redis.set(cloudpickle.dumps(x))`, get, loads")
    with opened_store() as place:
        for name, size in sizes.items():
            progress(f"{series.what}: {name}")
            seconds, _ = rounds(place, size, REPEAT if size < 10**9 else FEW, ("ours", "naive"))
            series.points.append(Point(size, name, seconds["ours"], seconds["naive"]))
    return series


def of_files() -> Series:
    """Measure an unchanged workspace of each number of files; the peer hashes twice, as Ray's client does."""
    from ray._private.runtime_env.packaging import get_uri_for_directory

    series, signer = (
        Series("An unchanged workspace", "files", "Ray's hash, twice"),
        Signer(secrets.token_bytes(32)),
    )
    with tempfile.TemporaryDirectory(prefix="ro-") as root:
        for count in FILES:
            folder, cache = Path(root) / str(count), Path(root) / "cache"
            tree(folder, count)

            def ours(folder: Path = folder, cache: Path = cache) -> None:
                snapshot(folder, signer=signer, cache_dir=cache)

            def theirs(folder: Path = folder) -> None:
                for _ in range(2):
                    get_uri_for_directory(str(folder), include_gitignore=True)

            ours()
            series.measure(count, REPEAT, ours, theirs)
    return series


def of_items() -> Series:
    """Measure batches of trivial items, from the call to the list; the peer is a loop by hand, in a job."""
    series = Series("A batch of trivial items", "items", "a loop of `ray.get` by hand")
    for count in ITEMS:
        series.measure(count, FEW, lambda: run_batch(count), lambda: by_hand(count))  # noqa: B023
    return series


def of_jobs(bench: Bench) -> Series:
    """Measure jobs that are submitted at once, until all have ended; the peer does it by Ray's own client."""
    from ray.job_submission import JobSubmissionClient

    address = bench.session.call(bench.session.offloader.links.connect()).connection.info.address
    client = JobSubmissionClient(address)

    def ours() -> None:
        jobs = [submit("value = 42") for _ in range(count)]
        for job in jobs:
            job.wait(LIMIT)
        if any(job.outputs["value"] != 42 for job in jobs):
            raise RuntimeError("a job gave something else")

    def theirs() -> None:
        command = f'{sys.executable} -c "print(42)"'
        names = [client.submit_job(entrypoint=command, entrypoint_num_cpus=1) for _ in range(count)]
        end = time.monotonic() + LIMIT
        while names and time.monotonic() < end:
            states = {name: client.get_job_status(name) for name in names}
            if any(state in ("FAILED", "STOPPED") for state in states.values()):
                raise RuntimeError("a job of the peer has failed")
            names = [name for name, state in states.items() if state != "SUCCEEDED"]
            time.sleep(POLL if names else 0)
        if names:
            raise RuntimeError(f"{len(names)} jobs of the peer have not ended")

    series = Series("Jobs at once, until all have ended", "jobs at once", "`JobSubmissionClient.submit_job`")
    for count in AT_ONCE:
        series.measure(count, FEW if count < 10 else 1, ours, theirs)
    return series


def measure(bench: Bench, sizes: dict[str, int] = SIZES | LARGEST) -> list[Series]:
    """Measure all four."""
    return [of_data(sizes), of_files(), of_items(), of_jobs(bench)]


def section(series: Sequence[Series], picture: str = "") -> str:
    """Give the section of the page: a table for each, and where the picture of them is."""
    tables = "\n\n".join(each.table() for each in series)
    shown = f"\n\n![How cost grows: seconds over sizes, on logarithmic axes]({picture})" if picture else ""
    return f"""## How cost grows

Medians, from `python -m benchmarks.growth`. A job of Ray's own brings back no values, and gets none.

{tables}{shown}"""


def main() -> int:
    """Measure, print, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--json", type=Path, help="write every repetition there")
    parser.add_argument("--svg", type=Path, help="draw it there; needs matplotlib")
    parser.add_argument("--small", action="store_true", help="leave the gigabyte out")
    given = parser.parse_args()
    with opened() as bench:
        series = measure(bench, SIZES if given.small else SIZES | LARGEST)
    print(section(series))
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in series], indent=1))
    if given.svg:
        from .plot import draw

        draw(series, given.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
