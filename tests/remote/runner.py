"""Drives the real runner as a real process against a real Redis, as Ray would start it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

import jupyter_rayoffload
from jupyter_rayoffload.remote.codec import freeze
from jupyter_rayoffload.remote.events import Numbers
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress
from tests.servers import RedisServer

KEY = bytes(range(32))
SIGNER = Signer(KEY)
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_numbers = itertools.count(1)


class Run:
    """One job and the process that runs it."""

    def __init__(
        self, driver: Driver, job_id: str, attempt: int, process: subprocess.Popen[bytes], log: Path
    ):
        self.driver, self.id, self.attempt, self.process, self._log = driver, job_id, attempt, process, log
        self.children: list[psutil.Process] = []

    def wait(self, timeout: float = 60) -> Run:
        """Wait for the process; a runner that hangs is killed, and the test fails."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the runner still runs after {timeout} s; its log:\n{self.log}") from None
        return self

    def until(self, text: str, timeout: float = 30) -> Run:
        """Wait until the job has printed `text`."""
        deadline = time.monotonic() + timeout
        while text not in self.text():
            assert time.monotonic() < deadline, f"{text!r} is not in {self.text()!r}; log:\n{self.log}"
            assert self.process.poll() is None, f"it ended; log:\n{self.log}"
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        self.process.kill()
        self.process.wait()

    def stop_as_ray(self) -> None:
        """Send SIGTERM to the runner and all its descendants, as Ray's supervisor does."""
        processes = [
            psutil.Process(self.process.pid),
            *psutil.Process(self.process.pid).children(recursive=True),
        ]
        self.children = processes
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)

    def remember_children(self) -> list[int]:
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        return [child.pid for child in self.children]

    def survivors(self) -> list[psutil.Process]:
        return [c for c in self.children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE]

    @property
    def code(self) -> int:
        return self.process.returncode

    @property
    def log(self) -> str:
        """Ray's log of the job: all that the process wrote."""
        return self._log.read_text(errors="replace")

    @property
    def record(self) -> dict[str, Any]:
        return self.driver.store.read(self.id) or {}

    @property
    def end(self) -> dict[str, Any]:
        return self.record["end"]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Every message, in order; a lost entry is a failure."""
        numbers, found = Numbers(whole=True), []
        for entry in self.driver.store.read_events(self.id):
            admitted = numbers.admit(entry)
            if admitted:
                assert not admitted.lost, f"{admitted.lost} entries are missing before {admitted.number}"
                found += admitted.messages
        return found

    def text(self, *names: str) -> str:
        """What was printed, to both streams or to the named ones."""
        names = names or ("stdout", "stderr")
        streams = (m["content"] for m in self.messages if m["type"] == "stream")
        return "".join(c["text"] for c in streams if c["name"] in names)

    def contents(self, *types: str) -> list[dict[str, Any]]:
        return [m["content"] for m in self.messages if m["type"] in types]

    def story(self) -> list[tuple[str, str]]:
        """Outputs in order: (type, text), streams merged."""
        found: list[tuple[str, str]] = []
        for m in self.messages:
            c = m["content"]
            if m["type"] == "stream":
                if found and found[-1][0] == c["name"]:
                    found[-1] = (c["name"], found[-1][1] + c["text"])
                else:
                    found.append((c["name"], c["text"]))
            elif "data" in c:
                found.append((m["type"], c["data"].get("text/plain", "")))
            elif m["type"] in ("clear_output", "error"):
                found.append((m["type"], c.get("ename", "")))
        return found

    def values(self, slot: str = "outputs", namespace: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.driver.store.get_payload(self.id, slot, namespace if namespace is not None else {})

    @property
    def result(self) -> Any:
        return self.values("result")["result"]

    @property
    def names(self) -> list[str]:
        return [v["name"] for v in self.end["outputs"]]


class Driver:
    """Submits jobs to a store, and runs them here."""

    def __init__(self, server: RedisServer, folder: Path, python: str = sys.executable) -> None:
        self.owner = f"test-{uuid.uuid4().hex[:8]}"
        self.server, self.folder, self.python = server, folder, python
        self.store = Store(StoreAddress(server.url, server.password), self.owner, SIGNER, patience=20)
        self.shared = folder / "shared"
        self.temp = folder / "tmp"
        self.home = folder / "home"
        for made in (self.shared, self.temp, self.home):
            made.mkdir()
        self.connection = folder / "connection.json"
        address = StoreAddress(server.url, server.password)
        self.connection.touch(mode=0o600)
        self.connection.write_text(
            json.dumps(
                {"version": 1, "owner": self.owner, "key": KEY.hex(), "store": address.to_connection()}
            )
        )
        self.runs: list[Run] = []

    def submit(
        self,
        source: str,
        inputs: dict[str, Any] | None = None,
        namespace: dict[str, Any] | None = None,
        job_id: str = "",
        **spec: Any,
    ) -> str:
        """Write a job into the store."""
        job_id = job_id or f"job-{next(_numbers)}"
        inputs = inputs or {}
        frozen = freeze(inputs, inputs if namespace is None else namespace, SIGNER, copy=False)
        spec = {
            "id": job_id,
            "source": source,
            "inputs": frozen.values,
            "versions": {"python": PYTHON},
            **spec,
        }
        self.store.create(job_id, {"spec": spec})
        if inputs:
            self.store.put_payload(job_id, "inputs", frozen)
        return job_id

    def start(self, job_id: str, attempt: int = 1, env: dict[str, str] | None = None) -> Run:
        """Start the runner."""
        log = self.folder / f"{job_id}-{attempt}-{len(self.runs)}.log"
        package = str(Path(jupyter_rayoffload.__file__).parent.parent)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY", "MPL", "IPYTHON", "COV"))},
            "RAYOFFLOAD_CONNECTION_FILE": str(self.connection),
            "PYTHONPATH": f"{package}{os.pathsep}{self.shared}",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "80",
            "TMPDIR": str(self.temp),
            "HOME": str(self.home),
            **(env or {}),
        }
        command = [self.python, "-m", "jupyter_rayoffload.remote", job_id, str(attempt)]
        with open(log, "wb") as file:
            process = subprocess.Popen(
                command, env=environment, cwd=self.shared, stdout=file, stderr=file, start_new_session=True
            )
        self.runs.append(Run(self, job_id, attempt, process, log))
        return self.runs[-1]

    def run(self, source: str, inputs: dict[str, Any] | None = None, **options: Any) -> Run:
        """Submit, run, and wait for the end."""
        env, timeout = options.pop("env", None), options.pop("timeout", 60)
        return self.start(self.submit(source, inputs, **options), env=env).wait(timeout)

    def close(self) -> None:
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()
        self.store.close()


@contextlib.contextmanager
def driving(server: RedisServer, folder: Path) -> Iterator[Driver]:
    """Give a driver that leaves nothing running."""
    folder.mkdir(parents=True, exist_ok=True)
    driver = Driver(server, folder)
    try:
        yield driver
    finally:
        driver.close()
