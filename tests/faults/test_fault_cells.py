"""Cells that do what cells should not: each ends with a reason, and harms nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from jupyter_rayoffload import attach
from jupyter_rayoffload.errors import JobCancelled, JobCrashed, OutOfMemory, OutputUnavailable
from jupyter_rayoffload.models import Phase

from .ground import ANSI, LIMIT, Ground, gone, other_process, printed, send

pytestmark = pytest.mark.usefixtures("ground")

LINES = 200_000
GIGABYTE = 1 << 30


@pytest.mark.parametrize("code", [0, 5])
def test_a_cell_that_leaves_its_process_fails_with_the_exit_code(code: int) -> None:
    job = send(f"""
        print("last words")
        import os
        os._exit({code})
    """)
    error = job.exception(timeout=LIMIT)
    assert isinstance(error, JobCrashed)
    assert f"exit code {code} before the cell did" in str(error)
    assert job.logs() == "last words"
    assert job.phase is Phase.FAILED


def test_a_cell_that_uses_more_memory_than_it_asked_for_gets_a_memory_error() -> None:
    job = send(
        """
        blocks = []
        while True:
            blocks.append(bytearray(10**7))
        """,
        memory="300MB",
    )
    error = job.exception(timeout=LIMIT)
    assert isinstance(error, OutOfMemory)
    assert "300 MB that it asked for" in str(error)
    failure = job.record.failure
    assert failure is not None
    assert "MemoryError" in "\n".join(failure.traceback)
    assert send("1 + 1").result(timeout=LIMIT) == 2  # and the machine is none the worse


def test_a_cell_may_catch_its_memory_error() -> None:
    job = send(
        """
        try:
            bytearray(10**9)
        except MemoryError:
            caught = True
        """,
        memory="300MB",
    )
    assert job.exception(timeout=LIMIT) is None
    assert job.outputs["caught"] is True


def test_a_cell_that_forks_gets_what_its_children_say() -> None:
    job = send("""
        import multiprocessing, os
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(write, b"from the child")
            os._exit(7)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = os.read(read, 100)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            squares = pool.map(abs, range(-5, 0))
    """)
    assert job.exception(timeout=LIMIT) is None
    assert (job.outputs["code"], job.outputs["said"]) == (7, b"from the child")
    assert job.outputs["squares"] == [5, 4, 3, 2, 1]


def test_a_forked_child_that_runs_to_the_end_of_the_cell_says_nothing_in_its_name() -> None:
    job = send("""
        import os, sys
        pid = os.fork()
        who = "parent" if pid else "child"
        sys.stdout.write(f"I am the {who}\\n")  # in one piece: those of two processes may mix
        sys.stdout.flush()
        if pid:
            os.waitpid(pid, 0)
        who
    """)
    assert job.result(timeout=LIMIT) == "parent"
    assert job.outputs["who"] == "parent"
    assert job.logs() == "I am the child\nI am the parent" or job.logs() == "I am the parent\nI am the child"


def test_a_flood_of_lines_arrives_complete_and_in_order() -> None:
    job = send(f"for i in range({LINES}): print('line', i)")
    began = time.monotonic()
    assert job.exception(timeout=LIMIT) is None
    seconds = time.monotonic() - began
    expected = [f"line {i}" for i in range(LINES)]
    assert job.logs().split("\n") == expected
    assert job.record.lines == LINES
    with other_process():
        again = attach(job.id)
        assert again.logs().split("\n") == expected
        assert again.logs(tail=2) == f"line {LINES - 2}\nline {LINES - 1}"
    print(f"{LINES:,} lines in {seconds:.1f} s")


FETCH = """
import hashlib, json, resource, sys, time
from jupyter_rayoffload import attach
job = attach(sys.argv[1])
job.wait(60)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.monotonic()
big = job.outputs["big"]
seconds = time.monotonic() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"digest": hashlib.sha256(big).hexdigest(), "shape": big.shape, "seconds": seconds,
                  "before": before * 1024, "peak": peak * 1024}))
