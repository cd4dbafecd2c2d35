"""The shipped tenant on the bed, as administrators apply it: its Redis with its disk, its notebook pods."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, dynamic

from tests.kubernetes.bed import Bed
from tests.kubernetes.bed.components import REAL_NODE
from tests.kubernetes.bed.image import ray_image, ray_version
from tests.kubernetes.bed.places import HERE
from tests.kubernetes.ground import until
from tests.kubernetes.notebooks import Jupyter, environment, notebook_pod
from tests.tenant import copy_tenant, new_tenant, one, render

Objects = list[dict[str, Any]]
REDIS = "rayoffload-redis"
EXAMPLES = Path(__file__).parents[2] / "examples"
OWNER = "tested"


@contextmanager
def applied_tenant(admin: client.ApiClient, namespace: str, folder: Path) -> Iterator[Objects]:
    """Apply all of a tenant to a namespace, and wait until its quota counts.

    Parameters
    ----------
    admin : ApiClient
    namespace : str
    folder : Path
        Gets the tenant's overlay, with its secrets.
    """
    objects = render(new_tenant(copy_tenant(folder), "tested", namespace=namespace))
    api, core = dynamic.DynamicClient(admin), client.CoreV1Api(admin)
    for made in objects:
        resource = api.resources.get(api_version=made["apiVersion"], kind=made["kind"])
        api.server_side_apply(resource, made, field_manager="administrator")
    wanted = one(objects, "ResourceQuota")["spec"]["hard"]

    def counts() -> bool:
        status = core.read_namespaced_resource_quota("rayoffload", namespace).status
        return (status.hard or {}).keys() == wanted.keys() == (status.used or {}).keys()

    until(counts, "the quota counts")
    try:
        yield objects
    finally:
        # Or it would make its pod anew as long as the namespace is there.
        client.AppsV1Api(admin).delete_namespaced_stateful_set(REDIS, namespace)


@contextmanager
def disk(bed: Bed, core: client.CoreV1Api, name: str) -> Iterator[None]:
    """Give the real node a disk, which is root's: the kubelet makes it the pod's, by its fsGroup."""
    path = Path("disks") / name
    (bed.place.folder / path).mkdir(parents=True)
    os.chmod(bed.place.folder / path, 0o755)
    place = {"key": "kubernetes.io/hostname", "operator": "In", "values": [REAL_NODE]}
    spec = {
        "capacity": {"storage": "5Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": str(HERE / path)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [place]}]}},
    }
    core.create_persistent_volume({"metadata": {"name": name}, "spec": spec})
    try:
        yield
    finally:
        core.delete_persistent_volume(name)


def redis_runs(core: client.CoreV1Api, namespace: str, after: str = "") -> str:
    """Wait until the tenant's Redis is ready.

    Parameters
    ----------
    core : CoreV1Api
    namespace : str
    after : str
        The uid of a pod that does not count: a StatefulSet gives the next one the same name.

    Returns
    -------
    str
        The uid of its pod.
    """

    def ready() -> str:
        for pod in core.list_namespaced_pod(
            namespace, label_selector=f"app.kubernetes.io/name={REDIS}"
        ).items:
            for condition in pod.status.conditions or ():
                if (condition.type, condition.status) == ("Ready", "True") and pod.metadata.uid != after:
                    return str(pod.metadata.uid)
        return ""

    return until(ready, "the tenant's Redis is ready")


# ---------------------------------------------------------------------- notebook pods

#: What of the shipped cluster is made smaller, so that it fits a small machine beside others.
SMALL = {
    "requests": {"cpu": "100m", "memory": "512Mi"},
    "start_params": {"object-store-memory": str(100 << 20)},
}


def cluster() -> dict[str, Any]:
    """Give the cluster of kind/hub/values.yaml with smaller pods."""
    shipped = json.loads(environment(OWNER)["RAYOFFLOAD_KUBERNETES_CLUSTER"])
    [group] = shipped["groups"]
    groups = [{**group, "pod": {**group["pod"], **SMALL}}]
    return {**shipped, "head": {**shipped["head"], **SMALL}, "groups": groups}


def settings() -> dict[str, str]:
    """Give what an administrator changes in the values of the hub for this bed."""
    return {
        "RAYOFFLOAD_IMAGE": ray_image(),
        "RAYOFFLOAD_RAY_VERSION": ray_version(),
        "RAYOFFLOAD_KUBERNETES_CLUSTER": json.dumps(cluster()),
    }


@dataclass(frozen=True)
class Tenant:
    """A tenant's namespace, with its Redis and whatever was asked for."""

    namespace: str
    objects: Objects
    image: str
    core: client.CoreV1Api
    custom: client.CustomObjectsApi

    def start(self, name: str, **changes: Any) -> Jupyter:
        """Start a notebook pod, and wait until its server answers."""
        token = secrets.token_hex(16)
        changes = {"env": settings(), **changes}
        self.core.create_namespaced_pod(
            self.namespace, notebook_pod(name, self.image, OWNER, token, **changes)
        )
        address = until(
            lambda: self.core.read_namespaced_pod(name, self.namespace).status.pod_ip, "the notebook's pod"
        )
        server = Jupyter(address, token)
        until(server.answers, "the Jupyter server in the pod")
        for file in ("quickstart.ipynb", "forecast.py"):
            server.upload(EXAMPLES / file)
        return server

    def log(self, name: str) -> str:
        """Give what a pod has logged."""
        found: str = self.core.read_namespaced_pod_log(name, self.namespace)
        return found

    def pods(self, kind: str = "") -> list[Any]:
        """Give the Ray pods that there are, or the ``head`` or ``worker`` ones."""
        selector = f"ray.io/node-type={kind}" if kind else "ray.io/is-ray-node=yes"
        return list(self.core.list_namespaced_pod(self.namespace, label_selector=selector).items)

    def clusters(self) -> list[dict[str, Any]]:
        """Give the RayClusters that there are."""
        found = self.custom.list_namespaced_custom_object("ray.io", "v1", self.namespace, "rayclusters")
        return list(found["items"])
