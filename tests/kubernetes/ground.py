"""RayClusters as the tests of the bed ask for them, and waiting for what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tests.kubernetes.bed.components import SIMULATED
from tests.kubernetes.bed.image import ray_image, ray_version

_T = TypeVar("_T")
#: TLS connections end so long, in seconds, after they are closed; a loop that ends sooner leaves sockets.
#: https://docs.aiohttp.org/en/v3.13.2/client_advanced.html#graceful-shutdown
FAREWELL = 0.25
#: How long anything may take, seconds: the machine may be busy. Nothing waits that long in vain.
LIMIT = 300.0


def until(look: Callable[[], _T], what: str, limit: float = LIMIT) -> _T:
    """Give what `look` gives as soon as that is true."""
    deadline = time.monotonic() + limit
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.1)
    return found


def ray_cluster(name: str, workers: int = 1, simulated: bool = False) -> dict[str, Any]:
    """Give a RayCluster with a token; its pods run on the real node, or are simulated."""
    group = {
        "groupName": "workers",
        "replicas": workers,
        "minReplicas": 0,
        "maxReplicas": 100,
        "rayStartParams": dict(_PARAMETERS),
        "template": _template("worker", simulated),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": name},
        "spec": {
            "rayVersion": ray_version(),
            "authOptions": {"mode": "token"},
            "headGroupSpec": {"rayStartParams": dict(_PARAMETERS), "template": _template("head", simulated)},
            "workerGroupSpecs": [group],
        },
    }


def head_address(cluster: Mapping[str, Any]) -> str:
    """Give the head's own address: this machine reaches pods, and does not ask their DNS."""
    address = cluster.get("status", {}).get("head", {}).get("podIP")
    return f"http://{address}:8265" if address else "http://127.0.0.1:1"  # where nobody answers


_PARAMETERS = {"object-store-memory": str(100 << 20)}


def _template(name: str, simulated: bool) -> dict[str, Any]:
    container = {
        "name": f"ray-{name}",
        "image": ray_image(),
        "resources": {
            "requests": {"cpu": "100m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "2Gi"},
        },
    }
    spec: dict[str, Any] = {"containers": [container], "automountServiceAccountToken": False}
    if simulated:
        spec["nodeSelector"] = {SIMULATED: "true"}
        spec["tolerations"] = [{"key": SIMULATED, "operator": "Exists"}]
    return {"spec": spec}
