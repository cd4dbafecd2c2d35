"""RayClusters whose pods are simulated: for numbers and failures that a small machine cannot have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubernetes import client

from tests.kubernetes.ground import ray_cluster, until

RAY = ("ray.io", "v1")


def test_a_cluster_of_twenty_workers(namespace: str, custom: Any, core: client.CoreV1Api) -> None:
    custom.create_namespaced_custom_object(
        *RAY, namespace, "rayclusters", ray_cluster("many", workers=20, simulated=True)
    )

    def running() -> bool:
        pods = core.list_namespaced_pod(namespace, label_selector="ray.io/cluster=many").items
        return len([pod for pod in pods if pod.status.phase == "Running"]) == 21

    until(running, "a head and twenty workers")
    pods = core.list_namespaced_pod(namespace).items
    assert {pod.spec.node_name for pod in pods} == {"simulated"}


def test_a_pod_waits_for_a_node_that_has_what_it_asks_for(
    namespace: str, core: client.CoreV1Api, new_node: Callable[..., None]
) -> None:
    spec = ray_cluster("big", simulated=True)["spec"]["headGroupSpec"]["template"]["spec"]
    spec["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "big"}, "spec": spec})

    def message() -> str | None:
        status = core.read_namespaced_pod("big", namespace).status
        return next((c.message for c in status.conditions or () if c.reason == "Unschedulable"), None)

    assert "Insufficient nvidia.com/gpu" in str(until(message, "the scheduler's verdict"))
    new_node("gpus", gpu="4")
    until(lambda: core.read_namespaced_pod("big", namespace).status.phase == "Running", "it runs")
    assert core.read_namespaced_pod("big", namespace).spec.node_name == "gpus"
