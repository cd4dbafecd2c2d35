"""The REST interface, over a real Jupyter server with a cluster and a store in memory."""

from __future__ import annotations

import json
import logging
import socket
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import JupyterServerAuthWarning

from jupyter_rayoffload.errors import ClusterStartFailed, StoreUnreachable
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase
from jupyter_rayoffload.server import handlers, schema
from tests.server.conftest import Scene
from tests.server.fake_service import OWNER, PASSWORD, RAY_TOKEN, Parts
from tests.server.running import BASE, TOKEN, Answer, running_server


def refused(answer: Answer, status: int, reason: str) -> dict[str, Any]:
    """Check that an answer is an error of the common shape."""
    assert answer.status == status, answer.raw
    body: dict[str, Any] = answer.json
    assert set(body) == {"message", "reason", "hint"}
    assert body["reason"] == reason
    assert body["message"]
    return body


# ---------------------------------------------------------------------- clusters


def test_looking_starts_nothing(scene: Scene) -> None:
    for path in ("status", "profiles", "clusters", "clusters/default", "jobs"):
        assert scene.server.api("GET", path).status == 200, path
    for path in ("jobs/a", "jobs/a/logs", "jobs/a/events", "jobs/a/outputs"):
        refused(scene.server.api("GET", path), 503, "ClusterNotRunning")
    assert scene.parts.backend.calls == []


def test_without_a_cluster_the_list_says_why_it_is_empty(scene: Scene) -> None:
    body = scene.server.api("GET", "jobs").json
    assert (body["jobs"], body["complete"]) == ([], False)
    assert "does not run" in body["reason"]
    status = scene.server.api("GET", "status").json
    assert status["owner"] == OWNER
    assert (status["cluster"]["phase"], status["store"]["answers"]) == ("none", False)


def test_a_cluster_is_made_once(scene: Scene) -> None:
    answer = scene.server.api("POST", "clusters", {})
    assert (answer.status, answer.json["phase"]) == (200, "running")
    assert answer.json["dashboard"] == f"{BASE}rayoffload/dashboard/default/"
    assert [c["name"] for c in scene.server.api("GET", "clusters").json["clusters"]] == ["default"]
    assert scene.server.api("GET", "status").json["store"] == {"answers": True, "reason": ""}


def test_a_cluster_has_the_size_that_was_chosen(scene: Scene) -> None:
    listed = scene.server.api("GET", "profiles").json["profiles"]
    assert [(p["name"], p["default"], len(p["fields"])) for p in listed] == [
        ("small", True, 0),
        ("large", False, 3),
    ]
    assert listed[0] == {
        "name": "small",
        "title": "Small",
        "description": "For a try",
        "default": True,
        "fields": [],
    }
    assert "path" not in str(listed)
    asked = {"name": "big", "profile": "large", "options": {"workers": 4, "memory": "8GiB"}}
    made = scene.server.api("POST", "clusters", asked)
    assert (made.status, made.json["profile"]) == (200, "large")
    assert made.json["choices"] == {"workers": 4, "memory": 8 << 30, "image": "stable"}
    assert scene.server.api("POST", "clusters", {"name": "big"}).json["profile"] == "large"
    assert scene.server.api("POST", "clusters", asked).status == 200
    for other, said in (
        ({"profile": "small"}, "cluster 'big' is of profile large, not of profile small"),
        ({"profile": "large", "options": {"workers": 5}}, "has workers=4, not workers=5"),
        ({"profile": "large", "options": {"worker": 5}}, "profile large has no field 'worker'"),
        ({"profile": "large", "options": {"workers": 12}}, "workers cannot be 12: profile large has 0 to 8"),
    ):
        answer = scene.server.api("POST", "clusters", {"name": "big", **other})
        assert said in refused(answer, 400, "UsageError")["message"]


def test_another_size_is_refused_while_a_cluster_is_on_its_way(scene: Scene) -> None:
    backend = scene.parts.backend
    backend.gate.clear()
    assert scene.server.api("POST", "clusters", {"profile": "small"}).status == 202
    scene.server.run(
        backend.change(
            "default", ClusterInfo(profile="small", kind="kubernetes", phase=ClusterPhase.STARTING)
        )
    )
    refused(scene.server.api("POST", "clusters", {"profile": "large"}), 400, "UsageError")
    assert scene.server.api("POST", "clusters", {"profile": "small"}).status == 202
    scene.server.loop.call_soon_threadsafe(backend.gate.set)
    assert _until(lambda: scene.server.api("GET", "clusters/default").json["phase"] == "running")


