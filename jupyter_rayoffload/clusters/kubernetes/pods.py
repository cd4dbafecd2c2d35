"""What keeps a pod from being ready, told from its status and its events: pure.

What the parts of a status mean: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...words import memory_text

__all__ = ["Trouble", "condition", "instant", "is_ready", "is_running", "quantity", "trouble_of"]

Json = Mapping[str, Any]

#: KubeRay gives each worker this init container, which waits for the head (ray-operator's common/pod.go).
SEEKS_HEAD = "wait-gcs-ready"
#: It asks for the head; longer than this, seconds, and the head cannot be reached.
HEAD_SECONDS = 60.0
#: A container that has crashed so often will not stop doing so.
CRASHES = 3
#: What a registry says when the image will not be there the next time either.
_NO_SUCH_IMAGE = re.compile(r"not found|manifest unknown|denied|unauthorized|repository does not exist", re.I)
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)
}


@dataclass(frozen=True)
class Trouble:
    """Why a pod is not ready.

    Parameters
    ----------
    reason : str
        One sentence without its stop.
    detail : str
        What Kubernetes itself said, or what to do.
    hopeless : bool
        Whether waiting will not help.
    weight : int
        Of several pods, the one with the largest is told of.
    """

    reason: str
    detail: str = ""
    hopeless: bool = False
    weight: int = 1


def trouble_of(pod: Json, events: Sequence[Json], now: float) -> Trouble | None:
    """Say what keeps `pod` from being ready; None where nothing but time does.

    Parameters
    ----------
    pod : Mapping
    events : sequence of Mapping
        Those of this pod, the newest last.
    now : float
        Seconds since the epoch.
    """
    return _unscheduled(pod) or _containers(pod, now) or _mounts(events) or _pulls(events)


# ---------------------------------------------------------------------- facts


def condition(status: Json, name: str) -> Json:
    """Give a condition of an object's status, or an empty one."""
    return next((c for c in status.get("conditions") or () if c.get("type") == name), {})


def is_ready(pod: Json) -> bool:
    """Whether Kubernetes calls a pod ready, and it is not on its way out."""
    ready = condition(pod.get("status") or {}, "Ready").get("status") == "True"
    return ready and not pod["metadata"].get("deletionTimestamp")


def is_running(pod: Json) -> bool:
    """Whether all containers of a pod run, and it is not on its way out."""
    states = [c.get("state") or {} for c in (pod.get("status") or {}).get("containerStatuses") or ()]
    running = bool(states) and all("running" in state for state in states)
    return running and not pod["metadata"].get("deletionTimestamp")


