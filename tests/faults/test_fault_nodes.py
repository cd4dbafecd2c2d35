"""A cluster of two nodes that share no folder: files that the items of a batch write on the other one."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jupyter_rayoffload import submit
from jupyter_rayoffload.clusters.embedded.head import environment
from jupyter_rayoffload.models import Phase
from jupyter_rayoffload.remote.elsewhere import TWICE

from .ground import LIMIT, Ground, until

#: Mounts an empty folder over one, for what is started behind it alone.
HIDING = ["unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"']
#: A node of a cluster whose head is on the loopback interface: `ray start` makes no second one there.
NODE = """
import signal, sys
from ray._private.node import Node
from ray._private.parameter import RayParams
gcs, folder = sys.argv[1:]
params = RayParams(
    gcs_address=gcs, node_ip_address="127.0.0.1", num_cpus=2, resources={"far": 2}, temp_dir=folder,
    object_store_memory=100_000_000, min_worker_port=0, max_worker_port=0,
)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
node = Node(params, head=False, shutdown_at_exit=True, spawn_reaper=False)
print("The node is up", flush=True)
signal.pause()
"""


def _can_hide() -> bool:
    if sys.platform != "linux" or not shutil.which("unshare"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        return not subprocess.run([*HIDING, folder, "true"], capture_output=True, timeout=60).returncode


pytestmark = pytest.mark.skipif(not _can_hide(), reason="no mounts of one's own here: unshare --mount")


@dataclass
class Nodes:
    """The cluster, and the folder in which each of its nodes sees its own temporary files alone."""

    hidden: str


@pytest.fixture(scope="module")
def nodes(ground: Ground) -> Iterator[Nodes]:
    hidden = ground.root / "hidden"
    hidden.mkdir()
    log = ground.root / "node.log"
    run = Path(ground.connection.store.url.removeprefix("unix://")).parent
    command = [sys.executable, "-c", NODE, ground.connection.gcs, str(run / "ray")]
    with open(log, "wb") as out:
        node = subprocess.Popen(
            [*HIDING, str(hidden), *command],
            env=environment(os.environ, run),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def started() -> bool:
        assert node.poll() is None, log.read_text()
        return "The node is up" in log.read_text()

    try:
        until(started, "the second node")
        yield Nodes(str(hidden))
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(LIMIT)


WRITE = """
import os
from pathlib import Path
Path("out").mkdir(exist_ok=True)
Path(f"out/{x}.txt").write_text(f"item {x}")
Path(f"big-{x}.bin").write_bytes(bytes(1_500_000))
where = os.getcwd()
"""


def test_files_of_items_on_another_node_come_home(ground: Ground, nodes: Nodes) -> None:
    line = f"made --wait --map x=range(6) --resource far=1 --env TMPDIR={nodes.hidden} --fetch big-3.bin"
    small = [f"out/{x}.txt" for x in range(6)]
    with ground.kernel("nodes") as kernel:
        kernel.run(f"%%ray_job {line}\n{WRITE.strip()}", timeout=LIMIT).check()
        there = ast.literal_eval(kernel.value("where"))
        listed = ast.literal_eval(kernel.value("[(f.path, f.state, f.reason) for f in made.files]"))
    assert all("rayoffload-items-" in place for place in there), "the runner's folder is not there"
    files = {path: (state, reason) for path, state, reason in listed}
    assert sorted(files) == [*(f"big-{x}.bin" for x in range(6)), *small]
    for path in (*small, "big-3.bin"):
        assert files[path] == ("fetched", "")
    assert files["big-2.bin"][0] == "there"
    assert "--fetch 'big-2.bin' brings it" in files["big-2.bin"][1]
    home = ground.folder / "nodes"
    assert [(home / path).read_text() for path in small] == [f"item {x}" for x in range(6)]
    assert (home / "big-3.bin").stat().st_size == 1_500_000
    assert not (home / "big-2.bin").exists()


APPEND = """
import os, time
with open("log.txt", "a") as log:
    log.write(f"item {x} in {os.getpid()}\\n")
time.sleep(1.5)
pid = os.getpid()
"""


def test_a_file_that_items_write_each_in_its_own_place_is_told_of(nodes: Nodes) -> None:
    job = submit(APPEND, map={"x": range(4)}, env={"TMPDIR": nodes.hidden}, resources={"far": 1})
    assert job.wait(LIMIT)
    assert job.phase is Phase.SUCCEEDED, job.record.failure
    assert len(set(job.outputs["pid"])) > 1
    [file] = job.files
    assert (file.path, file.state, file.reason) == ("log.txt", "fetched", TWICE)
    assert f"log.txt: {TWICE}" in job.logs()
