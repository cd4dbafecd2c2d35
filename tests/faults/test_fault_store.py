"""The store goes away for a while: runner and notebook buffer, wait and say so."""

from __future__ import annotations

import time

from jupyter_rayoffload import attach
from jupyter_rayoffload.errors import Forged

from .ground import LIMIT, Ground, other_process, printed, running, send, until

#: How long the store is away, seconds.
AWAY = 30.0
COUNT = """
import time
for i in range({lines}):
    print("line", i)
    time.sleep({pause})
"done"
"""


def test_a_store_that_stops_for_half_a_minute_costs_nothing(ground: Ground) -> None:
    long = running(send(COUNT.format(lines=400, pause=(AWAY + 10) / 400)))
    short = running(send(COUNT.format(lines=100, pause=AWAY / 200)))  # ends while the store is away
    printed(short, "line 10")
    redis = ground.process("redis-server")
    redis.suspend()
    began = time.monotonic()
    try:
        said = until(lambda: long.record.reason, "a word on what is waited for")
        told = time.monotonic() - began
        time.sleep(max(0.0, AWAY - told))
        assert not short.done()
        assert long.running()
    finally:
        redis.resume()
    assert "the store at unix:///" in said
    assert "does not answer since" in said
    assert short.result(timeout=LIMIT) == "done"
    assert long.result(timeout=LIMIT) == "done"
    until(lambda: not long.record.reason, "that it answers again")
    for job, lines in ((short, 100), (long, 400)):
        _complete(job.id, lines)
        assert job.logs().split("\n") == [f"line {i}" for i in range(lines)]
    print(f"the record said so after {told:.1f} s")


def test_a_store_that_is_killed_is_started_again_with_all_that_it_had(ground: Ground) -> None:
    kept = send("print('before')\nkept = list(range(1000))")
    assert kept.exception(timeout=LIMIT) is None
    job = running(send(COUNT.format(lines=300, pause=0.02)))
    printed(job, "line 50")
    redis = ground.process("redis-server")
    redis.kill()
    began = time.monotonic()
    until(lambda: _answers(ground), "another Redis")
    seconds = time.monotonic() - began
    assert ground.process("redis-server").pid != redis.pid
    assert job.result(timeout=LIMIT) == "done"
    assert job.logs().split("\n") == [f"line {i}" for i in range(300)]
    _complete(job.id, 300)
    with other_process():
        assert attach(kept.id).outputs["kept"] == list(range(1000))
        assert attach(kept.id).logs() == "before"
    print(f"another Redis after {seconds:.1f} s")


def _complete(job_id: str, lines: int) -> None:
    """Check that someone else sees every line once, in order, and how it ended."""
    with other_process():
        again = attach(job_id)
        assert again.wait(LIMIT)
        assert again.logs().split("\n") == [f"line {i}" for i in range(lines)]
        assert again.record.lines == lines
        assert again.result() == "done"


def _answers(ground: Ground) -> bool:
    try:
        return bool(ground.redis().ping())
    except Exception:
        return False


def test_an_event_that_nobody_signed_is_not_believed(ground: Ground) -> None:
    job = running(send(COUNT.format(lines=150, pause=0.1)))
    printed(job, "line 3")
    with other_process():
        seen = attach(job.id)
        forged = {"w": job.record.submission_id, "n": 10**6, "d": b"[]" + bytes(32)}
        client = ground.redis()
        client.xadd(f"rayoffload:{{tester}}:job:{job.id}:events", forged)
        client.close()
        for one in (job, seen):
            error = one.exception(timeout=LIMIT)
            assert isinstance(error, Forged), error
            assert one.logs().startswith("line 0\nline 1\n")
