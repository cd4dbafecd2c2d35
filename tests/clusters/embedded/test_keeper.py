"""The process that looks after an embedded cluster, where that needs no cluster."""

from __future__ import annotations

import subprocess
import sys

from jupyter_rayoffload.clusters.embedded import keeper

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