def test_a_start_that_takes_long_goes_on_behind_the_answer(scene: Scene) -> None:
    backend = scene.parts.backend
    backend.gate.clear()
    answer = scene.server.api("POST", "clusters")
    assert (answer.status, answer.json["phase"]) == (202, "starting")
    assert answer.headers["Location"] == f"{BASE}rayoffload/api/clusters/default"
    assert scene.server.api("POST", "clusters").status == 202
    assert backend.calls == ["ensure default"]  # the second one waits for the same start
    assert [c["phase"] for c in scene.server.api("GET", "clusters").json["clusters"]] == ["starting"]
    scene.server.loop.call_soon_threadsafe(backend.gate.set)
    assert _until(lambda: scene.server.api("GET", "clusters/default").json["phase"] == "running")


def test_a_start_that_fails_is_told(scene: Scene) -> None:
    backend = scene.parts.backend
    backend.fault = ClusterStartFailed("no memory", "Get some")
    assert refused(scene.server.api("POST", "clusters"), 502, "ClusterStartFailed")["hint"] == "Get some"
    backend.gate.clear()
    assert scene.server.api("POST", "clusters").status == 202
    scene.server.loop.call_soon_threadsafe(backend.gate.set)
    assert _until(lambda: scene.server.api("GET", "clusters/default").json["phase"] == "failed")
    body = scene.server.api("GET", "clusters/default").json
    assert (body["reason"], body["detail"]) == ("no memory", "Get some")
    backend.fault = None
    assert scene.server.api("POST", "clusters").json["phase"] == "running"


def test_a_cluster_is_scaled_suspended_resumed_and_removed(scene: Scene) -> None:
    scene.up()
    assert scene.server.api("PATCH", "clusters/default", {"workers": 3}).json["nodes"] == 4
    assert scene.server.api("POST", "clusters/default/suspend").json["phase"] == "suspended"
    assert scene.server.api("POST", "clusters/default/resume").json["phase"] == "running"
    assert scene.server.api("DELETE", "clusters/default").status == 204
    assert scene.server.api("GET", "clusters").json == {"clusters": []}


def test_removing_a_cluster_with_live_jobs_needs_force(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1", "running")
    body = refused(scene.server.api("DELETE", "clusters/default"), 409, "StillRunning")
    assert "fit-1" in body["message"] and "force=true" in body["hint"]
    assert "delete default" not in scene.parts.backend.calls
    assert scene.server.api("DELETE", "clusters/default?force=true").status == 204


# ---------------------------------------------------------------------- jobs


def test_jobs_are_listed_newest_first_and_page_by_page(scene: Scene) -> None:
    scene.up()
    now = time.time()
    for number in range(5):
        scene.parts.job(
            f"fit-{number}", created=now + number, notebook="a.ipynb" if number % 2 else "b.ipynb"
        )
    first = scene.server.api("GET", "jobs?limit=2").json
    assert [j["id"] for j in first["jobs"]] == ["fit-4", "fit-3"]
    second = scene.server.api("GET", f"jobs?limit=10&before={first['next']}").json
    assert [j["id"] for j in second["jobs"]] == ["fit-2", "fit-1", "fit-0"]
    assert "next" not in second and second["complete"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("phase=running", ["tune"]),
        ("phase=live", ["tune"]),
        ("phase=ended", ["fit"]),
        ("notebook=a.ipynb", ["fit"]),
        ("text=FI", ["fit"]),
        ("text=nothing", []),
    ],
)
def test_jobs_are_filtered(scene: Scene, query: str, found: list[str]) -> None:
    scene.up()
    scene.parts.job("fit", notebook="a.ipynb")
    scene.parts.job("tune", "running", notebook="b.ipynb")
    assert [j["id"] for j in scene.server.api("GET", f"jobs?{query}").json["jobs"]] == found


