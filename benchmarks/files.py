"""An unchanged workspace of 10,000 files: against the hash that Ray's own packaging makes of it."""

from __future__ import annotations

import os
import sys
import time

from jupyter_rayoffload.workspace import snapshot

from .common import Bench, Figure, alone, timed

REPEAT = 5
FILES = 10_000


def measure(bench: Bench) -> list[Figure]:
    """Measure whether the folder is the one that was sent before."""
    from ray._private.runtime_env.packaging import get_uri_for_directory

    folder = bench.root / "workspace"
    for number in range(FILES):
        path = folder / f"part{number % 100}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096))
    time.sleep(2.5)  # files that have just been written are not believed to stay
    signer = bench.session.offloader.backend.signer()

    def ours() -> str:
        return snapshot(folder, signer=signer, cache_dir=bench.root / "cache").digest

    def theirs() -> str:
        return get_uri_for_directory(str(folder), include_gitignore=True)

    first = ours(), theirs()
    if (ours(), theirs()) != first:
        raise RuntimeError("an unchanged folder has another digest")
    pairs = [(timed(ours, 1)[0], timed(theirs, 1)[0]) for _ in range(REPEAT)]
    mine, other = (list(column) for column in zip(*pairs, strict=True))
    note = "files of 4 kB. Ray's client makes this hash twice in a submission; here it is counted once"
    return [Figure("Unchanged workspace of 10,000 files", "Ray's packaging hash", mine, other, note)]


if __name__ == "__main__":
    sys.exit(alone(measure))