def instant(text: str | None) -> float | None:
    """Read a time of the API, in seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None


def quantity(text: str) -> float:
    """Read a quantity of Kubernetes: ``500m``, ``2Gi``, ``8``; what cannot be read is not a number.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/.
    """
    match = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([A-Za-z]*)", text.strip())
    if match is None or (match[2] and match[2] not in _UNITS):
        return float("nan")
    return float(match[1]) * _UNITS.get(match[2], 1)


# ---------------------------------------------------------------------- one trouble after the other


def _unscheduled(pod: Json) -> Trouble | None:
    placed = condition(pod.get("status") or {}, "PodScheduled")
    if placed.get("status") != "False":
        return None
    message = str(placed.get("message", ""))
    lacking = [
        name for name in re.findall(r"Insufficient ([\w/-]+(?:\.[\w/-]+)*)", message) if name != "pods"
    ]
    asked = _asked(pod)
    wanted = [_amount(name, asked[name]) for name in dict.fromkeys(lacking) if asked.get(name)]
    if wanted:
        free = "one" if len(wanted) == 1 and wanted[0].startswith("1 ") else "so much"
        return Trouble(f"Waiting for {' and '.join(wanted)}: no node has {free} free", message, weight=3)
    if "Too many pods" in message or "Insufficient pods" in message:
        return Trouble("Waiting for a node: all of them have as many pods as they may", message, weight=3)
    why = re.sub(
        r"^\d+/\d+ nodes are available: |\.? *(preemption|no new claims).*$", "", message, flags=re.S
    )
    return Trouble(f"Waiting for a node: {why or 'none will take the pod'}", message, weight=3)


def _asked(pod: Json) -> dict[str, float]:
    """Give what a pod reserves: the sum of its containers, or its largest init container."""
    spec = pod.get("spec") or {}
    sums: dict[str, float] = {}
    for container in spec.get("containers") or ():
        for name, amount in _requests(container).items():
            sums[name] = sums.get(name, 0) + amount
    for container in spec.get("initContainers") or ():
        for name, amount in _requests(container).items():
            sums[name] = max(sums.get(name, 0), amount)
    return sums


def _requests(container: Json) -> dict[str, float]:
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity(str(amount)) for name, amount in asked.items()}


def _amount(resource: str, amount: float) -> str:
    if resource == "cpu":
        return f"{amount:g} CPU{'' if amount == 1 else 's'}"
    if resource in ("memory", "ephemeral-storage"):
        return f"{memory_text(round(amount))} of {'memory' if resource == 'memory' else 'disk'}"
    if resource.endswith("/gpu"):
        return f"{amount:g} GPU{'' if amount == 1 else 's'}"
    return f"{amount:g} {resource}"


def _containers(pod: Json, now: float) -> Trouble | None:
    status = pod.get("status") or {}
    first = [(c, True) for c in status.get("initContainerStatuses") or ()]
    for container, init in [*first, *((c, False) for c in status.get("containerStatuses") or ())]:
        state = container.get("state") or {}
        ended = state.get("terminated") or {}
        if init and ended and not ended.get("exitCode"):
            continue
        found = (
            _crashed(pod, container)
            or _waits(state.get("waiting") or {}, container)
            or (_prepares(container, state.get("running") or {}, now) if init else None)
        )
        if found:
            return found
    return None


def _waits(waiting: Json, container: Json) -> Trouble | None:
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    image = container.get("image") or "?"
    if reason in ("ErrImagePull", "ImagePullBackOff"):
        no_such = bool(_NO_SUCH_IMAGE.search(message))
        return Trouble(f"The image {image} cannot be pulled", message, hopeless=no_such, weight=5)
    if reason == "ErrImageNeverPull":
        return Trouble(f"The image {image} is on no node, and must not be pulled", message, True, 5)
    if reason == "InvalidImageName":
        return Trouble(f"{image} is no name of an image", message, hopeless=True, weight=5)
    if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
        missing = re.search(r'(secret|configmap) "([^"]+)" not found', message)
        if missing:
            kind = "Secret" if missing[1] == "secret" else "ConfigMap"
            return Trouble(f"There is no {kind} {missing[2]}, which the pod needs", message, True, 5)
        return Trouble(f"The container cannot be made: {message or reason}", "", weight=5)
    return None


def _crashed(pod: Json, container: Json) -> Trouble | None:
    state = container.get("state") or {}
    last = state.get("terminated") or (container.get("lastState") or {}).get("terminated")
    if not last or container.get("ready"):
        return None
    times = int(container.get("restartCount") or 0)
    again = f", {times} time{'' if times == 1 else 's'} so far" if times else ""
    if last.get("reason") == "OOMKilled":
        limit = _limit(pod, str(container.get("name")))
        had = f" ({memory_text(round(limit))})" if limit else ""
        return Trouble(
            f"{_subject(pod)} ran out of memory{had}{again}",
            "Give it more memory in its profile",
            times >= CRASHES,
            4,
        )
    code = last.get("exitCode")
    detail = str(last.get("message") or "Its log says why")
    return Trouble(
        f"{_subject(pod)} crashes at its start: exit code {code}{again}", detail, times >= CRASHES, 4
    )


def _subject(pod: Json) -> str:
    head = (pod["metadata"].get("labels") or {}).get("ray.io/node-type") == "head"
    return "The head" if head else "A worker"


def _limit(pod: Json, container: str) -> float:
    for each in (pod.get("spec") or {}).get("containers") or ():
        if each.get("name") == container:
            return quantity(str(((each.get("resources") or {}).get("limits") or {}).get("memory", "0")))
    return 0


def _prepares(container: Json, running: Json, now: float) -> Trouble | None:
    since = instant(running.get("startedAt"))
    if since is None:
        return None
    if container.get("name") != SEEKS_HEAD:  # one of the site's
        return Trouble(
            f"Its init container {container.get('name')} has run for {{since:{since:.0f}}}", weight=1
        )
    if now - since < HEAD_SECONDS:
        return None
    return Trouble(
        "A worker cannot reach the head",
        "The names of services are not resolved in the pod, or a NetworkPolicy forbids the way",
        weight=2,
    )


def _mounts(events: Sequence[Json]) -> Trouble | None:
    failed = [e for e in events if e.get("reason") in ("FailedMount", "FailedAttachVolume")]
    if not failed:
        return None
    message = str(failed[-1].get("message", ""))
    missing = re.search(r'(secret|configmap|persistentvolumeclaim) "([^"]+)" not found', message)
    if missing:
        kinds = {"secret": "Secret", "configmap": "ConfigMap"}
        return Trouble(
            f"There is no {kinds.get(missing[1], 'claim')} {missing[2]}, which the pod mounts",
            message,
            True,
            5,
        )
    return Trouble("A volume cannot be mounted", message, weight=4)


def _pulls(events: Sequence[Json]) -> Trouble | None:
    """Say that the node pulls: some gigabytes take minutes."""
    last = next((e for e in reversed(events) if e.get("reason") in ("Pulling", "Pulled")), None)
    if last is None or last["reason"] == "Pulled":
        return None
    image = re.search(r'"([^"]+)"', str(last.get("message", "")))
    return Trouble(f"Pulling image {image[1] if image else ''}".rstrip(), weight=1)
