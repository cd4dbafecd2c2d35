"""A ClusterSpec as a RayCluster, without a Kubernetes; tests/kubernetes asks a real one whether it agrees."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.clusters.kubernetes.manifest import (
    CONNECTION_FILE,
    has_store,
    labels_of,
    made_from,
    object_name,
    overlaid,
    ray_cluster,
)
from jupyter_rayoffload.errors import UsageError
from jupyter_rayoffload.models import ClusterSpec, PodSpec, Volume, WorkerGroup

PLAIN = ClusterSpec(image="rayproject/ray:2.60.0-py311", ray="2.60.0")
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def made(**changes):
    return ray_cluster(PLAIN.replace(**changes), "ada", "team")


def pods(manifest):
    spec = manifest["spec"]
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec.get("workerGroupSpecs", []))]


@given(st.text(), st.text())
def test_names_and_labels_are_valid_for_every_owner(owner, cluster):
    name = object_name(owner, cluster)
    assert DNS_1035.fullmatch(name)
    assert len(name) <= 37
    for value in labels_of(owner, cluster or "x").values():
        assert LABEL_VALUE.fullmatch(value)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_two_owners_never_share_an_object(one, other):
    assert (one == other) == (object_name(*one) == object_name(*other))


def test_who_owns_it_can_be_read():
    metadata = ray_cluster(PLAIN, "Ada Lovelace", "team")["metadata"]
    assert metadata["name"].startswith("ray-ada-lovelace-")
    assert metadata["namespace"] == "team"
    assert metadata["annotations"] == {
        "rayoffload/owner-name": "Ada Lovelace",
        "rayoffload/cluster-name": "default",
    }
    assert labels_of("Ada Lovelace", "default").items() <= metadata["labels"].items()


def test_what_it_was_made_from_can_be_read():
    choices = {"workers": 4, "memory": 2**33, "image": "stable"}
    manifest = made(profile="large", choices=choices)
    assert manifest["metadata"]["annotations"]["rayoffload/profile"] == "large"
    assert made_from(manifest) == ("large", choices)
    assert made_from(made()) == ("", {})
    for broken in ("{", "[1]", ""):
        manifest["metadata"]["annotations"]["rayoffload/choices"] = broken
        assert made_from(manifest) == ("large", {})
    assert has_store(made(store_secret="store")) and not has_store(made())


def test_owner_labels_cannot_be_given_away():
    labels = made(labels={"rayoffload/owner": "eve", "team": "a"})["metadata"]["labels"]
    assert labels["rayoffload/owner"] == labels_of("ada")["rayoffload/owner"]
    assert labels["team"] == "a"


def test_the_smallest_one_is_safe():
    manifest = made()
    assert manifest["spec"]["authOptions"] == {"mode": "token"}
    assert manifest["spec"]["rayVersion"] == "2.60.0"
    [head] = pods(manifest)
    assert head["automountServiceAccountToken"] is False
    assert head["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False
    assert manifest["spec"]["headGroupSpec"]["rayStartParams"] == {}


def test_cells_stay_off_the_head_where_there_are_workers():
    manifest = made(groups=(WorkerGroup(),))
    assert manifest["spec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    own = made(groups=(WorkerGroup(),), head=PodSpec(start_params={"num-cpus": "2"}))
    assert own["spec"]["headGroupSpec"]["rayStartParams"] == {"num-cpus": "2"}


def test_the_second_autoscaler_runs_only_where_it_scales():
    """It takes tasks that wait for their turn for impossible ones, and writes that into cells."""

    def told(**changes):
        [head] = pods(made(**changes))
        return {entry["name"]: entry["value"] for entry in head["containers"][0].get("env", [])}

    assert told()["RAY_enable_autoscaler_v2"] == "0"
    assert "RAY_enable_autoscaler_v2" not in told(autoscale=True)
    chosen = PodSpec(env={"RAY_enable_autoscaler_v2": "1"})
    assert told(head=chosen)["RAY_enable_autoscaler_v2"] == "1", "who says otherwise is heeded"


def test_a_group_has_its_bounds():
    [group] = made(groups=(WorkerGroup("gpu", replicas=3),))["spec"]["workerGroupSpecs"]
    assert (group["groupName"], group["replicas"], group["minReplicas"], group["maxReplicas"]) == (
        "gpu",
        3,
        0,
        3,
    )
    [empty] = made(groups=(WorkerGroup("gpu", replicas=0, maximum=5),))["spec"]["workerGroupSpecs"]
    assert (empty["replicas"], empty["maxReplicas"]) == (0, 5)


def test_resources_are_limits_and_requests():
    pod = PodSpec(cpus=1.5, memory=2 << 30, gpus=1, requests={"cpu": "500m"})
    [head] = pods(made(head=pod))
    assert head["containers"][0]["resources"] == {
        "limits": {"cpu": "1500m", "memory": str(2 << 30), "nvidia.com/gpu": "1"},
        "requests": {"cpu": "500m", "memory": str(2 << 30), "nvidia.com/gpu": "1"},
    }


def test_the_store_is_a_file_and_no_variable():
    for pod in pods(made(store_secret="store", groups=(WorkerGroup(),))):
        [container] = pod["containers"]
        assert {"name": "RAYOFFLOAD_CONNECTION_FILE", "value": CONNECTION_FILE} in container["env"]
        [volume] = pod["volumes"]
        assert volume["secret"] == {"secretName": "store", "defaultMode": 0o440}
        [mount] = container["volumeMounts"]
        assert CONNECTION_FILE.startswith(mount["mountPath"])
        assert mount["readOnly"] is True
        assert pod["securityContext"]["fsGroup"]


def test_what_is_named_arrives():
    pod = PodSpec(
        env={"EMPTY": "", "A": "1"},
        node_selector={"disk": "ssd"},
        tolerations=({"key": "gpu", "operator": "Exists"},),
        priority_class="low",
        labels={"l": "1"},
        annotations={"a": "2"},
    )
    spec = {
        "head": pod,
        "pull_policy": "Never",
        "pull_secrets": ("registry",),
        "token_secret": "token",
        "service_type": "ClusterIP",
        "volumes": (
            Volume("home", "/home/ray", claim="home-ada", sub_path="x"),
            Volume("settings", "/etc/x", config_map="c"),
        ),
        "autoscale": True,
        "idle_seconds": 90.5,
    }
    manifest = made(**spec)
    body = manifest["spec"]
    [head] = pods(manifest)
    [container] = head["containers"]
    assert container["env"] == [{"name": "EMPTY", "value": ""}, {"name": "A", "value": "1"}]
    assert container["imagePullPolicy"] == "Never"
    assert container["volumeMounts"][0] == {"name": "home", "mountPath": "/home/ray", "subPath": "x"}
    assert head["volumes"][0]["persistentVolumeClaim"] == {"claimName": "home-ada"}
    assert head["volumes"][1]["configMap"] == {"name": "c"}
    assert head["imagePullSecrets"] == [{"name": "registry"}]
    assert head["nodeSelector"] == {"disk": "ssd"}
    assert head["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert head["priorityClassName"] == "low"
    assert "automountServiceAccountToken" not in head, "the autoscaler needs its token"
    assert body["authOptions"] == {"mode": "token", "secretName": "token"}
    assert body["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert body["headGroupSpec"]["template"]["metadata"] == {"labels": {"l": "1"}, "annotations": {"a": "2"}}
    assert (body["enableInTreeAutoscaling"], body["autoscalerOptions"]) == (True, {"idleTimeoutSeconds": 91})
    assert json.loads(json.dumps(manifest)) == manifest


def test_it_survives_json():
    spec = PLAIN.replace(groups=(WorkerGroup(pod=PodSpec(cpus=1)),), volumes=(Volume("v", "/v", secret="s"),))
    assert ClusterSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": ""}, "no image"),
        ({"ray": ""}, "version of Ray"),
        ({"groups": (WorkerGroup("Up"),)}, "no name for a worker group"),
        ({"groups": (WorkerGroup("headgroup"),)}, "no name for a worker group"),
        ({"groups": (WorkerGroup("a"), WorkerGroup("a"))}, "two worker groups"),
        ({"groups": (WorkerGroup("a", replicas=3, maximum=2),)}, "from 0 to 2"),
        ({"groups": (WorkerGroup("a", replicas=-1),)}, "cannot have -1"),
        ({"volumes": (Volume("v", "/v"),)}, "must be one of"),
        ({"volumes": (Volume("v", "/v", claim="a", secret="b"),)}, "must be one of"),
    ],
)
def test_what_cannot_be_is_said(changes, says):
    with pytest.raises(UsageError, match=says):
        made(**changes)


@pytest.mark.parametrize(
    ("base", "overlay", "expected"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": 1}, {"a": {"b": 1, "c": None}}, {"a": {"b": 1}}),
        ({"l": [1, 2]}, {"l": [3]}, {"l": [3]}),
        (
            {"l": [{"name": "x", "v": 1}, {"name": "y"}]},
            {"l": [{"name": "x", "v": 2}, {"name": "z"}]},
            {"l": [{"name": "x", "v": 2}, {"name": "y"}, {"name": "z"}]},
        ),
        (
            {"l": [{"groupName": "w", "r": 1}]},
            {"l": [{"groupName": "w", "s": 2}]},
            {"l": [{"groupName": "w", "r": 1, "s": 2}]},
        ),
        ({"l": [{"name": "x"}]}, {"l": [{"key": "x"}]}, {"l": [{"key": "x"}]}),
    ],
)
def test_an_overlay(base, overlay, expected):
    assert overlaid(base, overlay) == expected


def test_an_overlay_reaches_a_container_of_ray():
    overlay = {
        "spec": {"headGroupSpec": {"template": {"spec": {"containers": [{"name": "ray-head", "tty": True}]}}}}
    }
    [head] = pods(made(overlay=overlay))
    [container] = head["containers"]
    assert container["tty"] is True
    assert container["image"] == PLAIN.image
