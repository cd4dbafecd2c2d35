"""An API server on loopback that refuses, forgets and vanishes when a test says so.

It stores and tells what it is given, as a real one does, and plays KubeRay in one step; what a real
Kubernetes does with a RayCluster, tests/kubernetes asks a real one.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.fake_passage import Passages

Json = dict[str, Any]
#: The credential of the one account, and the token of every Ray.
ACCOUNT_TOKEN, RAY_TOKEN = "account-token-7d1f", "ray-token-93ac"
PATH = re.compile(r"/apis?(?:/ray\.io)?/v1/namespaces/team/(?P<plural>[a-z]+)(?:/(?P<name>[a-z0-9-]+))?")
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def status(code: int, message: str, **more: Any) -> Json:
    """Give what the API says of a refusal."""
    return {"kind": "Status", "status": "Failure", "code": code, "message": message, **more}


def forbidden(verb: str, plural: str, group: str = "", **more: Any) -> web.Response:
    """Refuse in the words of RBAC."""
    said = (
        f'{plural} is forbidden: User "system:serviceaccount:team:ada" cannot {verb} resource "{plural}" '
        f'in API group "{group}" in the namespace "team"'
    )
    return web.json_response(status(403, said, reason="Forbidden", **more), status=403)


class FakeKubernetes:
    """One namespace, ``team``, of an API server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects: dict[tuple[str, str], Json] = {}
        self.told: list[tuple[int, str, str, Json]] = []
        self.version = 100
        self.oldest = 0  # watches from before this version are too old
        #: What the next requests of a kind, "POST rayclusters", are answered.
        self.answers: dict[str, list[Callable[[], web.Response]]] = {}
        self.requests: list[str] = []
        self.token = ACCOUNT_TOKEN
        self.hanging = False  # it takes requests and does not answer them
        self.operator = True  # KubeRay is there
        self.ready = True  # whether the kubelet has found a head to be so
        self.posts_at_once = 1  # creations are held back until so many have come
        self.slow_delete = False  # a deleted object stays until `remove`
        self.allowed = True  # what an access review says
        self.passages = Passages()
        self._news = asyncio.Event()
        self._uids = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> FakeKubernetes:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Vanish, and cut off who listens."""
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    @property
    def kubeconfig(self) -> str:
        """A kubeconfig for it."""
        file = self.folder / "kubeconfig"
        contents = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self._port}"}}],
            "users": [{"name": "ada", "user": {"token": self.token}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "here", "user": "ada", "namespace": "team"}}
            ],
        }
        file.write_text(json.dumps(contents))  # JSON is YAML
        return str(file)

    # ------------------------------------------------------------------ what is stored

    def cluster(self) -> Json:
        """Give the only RayCluster."""
        [found] = [o for (plural, _), o in self.objects.items() if plural == "rayclusters"]
        return found

    def put(self, plural: str, given: Json) -> Json:
        """Store an object, and tell those who watch."""
        name = given["metadata"]["name"]
        known = (plural, name) in self.objects
        self.version += 1
        metadata = {"uid": f"uid-{next(self._uids)}", "namespace": "team", "labels": {}, **given["metadata"]}
        stored = {**copy.deepcopy(given), "metadata": {**metadata, "resourceVersion": str(self.version)}}
        self.objects[plural, name] = stored
        self._tell(plural, "MODIFIED" if known else "ADDED", stored)
        return stored

    def remove(self, plural: str, name: str) -> None:
        """Let an object be gone."""
        gone = self.objects.pop((plural, name))
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._tell(plural, "DELETED", gone)

    def forget(self) -> None:
        """Forget what has been told so far: watches that go on from there are too old."""
        self.oldest = self.version + 1
        self.version += 1

    def _tell(self, plural: str, kind: str, stored: Json) -> None:
        self.told.append((self.version, plural, kind, copy.deepcopy(stored)))
        self._news.set()
        self._news = asyncio.Event()

    def operate(self, cluster: Json) -> Json:
        """Do in one step what KubeRay does with a RayCluster."""
        if not self.operator:
            return cluster
        name, suspended = cluster["metadata"]["name"], bool(cluster["spec"].get("suspend"))
        if ("secrets", name) not in self.objects:
            token = base64.b64encode(RAY_TOKEN.encode()).decode()
            self.put("secrets", {"metadata": {"name": name}, "data": {"auth_token": token}})
        conditions = {"RayClusterSuspended": suspended, "HeadPodReady": not suspended}
        said = [
            {
                "type": t,
                "status": str(s),
                "lastTransitionTime": "2026-11-26T10:00:00Z",
                "reason": t,
                "message": "",
            }
            for t, s in conditions.items()
        ]
        if suspended:
            self._end_head(name)
        else:
            self.put("pods", head_of(cluster, self.ready))
        return self.put("rayclusters", {**cluster, "status": {"conditions": said}})

    def _end_head(self, name: str) -> None:
        if ("pods", f"{name}-head") in self.objects:
            self.remove("pods", f"{name}-head")

    # ------------------------------------------------------------------ what is asked

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response(status(401, "Unauthorized"), status=401)
        if passed := await self.passages.serve(request):
            return passed
        if request.path == REVIEWS:
            review = {**await request.json(), "status": {"allowed": self.allowed}}
            return web.json_response(review, status=201)
        found = PATH.fullmatch(request.path)
        if not found:
            return web.Response(status=404, text="404 page not found")
        plural, name = found["plural"], found["name"]
        verb = "WATCH" if "watch" in request.query else "LIST" if request.method == "GET" and not name else ""
        asked = f"{verb or request.method} {plural}"
        self.requests.append(asked)
        if self.hanging:
            await asyncio.sleep(3600)
        if waiting := self.answers.get(asked):
            return waiting.pop(0)()
        if verb == "WATCH":
            try:
                return await self._watch(request, plural)
            except ConnectionResetError:
                return web.Response()  # whoever listened has gone
        if verb == "LIST":
            items = [o for (p, _), o in self.objects.items() if p == plural and _selected(o, request)]
            return web.json_response({"items": items, "metadata": {"resourceVersion": str(self.version)}})
        body = await request.json() if request.can_read_body else {}
        return await getattr(self, f"_{request.method.lower()}")(plural, name or "", body)

    async def _get(self, plural: str, name: str, _: Json) -> web.Response:
        if (plural, name) not in self.objects:
            return web.json_response(status(404, f'{plural} "{name}" not found'), status=404)
        return web.json_response(self.objects[plural, name])

    async def _post(self, plural: str, _: str, body: Json) -> web.Response:
        name = body["metadata"]["name"]
        while self.requests.count(f"POST {plural}") < self.posts_at_once:
            await asyncio.sleep(0.01)
        if (plural, name) in self.objects:
            self.requests.append("409")
            return web.json_response(status(409, f'{plural} "{name}" already exists'), status=409)
        stored = self.put(plural, body)
        self.operate(stored)
        return web.json_response(stored, status=201)

    async def _patch(self, plural: str, name: str, body: Json) -> web.Response:
        if (plural, name) not in self.objects:
            return await self._get(plural, name, body)
        there = self.objects[plural, name]
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, there["metadata"]["resourceVersion"]):
            return web.json_response(status(409, "the object has been modified"), status=409)
        notes = {
            **there["metadata"].get("annotations", {}),
            **body.get("metadata", {}).get("annotations", {}),
        }
        kept = {key: note for key, note in notes.items() if note is not None}
        metadata = {**there["metadata"], "annotations": kept}
        changed = {**there, "metadata": metadata, "spec": {**there["spec"], **body["spec"]}}
        return web.json_response(self.operate(self.put(plural, changed)))

    async def _delete(self, plural: str, name: str, body: Json) -> web.Response:
        if (plural, name) not in self.objects:
            return await self._get(plural, name, body)
        there = self.objects[plural, name]
        if body["preconditions"]["uid"] != there["metadata"]["uid"]:
            return web.json_response(status(409, "the UID in the precondition does not match"), status=409)
        if self.slow_delete:
            self.put(plural, leaving(there))
        else:
            self.remove(plural, name)
        self._end_head(name)
        return web.json_response(status(200, ""))

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        after = int(request.query["resourceVersion"])
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            news = self._news
            if after < self.oldest:
                said = status(410, f"too old resource version: {after}", reason="Expired")
                await answer.write(json.dumps({"type": "ERROR", "object": said}).encode() + b"\n")
                return answer
            for version, told, kind, stored in list(self.told):
                if version > after and told == plural and _selected(stored, request):
                    await answer.write(json.dumps({"type": kind, "object": stored}).encode() + b"\n")
                    after = version
            await news.wait()


def head_of(cluster: Json, is_ready: bool = True) -> Json:
    """Give the pod of its head, ready or merely running."""
    name, uid = cluster["metadata"]["name"], cluster["metadata"]["uid"]
    labels = {"ray.io/cluster": name, "ray.io/node-type": "head"}
    ready = {"type": "Ready", "status": str(is_ready), "lastTransitionTime": "2026-11-26T10:00:00Z"}
    container = {"name": "ray-head", "ready": is_ready, "state": {"running": {}}}
    return {
        "metadata": {
            "name": f"{name}-head",
            "uid": f"head-of-{uid}",
            "labels": labels,
            "ownerReferences": [{"uid": uid}],
        },
        "spec": {"containers": []},
        "status": {"conditions": [ready], "containerStatuses": [container]},
    }


def leaving(cluster: Json) -> Json:
    """Give an object as it is while it waits for what belongs to it to be gone."""
    metadata = {"deletionTimestamp": "2026-11-26T10:00:00Z", "finalizers": ["foregroundDeletion"]}
    return {**cluster, "metadata": {**cluster["metadata"], **metadata}}


def _selected(stored: Json, request: web.Request) -> bool:
    metadata = stored["metadata"]
    field = request.query.get("fieldSelector", "")
    if field and field != f"metadata.name={metadata['name']}":
        return False
    selector = request.query.get("labelSelector", "")
    if several := re.fullmatch(r"(\S+) in \((.*)\)", selector):
        return metadata["labels"].get(several[1]) in several[2].split(",")
    wanted = dict(pair.split("=") for pair in selector.split(",") if pair)
    return bool(wanted.items() <= metadata["labels"].items())
