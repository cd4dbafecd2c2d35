"""From what Kubernetes says of a cluster to one phase and one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.clusters.kubernetes.conditions import (
    OPERATOR_LIMIT,
    OPERATOR_SECONDS,
    Verdict,
    judged,
)
from jupyter_rayoffload.clusters.kubernetes.pods import CRASHES, HEAD_SECONDS, quantity
from jupyter_rayoffload.models import ClusterPhase

RECORDED = sorted(Path(__file__).with_name("recorded").glob("*.json"))
NOW = 1_700_000_000.0
Json = dict[str, Any]


def at(seconds: float) -> str:
    """Give a time of the API, so many seconds from now."""
    return datetime.fromtimestamp(NOW + seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def cluster(
    conditions: Mapping[str, str | tuple[str, str, str]] | None = None,
    age: float = 5,
    workers: int = 0,
    **more: Any,
) -> Json:
    """Give a RayCluster whose conditions are ``{type: status}``, or ``{type: (status, reason, message)}``."""
    meta = {
        "name": "ray-a",
        "uid": "c",
        "generation": 1,
        "creationTimestamp": at(-age),
        **more.pop("metadata", {}),
    }
    listed = []
    for name, said in (conditions or {}).items():
        status, reason, message = (said, "", "") if isinstance(said, str) else said
        listed.append(
            {
                "type": name,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": at(-1),
            }
        )
    groups = [{"groupName": "workers", "replicas": workers}] if workers else []
    status = {"conditions": listed, "observedGeneration": 1} if conditions is not None else {}
    return {"metadata": meta, "spec": {"workerGroupSpecs": groups, **more.pop("spec", {})}, "status": status}


def pod(kind: str = "head", ready: bool = False, status: Json | None = None, **resources: str) -> Json:
    """Give a pod of that cluster."""
    return {
        "metadata": {"name": f"ray-a-{kind}", "uid": kind, "labels": {"ray.io/node-type": kind}},
        "spec": {"containers": [{"name": "ray", "resources": {"limits": resources}}]},
        "status": {
            "conditions": [
                {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": at(-2)}
            ],
            **(status or {}),
        },
    }


def unscheduled(message: str) -> Json:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]}


def waiting(reason: str, message: str = "", init: bool = False) -> Json:
    state = {"waiting": {"reason": reason, "message": message}}
    return {
        "initContainerStatuses" if init else "containerStatuses": [
            {"name": "ray", "image": "ray:9", "state": state}
        ]
    }


def crashed(reason: str, code: int, restarts: int) -> Json:
    last = {"terminated": {"reason": reason, "exitCode": code}}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    return {
        "containerStatuses": [
            {"name": "ray", "state": state, "lastState": last, "restartCount": restarts, "ready": False}
        ]
    }


def event(reason: str, message: str, about: str = "c", seconds: float = -1) -> Json:
    return {
        "reason": reason,
        "message": message,
        "involvedObject": {"uid": about},
        "lastTimestamp": at(seconds),
    }


def say(one: Json | None, pods: Sequence[Json] = (), events: Sequence[Json] = ()) -> Verdict:
    return judged(one, pods, events, NOW)


FORBIDDEN = 'failed to create head pod: pods "ray-a-head-x" is forbidden: '
QUOTA = (
    "exceeded quota: tenant, requested: requests.cpu={},requests.memory=2Gi, "
    "used: requests.cpu=8,requests.memory=8Gi, limited: requests.cpu=8,requests.memory=32Gi"
)


def refused(message: str) -> Json:
    return cluster({"ReplicaFailure": ("True", "FailedCreateHeadPod", FORBIDDEN + message)})


GOING = {"HeadPodReady": "False"}
READY = {"HeadPodReady": "True", "RayClusterProvisioned": "True"}
STARTS = "Starting Ray"
STARTING, FAILED, RUNNING = ClusterPhase.STARTING, ClusterPhase.FAILED, ClusterPhase.RUNNING

TABLE: list[tuple[str, Json | None, list[Json], list[Json], ClusterPhase, str, bool]] = [
    ("none", None, [], [], ClusterPhase.NONE, "", False),
    ("just made", cluster(), [], [], STARTING, "Waiting for the KubeRay operator", False),
    (
        "no operator",
        cluster(age=OPERATOR_SECONDS + 5),
        [],
        [],
        STARTING,
        f"No KubeRay operator has taken up the cluster for {{since:{NOW - OPERATOR_SECONDS - 5:.0f}}}",
        False,
    ),
    (
        "no operator for long",
        cluster(age=OPERATOR_LIMIT + 5),
        [],
        [],
        STARTING,
        f"No KubeRay operator has taken up the cluster for {{since:{NOW - OPERATOR_LIMIT - 5:.0f}}}",
        True,
    ),
    (
        "invalid",
        cluster(),
        [],
        [event("InvalidRayClusterSpec", "The RayCluster spec is invalid ns/ray-a: rayVersion is required")],
        FAILED,
        "KubeRay refuses the cluster: rayVersion is required",
        True,
    ),
    (
        "an earlier cluster of that name was invalid",
        cluster(),
        [],
        [event("InvalidRayClusterSpec", "The RayCluster spec is invalid ns/ray-a: no", about="earlier")],
        STARTING,
        "Waiting for the KubeRay operator",
        False,
    ),
    ("quota", refused(QUOTA.format(4)), [], [], STARTING, "Quota exceeded: requests.cpu 12 of 8", False),
    ("for ever", refused(QUOTA.format(9)), [], [], FAILED, "Quota exceeded: requests.cpu 17 of 8", True),
    (
        "quota of memory",
        refused("exceeded quota: q, requested: memory=4Gi, used: memory=6Gi, limited: memory=8Gi"),
        [],
        [],
        STARTING,
        "Quota exceeded: memory 10 GiB of 8 GiB",
        False,
    ),
    (
        "quota wants limits",
        refused("failed quota: tenant: must specify limits.cpu for: ray-head; limits.memory for: ray-head"),
        [],
        [],
        FAILED,
        "The quota tenant takes only pods that state limits.cpu for: ray-head; limits.memory for: ray-head",
        True,
    ),
    (
        "pod security",
        refused('violates PodSecurity "restricted:latest": runAsNonRoot != true (pod must set runAsNonRoot)'),
        [],
        [],
        FAILED,
        "Pod Security (restricted:latest) forbids the pods: runAsNonRoot != true (pod must set runAsNonRoot)",
        True,
    ),
    (
        "limit range",
        refused("maximum cpu usage per Container is 2, but limit is 4"),
        [],
        [],
        FAILED,
        "Outside the limits of this namespace: maximum cpu usage per Container is 2, but limit is 4",
        True,
    ),
    ("making the head", cluster(GOING), [], [], STARTING, "Making the head", False),
    ("the head was there", cluster({**READY, "HeadPodReady": "False"}), [], [], STARTING,
     "The head is gone, and KubeRay makes a new one", False),
    ("waking", cluster({"RayClusterSuspended": "True"}), [], [], STARTING, "Waking up", False),
    (
        "gpu",
        cluster(GOING),
        [pod(status=unscheduled("0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: x"),
             **{"nvidia.com/gpu": "1", "cpu": "2"})],
        [],
        STARTING,
        "Waiting for 1 GPU: no node has one free",
        False,
    ),
    (
        "cpu and memory",
        cluster(GOING),
        [pod(status=unscheduled("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
             cpu="500m", memory="16Gi")],
        [],
        STARTING,
        "Waiting for 0.5 CPUs and 16 GiB of memory: no node has so much free",
        False,
    ),
    (
        "taint",
        cluster(GOING),
        [pod(status=unscheduled("0/1 nodes are available: 1 node(s) had taint {a: }. preemption: no."))],
        [],
        STARTING,
        "Waiting for a node: 1 node(s) had taint {a: }",
        False,
    ),
    ("placed", cluster(GOING), [pod(status=waiting("ContainerCreating"))], [], STARTING, STARTS, False),
    (
        "pulling",
        cluster(GOING),
        [pod(status=waiting("ContainerCreating"))],
        [event("Pulling", 'Pulling image "ray:9"', "head")],
        STARTING,
        "Pulling image ray:9",
        False,
    ),
    (
        "pulled",
        cluster(GOING),
        [pod()],
        [event("Pulled", "pulled", "head"), event("Pulling", 'Pulling image "ray:9"', "head", -4)],
        STARTING,
        "Starting Ray",
        False,
    ),
    (
        "a registry that does not answer",
        cluster(GOING),
        [pod(status=waiting("ErrImagePull", "dial tcp: i/o timeout"))],
        [],
        STARTING,
        "The image ray:9 cannot be pulled",
        False,
    ),
    (
        "no such image",
        cluster(GOING),
        [pod(status=waiting("ImagePullBackOff", "ray:9: not found"))],
        [],
        FAILED,
        "The image ray:9 cannot be pulled",
        True,
    ),
    (
        "no such secret",
        cluster(GOING),
        [pod(status=waiting("CreateContainerConfigError", 'secret "token" not found'))],
        [],
        FAILED,
        "There is no Secret token, which the pod needs",
        True,
    ),
    (
        "no such volume",
        cluster(GOING),
        [pod(status=waiting("ContainerCreating"))],
        [event("FailedMount", 'SetUp failed for volume "store" : secret "store" not found', "head")],
        FAILED,
        "There is no Secret store, which the pod mounts",
        True,
    ),
    (
        "out of memory",
        cluster(GOING),
        [pod(status=crashed("OOMKilled", 137, 1), memory="2Gi")],
        [],
        STARTING,
        "The head ran out of memory (2 GiB), 1 time so far",
        False,
    ),
    (
        "crashes",
        cluster(GOING),
        [pod(status=crashed("Error", 1, CRASHES))],
        [],
        FAILED,
        f"The head crashes at its start: exit code 1, {CRASHES} times so far",
        True,
    ),
    ("running", cluster(READY), [pod(ready=True)], [], RUNNING, "", False),
    ("running, says only the RayCluster", cluster(READY), [], [], STARTING,
     "The head is gone, and KubeRay makes a new one", False),
    (
        "one worker late",
        cluster(READY, workers=2),
        [pod(ready=True), pod("worker", ready=True)],
        [],
        RUNNING,
        "1 of 2 workers",
        False,
    ),
    (
        "a worker without a node",
        cluster(READY, workers=1),
        [pod(ready=True), pod("worker", status=unscheduled("1 Insufficient cpu"), cpu="4")],
        [],
        RUNNING,
        "No worker yet: waiting for 4 CPUs: no node has so much free",
        False,
    ),
    (
        "the image of a worker",
        cluster(READY, workers=1),
        [pod(ready=True), pod("worker", status=waiting("ErrImagePull", "x: not found", init=True))],
        [],
        RUNNING,
        "No worker yet: the image ray:9 cannot be pulled",
        False,
    ),
    (
        "a worker that does not reach its head",
        cluster(READY, workers=1),
        [
            pod(ready=True),
            pod(
                "worker",
                status={
                    "initContainerStatuses": [
                        {"name": "wait-gcs-ready", "state": {"running": {"startedAt": at(-HEAD_SECONDS - 1)}}}
                    ]
                },
            ),
        ],
        [],
        RUNNING,
        "No worker yet: a worker cannot reach the head",
        False,
    ),
    (
        "a worker that the site prepares slowly",
        cluster(READY, workers=1),
        [
            pod(ready=True),
            pod(
                "worker",
                status={
                    "initContainerStatuses": [
                        {"name": "wait-gcs-ready", "state": {"terminated": {"exitCode": 0}}},
                        {"name": "data", "state": {"running": {"startedAt": at(-HEAD_SECONDS - 1)}}},
                    ]
                },
            ),
        ],
        [],
        RUNNING,
        f"No worker yet: its init container data has run for {{since:{NOW - HEAD_SECONDS - 1:.0f}}}",
        False,
    ),
    (
        "a worker beyond the quota",
        {**refused(QUOTA.format(4)), "spec": {"workerGroupSpecs": [{"replicas": 3}]}},
        [pod(ready=True), pod("worker", ready=True)],
        [],
        RUNNING,
        "1 of 3 workers: quota exceeded: requests.cpu 12 of 8",
        False,
    ),
    (
        "suspending",
        cluster(READY, spec={"suspend": True}),
        [pod(ready=True)],
        [],
        ClusterPhase.STOPPING,
        "Being suspended: 1 pod is left",
        False,
    ),
    (
        "suspended",
        cluster({"RayClusterSuspended": "True"}, spec={"suspend": True}),
        [],
        [],
        ClusterPhase.SUSPENDED,
        "",
        False,
    ),
    (
        "deleting",
        cluster(READY, metadata={"deletionTimestamp": at(-1), "finalizers": ["f"]}),
        [pod(ready=True)],
        [],
        ClusterPhase.STOPPING,
        "Being deleted",
        False,
    ),
    (
        "stuck",
        cluster(READY, metadata={"deletionTimestamp": at(-90), "finalizers": ["ray.io/gcs-ft"]}),
        [],
        [],
        ClusterPhase.STOPPING,
        f"Being deleted for {{since:{NOW - 90:.0f}}}: ray.io/gcs-ft has not let go",
        False,
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "pods", "events", "phase", "reason", "hopeless"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_table(
    one: Json | None, pods: list[Json], events: list[Json], phase: ClusterPhase, reason: str, hopeless: bool
) -> None:
    verdict = say(one, pods, events)
    assert (verdict.phase, verdict.reason, verdict.hopeless) == (phase, reason, hopeless)
    assert not verdict.reason.endswith("."), "who shows it sets the stop"


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_a_real_kubernetes_has_said(path: Path) -> None:
    """Recorded by tests/kubernetes/test_conditions_real.py, which brings all of it about."""
    seen = json.loads(path.read_text())
    verdict = judged(seen["cluster"], seen["pods"], seen["events"], seen["now"])
    said = (verdict.phase.value, verdict.reason, verdict.hopeless)
    assert said == (seen["phase"], seen["reason"], seen["hopeless"])


def test_what_the_operator_does_not_take_back_is_not_believed() -> None:
    """``status.state`` is ready for ever, and conditions are old while the operator is away."""
    sticky = cluster(READY)
    sticky["status"]["state"] = "ready"
    assert say(sticky, [pod(status=crashed("OOMKilled", 137, 1))]).phase is STARTING


def test_a_head_that_is_on_its_way_out_is_none() -> None:
    leaving = pod(ready=True)
    leaving["metadata"]["deletionTimestamp"] = at(0)
    assert say(cluster(READY), [leaving]).phase is STARTING
    assert say(cluster(READY), [leaving, pod(ready=True)]).phase is RUNNING


def test_what_kubernetes_said_is_kept() -> None:
    message = "0/1 nodes are available: 1 Insufficient cpu."
    assert say(cluster(GOING), [pod(status=unscheduled(message), cpu="4")]).detail == message
    assert say(refused(QUOTA.format(4))).detail == QUOTA.format(4)


@pytest.mark.parametrize(
    ("text", "value"),
    [("500m", 0.5), ("2Gi", 2**31), ("8", 8), ("1e3", 1000), ("1.5G", 1.5e9), ("128974848000m", 128974848)],
)
def test_quantities(text: str, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


def test_a_quantity_that_is_none_is_no_number() -> None:
    assert quantity("much") != quantity("much")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(status=st.dictionaries(st.sampled_from(["phase", "reason", "message", "hostIP", "state"]), JSON))
def test_parts_of_a_status_that_nobody_knows_do_no_harm(status: Json) -> None:
    assert say(cluster(GOING), [pod(status=status)]).phase is STARTING
