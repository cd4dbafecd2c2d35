"""The runner as a real Ray job: the bundle as py_modules, tasks, Ray's log, Ray's stop."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest

from jupyter_rayoffload import bundle
from jupyter_rayoffload.rayapi import RayClient
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store
from tests.ray_fixture import RayCluster
from tests.remote.runner import PYTHON

pytestmark = pytest.mark.ray


class RayRunner:
    """Submits the runner through the Jobs API."""

    def __init__(self, cluster: RayCluster, folder) -> None:
        self.connection = cluster.connection
        self.store = Store(self.connection.store, self.connection.owner, Signer(self.connection.key))
        self.bundle = bundle.build(folder)
        self.package = f"_ray_pkg_{self.bundle.digest[:40]}.zip"
        self.number = 0

    async def _call(self, work):
        async with RayClient(self.connection.info.address, self.connection.ray_token) as client:
            return await work(client)

    def call(self, work):
        return asyncio.run(self._call(work))

    def submit(self, source: str, **spec) -> str:
        self.number += 1
        job = f"rayrun-{self.number}-{time.time_ns()}"
        self.store.create(
            job, {"spec": {"id": job, "source": source, "versions": {"python": PYTHON}, **spec}}
        )
        env = {
            "py_modules": [f"gcs://{self.package}"],
            "env_vars": {
                "RAYOFFLOAD_CONNECTION_FILE": str(self.connection.file),
                "RAY_JOB_STOP_WAIT_TIME_S": "30",  # the machine may be busy
                "RAY_DEDUP_LOGS": "0",
                "COLUMNS": "80",
            },
        }

        async def work(client):
            if not await client.has_package(self.package):
                await client.put_package(self.package, self.bundle.path)
            return await client.submit(
                f"{job}-1", f"python -m {self.bundle.package} {job} 1", runtime_env=env
            )

        self.call(work)
        return job

    def wait(self, job: str, timeout: float = 90):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            info = self.call(lambda client: client.info(f"{job}-1"))
            if info is not None and info.status in ("SUCCEEDED", "FAILED", "STOPPED"):
                return info
            time.sleep(0.1)
        raise AssertionError(self.log(job))

    def log(self, job: str) -> str:
        return self.call(lambda client: client.logs(f"{job}-1"))

    def messages(self, job: str):
        return [m for entry in self.store.read_events(job) for m in entry.messages]

    def text(self, job: str) -> str:
        return "".join(m["content"]["text"] for m in self.messages(job) if m["type"] == "stream")

    def until(self, job: str, text: str, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.text(job):
            assert time.monotonic() < deadline, self.log(job)
            time.sleep(0.05)


@pytest.fixture(scope="module")
def runner(ray_cluster, tmp_path_factory):
    made = RayRunner(ray_cluster, tmp_path_factory.mktemp("bundle"))
    yield made
    made.store.close()


def test_a_cell_with_tasks_whose_prints_are_caught(runner):
    job = runner.submit(
        "import ray\n"
        "ray.init()\nray.init()\n"
        "@ray.remote\ndef double(x):\n    print('in a task', flush=True)\n    return 2 * x\n"
        "values = ray.get([double.remote(i) for i in range(3)])\n"
        "import time; time.sleep(1.5)\n"
        "values"
    )
    info = runner.wait(job)
    assert info.status == "SUCCEEDED", runner.log(job)
    end = runner.store.read(job)["end"]
    assert runner.store.get_payload(job, "outputs", {})["values"] == [0, 2, 4]
    assert end["result"] == {"name": "values"}
    listed = {v["name"]: v for v in end["outputs"]}
    assert set(listed) == {"ray", "double", "values", "time"}
    assert runner.text(job).count("in a task") == 3
    assert runner.log(job).count("in a task") == 3
    running = next(m["content"] for m in runner.messages(job) if m["type"] == "phase")
    assert running["session"].startswith("session_") and running["submission"] == f"{job}-1"


def test_rays_status_agrees_with_ours(runner):
    job = runner.submit("print('before'); 1 / 0")
    info = runner.wait(job)
    assert (info.status, info.exit_code) == ("FAILED", 1)
    assert "ZeroDivisionError" in runner.log(job)
    assert runner.store.read(job)["state"]["phase"] == "failed"


def test_an_object_reference_is_refused_in_those_words(runner):
    job = runner.submit("import ray\nr = ray.put(1)\nx = 1")
    assert runner.wait(job).status == "SUCCEEDED"
    listed = {v["name"]: v for v in runner.store.read(job)["end"]["outputs"]}
    assert listed["r"]["state"] == "cannot travel" and "Ray object reference" in listed["r"]["reason"]
    assert "reason" not in listed["x"]


def test_rays_stop_of_a_connected_cell_runs_its_finally(runner):
    job = runner.submit(
        "import ray, time, subprocess\nray.init()\nkid = subprocess.Popen(['setsid', 'sleep', '99'])\n"
        "print('begun', kid.pid)\n"
        "try:\n    time.sleep(60)\nfinally:\n    time.sleep(0.3); print('tidied up')"
    )
    runner.until(job, "begun ")
    kid = int(runner.text(job).split("begun ")[1].split()[0])
    runner.call(lambda client: client.stop(f"{job}-1"))
    assert runner.wait(job).status == "STOPPED"
    assert runner.store.read(job)["end"]["phase"] == "cancelled"
    assert "tidied up" in runner.text(job), (runner.messages(job), runner.log(job))
    assert not psutil.pid_exists(kid) or psutil.Process(kid).status() == psutil.STATUS_ZOMBIE
