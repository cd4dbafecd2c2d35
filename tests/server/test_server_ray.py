"""The extension over a real Ray and a real store: jobs of a kernel, read and handled over REST."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from selenium import webdriver

from jupyter_rayoffload.clusters.embedded.places import keeper_state
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.drafting import draft_code
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.mapping import Mapped
from jupyter_rayoffload.models import JobOptions
from jupyter_rayoffload.server.service import Service
from jupyter_rayoffload.session import Session
from jupyter_rayoffload.submission import Offloader
from tests.browser.page import BROWSER, DRIVER, FLAGS, MISSING
from tests.ray_fixture import SETTINGS, RayCluster, jupyter_environment, make_backend, run, short_folder
from tests.server.running import BASE, TOKEN, Answer, RunningServer, running_server


def make_service() -> Service:
    return Service(Offloader(RayOffload(**SETTINGS)))


@pytest.fixture(scope="module")
def server(ray_cluster: RayCluster) -> Iterator[RunningServer]:
    with running_server(ray_cluster.connection.file.parents[1], make_service) as server:
        assert server.api("GET", "status").json["store"]["answers"]
        yield server


@pytest.fixture(scope="module")
def kernel(ray_cluster: RayCluster) -> Iterator[Session]:
    """What a kernel has: another process would do as well."""
    with mock.patch.dict(os.environ, jupyter_environment(ray_cluster.connection.file.parents[1])):
        session = Session(RayOffload(**SETTINGS), {})
        with short_folder() as folder:
            session.folder = str(folder)
            yield session
        session.close()


def submit(kernel: Session, code: str) -> Job:
    return kernel.launch(draft_code(kernel.origin(), code, JobOptions(), "rest", values={}))


def until(ask: Callable[[], Answer], true: Callable[[Any], bool], limit: float = 120) -> Any:
    """Ask until the answer is as it should be."""
    end = time.monotonic() + limit
    while not true((answer := ask()).json):
        assert time.monotonic() < end, answer.raw
        time.sleep(0.2)
    return answer.json


def ended(body: Any) -> bool:
    return body["phase"] in ("succeeded", "failed", "cancelled", "lost")


@pytest.mark.ray
def test_a_job_of_a_kernel_is_read_and_run_again(
    server: RunningServer, kernel: Session, ray_cluster: RayCluster
) -> None:
    code = "import IPython\nprint('one')\ndisplay(IPython.display.HTML('<b>two</b>'))\nx = 3"
    job = submit(kernel, code)
    job.result(timeout=200)
    body = until(lambda: server.api("GET", f"jobs/{job.id}"), ended)
    assert (body["phase"], body["spec"]["source"]) == ("succeeded", code)
    assert "x" in [output["name"] for output in body["outputs"]]
    row = next(j for j in server.api("GET", "jobs").json["jobs"] if j["id"] == job.id)
    assert (row["phase"], row["word"]) == ("succeeded", "Succeeded")
    assert "one\n" in server.api("GET", f"jobs/{job.id}/logs").json["text"]
    [output] = server.api("GET", f"jobs/{job.id}/outputs").json["outputs"]
    assert output["data"]["text/html"] == "<b>two</b>"

    answer = server.api("POST", f"jobs/{job.id}/rerun")
    assert answer.status == 201, answer.raw
    again = answer.json["spec"]["id"]
    body = until(lambda: server.api("GET", f"jobs/{again}"), ended)
    assert (body["phase"], again != job.id) == ("succeeded", True), body
    assert "one\n" in server.api("GET", f"jobs/{again}/logs").json["text"]

    connection = ray_cluster.connection
    secrets = (connection.ray_token, connection.store.password, connection.key.hex())
    paths = ["status", "clusters", "clusters/default", "jobs", f"jobs/{job.id}", f"jobs/{job.id}/events"]
    for path in paths:
        raw = server.api("GET", path).raw.decode()
        assert not [s for s in secrets if s in raw], path

    assert server.api("DELETE", f"jobs/{again}").status == 204
    assert server.api("GET", f"jobs/{again}").status == 404


@pytest.mark.ray
def test_the_failed_items_of_a_batch_are_run_again(
    server: RunningServer, kernel: Session, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    code = "import os\nif x == 2 and not os.path.exists(flag):\n    raise ValueError(x)\ny = x"
    items = Mapped("x", list(range(4)))
    values = {"flag": str(flag)}
    job = kernel.launch(draft_code(kernel.origin(), code, JobOptions(), "rest", values=values, mapped=items))
    assert job.wait(200)
    body = until(lambda: server.api("GET", f"jobs/{job.id}"), ended)
    assert body["view"]["failed"]["action"]["options"] == {"failed": True}
    row = next(j for j in server.api("GET", "jobs").json["jobs"] if j["id"] == job.id)
    assert (row["phase"], row["fact"]) == ("failed", "1 of 4 failed")
    flag.touch()
    answer = server.api("POST", f"jobs/{job.id}/rerun", {"failed": True})
    assert answer.status == 201, answer.raw
    again = answer.json["spec"]["id"]
    body = until(lambda: server.api("GET", f"jobs/{again}"), ended)
    assert body["phase"] == "succeeded", body
    assert (body["items"]["succeeded"], body["items"]["kept"]) == (4, 3)
    assert "no item" in server.api("POST", f"jobs/{again}/rerun", {"failed": True}).json["message"]


@pytest.mark.ray
def test_a_job_that_runs_is_stopped(server: RunningServer, kernel: Session) -> None:
    job = submit(kernel, "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    until(lambda: server.api("GET", "jobs"), lambda body: job.id in str(body))
    until(lambda: server.api("GET", f"jobs/{job.id}/logs"), lambda body: "begun" in body["text"])
    assert server.api("DELETE", f"jobs/{job.id}").json["reason"] == "StillRunning"
    assert server.api("DELETE", "clusters/default").json["reason"] == "StillRunning"
    assert server.api("POST", f"jobs/{job.id}/stop").status == 202
    assert until(lambda: server.api("GET", f"jobs/{job.id}"), ended)["phase"] == "cancelled"
    assert server.api("POST", f"jobs/{job.id}/stop").status == 200


@pytest.mark.ray
def test_the_real_dashboard_is_shown_and_not_written_to(server: RunningServer) -> None:
    place = "rayoffload/dashboard/default/"
    headers = {"Accept": "text/html"}
    page = server.send("GET", place, headers=headers)
    assert (page.status, page.headers.get_content_type()) == (200, "text/html")
    assert server.send("GET", f"{place}api/version").status == 200
    assert server.send("GET", f"{place}nothing").status == 404
    assert server.send("POST", f"{place}api/jobs/", {"entrypoint": "true"}).status == 405


@pytest.mark.ray
@pytest.mark.browser
@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_rays_own_front_end_works_behind_the_proxy(server: RunningServer) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in FLAGS:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        driver.get(f"http://127.0.0.1:{server.port}{BASE}rayoffload/dashboard/default/?token={TOKEN}")
        end = time.monotonic() + 100
        # It is past the question for a token, and shows what it was given to read.
        while "Total Usage" not in (text := driver.find_element("tag name", "body").text):
            assert time.monotonic() < end, text
            time.sleep(0.2)
        assert "/2.0 CPU" in text
    finally:
        driver.quit()


def test_looking_starts_no_cluster(tmp_path: Path) -> None:
    with running_server(tmp_path, make_service) as server:
        for path in ("status", "clusters", "clusters/default", "jobs"):
            assert server.api("GET", path).status == 200
        assert server.api("GET", "jobs/a").json["reason"] == "ClusterNotRunning"
        assert server.send("GET", "rayoffload/dashboard/default/").status == 502
        assert server.api("GET", "clusters/other").json["reason"] == "UsageError"
        assert server.api("PATCH", "clusters/default", {"workers": 2}).json["reason"] == "UsageError"
    assert keeper_state(make_backend(tmp_path).places.lock) is None
    assert not (tmp_path / "data" / "rayoffload").exists()


@pytest.mark.ray
def test_a_cluster_comes_and_goes_over_rest() -> None:
    with short_folder() as root:
        backend = make_backend(root)
        try:
            with running_server(root, make_service) as server:
                assert server.api("POST", "clusters").status in (200, 202)
                until(
                    lambda: server.api("GET", "clusters/default"),
                    lambda body: body["phase"] == "running",
                    200,
                )
                assert server.api("GET", "jobs").json == {"jobs": [], "complete": True, "reason": ""}
                if server.api("DELETE", "clusters/default").status == 202:
                    until(lambda: server.api("GET", "clusters/default"), lambda body: body["phase"] == "none")
                assert server.api("GET", "jobs").json["complete"] is False
        finally:
            run(backend.delete())
