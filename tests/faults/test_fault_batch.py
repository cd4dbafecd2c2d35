"""A batch: one cell over many items, in notebooks and scripts, and what of it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy
import psutil
import pytest

from jupyter_rayoffload import attach, jobs, submit, submit_program
from jupyter_rayoffload.ansi import strip
from jupyter_rayoffload.errors import JobCancelled, JobCrashed, OutOfMemory, UsageError
from jupyter_rayoffload.item import ItemStatus
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.models import Phase

from .ground import LIMIT, Ground, gone, other_process, running, until

pytestmark = pytest.mark.usefixtures("ground")


def _ended(job: Job) -> Job:
    assert job.wait(LIMIT)
    return job


SETUP = """
factor = 10
def grown(x):
    return x * factor
class Point:
    def __init__(self, x):
        self.x = x
seen = []
"""


def test_a_batch_in_a_notebook(ground: Ground) -> None:
    with ground.kernel() as kernel:
        kernel.sit(SETUP).check()
        kernel.sit(
            """
            %%ray_job scored --map x=[n for n in range(30)]
            import math
            def half(v):
                return v / 2
            seen.append(x)
            y = grown(x)
            p = Point(x)
            count = len(seen)
            half(y)
            """
        ).check()
        assert kernel.sit("str(y)").check().value == repr(str([x * 10 for x in range(30)]))
        assert kernel.value("set(count), seen") == "({1}, [])", "each item finds the inputs as they were sent"
        assert kernel.value("scored.result()[:3], scored.items[7].result, scored.items[7].value") == (
            "([0.0, 5.0, 10.0], 35.0, 7)"
        )
        assert kernel.value("'half' in globals() or 'math' in globals() or 'x' in globals()") == "False"
        assert kernel.value("type(p[3]) is Point, p[3].x, scored.items[3].outputs['p'].x") == "(True, 3, 3)"
        # From store to cluster: the lists are put together there.
        kernel.sit("%%ray_job total\ns = sum(y) + sum(count)").check()
        assert kernel.sit("s").check().value == str(10 * sum(range(30)) + 30)
        kernel.sit("%%ray_job none --map x=[]\nz = x + 1\nz").check()
        assert kernel.sit("z, none.result(), none.phase.value").check().value == "([], [], 'succeeded')"
        dry = kernel.sit("%%ray_job --map x=range(5) --dry-run\ny = x").check().stdout
        assert "Runs once for each of 5 items" in dry


def test_a_failed_item_raises_its_own_error_under_wait(ground: Ground) -> None:
    with ground.kernel() as kernel:
        run = kernel.run(
            "%%ray_job scored --wait --map x=range(5)\n"
            "print('at', x)\n"
            "if x in (2, 4):\n    raise KeyError(f'no {x}')\n"
            "y = x\nx",
            timeout=LIMIT,
        )
        assert (run.reply["ename"], run.reply["evalue"]) == ("KeyError", "'no 2'"), run.reply
        shown = strip("\n".join(run.reply["traceback"]))
        assert "----> 4     raise KeyError(f'no {x}')" in shown, shown
        assert kernel.value("y") == "[0, 1, None, 3, None]"
        assert kernel.value("[i.index for i in scored.items.failed]") == "[2, 4]"
        for x in range(5):
            assert f"at {x}" in run.stdout


BAD = {
    "x=1/0": "ZeroDivisionError: division by zero. Nothing was sent",
    "x=5": "an int has no items",
    "x=(1 / n for n in (1, 0))": "item 1: ZeroDivisionError: division by zero",
    "x=[1, {'file': open('held')}]": 'item 1 of the batch cannot travel: x["file"]: an open file',
    "x=nowhere": "NameError: name 'nowhere' is not defined",
    "x=a if b": "needs quotation marks",
    "x=f(": "this is no expression of Python",
}


def test_bad_items_are_refused_before_anything_is_sent(ground: Ground) -> None:
    with ground.kernel() as kernel:
        kernel.sit("open('held', 'w').close()").check()
        before = kernel.value("len(__import__('jupyter_rayoffload').jobs(1000))")
        for text, said in BAD.items():
            run = kernel.sit(f"%%ray_job --map {text}\ny = x")
            assert not run.ok, text
            assert said in run.reply["evalue"], (text, run.reply)
        assert kernel.value("len(__import__('jupyter_rayoffload').jobs(1000))") == before


WORK = """
import os, time
print("pid", os.getpid())
while not os.path.exists(gate) and x >= 4:
    time.sleep(0.05)
