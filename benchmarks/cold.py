"""A job from its call to its result, nothing ready for it: against ``ray job submit`` of the same code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jupyter_rayoffload import submit

from .common import Bench, Figure, alone, timed

REPEAT = 3
CODE = """
import ray


@ray.remote
def answer():
    return 42


value = ray.get(answer.remote())
print(value)
"""


def measure(bench: Bench) -> list[Figure]:
    """Measure code with one Ray task in it, in a folder with one file."""
    folder = bench.root / "cold"
    folder.mkdir()
    (folder / "cell.py").write_text(CODE)
    address = bench.session.call(bench.session.offloader.links.connect()).connection.info.address
    command = ["ray", "job", "submit", "--address", address, "--working-dir", str(folder)]
    command = [str(Path(sys.executable).parent / command[0]), *command[1:], "--", "python", "cell.py"]

    def ours() -> None:
        job = submit(CODE, workdir=str(folder))
        job.wait(120)
        if job.outputs["value"] != 42:
            raise RuntimeError(f"job {job.id} gave {job.outputs}")

    def theirs() -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode or "42" not in done.stdout:
            raise RuntimeError(done.stdout + done.stderr)

    ours()  # both have sent their package once
    theirs()
    # In turn: what else the machine does falls on both.
    pairs = [(timed(ours, 1)[0], timed(theirs, 1)[0]) for _ in range(REPEAT)]
    note = "the peer gives the printed text alone, and starts a Python for its command line"
    mine, other = (list(column) for column in zip(*pairs, strict=True))
    return [Figure("Code with a Ray task, to its result", "`ray job submit`", mine, other, note)]


if __name__ == "__main__":
    sys.exit(alone(measure))
