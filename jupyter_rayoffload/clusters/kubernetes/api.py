"""The Kubernetes API, asynchronous and thin: JSON in, JSON out, and its refusals as people see them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ClusterUnreachable, UsageError
from .refusals import NotThere, not_installed, refusal, unreachable

__all__ = [
    "ACCOUNT",
    "EVENTS",
    "PODS",
    "RAYCLUSTERS",
    "SECRETS",
    "SERVICES",
    "KubeApi",
    "Resource",
    "read_status",
]

#: Where Kubernetes puts the credential of a pod's service account.
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Seconds. The API server sends a bookmark about once a minute: a watch that is silent for longer has lost it.
_QUICK, _SILENCE, _WATCH = 15.0, 90.0, 300
#: How long a request is put off, in all, because the server is busy; seconds.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Resource:
    """A kind of object, as the API's paths and the rules of a Role name it."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        """Give the path of one object, or of all of a namespace."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")


RAYCLUSTERS = Resource("ray.io", "v1", "rayclusters")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")
SECRETS = Resource("", "v1", "secrets")
SERVICES = Resource("", "v1", "services")
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class KubeApi:
    """The API server, as one account sees one namespace.

    Parameters
    ----------
    kubeconfig : str
        File to use; empty inside a pod, and for the default one.
    namespace : str
        Empty for that of the pod, or of the kubeconfig's context.
    """

    def __init__(self, kubeconfig: str = "", namespace: str = "") -> None:
        self._kubeconfig = os.path.expanduser(kubeconfig)
        self.namespace = namespace
        #: Since when the server has not answered; None while it does.
        self.silent_since: float | None = None
        self._client: Any = None
        self._retired: list[Any] = []
        self._opening = asyncio.Lock()

    async def open(self) -> KubeApi:
        """Read the credential; nobody is asked yet.

        Raises
        ------
        UsageError
            The client library, or a credential, is missing.
        """
        async with self._opening:
            if self._client is None:
                await asyncio.to_thread(_load_library)  # a second of work, in which the loop goes on
                self._client = await self._authenticated()
        return self

    async def aclose(self) -> None:
        """Close the connections."""
        clients, self._client, self._retired = [*self._retired, self._client], None, []
        for client in clients:
            if client is not None:
                await client.close()

    async def client(self) -> Any:
        """Give the library's client, with the credential, for what is no JSON."""
        await self.open()
        return self._client

    async def renew(self, used: Any) -> None:
        """Read the credential again, as tokens expire; who is in the middle of a watch stays there."""
        async with self._opening:
            if self._client is used:
                self._retired.append(used)
                self._client = await self._authenticated()

    async def list(
        self, resource: Resource, namespace: str = "", **selectors: str
    ) -> tuple[list[dict[str, Any]], str]:
        """Give the objects, and the version from which to watch.

        Raises
        ------
        ClusterRefused, ClusterUnreachable, ClusterError
        """
        try:
            found = await self._json("GET", resource.path(namespace or self.namespace), selectors)
        except NotThere:
            raise not_installed(f"{resource.plural}.{resource.group}") from None
        return found["items"], found["metadata"]["resourceVersion"]

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        """Give one object.

        Raises
        ------
        NotThere
        ClusterRefused, ClusterUnreachable, ClusterError
        """
        return dict(await self._json("GET", resource.path(namespace or self.namespace, name)))

    async def create(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object.

        Raises
        ------
        Conflict
            There is one of its name.
        ClusterStartFailed
            The server does not take it.
        ClusterRefused, ClusterUnreachable, ClusterError
        """
        try:
            return dict(await self._json("POST", resource.path(self.namespace), body=body))
        except NotThere as error:
            if "namespaces" in str(error):
                raise UsageError(
                    f"there is no namespace {self.namespace!r}", "Correct the setting namespace"
                ) from None
            raise not_installed(f"{resource.plural}.{resource.group}") from None

    async def patch(self, resource: Resource, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge `body` into an object.

        Raises
        ------
        NotThere
        Conflict
            `body` names a version of the object, and it has another one by now.
        ClusterRefused, ClusterUnreachable, ClusterError
        """
        path = resource.path(self.namespace, name)
        content = "application/merge-patch+json"
        return dict(await self._json("PATCH", path, body=body, content=content))

    async def delete(self, resource: Resource, name: str, uid: str) -> None:
        """Delete the object that has this uid; it is gone when all that belongs to it is.

        Raises
        ------
        NotThere
        Conflict
            It is another one by now.
        ClusterRefused, ClusterUnreachable, ClusterError
        """
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        await self._json("DELETE", resource.path(self.namespace, name), body=body)

    async def may(self, verb: str, resource: Resource) -> bool:
        """Ask whether this account has a right; everybody may ask that."""
        what = {
            "namespace": self.namespace,
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": what},
        }
        return bool((await self._json("POST", _REVIEWS, body=review))["status"]["allowed"])

    @asynccontextmanager
    async def watch(
        self, resource: Resource, version: str, **selectors: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
        """Open a watch: pairs of ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK`` and an object.

        Raises
        ------
        Outdated
            `version` is too old: list again.
        ClusterRefused, ClusterUnreachable, ClusterError
            When it is opened, or while it is read.
        """
        query = {
            **selectors,
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH),
        }
        try:
            answer = await self._answer("GET", resource.path(self.namespace), query, silence=_SILENCE)
        except NotThere:  # the kind has gone since it was listed
            raise not_installed(f"{resource.plural}.{resource.group}") from None
        try:
            yield self._events(answer)
        finally:
            answer.close()

    async def _events(self, answer: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        import aiohttp

        try:
            while line := await answer.content.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise refusal(int(event["object"].get("code", 500)), event["object"])
                yield event["type"], event["object"]
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            raise unreachable(error) from None

    async def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
    ) -> Any:
        import aiohttp

        answer = await self._answer(method, path, query or {}, body, content)
        try:
            return json.loads(await answer.text())
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
            raise self._silent(error) from None

    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any = None,
        content: str = "application/json",
        silence: float = 0.0,
    ) -> Any:
        """Give the answer to a request, unread, once it is a good one."""
        await self.open()
        deadline, renewed = time.monotonic() + _PATIENCE, False
        while True:
            client = self._client
            status, answer = await self._send(client, method, path, query, body, content, silence)
            if status < 300:
                return answer
            status_object = await read_status(answer)
            pause = _pause(status, answer.headers)
            if pause is not None and time.monotonic() + pause < deadline:
                await asyncio.sleep(pause)
            elif status == 401 and not renewed:
                renewed = True
                await self.renew(client)
            else:
                raise refusal(status, status_object)

    async def _send(
        self,
        client: Any,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Any,
        content: str,
        silence: float,
    ) -> tuple[int, Any]:
        import aiohttp

        if silence:
            limit = aiohttp.ClientTimeout(total=None, sock_connect=_QUICK, sock_read=silence)
        else:
            limit = aiohttp.ClientTimeout(total=_QUICK)
        try:
            request = await client.param_serialize(
                method=method,
                resource_path=path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await _begun(client.call_api(*request, _request_timeout=limit))
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise self._silent(error) from None
        if answer.status >= 500 and "Retry-After" not in answer.headers:
            answer.close()
            raise self._silent(f"it answers {answer.status}")
        self.silent_since = None
        return answer.status, answer

    def _silent(self, error: object) -> ClusterUnreachable:
        if self.silent_since is None:
            self.silent_since = time.time()
        return unreachable(error)

    async def _authenticated(self) -> Any:
        """Give a client with the credential of the pod, or of the kubeconfig."""
        from kubernetes.aio import client, config

        settings = client.Configuration()
        try:
            if not self._kubeconfig and (ACCOUNT / "token").exists():
                config.load_incluster_config(settings)  # type: ignore[no-untyped-call]
                self.namespace = self.namespace or (ACCOUNT / "namespace").read_text().strip()
            else:
                file = self._kubeconfig or None
                await config.load_kube_config(  # type: ignore[no-untyped-call]
                    file, client_configuration=settings
                )
                _, context = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
                self.namespace = self.namespace or context["context"].get("namespace") or "default"
        except (config.ConfigException, OSError, ValueError, TypeError) as error:
            raise UsageError(
                f"there is no credential for Kubernetes: {error}",
                "Set kubeconfig to the file that kubectl uses, or give the pod a service account",
            ) from None
        return client.ApiClient(settings)


async def _begun(call: Coroutine[Any, Any, Any]) -> Any:
    """Give an answer as soon as it begins: a watch goes on for minutes, but it begins at once."""
    task = asyncio.ensure_future(call)
    try:
        # Unlike asyncio.wait_for (https://github.com/python/cpython/issues/86296) this loses no cancellation.
        await asyncio.wait({task}, timeout=_QUICK)
        if task.done():
            return task.result().response
        raise asyncio.TimeoutError
    except BaseException:
        task.cancel()
        task.add_done_callback(_drop)
        raise


def _drop(task: asyncio.Future[Any]) -> None:
    """Close an answer for which nobody waits any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().response.close()


def _load_library() -> None:
    try:
        import kubernetes.aio.config  # noqa: F401
    except ImportError:
        raise UsageError(
            "the Kubernetes client is not installed in this environment, or older than 37",
            'pip install "jupyter_rayoffload[kubernetes]" installs it',
        ) from None


async def read_status(answer: Any) -> dict[str, Any]:
    """Read the Status of a refusal; what is not of Kubernetes' API, but of its server, is plain text."""
    try:
        text = await answer.text(errors="replace")
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    except Exception:  # whatever it is, the number of the refusal is known
        return {}


def _pause(status: int, headers: Mapping[str, str]) -> float | None:
    """Give the seconds after which a busy server wants to be asked again; None if it is not busy."""
    if status not in (429, 503) or (status == 503 and "Retry-After" not in headers):
        return None
    text = headers.get("Retry-After", "1")
    # Not all at once: who was sent away together comes back together.
    return (float(text) if text.isdigit() else 1.0) + random.uniform(0, 0.5)  # noqa: S311