y = x * x
open(f"made-{x}.txt", "w").write(str(x))
y + 1
"""


def test_results_come_while_the_batch_runs_also_elsewhere(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = submit(WORK, inputs={"gate": str(gate)}, map={"x": range(6)}, max_parallel=2)
    try:
        early = [item.index for item in islice(job.items.as_completed(LIMIT), 4)]
        assert sorted(early) == [0, 1, 2, 3]
        assert not job.done()
        with other_process():
            again = attach(job.id)
            until(lambda: len(again.items.done) >= 4, "the items so far")
            assert again.items[3].outputs["y"] == 9
            assert again.items[3].status is ItemStatus.SUCCEEDED
            assert again.items[3].result == 10
            until(lambda: again.items.running, "the items that run")
            assert {i.index for i in again.items.running} <= {4, 5}
            assert again.record.items is not None
            assert again.record.items.total == 6
    finally:
        gate.touch()
    assert _ended(job).phase is Phase.SUCCEEDED, job.record.failure
    assert job.outputs["y"] == [x * x for x in range(6)]
    assert sorted(f.path for f in job.files) == [f"made-{x}.txt" for x in range(6)]
    assert "(item 5 pid=" in job.logs()


MAYBE = """
import os
if x % 3 == 1 and not os.path.exists(flag):
    raise ValueError(f"no {x}")
y = [x, os.path.exists(flag)]
x
"""


def test_failed_items_are_run_again_alone_and_the_lists_are_whole(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    job = _ended(submit(MAYBE, inputs={"flag": str(flag)}, map={"x": range(10)}, retries=1))
    assert job.phase is Phase.FAILED
    assert job.record.attempt == 1, "items are tried again, not the job"
    assert job.record.failure is not None
    assert job.record.failure.message == "3 of 10 items failed; the error is that of item 1: x=1"
    error = job.exception()
    assert isinstance(error, ValueError)
    assert str(error) == "no 1"
    assert "raise ValueError" in strip("\n".join(job.items[4].traceback))
    assert job.outputs["y"][:3] == [[0, False], None, [2, False]]
    flag.touch()
    again = _ended(job.retry_failed(max_parallel=1))
    assert again.phase is Phase.SUCCEEDED, again.record.failure
    assert again.outputs["y"] == [[x, x % 3 == 1] for x in range(10)]
    assert again.result() == list(range(10))
    assert again.record.items is not None
    assert again.record.items.kept == 7
    assert again.record.spec.batch is not None
    assert again.record.spec.batch.parallel == 1
    with pytest.raises(UsageError, match=r"no item of job .* has failed"):
        again.retry_failed()
    known = {record.id for record in jobs(1000)}
    job.rerun_soon({"failed": True})  # as the button in the panel does
    until(lambda: {record.id for record in jobs(1000)} - known, "the job of the button")
    [button] = [record for record in jobs(1000) if record.id not in known]
    assert button.spec.batch is not None
    assert button.spec.batch.only == (1, 4, 7)
    with other_process():
        job.delete()
        assert attach(again.id).outputs["y"][0] == [0, False], "it needs nothing of the first job"


LARGE = """
import numpy as np
assert not big.flags.writeable
display({"item": x})
y = big[:100_000] * x
y.sum()
"""


def test_large_arrays_are_shared_and_come_back_and_displays_are_kept() -> None:
    big = numpy.arange(500_000.0)
    job = _ended(submit(LARGE, inputs={"big": big}, map={"x": range(4)}))
    assert job.phase is Phase.SUCCEEDED, job.record.failure
    for x, y in enumerate(job.outputs["y"]):
        assert (y == big[:100_000] * x).all()
        assert job.items[x].outputs["y"].shape == (100_000,)
    assert [float(s) for s in job.result()] == [float((big[:100_000] * x).sum()) for x in range(4)]
    assert [d["data"]["text/plain"] for d in job.items[2].displays] == ["{'item': 2}"]
    assert any("(item 2 pid=" in line and "{'item': 2}" in line for line in job.logs().split("\n"))
    changed = _ended(submit("big[0] = x\ny = big[:2].tolist()", inputs={"big": big}, map={"x": [5, 6]}))
    assert changed.outputs["y"] == [[5.0, 1.0], [6.0, 1.0]]
    assert big[0] == 0.0


DEADLY = """
import os, signal
if x == 3:
    os._exit(1)
