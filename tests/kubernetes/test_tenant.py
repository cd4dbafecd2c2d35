"""A tenant as administrators apply it, on a real Kubernetes: what its account may, and what is refused to it.

NetworkPolicies are applied, too, and nothing here enforces them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch

from jupyter_rayoffload.clusters.kubernetes.manifest import ray_cluster
from jupyter_rayoffload.models import ClusterSpec, PodSpec, WorkerGroup
from tests.kubernetes.bed import Bed
from tests.kubernetes.bed.components import SIMULATED
from tests.kubernetes.bed.image import ray_image, ray_version
from tests.kubernetes.ground import until
from tests.kubernetes.tenants import Objects, applied_tenant
from tests.tenant import example, one

RAY = ("ray.io", "v1")
#: What the account must not do: group, resource, verb, and the name of an object.
FORBIDDEN = [
    ("ray.io", "rayclusters", "update", ""),
    ("ray.io", "rayclusters", "deletecollection", ""),
    ("ray.io", "rayclusters/status", "patch", ""),
    ("ray.io", "rayjobs", "create", ""),
    ("", "pods", "create", ""),
    ("", "pods", "patch", ""),
    ("", "pods", "delete", ""),
    ("", "pods/exec", "create", ""),
    ("", "pods/exec", "get", ""),
    ("", "pods/attach", "create", ""),
    ("", "pods/portforward", "create", ""),
    ("", "pods/ephemeralcontainers", "patch", ""),
    ("", "services/proxy", "get", ""),
    ("", "secrets", "list", ""),
    ("", "secrets", "watch", ""),
    ("", "secrets", "get", "rayoffload-store"),
    ("", "secrets", "patch", "rayoffload-token"),
    ("", "secrets", "create", ""),
    ("", "configmaps", "get", ""),
    ("", "serviceaccounts", "create", ""),
    ("", "serviceaccounts/token", "create", "default"),
    ("", "resourcequotas", "patch", "rayoffload"),
    ("", "limitranges", "delete", "rayoffload"),
    ("networking.k8s.io", "networkpolicies", "delete", "ray"),
    ("rbac.authorization.k8s.io", "roles", "create", ""),
    ("rbac.authorization.k8s.io", "rolebindings", "create", ""),
    ("apps", "statefulsets", "create", ""),
    ("batch", "jobs", "create", ""),
    # Its labels say what pods may be.
    ("", "namespaces", "patch", ""),
]


@pytest.fixture
def applied(admin: client.ApiClient, namespace: str, tmp_path: Path) -> Iterator[Objects]:
    """Apply all of a tenant to the namespace of this test."""
    with applied_tenant(admin, namespace, tmp_path) as objects:
        yield objects


@pytest.fixture
def notebook(
    bed: Bed, core: client.CoreV1Api, applied: Objects, namespace: str, tmp_path: Path
) -> Iterator[client.ApiClient]:
    """Give a client with the token that notebook pods have."""
    token = core.create_namespaced_service_account_token("rayoffload-notebook", namespace, {"spec": {}})
    file = bed.write_kubeconfig(tmp_path / "notebook.kubeconfig", token.status.token, namespace)
    with config.new_client_from_config(str(file)) as made:
        until(lambda: may(made, namespace, "ray.io", "rayclusters", "create"), "its rights are known")
        yield made


def may(api: client.ApiClient, namespace: str, group: str, resource: str, verb: str, name: str = "") -> bool:
    resource, _, subresource = resource.partition("/")
    attributes = {
        "namespace": namespace,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "verb": verb,
        "name": name,
    }
    review = client.AuthorizationV1Api(api).create_self_subject_access_review(
        {"spec": {"resourceAttributes": attributes}}
    )
    return bool(review.status.allowed)


@contextmanager
def refused(match: str = "cannot") -> Iterator[None]:
    with pytest.raises(client.ApiException, match=match) as raised:
        yield
    assert raised.value.status == 403


def spec(**changes: Any) -> ClusterSpec:
    """A cluster whose pods KubeRay really makes, and a simulated node runs."""
    pod = PodSpec(
        cpus=2,
        memory=4 << 30,
        node_selector={SIMULATED: "true"},
        tolerations=({"key": SIMULATED, "operator": "Exists"},),
    )
    made = ClusterSpec(
        image=ray_image(),
        ray=ray_version(),
        head=pod,
        groups=(WorkerGroup(pod=pod),),
        token_secret="rayoffload-token",
        store_secret="rayoffload-store",
    )
    return made.replace(**changes)


def suspended(name: str, namespace: str) -> dict[str, Any]:
    return ray_cluster(spec(name=name, overlay={"spec": {"suspend": True}}), "tested", namespace)


def pods_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the pods of a RayCluster as they are in it."""
    groups = [manifest["spec"]["headGroupSpec"], *manifest["spec"]["workerGroupSpecs"]]
    return [
        {"metadata": {"name": f"pod-{n}"}, "spec": group["template"]["spec"]}
        for n, group in enumerate(groups)
    ]