def test_a_job_says_all_but_secrets(scene: Scene) -> None:
    scene.up()
    options = {"env": {"KEY": "hunter2"}, "timeout": 60}
    line = "%%ray_job --env KEY=hunter2"
    scene.parts.job("fit-1", label="fit", cell_line=line, options=options)
    answer = scene.server.api("GET", "jobs/fit-1")
    assert answer.json["spec"]["options"]["env"] == {"KEY": "…"}
    assert answer.json["spec"]["options"]["timeout"] == 60
    assert answer.json["view"]["word"] == "Succeeded"
    for path in ("jobs/fit-1", "jobs", "status", "clusters", "clusters/default"):
        raw = scene.server.api("GET", path).raw.decode()
        for secret in ("hunter2", RAY_TOKEN, PASSWORD, "0" * 64):
            assert secret not in raw, path


def test_parameters_of_jupyters_own_are_no_mistake(scene: Scene) -> None:
    assert (
        scene.server.api("GET", f"jobs?limit=1&1795713282000&token={TOKEN}&no_track_activity=1").status == 200
    )


def test_somebody_elses_job_is_not_there(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1", owner="mallory")
    for method, path in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/stop"),
        ("POST", "/rerun"),
        ("GET", "/logs"),
        ("GET", "/lines"),
        ("GET", "/find?text=x"),
    ]:
        refused(scene.server.api(method, f"jobs/fit-1{path}"), 404, "JobNotFound")
    assert scene.server.api("GET", "jobs").json["jobs"] == []
    assert scene.parts.store.read("fit-1") is not None


