"""Ray's Jobs API over HTTP.

Ray's own SDK is the oracle of the tests, not a dependency of the kernel: importing it costs half a second and
75 MiB, it has no time-outs, and RAY_ADDRESS in the environment overrides the address that it is given.
Nothing here reads the environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import (
    ClusterError,
    ClusterRefused,
    ClusterUnreachable,
    JobNotFound,
    OffloadError,
    UsageError,
    WorkspaceTooLarge,
)
from .jobclient import SUBMISSION_ID, ClusterStatus, JobClient, JobInfo, check_submission
from .transport import Body, Direct

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["ClusterStatus", "JobClient", "JobInfo", "RayClient"]

#: ``DASHBOARD_CLIENT_MAX_SIZE`` of ray/dashboard/http_server_head.py: the largest body of a request.
PACKAGE_LIMIT = 100 << 20
_PACKAGE = re.compile(r"[A-Za-z0-9_.-]{1,200}\.(zip|whl|tar\.gz)")
# Seconds. A dashboard whose head has died takes requests and never answers them.
_QUICK, _SUBMIT, _LONG = 10.0, 60.0, 120.0


class RayClient:
    """The Jobs API of a real cluster.

    Parameters
    ----------
    address : str
        ``http://HOST:8265``.
    token : str
        Empty for a cluster that asks for none.
    transport : Transport, optional
        The way there, if it is not straight; whoever gives it closes it.
    """

    def __init__(self, address: str, token: str = "", transport: Transport | None = None) -> None:
        self.address = address.rstrip("/")
        self._transport = transport or Direct(self.address)
        self._own = transport is None
        # Whoever sends Origin, Referer or a browser's User-Agent may only read.
        self._headers = {"User-Agent": f"jupyter_rayoffload/{__version__}"}
        if token:
            # Who is on the way there may keep Authorization for himself.
            name = "Authorization" if self._own else "X-Ray-Authorization"
            self._headers[name] = f"Bearer {token}"

    def __repr__(self) -> str:
        return f"RayClient({self.address!r})"

    async def __aenter__(self) -> RayClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._own:
            await self._transport.aclose()

    async def version(self) -> dict[str, str]:
        """See :class:`JobClient`."""
        return dict(await self._json("GET", "/api/version"))

    async def python_version(self) -> str:
        """See :class:`JobClient`; Ray has told it since 2.9."""
        status, text = await self._call("GET", "/api/v0/cluster_metadata", accept=(404,))
        return str(json.loads(text).get("data", {}).get("pythonVersion", "")) if status == 200 else ""

    async def cluster_status(self) -> ClusterStatus:
        """See :class:`JobClient`."""
        nodes = (await self._json("GET", "/api/v0/nodes"))["data"]["result"]["result"]
        status = (await self._json("GET", "/api/cluster_status"))["data"].get("clusterStatus") or {}
        return _read_status(nodes, status.get("loadMetricsReport") or {})

    async def has_package(self, name: str) -> bool:
        """See :class:`JobClient`."""
        status, _ = await self._call("GET", _package(name), accept=(404,))
        return status == 200

    async def put_package(self, name: str, path: Path) -> None:
        """See :class:`JobClient`.

        Raises
        ------
        WorkspaceTooLarge
            Ray takes no more than 100 MiB.
        """
        if (size := await asyncio.to_thread(os.path.getsize, path)) > PACKAGE_LIMIT:
            raise WorkspaceTooLarge(
                f"the package {name} has {size / 2**20:.0f} MiB; Ray's Jobs API takes no more than 100 MiB",
                "Leave large files behind with --exclude or .rayignore",
            )
        await self._call("PUT", _package(name), path, timeout=_LONG)

    async def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> str:
        """See :class:`JobClient`.

        The id is ours, so an answer that got lost is no reason to run the job twice: Ray refuses the second
        request, and what it has under that id is compared with what we asked for.

        Raises
        ------
        UsageError
            A value is too large, or the id belongs to another job.
        """
        runtime_env, metadata = runtime_env or {}, metadata or {}
        check_submission(submission_id, entrypoint, runtime_env, metadata)
        body = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "runtime_env": runtime_env,
            "metadata": metadata,
            **_entrypoint_resources(resources or {}),
        }
        sent = json.dumps(body).encode()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _SUBMIT
        while True:
            try:
                status, text = await self._call("POST", "/api/jobs/", sent, accept=(400, 500))
            except ClusterUnreachable:
                if loop.time() > deadline:
                    raise
            else:
                if status == 200:
                    return submission_id
                if "already exists" in text:
                    return await self._ours(submission_id, entrypoint, metadata)
                # The dashboard hands the request to the head's agent, which comes up some seconds later, and
                # says in these words that it did not get through.
                lost = "No available agent" in text or "aiohttp.client_exceptions" in text
                if not lost or loop.time() > deadline:
                    raise self._error("POST", "/api/jobs/", status, text)
            await asyncio.sleep(0.5)

    async def _ours(self, submission_id: str, entrypoint: str, metadata: Mapping[str, str]) -> str:
        there = await self.info(submission_id)
        if there is None or (there.entrypoint, dict(there.metadata)) != (entrypoint, dict(metadata)):
            raise UsageError(
                f"Ray already has another job of the id {submission_id}", "Submit it under a new id"
            )
        return submission_id

    async def info(self, submission_id: str) -> JobInfo | None:
        """See :class:`JobClient`."""
        status, text = await self._call("GET", _job(submission_id), accept=(404,))
        return JobInfo.from_ray(json.loads(text)) if status == 200 else None

    async def list(self) -> list[JobInfo]:
        """See :class:`JobClient`."""
        return [JobInfo.from_ray(job) for job in await self._json("GET", "/api/jobs/")]

    async def stop(self, submission_id: str) -> bool:
        """See :class:`JobClient`."""
        status, text = await self._call("POST", f"{_job(submission_id)}/stop", accept=(404,))
        return status == 200 and bool(json.loads(text)["stopped"])

    async def delete(self, submission_id: str) -> bool:
        """See :class:`JobClient`."""
        status, text = await self._call("DELETE", _job(submission_id), accept=(404,))
        return status == 200 and bool(json.loads(text)["deleted"])

    async def logs(self, submission_id: str) -> str:
        """See :class:`JobClient`.

        Raises
        ------
        JobNotFound
            There is no job of that id.
        """
        status, text = await self._call("GET", f"{_job(submission_id)}/logs", accept=(404,), timeout=_LONG)
        if status == 404:
            raise JobNotFound(f"Ray has no job {submission_id}", "List those that it has: %ray jobs")
        return json.loads(text)["logs"] or ""

    async def _json(self, method: str, path: str) -> Any:
        _, text = await self._call(method, path)
        return json.loads(text)

    async def _call(
        self,
        method: str,
        path: str,
        body: Body = None,
        *,
        accept: tuple[int, ...] = (),
        timeout: float = _QUICK,
    ) -> tuple[int, str]:
        """Send one request, and give status and text of an answer of 200 or one of `accept`."""
        import aiohttp

        limit = aiohttp.ClientTimeout(total=timeout, sock_connect=_QUICK)
        headers = self._headers
        if body is not None:
            kind = "application/json" if isinstance(body, bytes) else "application/octet-stream"
            headers = {**headers, "Content-Type": kind}
        try:
            async with await self._transport.send(method, path, headers, body, timeout=limit) as answer:
                status, text = answer.status, await answer.text(errors="replace")
        except OffloadError:
            raise  # of the way there
        except (aiohttp.InvalidURL, ValueError) as error:
            raise UsageError(
                f"{self.address!r} is not a URL: {error}", "It must be http://HOST:PORT"
            ) from None
        except asyncio.TimeoutError:
            raise ClusterUnreachable(
                f"Ray at {self.address} has not answered within {timeout:.0f} s",
                "See whether its head is alive, then run the cell again",
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterUnreachable(
                f"Ray at {self.address} cannot be reached: {error}",
                "See the address with %ray, and start the cluster with %ray cluster up",
            ) from None
        if status == 200 or status in accept:
            return status, text
        raise self._error(method, path, status, text)

    def _error(self, method: str, path: str, status: int, text: str) -> ClusterError:
        if status == 401:
            return ClusterRefused(
                f"Ray at {self.address} asks for a token, and none is configured",
                "Set ray_token_file to the file that holds it",
            )
        if status == 403:
            return ClusterRefused(
                f"Ray at {self.address} refuses the token",
                "Set ray_token_file to the file that holds the new one",
            )
        return ClusterError(
            f"Ray at {self.address} answers {status} to {method} {path}: {_trim(text)}",
            "See the logs of its dashboard",
        )


def _trim(text: str, limit: int = 500) -> str:
    # Of a Python traceback the last line says what happened.
    text = text.strip()
    if text.startswith("Traceback"):
        text = text.splitlines()[-1]
    return text if len(text) <= limit else text[:limit] + " …"


def _job(submission_id: str) -> str:
    # An id such as ".." or "a/b" would be another path.
    if not SUBMISSION_ID.fullmatch(submission_id):
        raise JobNotFound(f"{submission_id!r} is no submission id", "It has 1 to 64 letters, digits, - and _")
    return f"/api/jobs/{submission_id}"


def _package(name: str) -> str:
    if not _PACKAGE.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name of a package", "It ends with .zip, .whl or .tar.gz")
    return f"/api/packages/gcs/{name}"


def _read_status(nodes: list[Mapping[str, Any]], report: Mapping[str, Any]) -> ClusterStatus:
    alive = [node for node in nodes if node["state"] == "ALIVE"]
    resources: dict[str, float] = {}
    for node in alive:
        for name, amount in (node.get("resources_total") or {}).items():
            # node:IP marks a node; what the object store has cannot be asked for.
            if not name.startswith("node:") and name != "object_store_memory":
                resources[name] = resources.get(name, 0) + amount
    usage = report.get("usage") or {}
    used = {name: usage[_camel(name)][0] for name in resources if _camel(name) in usage}
    waiting = tuple((dict(shape), int(count)) for shape, count in report.get("resourceDemand") or ())
    return ClusterStatus(len(alive), resources, used, waiting)


def _entrypoint_resources(resources: Mapping[str, float]) -> dict[str, Any]:
    custom = dict(resources)
    memory = custom.pop("memory", None)
    fields = {
        "entrypoint_num_cpus": custom.pop("CPU", None),
        "entrypoint_num_gpus": custom.pop("GPU", None),
        "entrypoint_memory": None if memory is None else int(memory),
        "entrypoint_resources": custom or None,
    }
    return {name: amount for name, amount in fields.items() if amount is not None}


def _camel(name: str) -> str:
    # The dashboard rewrites all keys of this answer (to_camel_case of ray/dashboard/utils.py).
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)
