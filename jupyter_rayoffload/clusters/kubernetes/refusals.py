"""What the Kubernetes API refuses, as people see it, and what the code that asks must tell apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ...errors import ClusterError, ClusterRefused, ClusterStartFailed, ClusterUnreachable

__all__ = ["Conflict", "NotThere", "Outdated", "not_installed", "passage_refusal", "refusal", "unreachable"]


class NotThere(Exception):
    """There is no such object (404)."""


class Conflict(Exception):
    """The object is there already, or is another one than the request says (409)."""


class Outdated(Exception):
    """What is asked for is older than what the server remembers (410): list again."""


def unreachable(error: object) -> ClusterUnreachable:
    """Say that the API server does not answer."""
    what = str(error) or type(error).__name__
    return ClusterUnreachable(
        f"the Kubernetes API server does not answer: {what}",
        "It is asked again; jobs that run go on. kubectl get pods shows whether it is well",
    )


def not_installed(what: str) -> ClusterError:
    """Say that the API server does not know `what`, which KubeRay brings."""
    return ClusterStartFailed(
        f"KubeRay is not installed: the API server knows no {what}",
        "Ask your site to install KubeRay 1.6 or newer, or use backend='embedded'",
    )


_CANNOT = re.compile(r'cannot (\S+) resource "([^"]+)" in API group "([^"]*)"')


def refusal(status: int, said: Mapping[str, Any]) -> Exception:
    """Translate a refusal.

    Parameters
    ----------
    status : int
        Of the answer.
    said : Mapping
        Its Status object; empty where it has none.
    """
    message = str(said.get("message") or f"it answers {status}")
    if status == 404:
        return NotThere(message)
    if status == 409:
        return Conflict(message)
    if status == 410:
        return Outdated(message)
    if status == 401:
        return ClusterRefused(
            "Kubernetes does not accept the credential",
            "Sign in again, as for kubectl; in a pod, see whether its service account still exists",
        )
    if status == 403:
        return ClusterRefused(f"Kubernetes refuses: {message}", _mend(message, said))
    if status in (400, 422):
        return ClusterStartFailed(
            f"Kubernetes does not take it: {message}", "Correct kubernetes_cluster in the settings"
        )
    if status in (429, 503):
        return ClusterUnreachable(
            f"the Kubernetes API server is too busy: {message}", "Try again in a minute"
        )
    return ClusterError(f"Kubernetes refuses: {message}", "See the log of the Kubernetes API server")


def passage_refusal(status: int, said: Mapping[str, Any], place: str) -> ClusterError:
    """Translate what the API server says when it does not let a request or a connection through to `place`.

    Parameters
    ----------
    status : int
        Of the answer.
    said : Mapping
        Its Status object; empty where it has none.
    place : str
        Where the way was to lead: ``the service redis``.
    """
    message = str(said.get("message") or f"it answers {status}")
    if status == 404:
        return ClusterUnreachable(
            f"{place} is not there: {message}", "%ray cluster shows what there is; it is asked again"
        )
    if "no endpoints available" in message:
        return ClusterUnreachable(f"{place} has no pod that is ready", "%ray cluster shows what it waits for")
    if status in (500, 502, 503, 504):
        return ClusterUnreachable(
            f"the Kubernetes API server does not reach {place}: {message}",
            "See whether the pod is well; a NetworkPolicy must let the API server reach it",
        )
    found = refusal(status, said)
    if isinstance(found, ClusterError):
        return found
    return ClusterError(
        f"Kubernetes does not let us through to {place}: {message}", "See the log of the API server"
    )


def _mend(message: str, said: Mapping[str, Any]) -> str:
    """Say what to do about a 403: a right that is missing, a quota, a rule of the site."""
    if found := _CANNOT.search(message):
        verb, resource, group = found.groups()
        name = str((said.get("details") or {}).get("name") or "")
        only = f", resourceNames: [{json.dumps(name)}]" if resource == "secrets" and name else ""
        return (
            "The Role of this account lacks the rule "
            f"{{apiGroups: [{json.dumps(group)}], resources: [{json.dumps(resource)}]{only}, "
            f"verbs: [{json.dumps(verb)}]}}; whoever runs the site can add it"
        )
    if "exceeded quota" in message:
        return "Delete another cluster or make this one smaller, or ask your site for a larger quota"
    return "This is a rule of your site: change kubernetes_cluster so that it is met, or ask there"
