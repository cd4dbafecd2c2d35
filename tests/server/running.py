"""A real Jupyter server in a thread of the test's process, so that fakes can stand behind its seams."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import threading
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from unittest import mock

from jupyter_server.serverapp import ServerApp

from tests.ray_fixture import jupyter_environment
from tests.servers import free_port

TOKEN = "token-of-the-test"
BASE = "/user/ann/"


@dataclass
class Answer:
    """One answer of the server."""

    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class RunningServer:
    """The server, and a client that sends exactly what it is told."""

    app: ServerApp
    port: int
    loop: asyncio.AbstractEventLoop
    log: list[str] = field(default_factory=list)

    @property
    def extension(self) -> Any:
        return self.app.web_app.settings["jupyter_rayoffload"]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = TOKEN,
    ) -> Answer:
        """Send one request; a body that is not bytes goes as JSON."""
        sent = dict(headers or {})
        if token:
            sent.setdefault("Authorization", f"token {token}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, BASE + path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """Send one request below ``rayoffload/api/``."""
        return self.send(method, f"rayoffload/api/{path}", body, **options)

    def cookies(self) -> dict[str, str]:
        """Sign in as a browser does, and give its cookies by name."""
        answer = self.send("GET", f"api/me?token={TOKEN}", token=None)
        page = self.send("GET", "login", token=None)
        jar = SimpleCookie()
        for found in [*answer.headers.get_all("Set-Cookie", []), *page.headers.get_all("Set-Cookie", [])]:
            jar.load(found)
        return {name: morsel.value for name, morsel in jar.items()}


@contextmanager
def running_server(root: Path, make_service: Any, **config: Any) -> Iterator[RunningServer]:
    """Run a server with the extension, whose files are below `root`.

    Parameters
    ----------
    root : Path
    make_service : callable
        Gives the service; called in the server's loop at the first request.
    **config
        More traits of ``ServerApp``.
    """
    ready, loop = threading.Event(), asyncio.new_event_loop()
    port, made, errors = free_port(), list[ServerApp](), list[BaseException]()

    async def start() -> None:
        app = ServerApp(
            port=port,
            port_retries=0,
            ip="127.0.0.1",
            base_url=BASE,
            root_dir=str(root),
            open_browser=False,
            allow_root=True,
            **{"jpserver_extensions": {"jupyter_rayoffload": True}, **config},
        )
        app.init_signal = lambda: None  # only the main thread can have it
        app.config.IdentityProvider.token = TOKEN
        app.initialize(argv=[])
        app.start_app()
        await app._post_start()  # as `start` does once the loop runs
        made.append(app)

    def serve() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(start())
        except BaseException as error:
            errors.append(error)
        ready.set()
        if made:
            loop.run_forever()
        loop.close()

    environment = {**jupyter_environment(root), "JUPYTER_NO_CONFIG": "1"}
    with mock.patch.dict(os.environ, environment):
        from jupyter_rayoffload.server.app import RayOffloadApp

        with mock.patch.object(RayOffloadApp, "make_service", lambda self: make_service()):
            thread = threading.Thread(target=serve, name="server")
            thread.start()
            ready.wait(60)
            if errors:
                raise errors[0]
            server = RunningServer(made[0], port, loop)
            try:
                yield server
            finally:
                server.run(server.app._cleanup())
                loop.call_soon_threadsafe(loop.stop)
                thread.join(20)
                ServerApp.clear_instance()