if x == 5 and not os.path.exists(once):
    open(once, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(a)
if x == 6:
    raise Odd("strange", 2)
y = x
"""


def test_an_item_that_kills_its_worker_takes_no_other_along(tmp_path: Path) -> None:
    job = _ended(submit(DEADLY, inputs={"once": str(tmp_path / "once")}, map={"x": range(8)}))
    assert job.phase is Phase.FAILED
    assert [i.index for i in job.items.failed] == [3, 6]
    assert isinstance(job.items[3].error, JobCrashed)
    odd = job.items[6].error
    assert (type(odd).__name__, str(odd)) == ("Odd", "strange")
    assert isinstance(job.exception(), JobCrashed)
    assert job.outputs["y"] == [0, 1, 2, None, 4, 5, None, 7]


def test_an_item_beyond_its_memory_fails_alone() -> None:
    code = "y = len(bytearray(10_000_000_000 if x == 1 else 10))"
    job = _ended(submit(code, map={"x": range(3)}, memory="1GiB"))
    assert [i.index for i in job.items.failed] == [1], job.record.failure
    assert isinstance(job.items[1].error, OutOfMemory)
    assert isinstance(job.exception(), OutOfMemory)
    assert job.outputs["y"] == [10, None, 10]


def test_a_cancelled_batch_leaves_no_worker(tmp_path: Path) -> None:
    code = "import os, time\nprint('pid', os.getpid(), flush=True)\ny = x\ntime.sleep(600 if x > 1 else 0)"
    job = running(submit(code, map={"x": range(20)}))
    until(lambda: len(job.items.done) >= 2 and job.logs().count("pid ") >= 4, "the first items")
    pids = {
        int(line.rpartition("pid ")[2])
        for line in job.logs().split("\n")
        if "pid " in line.rpartition(")")[2]
    }
    assert any(psutil.pid_exists(pid) for pid in pids)
    assert job.cancel()
    _ended(job)
    assert isinstance(job.exception(), JobCancelled)
    gone(sorted(pids))
    assert {i.index for i in job.items.succeeded} == {0, 1}
    assert job.items[1].outputs["y"] == 1
    assert len(job.items.waiting) == 18
    assert sorted(item.index for item in job.items.as_completed()) == [0, 1]  # side by side: either is first


PROGRAM = """
import sys
from rayoffload_job import read_input, write_output
given = read_input()
print("given", given)
if given == {"n": 2}:
    sys.exit(5)
write_output(given if isinstance(given, bytes) else {"square": given["n"] ** 2})
"""


def test_a_program_is_run_for_each_of_many_inputs(tmp_path: Path) -> None:
    (tmp_path / "square.py").write_text(PROGRAM)
    work = f"{sys.executable} square.py"
    inputs = ({"n": n} if n < 3 else b"raw" for n in range(4))
    job = _ended(submit_program(work, inputs=inputs, working_dir=str(tmp_path), max_parallel=2))
    assert job.phase is Phase.FAILED
    assert [i.index for i in job.items.failed] == [2]
    assert "exit code 5" in str(job.items[2].error)
    assert "exit code 5" in str(job.exception())
    assert [job.items[i].result for i in (0, 1, 3)] == [{"square": 0}, {"square": 1}, b"raw"]
    assert "(item 1 pid=" in job.logs()
    assert "given {'n': 1}" in job.logs()
    good = _ended(submit_program(work, inputs=[{"n": 3}], working_dir=str(tmp_path)))
    assert good.result() == [{"square": 9}]
    assert _ended(good.rerun()).result() == [{"square": 9}]
    assert _ended(submit_program(work, inputs=[], working_dir=str(tmp_path))).result() == []


SCORE = """
import os, sys
from rayoffload_job import read_input, write_output
word, flag = sys.argv[1:]
assert read_input() == int(word)
print("seed", word)
if word == "2" and not os.path.exists(flag):
    sys.exit(3)
open(f"{word}.txt", "w").close()
write_output(int(word) ** 2)
"""


def test_a_batch_from_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(SCORE)
    flag = tmp_path.parent / f"{tmp_path.name}-flag"

    def terminal(*words: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "jupyter_rayoffload.cli", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
        return done.returncode, done.stdout, done.stderr

    work = [sys.executable, "score.py", "{seed}", str(flag)]
    code, out, said = terminal("run", "--map", "seed=range(1, 4)", "--max-parallel", "2", *work)
    assert code == 1, said
    assert sum("seed 2" in line and "(item 1 pid=" in line for line in out.split("\n")) == 1
    assert "1 of 3 items failed; the error is that of item 1: seed=2" in said
    job = said.split("\n")[0]
    assert attach(job).items[2].result == 9
    flag.touch()
    code, out, said = terminal("retry", job)
    assert code == 0, said
    again = attach(said.split("\n")[0])
    assert again.result() == [1, 4, 9]
    assert "seed 2" in out
    assert "seed 1" not in out
    code, _, said = terminal("retry", again.id)
    assert code == 2
    assert "no item of job" in said


def test_a_program_that_is_run_again_has_its_input(tmp_path: Path) -> None:
    (tmp_path / "square.py").write_text(PROGRAM)
    job = _ended(submit_program(f"{sys.executable} square.py", input={"n": 4}, working_dir=str(tmp_path)))
    assert job.result() == {"square": 16}
    assert _ended(job.rerun()).result() == {"square": 16}


COUNT = """
%%ray_job counted --map x=range(40)
import time
time.sleep(0.25)
print("item", x)
answer = x * 2
"""


def test_a_batch_outlives_its_kernel(ground: Ground) -> None:
    with ground.kernel() as kernel:
        kernel.sit(COUNT).check()
        job = kernel.value("counted.id")
        until(lambda: int(kernel.value("len(counted.items.done)")) > 2, "the first items")
        os.kill(kernel.pid, signal.SIGKILL)
    with ground.kernel("another") as kernel:
        kernel.sit(f"again = %ray attach {job}").check()
        assert kernel.value("len(again.items), again.items[0].outputs['answer']") == "(40, 0)"
        kernel.sit("again.wait(240)").check()
        assert kernel.value("again.outputs['answer']") == str([x * 2 for x in range(40)])
