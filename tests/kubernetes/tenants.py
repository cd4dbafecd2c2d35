"""The shipped tenant on the bed, as an administrator applies it, and the disk that its Redis asks for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, dynamic

from tests.kubernetes.bed import Bed
from tests.kubernetes.bed.components import REAL_NODE
from tests.kubernetes.bed.places import HERE
from tests.kubernetes.ground import until
from tests.tenant import copy_tenant, new_tenant, one, render

Objects = list[dict[str, Any]]
REDIS = "rayoffload-redis"


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


def redis_runs(core: client.CoreV1Api, namespace: str) -> None:
    """Wait until the tenant's Redis is ready."""

    def ready() -> bool:
        pods = core.list_namespaced_pod(namespace, label_selector=f"app.kubernetes.io/name={REDIS}").items
        return any(
            condition.type == "Ready" and condition.status == "True"
            for pod in pods
            for condition in pod.status.conditions or ()
        )

    until(ready, "the tenant's Redis is ready")