"""


def test_a_gigabyte_comes_back_as_it_was(ground: Ground) -> None:
    job = send(f"""
        import hashlib, os, numpy
        big = numpy.random.default_rng(7).integers(0, 2**63, {GIGABYTE // 8}).reshape(-1, 1024)
        print("pid", os.getpid())
        print("digest", hashlib.sha256(big).hexdigest())
    """)
    pid = printed(job, "pid ")
    runner = 0
    while not job.wait(0.05):
        runner = max(runner, _peak(pid))
    assert job.exception() is None
    command = [sys.executable, "-c", FETCH, job.id]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=LIMIT).stdout)
    assert told["digest"] == printed(job, "digest ")
    assert told["shape"] == [GIGABYTE // 8192, 1024]
    grown = told["peak"] - told["before"]
    print(
        f"1 GiB: runner's peak {runner / GIGABYTE:.2f} GiB, reader grew by {grown / GIGABYTE:.2f} GiB "
        f"in {told['seconds']:.1f} s"
    )
    assert grown < 1.5 * GIGABYTE  # no second copy
    job.delete()


def test_what_cannot_be_pickled_is_named_with_the_reason_and_the_rest_lands() -> None:
    job = send("""
        import threading
        lock = threading.Lock()
        numbers = (i for i in range(3))
        file = open("notes.txt", "w")
        good = [1, 2, 3]
    """)
    assert job.exception(timeout=LIMIT) is None
    assert job.outputs["good"] == [1, 2, 3]
    for name, reason in {"lock": "lock", "numbers": "generator", "file": "file"}.items():
        with pytest.raises(OutputUnavailable, match=f"'{name}' of job .* cannot travel: .*{reason}"):
            job.outputs[name]


def test_an_exception_of_a_class_of_the_cell_comes_back_with_its_attributes() -> None:
    job = send("""
        class MyError(Exception):
            def __init__(self, code):
                super().__init__(f"code {code}")
                self.code = code

        raise MyError(42)
    """)
    error = job.exception(timeout=LIMIT)
    assert type(error).__name__ == "MyError"
    assert isinstance(error, Exception)
    assert (str(error), error.code) == ("code 42", 42)  # type: ignore[attr-defined]
    with pytest.raises(type(error)):
        job.result()


def test_waiting_for_a_job_raises_its_exception_and_its_class_can_be_named(ground: Ground) -> None:
    with ground.kernel() as kernel:
        run = kernel.sit("""
            %%ray_job --wait
            class MyError(Exception):
                def __init__(self, code):
                    super().__init__(f"code {code}")
                    self.code = code

            raise MyError(42)
        """)
        [error] = run.contents("error")
        assert (error["ename"], error["evalue"]) == ("MyError", "code 42")
        assert "raise MyError(42)" in ANSI.sub("", "\n".join(error["traceback"]))
        assert kernel.value("isinstance(__import__('sys').last_value, MyError)") == "True"
        assert kernel.value("__import__('sys').last_value.code") == "42"


def test_a_name_that_does_not_exist_is_a_name_error_as_here(ground: Ground) -> None:
    error = send("there_is_no_such_name + 1").exception(timeout=LIMIT)
    assert isinstance(error, NameError)
    assert str(error) == "name 'there_is_no_such_name' is not defined"
    assert error.name == "there_is_no_such_name"


ENDLESS = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "1000"])
daemon = subprocess.Popen(["sleep", "1001"], start_new_session=True)
read, write = os.pipe()
if not (pid := os.fork()):
    if not os.fork():
        os.setsid()
        os.write(write, str(os.getpid()).encode())
        time.sleep(1002)
    os._exit(0)
os.waitpid(pid, 0)
orphan = os.read(read, 20).decode()
print("pids", os.getpid(), child.pid, daemon.pid, orphan)
"""


@pytest.mark.parametrize("deaf", [False, True])
def test_a_cell_that_never_ends_is_cancelled_with_all_its_children(deaf: bool) -> None:
    loop = (
        "try:\n        time.sleep(1)\n    except KeyboardInterrupt:\n        pass"
        if deaf
        else "time.sleep(1)"
    )
    job = send(f"{ENDLESS}\nwhile True:\n    {loop}\n")
    pids = [int(word) for word in printed(job, "pids ").split()]
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    began = time.monotonic()
    assert job.cancel()
    assert isinstance(job.exception(timeout=LIMIT), JobCancelled)
    seconds = time.monotonic() - began
    gone(pids)
    assert job.phase is Phase.CANCELLED
    assert not job.cancel()
    print(f"cancelled after {seconds:.1f} s, all processes gone after {time.monotonic() - began:.1f} s")


def test_what_a_cell_leaves_behind_ends_with_its_job() -> None:
    job = send(ENDLESS)
    assert job.exception(timeout=LIMIT) is None
    gone([int(word) for word in printed(job, "pids ").split()])


def _peak(pid: str) -> int:
    """Give the most memory that a process has had, bytes; 0 where it has gone."""
    try:
        with open(f"/proc/{pid}/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0
