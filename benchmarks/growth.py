"""How the cost of data and of a workspace grows with their size: ``python -m benchmarks.growth``.

No part of the page: it prints tables, from one kilobyte to one gigabyte, and from one file to ten thousand.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.workspace import snapshot

from .common import Figure, progress, table, timed
from .data import rounds
from .files import tree
from .transfer import opened_store

SIZES = {"1 kB": 10**3, "10 kB": 10**4, "100 kB": 10**5, "1 MB": 10**6, "10 MB": 10**7, "100 MB": 10**8}
LARGEST = {"1 GB": 10**9}
FILES = (1, 10, 100, 1_000, 10_000)
REPEAT = 5


def of_data(sizes: dict[str, int]) -> list[Figure]:
    """Measure an array of each size, out and back; the peer pickles it into Redis."""
    figures = []
    with opened_store() as place:
        for name, size in sizes.items():
            progress(f"An array of {name}")
            seconds, _ = rounds(place, size, REPEAT if size < 10**9 else 3, ("ours", "naive"))
            peer = "`redis.set(cloudpickle.dumps(x))`, get, loads"
            figures.append(Figure(f"Array of {name}, out and back", peer, seconds["ours"], seconds["naive"]))
    return figures


def of_files() -> list[Figure]:
    """Measure an unchanged workspace of each number of files; the peer hashes twice, as Ray's client does."""
    from ray._private.runtime_env.packaging import get_uri_for_directory

    figures, signer = [], Signer(secrets.token_bytes(32))
    with tempfile.TemporaryDirectory(prefix="ro-") as root:
        for count in FILES:
            progress(f"{count:,} files")
            folder, cache = Path(root) / str(count), Path(root) / "cache"
            tree(folder, count)

            def ours(folder: Path = folder, cache: Path = cache) -> None:
                snapshot(folder, signer=signer, cache_dir=cache)

            def theirs(folder: Path = folder) -> None:
                for _ in range(2):
                    get_uri_for_directory(str(folder), include_gitignore=True)

            ours()
            pairs = [(timed(ours, 1)[0], timed(theirs, 1)[0]) for _ in range(REPEAT)]
            mine, other = (list(column) for column in zip(*pairs, strict=True))
            figures.append(Figure(f"Unchanged workspace, files: {count:,}", "Ray's hash, twice", mine, other))
    return figures


def main() -> int:
    """Measure, print, and write what was measured, for plots."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--json", type=Path, help="write every repetition there")
    parser.add_argument("--small", action="store_true", help="leave the gigabyte out")
    given = parser.parse_args()
    figures = [*of_data(SIZES if given.small else SIZES | LARGEST), *of_files()]
    print(table(figures))
    if given.json:
        given.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
