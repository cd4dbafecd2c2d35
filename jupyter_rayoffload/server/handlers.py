"""REST over clusters and jobs: handlers ask the service, and give what :mod:`.bodies` makes of it."""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Awaitable, Callable, Mapping
from http.client import responses
from typing import TYPE_CHECKING, Any, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

from .. import __version__
from ..errors import ClusterNotRunning, OffloadError, StoreError, UsageError
from ..models import ClusterSpec
from ..profiles import profile_view
from . import bodies, schema

if TYPE_CHECKING:
    from .service import Service

__all__ = ["BODY_LIMIT", "OWN_QUERY", "RESOURCE", "handlers"]

#: What Jupyter Server's authorizer is asked about.
RESOURCE = "rayoffload"
#: Most bytes of a request's body: the largest that makes sense has a few hundred.
BODY_LIMIT = 64 * 1024

#: Parameters of Jupyter's own; one of them is its token.
OWN_QUERY = ("token", "_xsrf", "no_track_activity")

_V = TypeVar("_V", bound=Callable[..., Awaitable[None]])

#: Reason and hint of what Jupyter Server and tornado refuse before anything of ours is asked.
REFUSALS: Mapping[int, tuple[str, str]] = {
    400: ("BadRequest", "openapi.yaml says what may be asked"),
    403: (
        "Forbidden",
        "Sign in to this Jupyter server, or send its token; writing with a cookie needs _xsrf",
    ),
    404: ("NotFound", "openapi.yaml lists what there is"),
    405: ("MethodNotAllowed", "openapi.yaml says what may be asked"),
    413: ("BodyTooLarge", f"Send no more than {BODY_LIMIT // 1024} KiB"),
    415: ("UnsupportedMediaType", "Send JSON, as application/json"),
}


def answers(method: _V) -> _V:
    """Check what was asked against ``openapi.yaml``, and turn errors into answers."""

    @functools.wraps(method)
    async def inner(self: Handler, **given: str) -> None:
        try:
            schema.checked_path(self.path, self.verb, given)
            self.query = schema.checked_query(self.path, self.verb, self.given_query())
            self.body = schema.checked_body(self.path, self.verb, self.given_body())
            await method(self, **given)
        except OffloadError as error:
            self.refuse(error)

    return inner  # type: ignore[return-value]


