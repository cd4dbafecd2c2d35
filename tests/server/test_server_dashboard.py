"""The read-only proxy of Ray's dashboard, over a stand-in for Ray that keeps what it was asked."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.client import HTTPMessage
from typing import Any

import pytest

from jupyter_rayoffload.errors import ClusterRefused
from jupyter_rayoffload.transport import Direct
from tests.ray_fixture import short_folder
from tests.server.conftest import Scene
from tests.server.fake_service import RAY_TOKEN, Parts
from tests.server.running import BASE, TOKEN, running_server

PAGES = {
    "/": ("text/html", b'<script src="./static/js/main.js"></script>'),
    "/static/js/main.js": ("text/javascript", b"x" * 300_000),
    "/api/v0/logs/file": ("text/html", b"<script>steal()</script>"),
}


@dataclass
class Upstream:
    """What stands in for Ray."""

    address: str = ""
    asked: list[tuple[str, str, HTTPMessage]] = field(default_factory=list)
    status: int = 200


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    here = Upstream()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # an answer that is refused is not read to its end
                super().handle()

        def do_GET(self) -> None:
            here.asked.append((self.command, self.path, self.headers))
            kind, body = PAGES.get(self.path.partition("?")[0], ("text/plain", b"nothing"))
            packed = gzip.compress(body)
            self.send_response(here.status if self.path.partition("?")[0] in PAGES else 404)
            headers = {"Content-Type": kind, "Content-Encoding": "gzip", "Content-Length": str(len(packed))}
            headers |= {"Set-Cookie": "ray=1", "Server": "Ray", "X-Secret": "yes", "Location": here.address}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(packed)

        do_HEAD = do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def serving(upstream: Upstream) -> Iterator[Scene]:
    parts = Parts(upstream.address)
    with short_folder() as root, running_server(root, parts.make_service) as server:
        yield Scene(server, parts)


@pytest.fixture
def ray(upstream: Upstream, scene: Scene) -> Upstream:
    upstream.asked.clear()
    upstream.status = 200
    scene.up()
    return upstream


def show(scene: Scene, path: str, method: str = "GET", **options: Any) -> Any:
    return scene.server.send(method, f"rayoffload/dashboard/default{path}", **options)


def test_a_page_comes_through_with_the_clusters_token_and_nothing_of_the_users(
    scene: Scene, ray: Upstream
) -> None:
    headers = {"Cookie": "login=secret", "Accept-Language": "de", "Referer": "https://hub/", "X-Other": "1"}
    answer = show(scene, f"/?view=1&token={TOKEN}&_xsrf=2", headers=headers)
    assert answer.status == 200
    assert gzip.decompress(answer.raw) == PAGES["/"][1]
    [(method, path, sent)] = ray.asked
    assert (method, path) == ("GET", "/?view=1")
    assert sent["X-Ray-Authorization"] == f"Bearer {RAY_TOKEN}"
    assert sent["User-Agent"].startswith("Mozilla")
    assert sent["Accept-Language"] == "de"
    for name in ("Cookie", "Authorization", "Referer", "X-Other"):
        assert sent[name] is None, name
    assert TOKEN not in str(sent)
    for name in ("X-Secret", "Location"):
        assert answer.headers[name] is None, name
    assert "ray=1" not in str(answer.headers)
    assert RAY_TOKEN not in str(answer.headers)
    assert "sandbox" not in answer.headers["Content-Security-Policy"]


def test_links_are_relative_to_a_folder(scene: Scene, ray: Upstream) -> None:
    answer = show(scene, "")
    assert (answer.status, answer.headers["Location"]) == (302, f"{BASE}rayoffload/dashboard/default/")
    script = show(scene, "/static/js/main.js")
    assert gzip.decompress(script.raw) == PAGES["/static/js/main.js"][1]


def test_what_a_job_has_written_cannot_act_as_a_page_of_this_server(scene: Scene, ray: Upstream) -> None:
    answer = show(scene, "/api/v0/logs/file")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert "allow" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_head_and_not_found_come_through(scene: Scene, ray: Upstream) -> None:
    answer = show(scene, "/", "HEAD")
    assert (answer.status, answer.raw, ray.asked[0][0]) == (200, b"", "HEAD")
    assert show(scene, "/nothing").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_is_written(scene: Scene, ray: Upstream, method: str) -> None:
    assert show(scene, "/api/jobs/", method, body={}).status == 405
    assert ray.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/api/actors/kill?actor_id=1",
        "/api/actors/%6bill?actor_id=1",
        "/worker/cpu_profile?pid=1",
        "/memory_profile",
        "/task/traceback",
        "/api/v0/delay/1000",
    ],
)
def test_pages_that_do_more_than_show_are_refused(scene: Scene, ray: Upstream, path: str) -> None:
    assert show(scene, path).status == 403
    assert ray.asked == []


def test_no_websockets(scene: Scene, ray: Upstream) -> None:
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert show(scene, "/", headers=headers).status == 400
    assert ray.asked == []


def test_no_way_leads_elsewhere(scene: Scene, ray: Upstream) -> None:
    show(scene, "//evil.example/x")
    show(scene, "/../../api/version")
    show(scene, "/@evil.example/")
    assert all(
        path.startswith("/") for _, path, _ in ray.asked
    )  # all of them came to Ray, and to nobody else
    assert ray.asked[-1][1] == "/@evil.example/"


def test_strangers_see_nothing(scene: Scene, ray: Upstream) -> None:
    assert show(scene, "/", token=None).status in (302, 403)
    assert show(scene, "/", "HEAD", token="wrong").status in (302, 403)
    assert ray.asked == []


@pytest.mark.parametrize("status", [401, 403, 302])
def test_ray_that_refuses_us_is_a_bad_gateway(scene: Scene, ray: Upstream, status: int) -> None:
    ray.status = status
    answer = show(scene, "/")
    assert (answer.status, answer.headers["Location"]) == (502, None)
    assert b"does not let" in answer.raw


def test_it_goes_the_way_that_the_cluster_has(
    scene: Scene, ray: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Way(Direct):
        async def send(self, method: str, path: str, *args: Any, **options: Any) -> Any:
            if path == "/refused":
                raise ClusterRefused("Kubernetes refuses: no", "The Role lacks the rule")
            return await super().send(method, f"/by/way{path}", *args, **options)

    way, straight = Way(ray.address), scene.parts.backend.connection
    monkeypatch.setattr(
        scene.parts.backend, "connection", lambda name: replace(straight(name), transport=way)
    )
    monkeypatch.setitem(PAGES, "/by/way/", PAGES["/"])
    answer = show(scene, "/?view=1")
    assert gzip.decompress(answer.raw) == PAGES["/"][1]
    [(_, path, sent)] = ray.asked
    assert path == "/by/way/?view=1" and sent["X-Ray-Authorization"] == f"Bearer {RAY_TOKEN}"
    nothing = show(scene, "/nothing")
    assert nothing.status == 404 and gzip.decompress(nothing.raw) == b"nothing"
    refused = show(scene, "/refused")
    assert (refused.status, refused.raw) == (502, b"Kubernetes refuses: no. The Role lacks the rule")
    scene.server.run(way.aclose())


def test_a_cluster_that_is_away_is_a_bad_gateway_in_words(scene: Scene) -> None:
    answer = show(scene, "/")
    assert answer.status == 502
    assert answer.raw == b"cluster default does not run. Start it, then load this page again"
    backend = scene.parts.backend
    backend.address = "http://127.0.0.1:1"
    scene.up()
    answer = show(scene, "/")
    assert answer.status == 502
    assert b"does not answer" in answer.raw