def try_pod(core: client.CoreV1Api, namespace: str, pod: dict[str, Any]) -> None:
    """See whether a pod would be admitted."""
    core.create_namespaced_pod(namespace, pod, dry_run="All")


def pod(limits: dict[str, str] | None, **changes: Any) -> dict[str, Any]:
    container = {"name": "one", "image": ray_image(), "resources": {"limits": limits} if limits else {}}
    return {"metadata": {"name": "one"}, "spec": {"containers": [container], **changes}}


# ---------------------------------------------------------------------- rights


def test_its_rights_are_those_of_its_role(
    notebook: client.ApiClient, applied: Objects, namespace: str
) -> None:
    review = client.AuthorizationV1Api(notebook).create_self_subject_rules_review(
        {"spec": {"namespace": namespace}}
    )
    has = {
        (group, resource, name, verb)
        for rule in review.status.resource_rules
        for group in rule.api_groups
        for resource in rule.resources
        for name in rule.resource_names or [""]
        for verb in rule.verbs
        # Everybody may ask what they may, and who they are.
        if group not in ("authorization.k8s.io", "authentication.k8s.io")
    }
    says = {
        (group, resource, name, verb)
        for rule in one(applied, "Role", "rayoffload-notebook")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }
    assert has == says
    for group, resource, name, verb in says:
        assert may(notebook, namespace, group, resource, verb, name), (resource, verb)
        assert not may(notebook, "default", group, resource, verb, name), (resource, verb)
    for group, resource, verb, name in FORBIDDEN:
        assert not may(notebook, namespace, group, resource, verb, name), (resource, verb, name)


def test_it_does_what_it_may(notebook: client.ApiClient, namespace: str) -> None:
    core, custom = client.CoreV1Api(notebook), client.CustomObjectsApi(notebook)
    made = suspended("mine", namespace)
    name = made["metadata"]["name"]
    where = (*RAY, namespace, "rayclusters")
    custom.create_namespaced_custom_object(*where, made)
    [seen] = list(watch.Watch().stream(custom.list_namespaced_custom_object, *where, timeout_seconds=2))[:1]
    assert seen["object"]["metadata"]["name"] == name
    change = {"metadata": {"annotations": {"changed": "yes"}}}
    custom.patch_namespaced_custom_object(*where, name, change)
    assert custom.get_namespaced_custom_object(*where, name)["metadata"]["annotations"]["changed"] == "yes"
    [quota] = core.list_namespaced_resource_quota(namespace).items
    assert quota.status.hard["pods"] == "20"
    core.list_namespaced_event(namespace)
    assert "auth_token" in core.read_namespaced_secret("rayoffload-token", namespace).data
    [redis] = until(lambda: core.list_namespaced_pod(namespace).items, "the pod of Redis")
    try:
        core.read_namespaced_pod_log(redis.metadata.name, namespace)
    except client.ApiException as error:  # there is none yet: its volume is not here
        assert error.status == 400
    custom.delete_namespaced_custom_object(*where, name)


def test_it_does_nothing_else(notebook: client.ApiClient, namespace: str) -> None:
    core, custom = client.CoreV1Api(notebook), client.CustomObjectsApi(notebook)
    made, elsewhere = suspended("mine", namespace), suspended("mine", "default")
    where = (*RAY, namespace, "rayclusters")
    calls: list[Callable[[], Any]] = [
        lambda: core.list_namespaced_secret(namespace),
        lambda: core.read_namespaced_secret("rayoffload-store", namespace),
        lambda: core.create_namespaced_pod(namespace, pod({"cpu": "1", "memory": "1Gi"})),
        lambda: core.connect_get_namespaced_pod_exec("rayoffload-redis-0", namespace, command=["sh"]),
        lambda: core.create_namespaced_service_account_token("default", namespace, {"spec": {}}),
        lambda: core.delete_namespaced_resource_quota("rayoffload", namespace),
        lambda: custom.replace_namespaced_custom_object(*where, made["metadata"]["name"], made),
        lambda: custom.delete_collection_namespaced_custom_object(*where),
        lambda: custom.list_cluster_custom_object(*RAY, "rayclusters"),
        lambda: custom.list_namespaced_custom_object(*RAY, "default", "rayclusters"),
        lambda: custom.create_namespaced_custom_object(*RAY, "default", "rayclusters", elsewhere),
        lambda: core.list_namespaced_pod("default"),
        lambda: core.list_node(),
    ]
    for call in calls:
        with refused():
            call()


# ---------------------------------------------------------------------- limits


def test_it_may_have_two_clusters(notebook: client.ApiClient, namespace: str) -> None:
    custom = client.CustomObjectsApi(notebook)
    where = (*RAY, namespace, "rayclusters")
    for name in ("first", "second"):
        custom.create_namespaced_custom_object(*where, suspended(name, namespace))
    with refused("exceeded quota"):
        custom.create_namespaced_custom_object(*where, suspended("third", namespace))


