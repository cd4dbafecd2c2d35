"""An unchanged workspace of 10,000 files: against what Ray's own client does with it at each submission."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from jupyter_rayoffload.remote.files import ray_package
from jupyter_rayoffload.workspace import snapshot

from .common import Bench, Figure, alone, timed

REPEAT = 7
FILES = 10_000
#: A file that has just been written is not believed to stay as it is (``archive.RACY_NS``), seconds.
SETTLED = 2.5


def tree(folder: Path, files: int, size: int = 4096) -> None:
    """Make `files` files of `size` random bytes, a hundred in a folder, and let them settle."""
    for number in range(files):
        path = folder / f"part{number // 100}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
    time.sleep(SETTLED)


def measure(bench: Bench) -> list[Figure]:
    """Measure until it is known that neither the store nor Ray has to be sent anything."""
    from ray.job_submission import JobSubmissionClient

    folder = bench.root / "workspace"
    tree(folder, FILES)
    link = bench.session.call(bench.session.offloader.links.connect())
    signer = bench.session.offloader.backend.signer()
    client = JobSubmissionClient(link.connection.info.address)

    def ours() -> str:
        shot = snapshot(folder, signer=signer, cache_dir=bench.root / "cache")
        if not link.store.has_package(shot.digest):
            shot.zip_to(bench.root / "workspace.zip")
            link.store.put_package(shot.digest, bench.root / "workspace.zip")
        if not bench.session.call(link.ray.has_package(ray_package(shot.digest))):
            bench.session.call(link.ray.put_package(ray_package(shot.digest), bench.root / "workspace.zip"))
        return shot.digest

    def theirs() -> str:
        env = {"working_dir": str(folder)}
        client._upload_working_dir_if_needed(env)  # the part of submit_job that is about it
        return env["working_dir"]

    first = ours(), theirs()
    if (ours(), theirs()) != first:
        raise RuntimeError("an unchanged folder has another digest")
    pairs = [(timed(ours, 1)[0], timed(theirs, 1)[0]) for _ in range(REPEAT)]
    mine, other = (list(column) for column in zip(*pairs, strict=True))
    note = "files of 4 kB, 41 MB; both ask whether the package is there, ours the store, too"
    return [
        Figure(
            "Unchanged workspace of 10,000 files", "`JobSubmissionClient`'s own packaging", mine, other, note
        )
    ]


if __name__ == "__main__":
    sys.exit(alone(measure))
