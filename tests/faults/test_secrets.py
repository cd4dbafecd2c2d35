"""No secret shows where others can look while a job runs, nor in what stays behind."""

from __future__ import annotations

import contextlib
import json
import stat
import urllib.request
from pathlib import Path

import psutil

from .ground import Ground, found, printed

CELL = """
%%ray_job watched --env GREETING=hello
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
import ray
payload = "a quite distinctive payload"

@ray.remote
def task(text):
    return text.upper()

print("loud:", ray.get(task.remote(payload)))
print("ready")
time.sleep(1000)
"""


def test_no_secret_shows_anywhere_while_a_job_runs(ground: Ground) -> None:
    with ground.kernel() as kernel:
        shown = kernel.sit(CELL).check()
        job = found(kernel.value("watched.id"))
        assert printed(job, "loud: ") == "A QUITE DISTINCTIVE PAYLOAD"
        printed(job, "ready")
        kernel.drain(1)

        places: dict[str, bytes] = {}
        places |= _processes(ground, kernel.pid)
        places |= _ray(ground, job.record.submission_id)
        places |= _store(ground, job.id)
        places |= _logs(ground)
        places["outputs of the cell"] = json.dumps(shown.messages, default=str).encode()
        places["%ray config"] = kernel.sit("%ray config").check().stdout.encode()
        places["%ray cluster"] = kernel.sit("%ray cluster").check().stdout.encode()
        places["repr of the connection"] = repr(ground.connection).encode()
        job.cancel()
        job.wait()

    assert b"A QUITE DISTINCTIVE PAYLOAD" in places["events"]
    assert b"A QUITE DISTINCTIVE PAYLOAD" in places["Ray's log of the job"]
    assert sum(name.startswith("environ") for name in places) > 8
    leaks = {
        f"{what} in {where}"
        for where, content in places.items()
        for what, secret in _secrets(ground).items()
        if secret in content
    }
    assert not leaks


def test_files_with_secrets_are_for_their_owner_alone(ground: Ground) -> None:
    places = ground.backend.places
    for file in (places.connection, places.key, places.log):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    run = Path(json.loads(places.lock.read_text())["run"])
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "redis.sock").stat().st_mode) == 0o700


def _secrets(ground: Ground) -> dict[str, bytes]:
    """Give each secret as text; the key also as it is."""
    connection = ground.connection
    texts = {
        "the token": connection.ray_token,
        "the password": connection.store.password,
        "the key": connection.key.hex(),
    }
    assert all(len(text) > 20 for text in texts.values())
    return {**{what: text.encode() for what, text in texts.items()}, "the raw key": connection.key}


def _processes(ground: Ground, kernel: int) -> dict[str, bytes]:
    """Give what `ps` shows of the cluster, its jobs and the kernel."""
    places = {}
    for process in (*ground.processes(), psutil.Process(kernel)):
        for part in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                places[f"{part} of {process.pid}"] = Path(f"/proc/{process.pid}/{part}").read_bytes()
    return places


def _ray(ground: Ground, submission: str) -> dict[str, bytes]:
    """Give what Ray tells anyone who has its token."""
    return {
        "Ray's jobs": _get(ground, "/api/jobs/"),
        "Ray's job": _get(ground, f"/api/jobs/{submission}"),
        "Ray's log of the job": _get(ground, f"/api/jobs/{submission}/logs"),
        "Ray's cluster status": _get(ground, "/api/cluster_status"),
    }


def _get(ground: Ground, path: str) -> bytes:
    connection = ground.connection
    request = urllib.request.Request(
        connection.info.address + path, headers={"Authorization": f"Bearer {connection.ray_token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def _store(ground: Ground, job_id: str) -> dict[str, bytes]:
    client = ground.redis()
    key = f"rayoffload:{{tester}}:job:{job_id}"
    record = b" ".join(part for pair in client.hgetall(key).items() for part in pair)
    events = b" ".join(v for _, fields in client.xrange(f"{key}:events") for v in fields.values())
    client.close()
    assert record
    return {"record": record, "events": events}


def _logs(ground: Ground) -> dict[str, bytes]:
    """Give every log that Ray and the keeper write."""
    run = Path(json.loads(ground.backend.places.lock.read_text())["run"])
    files = [f for f in (run / "ray").glob("session_2*/logs/**/*") if f.is_file()]
    assert files
    logs = {f"log {file.name}": file.read_bytes() for file in files}
    return {**logs, "log of the keeper": ground.backend.places.log.read_bytes()}
