"""The process that looks after an embedded cluster, where that needs no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from jupyter_rayoffload.clusters.embedded import keeper, places

#: One child has ended and is not waited for, another has the name of a part of Ray.
PARENT = """
import subprocess, sys
gone = subprocess.Popen(["true"])
here = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "raylet"])
while open(f"/proc/{gone.pid}/stat").read().rpartition(")")[2].split()[0] != "Z":
    pass
print(here.pid, flush=True)
sys.stdin.read()
here.kill()
here.wait()
"""


def test_a_helper_that_has_just_ended_is_no_part_of_a_head() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin and parent.stdout
        here = int(parent.stdout.readline())
        assert [p.pid for p in keeper._vital(parent.pid)] == [here]
        parent.stdin.close()


def test_whoever_reads_while_the_state_is_written_finds_a_whole_one(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    handle = places.take_lock(file)
    assert handle is not None
    states = [places.State(1, "run"), places.State(2, "run", "Starting with a longer reason " * 5, 1.0)]
    places.write_state(handle, states[0])
    seen, ended = [], threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.append(places.keeper_state(file))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(3000):
        places.write_state(handle, states[number % 2])
    ended.set()
    reader.join()
    os.close(handle)
    assert len(seen) > 100
    assert [state for state in seen if state not in states] == []
