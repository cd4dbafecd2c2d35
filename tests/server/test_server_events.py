"""Changes reach whoever listens to Jupyter's event stream within a second; nobody else makes work."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

import jupyter_rayoffload
from jupyter_rayoffload.errors import StoreUnreachable
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase
from jupyter_rayoffload.server.watch import CLUSTER_EVENT, JOB_EVENT, changes
from tests.server.conftest import Scene
from tests.server.running import BASE, TOKEN


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({}, {}, []),
        ({"a": "1"}, {"a": "1"}, []),
        ({"a": "1"}, {"a": "2"}, [("a", "2")]),
        ({"a": "1"}, {"a": "1", "b": "1"}, [("b", "1")]),
        ({"a": "1", "b": "1"}, {"b": "1"}, [("a", "gone")]),
        ({"a": "1", "b": "1"}, {"b": "1", "c": "1"}, [("c", "1")]),  # a is only not among the newest
    ],
)
def test_what_has_changed(before: dict[str, str], now: dict[str, str], found: list[tuple[str, str]]) -> None:
    assert list(changes(before, now)) == found


def test_the_schemas_are_those_that_are_emitted() -> None:
    folder = Path(jupyter_rayoffload.__file__).with_name("server") / "events"
    ids = {yaml.safe_load(file.read_text())["$id"] for file in folder.glob("*.yaml")}
    assert ids == {JOB_EVENT, CLUSTER_EVENT}


@asynccontextmanager
async def listening(scene: Scene) -> AsyncIterator[WebSocketClientConnection]:
    """Listen as JupyterLab does."""
    url = f"ws://127.0.0.1:{scene.server.port}{BASE}api/events/subscribe"
    socket = await websocket_connect(HTTPRequest(url, headers={"Authorization": f"token {TOKEN}"}))
    try:
        yield socket
    finally:
        socket.close()
        while await socket.read_message() is not None:  # until the other side has closed, too
            pass


async def next_event(socket: WebSocketClientConnection, schema: str, limit: float = 10) -> dict[str, Any]:
    """Give the next event of a schema."""

    async def read() -> dict[str, Any]:
        while True:
            event: dict[str, Any] = json.loads(await socket.read_message() or "{}")
            if event.get("schema_id") == schema:
                return event

    return await asyncio.wait_for(read(), limit)


def in_server(scene: Scene, work: Any) -> None:
    asyncio.run_coroutine_threadsafe(work, scene.server.loop)


@pytest.mark.asyncio
async def test_changes_are_told_within_a_second_and_nothing_else_is(scene: Scene) -> None:
    async with listening(scene) as socket:
        await asyncio.to_thread(scene.up)
        event = await next_event(socket, CLUSTER_EVENT)
        assert (event["name"], event["phase"]) == ("default", "running")
        scene.parts.job("fit-1", "running")
        assert (await next_event(socket, JOB_EVENT))["id"] == "fit-1"
        state = scene.parts.store.read("fit-1")["state"]
        began = time.monotonic()
        scene.parts.store.write_state("fit-1", {**state, "phase": "succeeded"})
        event = await next_event(socket, JOB_EVENT)
        assert time.monotonic() - began < 3  # PAUSE, and a busy machine
        assert (event["id"], event["phase"]) == ("fit-1", "succeeded")
        known = {"schema_id", "id", "phase"}
        assert {key for key in event if not key.startswith("__")} == known  # a hint, not the job
        with pytest.raises(asyncio.TimeoutError):
            await next_event(socket, JOB_EVENT, 1.5)
        in_server(scene, scene.parts.backend.change("default", ClusterInfo(phase=ClusterPhase.SUSPENDED)))
        assert (await next_event(socket, CLUSTER_EVENT))["phase"] == "suspended"
        scene.parts.store.delete("fit-1")


@pytest.mark.asyncio
async def test_nobody_is_asked_while_nobody_listens(scene: Scene) -> None:
    await asyncio.sleep(1)
    assert scene.parts.backend.calls == []
    async with listening(scene):
        await _until(lambda: "watch default" in scene.parts.backend.calls)
    watch = scene.server.extension._watch
    await _until(lambda: watch._cluster_watch is None)


@pytest.mark.asyncio
async def test_the_watch_survives_a_store_that_is_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.to_thread(scene.up)
    async with listening(scene) as socket:
        await next_event(socket, CLUSTER_EVENT)
        for fault in (StoreUnreachable("away"), RuntimeError("a slip")):
            with monkeypatch.context() as patch:
                failed = []

                async def fails(checked: bool, fault: Exception = fault) -> Any:
                    failed.append(time.monotonic())  # noqa: B023
                    raise fault

                patch.setattr(scene.server.extension._service, "stamps", fails)
                await _until(lambda: len(failed) >= 2)  # noqa: B023
            scene.parts.job(f"fit-{type(fault).__name__}", "running")
            assert (await next_event(socket, JOB_EVENT))["phase"] == "running"


async def _until(true: Any, limit: float = 10) -> None:
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