@web.stream_request_body
class Handler(APIHandler):
    """Base of all: limits, checks and errors.

    Verbs are decorated one by one, for ``authorized`` remembers what it was first asked.
    """

    auth_resource = RESOURCE
    path = ""
    query: Mapping[str, Any]
    body: Mapping[str, Any]

    async def prepare(self) -> None:  # type: ignore[override]
        """Refuse a body that is too large before it is read; looking is no activity of a person."""
        self._received = bytearray()
        self._track_activity = self.request.method not in ("GET", "HEAD")
        await super().prepare()
        if int(self.request.headers.get("Content-Length") or 0) > BODY_LIMIT:
            raise web.HTTPError(413)
        assert self.request.connection is not None
        self.request.connection.set_max_body_size(BODY_LIMIT)  # type: ignore[attr-defined]  # of HTTP/1

    def data_received(self, chunk: bytes) -> None:
        """Take in the next part of the body."""
        self._received += chunk

    @property
    def service(self) -> Service:
        """What does the work; made at the first request, for it loads redis and aiohttp."""
        app = self.settings["jupyter_rayoffload"]
        service: Service = app.service
        return service

    @property
    def verb(self) -> str:
        """The method of the request."""
        return str(self.request.method)

    def given_query(self) -> dict[str, str]:
        """Give the query as it was sent, without what is Jupyter's own; of a repeated parameter, the last."""
        # JupyterLab adds the time, as a name, against caches.
        names = [n for n in self.request.query_arguments if n not in OWN_QUERY and not n.isdigit()]
        return {name: self.get_query_argument(name, strip=False) for name in names}

    def given_body(self) -> Any:
        """Give the body as it was sent, or :data:`.schema.NO_BODY`.

        Raises
        ------
        UsageError
            It is not JSON.
        """
        if not self._received:
            return schema.NO_BODY
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in ("", "application/json"):
            raise web.HTTPError(415)
        try:
            return json.loads(self._received, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise UsageError("the body is not JSON", "Send an object such as {}") from None

    def dashboard(self, name: str) -> str:
        """Give the path of a cluster's dashboard, for a browser."""
        return f"{self.base_url}rayoffload/dashboard/{name or 'default'}/"

    def place(self, *parts: str) -> None:
        """Say where what was asked for can be looked at."""
        self.set_header("Location", self.base_url + "/".join(("rayoffload/api", *parts)))

    def answer(self, body: Mapping[str, Any], status: int = 200) -> None:
        """Give a body."""
        try:
            text = json.dumps(body, allow_nan=False)
        except ValueError:  # a figure may have NaN, which no browser reads
            text = json.dumps(_finite(body), allow_nan=False)
        self.set_status(status)
        self.finish(text)

    def refuse(self, error: OffloadError) -> None:
        """Give the body of an error, with the status of its class."""
        if error.status >= 500:
            self.log.warning("rayoffload: %s %s: %s", self.verb, self.request.path, error)
        self.answer(error.to_json(), error.status)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Give the body of what was refused or went wrong; the log has the traceback, and nobody else."""
        if status_code == 405:
            self.set_header("Allow", ", ".join(schema.methods(self.path)) if self.path else "")
        message, (reason, hint) = responses.get(status_code, "Error"), REFUSALS.get(status_code, ("", ""))
        if status_code >= 500:
            message, hint = "this server has met an error that it does not know", "Its log says more"
            reason = "InternalError"
        self.finish(json.dumps({"message": message, "reason": reason or "HTTPError", "hint": hint}))

    def give_cluster(self, info: Any, status: int = 200) -> None:
        """Give a cluster."""
        self.answer(bodies.cluster_body(info, self.dashboard(info.name)), status)

    def give_job(self, record: Any, status: int = 200) -> None:
        """Give a job."""
        kept = self.service.config.lifetimes().record
        self.answer(bodies.job_body(record, self.dashboard(record.cluster), kept), status)


def _finite(part: Any) -> Any:
    """Give JSON in which ``null`` stands for what JSON has no word for."""
    if isinstance(part, Mapping):
        return {key: _finite(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_finite(value) for value in part]
    return None if isinstance(part, float) and not math.isfinite(part) else part


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


class StatusHandler(Handler):
    """What serves, for whom, and whether it runs."""

    path = "/status"

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """See ``openapi.yaml``."""
        service, reason = self.service, ""
        try:
            await service.link()
        except (ClusterNotRunning, StoreError) as error:
            reason = str(error)
        info = await service.cluster("default")
        self.answer(
            {
                "version": __version__,
                "owner": service.config.owner,
                "python": ".".join(map(str, sys.version_info[:2])),
                "cluster": bodies.cluster_body(info, self.dashboard(info.name)),
                "store": {"answers": not reason, "reason": reason},
            }
        )


class ProfilesHandler(Handler):
    """The named cluster sizes of the site."""

    path = "/profiles"

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """See ``openapi.yaml``."""
        found = await self.service.backend.profiles()
        self.answer({"profiles": [profile_view(profile) for profile in found]})


class ClustersHandler(Handler):
    """All clusters."""

    path = "/clusters"

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """See ``openapi.yaml``."""
        found = await self.service.clusters()
        self.answer({"clusters": [bodies.cluster_body(i, self.dashboard(i.name)) for i in found]})

    @web.authenticated
    @authorized
    @answers
    async def post(self) -> None:
        """See ``openapi.yaml``."""
        asked = self.body
        spec = ClusterSpec(asked.get("name", "default"), asked.get("profile", ""), asked.get("options", {}))
        info, ready = await self.service.ensure(spec)
        if not ready:
            self.place("clusters", spec.name)
        self.give_cluster(info, 200 if ready else 202)


class ClusterHandler(Handler):
    """One cluster."""

    path = "/clusters/{name}"

    @web.authenticated
    @authorized
    @answers
    async def get(self, name: str) -> None:
        """See ``openapi.yaml``."""
        info = await self.service.cluster(name)
        body = bodies.cluster_body(info, self.dashboard(info.name))
        if fault := self.service.fault(name):
            body["fault"] = fault.to_json()
        if self.query["connection"]:
            body["connection"] = await self.service.connection_file(name)
        self.answer(body)

    @web.authenticated
    @authorized
    @answers
    async def patch(self, name: str) -> None:
        """See ``openapi.yaml``."""
        self.give_cluster(await self.service.offloader.scale(name, self.body["workers"]))

    @web.authenticated
    @authorized
    @answers
    async def delete(self, name: str) -> None:
        """See ``openapi.yaml``."""
        if await self.service.delete(name, self.query["force"]):
            self.set_status(204)
            self.finish()
            return
        self.place("clusters", name)
        self.give_cluster(await self.service.cluster(name), 202)


class SuspendHandler(Handler):
    """Suspend a cluster."""

    path = "/clusters/{name}/suspend"

    @web.authenticated
    @authorized
    @answers
    async def post(self, name: str) -> None:
        """See ``openapi.yaml``."""
        self.give_cluster(await self.service.offloader.suspend(name))


class ResumeHandler(Handler):
    """Resume a cluster."""

    path = "/clusters/{name}/resume"

    @web.authenticated
    @authorized
    @answers
    async def post(self, name: str) -> None:
        """See ``openapi.yaml``."""
        self.give_cluster(await self.service.backend.resume(name))


class JobsHandler(Handler):
    """All jobs."""

    path = "/jobs"

    @web.authenticated
    @authorized
    @answers
    async def get(self) -> None:
        """See ``openapi.yaml``."""
        asked = dict(self.query)
        limit, before = asked.pop("limit"), asked.pop("before", None)
        try:
            records, following = await self.service.jobs(limit, before, bodies.job_filter(**asked))
        except ClusterNotRunning as error:  # that is no fault: nothing has been started yet
            self.answer({"jobs": [], "complete": False, "reason": str(error)})
            return
        body = {"jobs": [bodies.job_summary(r) for r in records], "complete": True, "reason": ""}
        self.answer(body if following is None else {**body, "next": following})


class JobHandler(Handler):
    """One job."""

    path = "/jobs/{id}"

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """See ``openapi.yaml``."""
        self.give_job(await self.service.job(id))

    @web.authenticated
    @authorized
    @answers
    async def delete(self, id: str) -> None:
        """See ``openapi.yaml``."""
        await self.service.forget(id)
        self.set_status(204)
        self.finish()


class StopHandler(Handler):
    """Stop a job."""

    path = "/jobs/{id}/stop"

    @web.authenticated
    @authorized
    @answers
    async def post(self, id: str) -> None:
        """See ``openapi.yaml``."""
        record = await self.service.stop(id)
        if not record.phase.ended:
            self.place("jobs", id)
        self.give_job(record, 200 if record.phase.ended else 202)


class RerunHandler(Handler):
    """Run a job again."""

    path = "/jobs/{id}/rerun"

    @web.authenticated
    @authorized
    @answers
    async def post(self, id: str) -> None:
        """See ``openapi.yaml``."""
        record = await self.service.rerun(id, self.body)
        self.place("jobs", record.id)
        self.give_job(record, 201)


class OutputsHandler(Handler):
    """What a job has displayed."""

    path = "/jobs/{id}/outputs"

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """See ``openapi.yaml``."""
        self.answer({"outputs": await self.service.outputs(id, self.query["record"])})


class LogHandler(Handler):
    """What a job has printed."""

    path = "/jobs/{id}/logs"

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """See ``openapi.yaml``."""
        entries, more = await self.service.entries(id, self.query["after"])
        following = entries[-1].id if entries else self.query["after"]
        self.answer({"text": bodies.log_text(entries), "next": following, "more": more})


class LinesHandler(Handler):
    """The same, as a terminal would show it."""

    path = "/jobs/{id}/lines"

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """See ``openapi.yaml``."""
        self.answer(await self.service.lines(id, self.query["first"], self.query.get("last")))


class FindHandler(Handler):
    """Lines of a log with a text."""

    path = "/jobs/{id}/find"

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """See ``openapi.yaml``."""
        self.answer(await self.service.find(id, self.query["text"], self.query["case"]))


class EventsHandler(Handler):
    """The stream of a job."""

    path = "/jobs/{id}/events"

    @web.authenticated
    @authorized
    @answers
    async def get(self, id: str) -> None:
        """See ``openapi.yaml``."""
        entries, more = await self.service.entries(id, self.query["after"])
        following = entries[-1].id if entries else self.query["after"]
        self.answer({"events": list(map(bodies.entry_body, entries)), "next": following, "more": more})


class NothingHandler(Handler):
    """Whatever else is asked for below our path."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Refuse it."""
        raise web.HTTPError(404)

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Refuse it."""
        raise web.HTTPError(404)


HANDLERS: tuple[type[Handler], ...] = (
    StatusHandler,
    ProfilesHandler,
    ClustersHandler,
    ClusterHandler,
    SuspendHandler,
    ResumeHandler,
    JobsHandler,
    JobHandler,
    StopHandler,
    RerunHandler,
    OutputsHandler,
    LogHandler,
    LinesHandler,
    FindHandler,
    EventsHandler,
)


def handlers() -> list[tuple[str, type[Handler]]]:
    """Give patterns and handlers; the patterns are the paths of ``openapi.yaml``."""
    return [*((schema.route(h.path), h) for h in HANDLERS), (r"rayoffload/api(?:/.*)?", NothingHandler)]