def test_pods_without_limits_and_too_large_ones_are_refused(
    core: client.CoreV1Api, applied: Objects, namespace: str
) -> None:
    try_pod(core, namespace, pod({"cpu": "8", "memory": "32Gi"}))
    for limits, why in (
        (None, "No limit is specified"),
        ({"cpu": "1"}, "No limit is specified"),
        ({"cpu": "9", "memory": "1Gi"}, "maximum cpu usage per Pod is 8"),
        ({"cpu": "1", "memory": "33Gi"}, "maximum memory usage per Pod is 32Gi"),
        ({"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}, "exceeded quota"),
    ):
        with refused(why):
            try_pod(core, namespace, pod(limits))


def test_all_pods_together_stay_within_the_quota(
    core: client.CoreV1Api, applied: Objects, namespace: str
) -> None:
    nowhere = {"no-such-node": "true"}
    core.create_namespaced_pod(namespace, pod({"cpu": "8", "memory": "1Gi"}, nodeSelector=nowhere))
    until(lambda: len(core.list_namespaced_pod(namespace).items) == 2, "the pod of Redis, which counts, too")
    with refused("exceeded quota"):
        try_pod(core, namespace, {**pod({"cpu": "8", "memory": "1Gi"}), "metadata": {"name": "other"}})


def test_a_head_cannot_be_reached_from_outside(
    core: client.CoreV1Api, applied: Objects, namespace: str
) -> None:
    for kind in ("NodePort", "LoadBalancer"):
        service = {"metadata": {"name": "open"}, "spec": {"type": kind, "ports": [{"port": 8265}]}}
        with refused("exceeded quota"):
            core.create_namespaced_service(namespace, service, dry_run="All")


# ---------------------------------------------------------------------- what pods may be


@pytest.mark.parametrize(
    "changes",
    [
        {"hostNetwork": True},
        {"hostPID": True},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_pods_that_reach_for_the_node_are_refused(
    core: client.CoreV1Api, applied: Objects, namespace: str, changes: dict[str, Any]
) -> None:
    with refused("violates PodSecurity .*baseline"):
        try_pod(core, namespace, pod({"cpu": "1", "memory": "1Gi"}, **changes))


def test_the_strictest_level_takes_clusters_that_say_they_do_not_run_as_root(
    core: client.CoreV1Api, applied: Objects, namespace: str
) -> None:
    for made in pods_of(ray_cluster(spec(), "tested", namespace)):
        try_pod(core, namespace, made)
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.patch_namespace(namespace, {"metadata": {"labels": level}})

    def strict() -> bool:
        try:
            try_pod(core, namespace, pod({"cpu": "1", "memory": "1Gi"}))
        except client.ApiException as error:
            return error.status == 403
        return False

    until(strict, "the API server has seen the new level")
    for made in pods_of(ray_cluster(spec(), "tested", namespace)):
        with refused("runAsNonRoot"):
            try_pod(core, namespace, made)
    guide: dict[str, Any] = {}
    exec(example("runAsNonRoot"), guide)
    for made in pods_of(ray_cluster(spec(overlay=guide["overlay"]), "tested", namespace)):
        try_pod(core, namespace, made)


@pytest.mark.parametrize("autoscale", [False, True], ids=["fixed", "autoscaled"])
def test_kuberay_makes_the_pods_of_a_cluster_within_the_limits(
    notebook: client.ApiClient, core: client.CoreV1Api, namespace: str, autoscale: bool
) -> None:
    made = ray_cluster(spec(autoscale=autoscale), "tested", namespace)
    custom = client.CustomObjectsApi(notebook)
    custom.create_namespaced_custom_object(*RAY, namespace, "rayclusters", made)
    label = f"ray.io/cluster={made['metadata']['name']}"
    pods = until(
        lambda: (
            found
            if len(found := core.list_namespaced_pod(namespace, label_selector=label).items) == 2
            else None
        ),
        "a head and a worker",
    )
    names = set()
    for found in pods:
        assert found.metadata.labels["ray.io/is-ray-node"] == "yes"  # the policies mean it by that
        assert found.spec.service_account_name != "rayoffload-notebook"
        for container in [*found.spec.containers, *(found.spec.init_containers or [])]:
            names.add(container.name)
            assert set(container.resources.limits) >= {"cpu", "memory"}
            token = [e for e in container.env or () if e.name == "RAY_AUTH_TOKEN"]
            for variable in token:
                assert variable.value_from.secret_key_ref.name == "rayoffload-token"
            assert token or not container.name.startswith("ray-")
    assert names == {"ray-head", "ray-worker", "wait-gcs-ready"} | ({"autoscaler"} if autoscale else set())


def test_a_cluster_that_is_too_large_says_why(notebook: client.ApiClient, namespace: str) -> None:
    custom = client.CustomObjectsApi(notebook)
    made = ray_cluster(spec(head=spec().head.replace(cpus=9)), "tested", namespace)
    where = (*RAY, namespace, "rayclusters")
    custom.create_namespaced_custom_object(*where, made)

    def why() -> str:
        status = custom.get_namespaced_custom_object(*where, made["metadata"]["name"]).get("status", {})
        found = [c["message"] for c in status.get("conditions", ()) if c["type"] == "ReplicaFailure"]
        return found[0] if found else ""

    assert "maximum cpu usage per Pod is 8" in until(why, "the condition ReplicaFailure")