def test_stopping_asks_the_runner_and_ray(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1", "running")
    answer = scene.server.api("POST", "jobs/fit-1/stop")
    assert answer.status == 202
    assert scene.parts.store.stop_requested("fit-1")["how"] == "cancel"
    scene.parts.job("fit-2")
    assert scene.server.api("POST", "jobs/fit-2/stop").status == 200
    assert scene.parts.store.stop_requested("fit-2") is None


def test_a_job_is_forgotten_only_when_it_has_ended(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1", "running")
    scene.parts.job("fit-2")
    refused(scene.server.api("DELETE", "jobs/fit-1"), 409, "StillRunning")
    assert scene.server.api("DELETE", "jobs/fit-2").status == 204
    refused(scene.server.api("GET", "jobs/fit-2"), 404, "JobNotFound")


def test_a_rerun_is_a_new_job_of_the_same_inputs(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1", label="fit", versions={"runner": "nothing_there"})
    scene.parts.inputs("fit-1", x=1)
    answer = scene.server.api("POST", "jobs/fit-1/rerun", {"memory": 2**30})
    assert answer.status == 201, answer.raw
    new = answer.json["spec"]["id"]
    assert new.startswith("fit-") and new != "fit-1"
    assert answer.headers["Location"] == f"{BASE}rayoffload/api/jobs/{new}"
    assert answer.json["spec"]["options"]["resources"]["memory"] == 2**30
    assert scene.parts.store.peek_payload(new, "inputs")["values"][0]["name"] == "x"
    # It is listed by the time that it names, or pages would begin elsewhere than the last one ended.
    assert scene.parts.store._created[new] == answer.json["spec"]["created"]


def test_a_job_whose_inputs_have_gone_cannot_be_run_again(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1")
    refused(scene.server.api("POST", "jobs/fit-1/rerun"), 410, "Expired")
    said = refused(scene.server.api("POST", "jobs/fit-1/rerun", {"failed": True}), 409, "JobError")
    assert "fit-1 is no batch" in said["message"]
    assert scene.parts.store.ids() == ["fit-1"]  # and there is no trace of the new one


def test_log_events_and_outputs_come_from_the_stream(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1")
    for number in range(1, 26):
        scene.parts.says("fit-1", number, "stream", name="stdout", text=f"{number}\n")
    scene.parts.says("fit-1", 25, "stream", name="stdout", text="25\n")  # sent again, by a lost answer
    scene.parts.says("fit-1", 28, "display_data", data={"text/plain": "old"}, transient={"display_id": "d"})
    scene.parts.says(
        "fit-1", 29, "update_display_data", data={"text/plain": "new"}, transient={"display_id": "d"}
    )
    text, after, more, pages = "", "0", True, 0
    while more:
        page = scene.server.api("GET", f"jobs/fit-1/logs?after={after}").json
        text, after, more, pages = text + page["text"], page["next"], page["more"], pages + 1
    assert pages == 2
    assert text.splitlines()[:25] == [str(n) for n in range(1, 26)]
    assert scene.server.api("GET", f"jobs/fit-1/logs?after={after}").json["text"] == ""
    events = scene.server.api("GET", "jobs/fit-1/events").json["events"]
    assert [e["number"] for e in events] == list(range(1, 21))
    outputs = scene.server.api("GET", "jobs/fit-1/outputs").json["outputs"]
    assert outputs == [{"output_type": "display_data", "data": {"text/plain": "new"}, "metadata": {}}]


def test_the_log_is_read_line_by_line_as_a_terminal_shows_it(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1", "running")
    for number in range(1, 45):
        scene.parts.says("fit-1", number, "stream", name="stdout", text=f"10 %\r{number} done\n")
    scene.parts.says("fit-1", 45, "stream", name="stdout", text="\x1b[31mhalf")
    answer = scene.server.api("GET", "jobs/fit-1/lines").json
    assert (answer["first"], answer["total"], answer["more"]) == (0, 45, False)
    assert answer["lines"][:2] == ["1 done", "2 done"]
    assert answer["lines"][44] == "\x1b[31mhalf\x1b[0m"
    # Only the unfinished line may still change: a page that goes on asks from it on.
    scene.parts.says("fit-1", 46, "stream", name="stdout", text=" and whole\x1b[0m\nnext\n")
    answer = scene.server.api("GET", "jobs/fit-1/lines?first=44").json
    assert (answer["first"], answer["total"]) == (44, 46)
    assert answer["lines"] == ["\x1b[31mhalf and whole\x1b[0m", "next"]
    assert scene.server.api("GET", "jobs/fit-1/lines?first=1&last=3").json["lines"] == ["2 done", "3 done"]
    assert scene.server.api("GET", "jobs/fit-1/find?text=4+DONE").json == {
        "lines": [3, 13, 23, 33, 43],
        "count": 5,
    }
    assert scene.server.api("GET", "jobs/fit-1/find?text=4+DONE&case=true").json["count"] == 0
    refused(scene.server.api("GET", "jobs/fit-1/find"), 400, "UsageError")


def test_a_long_log_is_whole_whatever_is_asked_for_first(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_rayoffload.server.logs.READ_SECONDS", 0)
    scene.up()
    for job in ("lines-1", "find-1", "outputs-1"):  # each read by nobody before
        scene.parts.job(job)
        for number in range(1, 101):
            scene.parts.says(job, number, "stream", name="stdout", text=f"line {number}\n")
    assert scene.server.api("GET", "jobs/lines-1/lines?first=98&last=100").json["lines"] == [
        "line 99",
        "line 100",
    ]
    assert scene.server.api("GET", "jobs/find-1/find?text=line+100").json == {"lines": [99], "count": 1}
    [record] = scene.server.api("GET", "jobs/outputs-1/outputs?record=true").json["outputs"]
    assert "the last 40 of 100 lines" in record["data"]["text/plain"]


def test_what_stands_under_a_cell_that_has_ended_is_its_record_and_its_outputs(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1", label="fit")
    for number in range(1, 61):
        scene.parts.says("fit-1", number, "stream", name="stdout", text=f"line {number}\n")
    scene.parts.says("fit-1", 61, "display_data", data={"text/plain": "a figure"})
    record, shown = scene.server.api("GET", "jobs/fit-1/outputs?record=true").json["outputs"]
    assert record["metadata"] == {"rayoffload": {"job": "fit-1", "phase": "succeeded", "home": True}}
    assert (
        "line 60" in record["data"]["text/plain"]
        and "the last 40 of 60 lines" in record["data"]["text/plain"]
    )
    assert "a figure" not in str(record)
    assert shown["data"] == {"text/plain": "a figure"}


def test_numbers_that_json_does_not_have_are_null(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1")
    figure = {"application/json": {"y": [1.5, float("nan"), float("-inf")]}}
    scene.parts.says("fit-1", 1, "display_data", data=figure)
    [output] = scene.server.api("GET", "jobs/fit-1/outputs").json["outputs"]
    assert output["data"]["application/json"] == {"y": [1.5, None, None]}


# ---------------------------------------------------------------------- what is refused


def test_every_route_says_who_may_come_in(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with running_server(tmp_path, Parts().make_service, allow_unauthenticated_access=False) as server:
            assert server.api("GET", "status").status == 200
            assert server.api("GET", "status", token=None).status == 403
    assert [str(w.message) for w in told if issubclass(w.category, JupyterServerAuthWarning)] == []


def test_nobody_comes_in_without_token_or_cookie(scene: Scene) -> None:
    scene.up()
    scene.parts.job("fit-1")
    for path, item in schema.document()["paths"].items():
        for method in (name.upper() for name in item if name != "parameters"):
            place = path[1:].format(name="default", id="fit-1")
            for token in (None, "wrong"):
                refused(scene.server.api(method, place, token=token), 403, "Forbidden")
    refused(scene.server.api("GET", "nothing", token=None), 403, "Forbidden")
    assert scene.parts.store.read("fit-1") is not None
    assert scene.parts.backend.calls == ["ensure default"]


def test_writing_with_a_cookie_needs_xsrf(scene: Scene) -> None:
    cookies = scene.server.cookies()
    jar = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    assert scene.server.api("GET", "status", headers=jar, token=None).status in (200, 403)
    body = refused(scene.server.api("POST", "clusters", {}, headers=jar, token=None), 403, "Forbidden")
    assert "_xsrf" in body["hint"]
    assert scene.parts.backend.calls == []
    headers = {**jar, "X-XSRFToken": cookies["_xsrf"]}
    assert scene.server.api("POST", "clusters", {}, headers=headers, token=None).status == 200


def test_the_servers_authorizer_decides(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def is_authorized(handler: Any, user: Any, action: str, resource: str) -> bool:
        asked.append((action, resource))
        return action == "read"

    authorizer = scene.server.app.web_app.settings["authorizer"]
    monkeypatch.setattr(authorizer, "is_authorized", is_authorized)
    assert scene.server.api("GET", "clusters").status == 200
    refused(scene.server.api("POST", "clusters"), 403, "Forbidden")
    assert scene.server.send("GET", "rayoffload/dashboard/default/").status == 502
    assert set(asked) == {("read", "rayoffload"), ("write", "rayoffload")}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "clusters", b"{", 400, "UsageError"),
        ("POST", "clusters", b"\xff\xfe", 400, "UsageError"),
        ("POST", "clusters", b"[" * 30000, 400, "UsageError"),
        ("PATCH", "clusters/default", b'{"workers": NaN}', 400, "UsageError"),
        ("POST", "clusters", [], 422, "UsageError"),
        ("POST", "clusters", b"null", 422, "UsageError"),
        ("POST", "clusters", {"size": 1}, 422, "UsageError"),
        ("POST", "clusters", {"name": "../x"}, 422, "UsageError"),
        ("POST", "clusters", {"profile": "huge"}, 400, "UsageError"),
        ("POST", "clusters", {"profile": "large"}, 400, "UsageError"),  # the one that runs is small
        ("POST", "clusters", {"name": "b", "options": {"workers": 1}}, 400, "UsageError"),
        ("POST", "clusters", {"name": "b", "profile": "large", "options": {"workers": 9}}, 400, "UsageError"),
        (
            "POST",
            "clusters",
            {"name": "b", "profile": "large", "options": {"workers": []}},
            422,
            "UsageError",
        ),
        ("POST", "clusters", {"name": "b", "options": [1]}, 422, "UsageError"),
        ("PATCH", "clusters/default", None, 422, "UsageError"),
        ("PATCH", "clusters/default", {"workers": -1}, 422, "UsageError"),
        ("PATCH", "clusters/default", {"workers": True}, 422, "UsageError"),
        ("PATCH", "clusters/other", {"workers": 1}, 400, "UsageError"),
        ("POST", "jobs/fit-1/stop", {"now": True}, 400, "UsageError"),
        ("GET", "jobs?limit=0", None, 400, "UsageError"),
        ("GET", "jobs?limit=ten", None, 400, "UsageError"),
        ("GET", "jobs?phase=odd", None, 400, "UsageError"),
        ("GET", "jobs?phases=running", None, 400, "UsageError"),
        ("GET", "jobs?before=nan", None, 400, "UsageError"),
        ("DELETE", "clusters/default?force=maybe", None, 400, "UsageError"),
        ("GET", "jobs/fit-1/logs?after=x", None, 400, "UsageError"),
        ("GET", "clusters/Default", None, 400, "UsageError"),
        ("GET", "jobs/a%2Fb", None, 404, "JobNotFound"),
        ("GET", "jobs/..", None, 404, "JobNotFound"),
        ("POST", "nothing", {}, 404, "NotFound"),
        ("GET", "nothing", None, 404, "NotFound"),
        ("PUT", "clusters", {}, 405, "MethodNotAllowed"),
        ("DELETE", "jobs", None, 405, "MethodNotAllowed"),
        ("POST", "status", {}, 405, "MethodNotAllowed"),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    scene: Scene, method: str, path: str, body: Any, status: int, reason: str
) -> None:
    scene.up()
    scene.parts.job("fit-1")
    answer = scene.server.api(method, path, body)
    refused(answer, status, reason)
    if status == 405:
        assert "GET" in answer.headers["Allow"]
    assert scene.parts.store.stop_requested("fit-1") is None


def test_a_body_that_is_too_large_is_refused_before_it_is_read(scene: Scene) -> None:
    large = b" " * (handlers.BODY_LIMIT + 1)
    refused(scene.server.api("POST", "clusters", large), 413, "BodyTooLarge")
    assert scene.server.api("POST", "clusters", b"{}" + b" " * (handlers.BODY_LIMIT - 2)).status == 200
    # Announced, and never sent: the answer does not wait for it.
    with socket.create_connection(("127.0.0.1", scene.server.port), 10) as raw:
        head = f"POST {BASE}rayoffload/api/clusters HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        raw.sendall(f"{head}Authorization: token {TOKEN}\r\nContent-Length: 400000000\r\n\r\n".encode())
        assert raw.recv(100).split()[1] == b"413"
    # Without its length.
    with socket.create_connection(("127.0.0.1", scene.server.port), 10) as raw:
        raw.sendall(f"{head}Authorization: token {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        raw.sendall(b"10001\r\n" + b" " * 100)
        assert raw.recv(100).split()[1] == b"400"


def test_another_sites_page_is_refused(scene: Scene) -> None:
    cookies = scene.server.cookies()
    jar = "; ".join(f"{name}={value}" for name, value in cookies.items())
    headers = {"Cookie": jar, "Origin": "https://evil.example", "X-XSRFToken": cookies["_xsrf"]}
    assert scene.server.api("POST", "clusters", {}, headers=headers, token=None).status in (403, 404)
    assert scene.parts.backend.calls == []


# ---------------------------------------------------------------------- what goes wrong


def test_an_error_of_the_store_has_its_status(scene: Scene) -> None:
    scene.up()
    scene.parts.backend.fault = StoreUnreachable("the store does not answer", "Wait a little")
    refused(scene.server.api("GET", "jobs"), 504, "StoreUnreachable")
    assert scene.server.api("GET", "status").json["store"]["answers"] is False


def test_an_error_that_nobody_knows_is_told_to_the_log_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def slip(name: str) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(scene.parts.backend, "get", slip)
    with caplog.at_level(logging.ERROR):
        answer = scene.server.api("GET", "clusters/default")
    refused(answer, 500, "InternalError")
    assert b"secret" not in answer.raw and b"Traceback" not in answer.raw
    assert "secret of the house" in caplog.text


def test_settings_that_cannot_be_used_are_told_and_the_server_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any) -> None:
        raise ClusterStartFailed("this is a Kubernetes pod", "Set ray_address")

    extension = scene.server.extension
    monkeypatch.setattr(extension, "_service", None)
    monkeypatch.setattr(type(extension), "make_service", fails)
    assert refused(scene.server.api("GET", "status"), 502, "ClusterStartFailed")["hint"] == "Set ray_address"


def test_looking_does_not_count_as_activity(scene: Scene) -> None:
    settings = scene.server.app.web_app.settings
    settings["api_last_activity"] = before = settings["started"]
    scene.server.api("GET", "jobs")
    assert settings["api_last_activity"] == before
    scene.server.api("POST", "clusters")
    assert settings["api_last_activity"] > before


# ---------------------------------------------------------------------- the file


def test_routes_and_file_agree() -> None:
    served = {
        h.path: {m.upper() for m in ("get", "post", "patch", "delete", "put") if m in vars(h)}
        for h in handlers.HANDLERS
    }
    assert served == {path: set(schema.methods(path)) for path in schema.document()["paths"]}


def test_the_file_is_valid_json_schema_throughout() -> None:
    import jsonschema

    for name, part in schema.document()["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(part)
        assert json.dumps(part), name


def _until(true: Any, limit: float = 10) -> bool:
    end = time.monotonic() + limit
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
