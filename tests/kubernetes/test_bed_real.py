"""Real pods: a RayCluster and a job in it, and the way from a pod to the API server."""

from __future__ import annotations

import base64
import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from kubernetes import client

from tests.kubernetes.bed.binaries import KUBERNETES
from tests.kubernetes.bed.image import ray_image
from tests.kubernetes.ground import ray_cluster, until

RAY = ("ray.io", "v1")
JOB = "python -c 'import ray; print(ray.get(ray.remote(lambda: 6 * 7).remote()))'"


@pytest.fixture
def cluster(namespace: str, custom: Any, core: client.CoreV1Api) -> str:
    """Create a cluster with one worker, and wait for it."""
    begin = time.monotonic()
    custom.create_namespaced_custom_object(*RAY, namespace, "rayclusters", ray_cluster("small"))

    def ready() -> bool:
        pods = core.list_namespaced_pod(namespace, label_selector="ray.io/cluster=small").items
        return len([pod for pod in pods if _ready(pod.status)]) == 2

    until(ready, "a head and a worker")
    print(f"head and worker are ready after {time.monotonic() - begin:.1f} s")
    return "small"


def _ready(status: Any) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in status.conditions or ())


def test_a_job_runs_in_it(cluster: str, namespace: str, core: client.CoreV1Api) -> None:
    [head] = core.list_namespaced_pod(
        namespace, label_selector="ray.io/node-type=head,ray.io/cluster=" + cluster
    ).items
    token = base64.b64decode(core.read_namespaced_secret(cluster, namespace).data["auth_token"]).decode()
    dashboard = f"http://{head.status.pod_ip}:8265/api/jobs/"
    with pytest.raises(urllib.error.HTTPError) as raised:
        _request(dashboard)
    raised.value.close()
    assert raised.value.code == 401
    job = _request(dashboard, token, {"entrypoint": JOB})["submission_id"]

    def ended() -> Any:
        found = _request(dashboard + job, token)
        return found if found["status"] in ("SUCCEEDED", "FAILED", "STOPPED") else None

    assert until(ended, "the end of the job")["status"] == "SUCCEEDED"
    assert "42" in _request(f"{dashboard}{job}/logs", token)["logs"]


def test_its_dashboard_is_reached_through_the_api_server(
    cluster: str, namespace: str, core: client.CoreV1Api, admin: client.ApiClient
) -> None:
    token = base64.b64decode(core.read_namespaced_secret(cluster, namespace).data["auth_token"]).decode()
    path = f"/api/v1/namespaces/{namespace}/services/{cluster}-head-svc:dashboard/proxy/api/version"
    answer = admin.call_api(
        "GET",
        admin.configuration.host + path,
        header_params={"X-Ray-Authorization": f"Bearer {token}"},
    )
    assert json.loads(answer.read())["ray_version"]


def _request(url: str, token: str = "", body: dict[str, str] | None = None) -> Any:
    headers = {"X-Ray-Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


#: What a pod asks the API server, under the name and the address that it has for pods.
ASK = """
import ssl, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount"
token = open(folder + "/token").read()
request = urllib.request.Request(
    "https://kubernetes.default.svc/version", headers={"Authorization": "Bearer " + token}
)
context = ssl.create_default_context(cafile=folder + "/ca.crt")
print(urllib.request.urlopen(request, context=context, timeout=60).read().decode())
"""


def test_a_pod_reaches_the_api_server_with_its_own_account(namespace: str, core: client.CoreV1Api) -> None:
    container = {"name": "ask", "image": ray_image(), "command": ["python", "-c", ASK]}
    spec = {"containers": [container], "restartPolicy": "Never"}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "ask"}, "spec": spec})

    def ended() -> Any:
        phase = core.read_namespaced_pod("ask", namespace).status.phase
        return phase if phase in ("Succeeded", "Failed") else None

    phase = until(ended, "the end of the pod")
    log = core.read_namespaced_pod_log("ask", namespace)
    assert phase == "Succeeded", log
    assert KUBERNETES in log
