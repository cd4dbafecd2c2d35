"""What administrators apply, without a Kubernetes; tests/kubernetes/test_tenant.py applies it to one."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from jupyter_rayoffload.clusters.connection import read_connection
from jupyter_rayoffload.clusters.kubernetes.manifest import CONNECTION_FILE, ray_cluster
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.models import ClusterSpec
from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.connection import read_connection as read_on_cluster
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store, StoreAddress, StoreNoAuth
from tests.servers import START_SECONDS, free_port, redis_executable
from tests.tenant import KIND, ROOT, TENANT, copy_tenant, example, new_tenant, one, render

SCRIPTS = [KIND / "up", KIND / "down", TENANT / "new"]
FILES = sorted(
    path
    for path in KIND.rglob("*")
    if path.is_file() and not {"secrets", ".state"} & set(path.relative_to(KIND).parts)
)
MANIFESTS = [path for path in FILES if path.suffix == ".yaml"]


def name_of(path: Path) -> str:
    return str(path.relative_to(KIND))


@pytest.fixture(scope="module")
def tenant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tenants, with the secrets of one."""
    folder = copy_tenant(tmp_path_factory.mktemp("kind"))
    new_tenant(folder, "demo")
    return folder


@pytest.fixture(scope="module")
def objects(tenant: Path) -> list[dict[str, Any]]:
    return render(tenant / "overlays" / "demo")


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((KIND / "hub" / "values.yaml").read_text())
    return loaded


# ---------------------------------------------------------------------- cluster.yaml


def closed(**properties: Any) -> dict[str, Any]:
    """An object with these fields and no others: kind refuses those that it does not know."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


TEXT, FLAG, PORT = (
    {"type": "string"},
    {"type": "boolean"},
    {"type": "integer", "minimum": -1, "maximum": 65535},
)
TEXTS = {"type": "array", "items": TEXT}
#: The Go types of kind's configuration as a JSON schema:
#: https://github.com/kubernetes-sigs/kind/blob/main/pkg/apis/config/v1alpha4/types.go
PATCHES = {
    "type": "array",
    "items": {
        **closed(group=TEXT, version=TEXT, kind=TEXT, patch=TEXT),
        "required": ["group", "version", "kind", "patch"],
    },
}
MOUNT = closed(
    containerPath=TEXT,
    hostPath=TEXT,
    readOnly=FLAG,
    selinuxRelabel=FLAG,
    propagation={"enum": ["None", "HostToContainer", "Bidirectional"]},
)
MAPPING = closed(
    containerPort=PORT, hostPort=PORT, listenAddress=TEXT, protocol={"enum": ["TCP", "UDP", "SCTP"]}
)
NODE = closed(
    role={"enum": ["control-plane", "worker"]},
    image=TEXT,
    labels={"type": "object", "additionalProperties": TEXT},
    extraMounts={"type": "array", "items": MOUNT},
    extraPortMappings={"type": "array", "items": MAPPING},
    gpus=TEXT,
    kubeadmConfigPatches=TEXTS,
    kubeadmConfigPatchesJSON6902=PATCHES,
)
NETWORKING = closed(
    ipFamily={"enum": ["ipv4", "ipv6", "dual"]},
    apiServerPort=PORT,
    apiServerAddress=TEXT,
    podSubnet=TEXT,
    serviceSubnet=TEXT,
    disableDefaultCNI=FLAG,
    kubeProxyMode={"enum": ["iptables", "ipvs", "nftables", "none"]},
    dnsSearch=TEXTS,
)
CLUSTER = {
    **closed(
        kind={"const": "Cluster"},
        apiVersion={"const": "kind.x-k8s.io/v1alpha4"},
        name=TEXT,
        nodes={"type": "array", "items": NODE},
        networking=NETWORKING,
        featureGates={"type": "object", "additionalProperties": FLAG},
        runtimeConfig={"type": "object", "additionalProperties": TEXT},
        kubeadmConfigPatches=TEXTS,
        kubeadmConfigPatchesJSON6902=PATCHES,
        containerdConfigPatches=TEXTS,
        containerdConfigPatchesJSON6902=TEXTS,
    ),
    "required": ["kind", "apiVersion"],
}


def test_the_cluster_is_what_kind_takes() -> None:
    cluster = yaml.safe_load((KIND / "cluster.yaml").read_text())
    jsonschema.validate(cluster, CLUSTER)
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker", "worker"]
    for wrong in ({"role": "master"}, {"role": "worker", "memory": "4Gi"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**cluster, "nodes": [wrong]}, CLUSTER)


def test_the_scripts_mean_the_cluster_of_that_name() -> None:
    name = yaml.safe_load((KIND / "cluster.yaml").read_text())["name"]
    for script in (KIND / "up", KIND / "down"):
        assert set(re.findall(r"--name (\w+)", script.read_text())) == {name}


# ---------------------------------------------------------------------- the tree


@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_a_manifest_is_yaml_without_repeated_keys(path: Path) -> None:
    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{path.name}: a key of {keys} is there twice"
            return super().construct_mapping(node, deep)

    documents = list(yaml.load_all(path.read_text(), Loader))
    assert documents and all(isinstance(document, dict) for document in documents)


def test_no_secret_is_in_the_tree(tenant: Path) -> None:
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"\b[0-9a-fA-F]{32,}\b|BEGIN [A-Z ]*PRIVATE KEY", text), path
        assert not re.search(r"^kind: Secret$", text, re.M), path
    # And what the script writes is what git does not see.
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "/kind/tenant/overlays/*/secrets/" in ignored and "/kind/.state/" in ignored
    folder = tenant / "overlays" / "demo"
    assert {p.relative_to(folder).parts[0] for p in folder.rglob("*")} == {"kustomization.yaml", "secrets"}


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_script_is_well_formed(script: Path) -> None:
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and "set -euo pipefail" in lines
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_shellcheck_finds_nothing(script: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not on PATH")
    subprocess.run(["shellcheck", script], check=True)


# ---------------------------------------------------------------------- up and down

#: Stands for docker, kind, kubectl and helm: notes how it was called, and remembers cluster and images.
PROGRAM = """#!/bin/bash
echo "${0##*/} $*" >>"$WORLD/calls"
case "${0##*/} $*" in
  "kind get clusters") cat "$WORLD/clusters" ;;
  "kind create cluster"*)
    [ "$KUBECONFIG" = "$WORLD/kind/.state/kubeconfig" ] || exit 1
    echo rayoffload >>"$WORLD/clusters" ;;
  "kind delete cluster"*) sed -i /rayoffload/d "$WORLD/clusters" ;;
  "docker image inspect"*) grep -qx "$3" "$WORLD/images" ;;
  "docker pull"*) echo "$2" >>"$WORLD/images" ;;
  "docker image rm"*) left=$(grep -vx "$3" "$WORLD/images"); echo "$left" >"$WORLD/images" ;;
esac
"""


class World:
    """A copy of the folder, with a PATH on which the programs that it needs are played."""

    def __init__(self, root: Path, without: str = "") -> None:
        self.root, self.kind, self.programs = root, root / "kind", root / "bin"
        self.programs.mkdir(parents=True)
        copy_tenant(self.kind)
        for name in ("cluster.yaml", "up", "down"):
            shutil.copy2(KIND / name, self.kind / name)
        for name in "bash env sed grep cat touch mkdir mktemp mv rm dirname basename openssl cut".split():
            self.programs.joinpath(name).symlink_to(str(shutil.which(name)))
        for name in {"docker", "kind", "kubectl", "helm"} - {without}:
            self.programs.joinpath(name).write_text(PROGRAM)
            self.programs.joinpath(name).chmod(0o755)
        root.joinpath("images").write_text("somebody/elses:1\n")
        root.joinpath("clusters").write_text("somebody-elses\n")

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.kind / script],
            env={"PATH": str(self.programs), "WORLD": str(self.root), "HOME": str(self.root), **environment},
            capture_output=True,
            text=True,
        )

    def calls(self, begin: str) -> list[str]:
        there = self.root / "calls"
        return [c for c in (there.read_text() if there.exists() else "").splitlines() if c.startswith(begin)]

    def state(self) -> dict[str, str]:
        """Give what somebody would find afterwards."""
        files = {str(p.relative_to(self.kind)) for p in self.kind.rglob("*")}
        return {n: (self.root / n).read_text() for n in ("images", "clusters")} | {
            "files": str(sorted(files))
        }


def test_down_leaves_what_was_there_before_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    before = world.state()
    for _ in range(2):
        done = world.run("up", TENANT="team-a")
        assert done.returncode == 0, done.stderr
        assert "rayoffload-team-a" in done.stdout
    assert len(world.calls("kind create")) == len(world.calls("docker pull")) == 1
    assert len(world.calls("kubectl apply --server-side -k tenant/overlays/team-a")) == 2
    assert (world.kind / "tenant/overlays/team-a/secrets/connection.json").exists()
    assert world.state() != before
    for _ in range(2):
        done = world.run("down")
        assert done.returncode == 0, done.stderr
    assert world.state() == before


def test_down_keeps_an_image_that_was_there_already(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert world.run("up", RAY_IMAGE="somebody/elses:1").returncode == 0
    assert not world.calls("docker pull")
    assert world.run("down").returncode == 0
    assert not world.calls("docker image rm")


def test_secrets_that_were_made_before_up_survive_down(tmp_path: Path) -> None:
    world = World(tmp_path)
    secrets = new_tenant(world.kind / "tenant", "demo") / "secrets" / "connection.json"
    before = secrets.read_text()
    assert world.run("up").returncode == world.run("down").returncode == 0
    assert secrets.read_text() == before


def test_neither_script_touches_a_cluster_of_that_name_which_is_not_its_own(tmp_path: Path) -> None:
    world = World(tmp_path)
    with (tmp_path / "clusters").open("a") as clusters:
        clusters.write("rayoffload\n")
    done = world.run("up")
    assert done.returncode == 1 and "not made here" in done.stderr
    assert world.run("down").returncode == 0
    assert not world.calls("kind delete") and not world.calls("helm")


def test_a_tenant_that_cannot_be_one_makes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    before = world.state()
    assert world.run("up", TENANT="../base").returncode == 2
    assert not world.calls("kind")
    assert world.run("down").returncode == 0
    assert world.state() == before


@pytest.mark.parametrize("program", ["docker", "kind", "kubectl", "helm"])
def test_up_says_what_is_missing_and_where_to_get_it(tmp_path: Path, program: str) -> None:
    world = World(tmp_path, without=program)
    done = world.run("up")
    assert done.returncode == 1
    assert re.search(rf"^{program} is not on PATH: https://", done.stderr, re.M)
    assert not world.calls("")


def test_up_installs_the_kuberay_that_the_tests_run_on() -> None:
    module = ROOT / "tests" / "kubernetes" / "bed" / "go" / "kuberay" / "go.mod"
    [tested] = re.findall(r"kuberay/ray-operator v([\d.]+)", module.read_text())
    installed = default("KUBERAY_VERSION")
    assert installed == tested
    assert tuple(map(int, installed.split(".")))[:2] >= (1, 6)


# ---------------------------------------------------------------------- a tenant's secrets


def test_kernel_and_runner_read_the_connection_file(tenant: Path, tmp_path: Path) -> None:
    new_tenant(tenant, "reader", owner="Some.Owner")
    file = tenant / "overlays" / "reader" / "secrets" / "connection.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    here, there = read_connection(file), read_on_cluster(str(file))
    assert here.owner == there.owner == "Some.Owner"
    assert here.key == there.key and len(here.key) == 32
    assert here.store == there.address
    assert here.store.url == "redis://rayoffload-redis.rayoffload-reader.svc:6379/0"
    assert here.ray_token == (file.parent / "auth_token").read_text()
    assert here.ray_token.encode() != here.key.hex().encode() != here.store.password.encode()


def test_secrets_are_made_once_and_differ_between_tenants(tenant: Path) -> None:
    first = new_tenant(tenant, "one") / "secrets"
    before = {p.name: p.read_text() for p in first.iterdir()}
    new_tenant(tenant, "one")
    assert {p.name: p.read_text() for p in first.iterdir()} == before
    second = new_tenant(tenant, "two") / "secrets"
    secret = re.compile(r"\b[0-9a-f]{64}\b")
    for name, text in before.items():
        assert secret.findall(text)
        assert not set(secret.findall(text)) & set(secret.findall((second / name).read_text()))


@pytest.mark.parametrize("name", ["", "../x", "Team", "a b", "-a", "x" * 51])
def test_a_name_that_cannot_be_a_namespace_is_refused(tenant: Path, name: str) -> None:
    before = sorted(tenant.rglob("*"))
    done = subprocess.run([tenant / "new", name], capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr
    assert sorted(tenant.rglob("*")) == before


# ---------------------------------------------------------------------- a tenant's objects


def test_every_object_is_in_the_tenants_namespace(objects: list[dict[str, Any]]) -> None:
    assert one(objects, "Namespace")["metadata"]["name"] == "rayoffload-demo"
    for made in objects:
        if made["kind"] != "Namespace":
            assert made["metadata"]["namespace"] == "rayoffload-demo", made["metadata"]["name"]
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(names) == len(set(names))


def test_another_tenant_is_the_same_elsewhere(tenant: Path, objects: list[dict[str, Any]]) -> None:
    def shape(found: list[dict[str, Any]], name: str) -> Any:
        text = json.dumps([o for o in found if o["kind"] != "Secret"]).replace(
            f"rayoffload-{name}", "NAMESPACE"
        )
        return json.loads(re.sub(r"rayoffload-redis-[a-z0-9]{10}", "HASHED", text))

    other = render(new_tenant(tenant, "other"))
    assert shape(other, "other") == shape(objects, "demo")


def test_notebooks_may_do_exactly_this(objects: list[dict[str, Any]]) -> None:
    rules = {
        (group, resource, *rule.get("resourceNames", ())): sorted(rule["verbs"])
        for rule in one(objects, "Role", "rayoffload-notebook")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert rules == {
        ("ray.io", "rayclusters"): ["create", "delete", "get", "list", "patch", "watch"],
        ("", "pods"): ["get", "list", "watch"],
        ("", "events"): ["get", "list", "watch"],
        ("", "pods/log"): ["get"],
        ("", "resourcequotas"): ["get", "list"],
        ("", "secrets", "rayoffload-token"): ["get"],
    }


def roles(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    hub = list(yaml.safe_load_all((KIND / "hub" / "rbac.yaml").read_text()))
    return [o for o in [*objects, *hub] if o["kind"] in ("Role", "ClusterRole")]


def test_no_right_has_a_wildcard_or_grants_others(objects: list[dict[str, Any]]) -> None:
    assert len(roles(objects)) == 3
    for role in roles(objects):
        for rule in role["rules"]:
            words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not words & {"*", "bind", "escalate", "impersonate", "roles", "rolebindings"}, role
            assert "secrets" not in words or rule["resourceNames"] == ["rayoffload-token"]


def test_whoever_is_named_exists(objects: list[dict[str, Any]], values: dict[str, Any]) -> None:
    there = {(o["kind"], o["metadata"]["name"]) for o in objects}
    for binding in [o for o in objects if o["kind"] == "RoleBinding"]:
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) in there
        for subject in binding["subjects"]:
            if subject["namespace"] == "rayoffload-demo":
                assert (subject["kind"], subject["name"]) in there
            else:
                assert (subject["namespace"], subject["name"]) == ("jupyterhub", "hub")
    for source in one(objects, "StatefulSet")["spec"]["template"]["spec"]["volumes"][0]["projected"][
        "sources"
    ]:
        [(kind, named)] = source.items()
        assert ({"configMap": "ConfigMap", "secret": "Secret"}[kind], named["name"]) in there
    user = values["singleuser"]
    assert ("ServiceAccount", user["serviceAccountName"]) in there
    assert ("Secret", user["storage"]["extraVolumes"][0]["secret"]["secretName"]) in there
    assert values["hub"]["config"]["KubeSpawner"]["user_namespace_template"] == "rayoffload-{username}"
    [token] = one(objects, "Role", "rayoffload-notebook")["rules"][-1]["resourceNames"]
    assert list(one(objects, "Secret", token)["data"]) == ["auth_token"]
    assert list(one(objects, "Secret", "rayoffload-store")["data"]) == ["connection.json"]


def test_a_laptops_rights_are_there_only_where_they_are_asked_for(
    tenant: Path, objects: list[dict[str, Any]]
) -> None:
    assert "rayoffload-laptop" not in {o["metadata"]["name"] for o in objects}
    overlay = new_tenant(tenant, "outside")
    file = overlay / "kustomization.yaml"
    file.write_text(file.read_text() + "components: [../../laptop]\n")
    rendered = render(overlay)
    role = one(rendered, "Role", "rayoffload-laptop")
    assert role["metadata"]["namespace"] == "rayoffload-outside"
    rights = {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
    # Ray's Jobs API is used with GET, POST, PUT and DELETE; a websocket needs both verbs since 1.35.
    assert rights == {
        *(("services/proxy", verb) for verb in ("get", "create", "update", "delete")),
        *(("pods/portforward", verb) for verb in ("get", "create")),
        ("services", "get"),
        ("secrets", "get"),
    }
    # Kustomize rewrites names that it takes for those of Secrets: this one must stay that of the Secret.
    [named] = [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule]
    assert named == ["rayoffload-store"] and one(rendered, "Secret", "rayoffload-store")
    bindings = [o for o in rendered if o["kind"] == "RoleBinding"]
    assert "rayoffload-laptop" not in {b["roleRef"]["name"] for b in bindings}, (
        "whoever runs the site binds it"
    )


def test_the_default_account_has_no_token_and_no_rights(objects: list[dict[str, Any]]) -> None:
    assert one(objects, "ServiceAccount", "default")["automountServiceAccountToken"] is False
    subjects = [s["name"] for o in objects if o["kind"] == "RoleBinding" for s in o["subjects"]]
    assert sorted(subjects) == ["hub", "rayoffload-notebook"]


def test_pods_have_limits_and_a_security_context(objects: list[dict[str, Any]]) -> None:
    """All that Pod Security asks for at its strictest level, although the namespace asks for less."""
    templates = [o["spec"]["template"]["spec"] for o in objects if "template" in o.get("spec", {})]
    assert len(templates) == 1
    for pod in templates:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert set(container["resources"]["limits"]) == {"cpu", "memory"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"readinessProbe", "livenessProbe"} <= set(container)


def quantity(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(m|Mi|Gi|)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "": 1}[unit]


def test_the_limits_have_room_for_what_is_to_run(objects: list[dict[str, Any]]) -> None:
    quota = one(objects, "ResourceQuota")["spec"]["hard"]
    pod, claim = one(objects, "LimitRange")["spec"]["limits"]
    # A Container item with a maximum would make that the default of every container that names none.
    assert (pod["type"], claim["type"]) == ("Pod", "PersistentVolumeClaim")
    redis_container = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    for name, head, autoscaler in (("cpu", 2, 0.5), ("memory", 4 * 2**30, 512 * 2**20)):
        store = quantity(redis_container["resources"]["limits"][name])
        notebook = {"cpu": 1, "memory": 2 * 2**30}[name]
        worker = head  # its init container has less
        assert head + autoscaler <= quantity(pod["max"][name])
        assert store + notebook + head + autoscaler + worker <= quantity(quota[f"limits.{name}"])
        assert quota[f"limits.{name}"] == quota[f"requests.{name}"]
    storage = one(objects, "StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]
    assert quantity(storage["storage"]) <= quantity(claim["max"]["storage"])
    memory = re.search(r"^maxmemory (\d+)gb$", (TENANT / "base" / "redis.conf").read_text(), re.M)
    assert memory
    # Twice: it forks.
    assert 2 * int(memory[1]) * 2**30 <= quantity(redis_container["resources"]["limits"]["memory"])


# ---------------------------------------------------------------------- who reaches whom

NOTEBOOK = {"rayoffload/notebook": "true", "component": "singleuser-server"}
RAY = {"ray.io/is-ray-node": "yes", "ray.io/cluster": "any", "ray.io/node-type": "head"}
REDIS = {"app.kubernetes.io/name": "rayoffload-redis"}
HUB = {"component": "hub", "hub.jupyter.org/network-access-singleuser": "true"}
PODS = {
    "notebook": ("rayoffload-demo", NOTEBOOK),
    "ray": ("rayoffload-demo", RAY),
    "redis": ("rayoffload-demo", REDIS),
    "hub": ("jupyterhub", HUB),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "stranger": ("elsewhere", {**NOTEBOOK, **RAY}),
}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def meant(peer: dict[str, Any], pod: str, home: str) -> bool:
    namespace, labels = PODS[pod]
    if "ipBlock" in peer:
        return False
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace}):
            return False
    elif namespace != home:
        return False
    return matches(peer.get("podSelector", {}), labels)


def allowed(
    objects: list[dict[str, Any]], source: str, target: str, port: int, protocol: str = "TCP"
) -> bool:
    """Say whether the policies let one pod reach another: both ends must agree."""
    home = "rayoffload-demo"

    def agrees(pod: str, other: str, direction: str, side: str) -> bool:
        if PODS[pod][0] != home:
            return True  # not ours to say
        policies = [
            o["spec"]
            for o in objects
            if o["kind"] == "NetworkPolicy"
            and direction in o["spec"]["policyTypes"]
            and matches(o["spec"]["podSelector"], PODS[pod][1])
        ]
        assert policies
        return any(
            any(meant(peer, other, home) for peer in rule[side])
            and any((p["protocol"], p["port"]) == (protocol, port) for p in rule.get("ports", []))
            | ("ports" not in rule)
            for policy in policies
            for rule in policy.get(direction.lower(), [])
        )

    return agrees(source, target, "Egress", "to") and agrees(target, source, "Ingress", "from")


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("notebook", "ray", 8265),
        ("notebook", "redis", 6379),
        ("notebook", "hub", 8081),
        ("hub", "notebook", 8888),
        ("ray", "ray", 6379),
        ("ray", "ray", 10002),
        ("ray", "redis", 6379),
        ("ray", "dns", 53),
        ("notebook", "dns", 53),
    ],
)
def test_the_policies_let_through(objects: Any, source: str, target: str, port: int) -> None:
    assert allowed(objects, source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("stranger", "ray", 8265),
        ("stranger", "ray", 6379),
        ("stranger", "redis", 6379),
        ("stranger", "notebook", 8888),
        ("notebook", "ray", 10001),
        ("notebook", "ray", 6379),
        ("hub", "ray", 8265),
        ("hub", "redis", 6379),
        ("ray", "notebook", 8888),
        ("ray", "hub", 8081),
        ("ray", "stranger", 443),
        ("redis", "ray", 8265),
    ],
)
def test_the_policies_stop(objects: Any, source: str, target: str, port: int) -> None:
    assert not allowed(objects, source, target, port)


def test_notebooks_reach_the_api_server_and_no_clouds_credentials(objects: Any, values: Any) -> None:
    policy = one(objects, "NetworkPolicy", "notebook")["spec"]["egress"]
    [(block, ports)] = [(r["to"][0]["ipBlock"], r["ports"]) for r in policy if "ipBlock" in r["to"][0]]
    assert block["except"] == ["169.254.169.254/32"]
    assert [p["port"] for p in ports] == [443, 6443]
    # The hub's own policy says the same, where it counts.
    assert values["singleuser"]["networkPolicy"]["egress"] == policy


# ---------------------------------------------------------------------- the store


def login(url: str, username: str, password: str) -> redis.Redis:
    """Give a client that does not try again: a wrong password stays wrong."""
    return redis.Redis.from_url(url, username=username, password=password, retry=Retry(NoBackoff(), 0))


@pytest.fixture(scope="module")
def store_url(tenant: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis with the tenant's own configuration and users."""
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    config = folder / "redis.conf"
    config.write_text((tenant / "base" / "redis.conf").read_text().replace("dir /data", f"dir {folder}"))
    acl = tenant / "overlays" / "demo" / "secrets" / "users.acl"
    command = [redis_executable(), config, "--aclfile", acl, "--bind", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}/0"
    probe = login(url, "probe", "none")
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(redis.ConnectionError):
            assert probe.ping()
            break
        assert process.poll() is None and time.monotonic() < deadline, "Redis does not start"
        time.sleep(0.05)
    probe.close()
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def connection(tenant: Path) -> Any:
    return read_connection(tenant / "overlays" / "demo" / "secrets" / "connection.json")


@pytest.mark.redis
def test_the_tenants_user_can_do_all_that_a_store_does(store_url: str, connection: Any) -> None:
    signer = Signer(connection.key)
    address = StoreAddress(store_url, connection.store.password, connection.store.username)
    with Store(address, connection.owner, signer, patience=1) as store:
        store.ping()
        store.create("job-1", {"spec": {"id": "job-1"}})
        store.append("job-1", "runner", 1, [{"t": 1.0, "type": "stream", "content": {}}])
        assert len(store.read_events("job-1")) == 1
        value = list(range(1000))
        store.put_payload("job-1", "outputs", codec.freeze({"a": value}, {}, signer, copy=True))
        assert store.get_payload("job-1", "outputs", {}) == {"a": value}
        assert store.write_state("job-1", {"phase": "succeeded"})
        store.touch("job-1")
        assert store.read("job-1")
        store.delete("job-1")
        assert store.read("job-1") is None


@pytest.mark.redis
def test_the_tenants_user_can_do_nothing_else(store_url: str, connection: Any) -> None:
    address = StoreAddress(store_url, connection.store.password, connection.store.username)
    with (
        Store(address, f"{connection.owner}2", Signer(connection.key), patience=1) as other,
        pytest.raises(StoreNoAuth),
    ):
        other.create("job-1", {"spec": {"id": "job-1"}})
    with login(store_url, "rayoffload", connection.store.password) as client:
        for command in (
            "FLUSHALL",
            "FLUSHDB",
            "KEYS *",
            "CONFIG GET *",
            "ACL LIST",
            "SHUTDOWN NOSAVE",
            "MONITOR",
            "SAVE",
            "REPLICAOF NO ONE",
            "MODULE LIST",
            "GET another",
            f"RENAME rayoffload:{{{connection.owner}}}:x another",
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())
        assert client.ping()
    for username, password in (("default", ""), ("rayoffload", "wrong")):
        with (
            login(store_url, username, password) as client,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            client.ping()
    with (
        login(store_url, "probe", "none") as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.get(f"rayoffload:{{{connection.owner}}}:jobs")


def test_redis_gets_the_passwords_hash_alone(objects: Any, connection: Any) -> None:
    mounted = one(objects, "StatefulSet")["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]
    [secret] = [source["secret"]["name"] for source in mounted if "secret" in source]
    users = base64.b64decode(one(objects, "Secret", secret)["data"]["users.acl"]).decode()
    assert connection.store.password not in users
    assert f"~rayoffload:{{{connection.owner}}}:* " in users


# ---------------------------------------------------------------------- the hub


def test_notebook_pods_are_let_into_the_namespace(objects: Any, values: dict[str, Any]) -> None:
    user = values["singleuser"]
    assert user["extraLabels"].items() <= NOTEBOOK.items()
    assert {user["cpu"]["limit"], user["memory"]["limit"]} == {1, "2G"}
    # A privileged container, which Pod Security refuses.
    assert user["cloudMetadata"]["blockWithIptables"] is False
    level = one(objects, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    labels = values["hub"]["config"]["KubeSpawner"]["user_namespace_labels"]
    assert labels == {"pod-security.kubernetes.io/enforce": level}
    for side in (values["hub"], values["proxy"]["chp"]):
        assert side["networkPolicy"]["interNamespaceAccessLabels"] == "accept"


def test_the_connection_file_is_where_kernels_look_for_it(values: dict[str, Any]) -> None:
    user = values["singleuser"]
    assert user["extraEnv"]["RAYOFFLOAD_CONNECTION_FILE"] == CONNECTION_FILE
    known = {f"RAYOFFLOAD_{name.upper()}" for name in RayOffload.class_trait_names(config=True)}
    assert set(user["extraEnv"]) <= known
    [volume], [mount] = user["storage"]["extraVolumes"], user["storage"]["extraVolumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], str(Path(CONNECTION_FILE).parent))
    assert volume["secret"]["defaultMode"] == 0o440


def test_notebooks_make_a_cluster_of_what_the_tenant_has(
    objects: list[dict[str, Any]], values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values["singleuser"]["extraEnv"].items():
        monkeypatch.setenv(name, value.format(username="ann"))  # as KubeSpawner does
    config = RayOffload()
    spec = ClusterSpec.from_json(config.kubernetes_cluster)
    for secret in (spec.token_secret, spec.store_secret):
        assert one(objects, "Secret", secret)
    assert spec.head.memory and all(group.pod.memory for group in spec.groups), "the tenant's limits want it"
    made = ray_cluster(spec.replace(image=config.image, ray=config.ray_version), "ann", "rayoffload-ann")
    assert made["spec"]["rayVersion"] == config.ray_version and config.ray_version in config.image


def test_the_hub_finds_itself_from_another_namespace(values: dict[str, Any]) -> None:
    class Configuration:
        class JupyterHub:
            hub_connect_url = ""

    text = values["hub"]["extraConfig"]["rayoffload"]
    code = text.replace('os.environ["POD_NAMESPACE"]', '"jupyterhub"')
    assert code != text
    exec(compile(code, "extraConfig", "exec"), {"c": Configuration})
    assert Configuration.JupyterHub.hub_connect_url == "http://hub.jupyterhub:8081"


# ---------------------------------------------------------------------- the guide


def test_the_cluster_of_the_guide_fits_the_tenant(objects: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What its example prints is a RayCluster for this tenant, and all that it names is there."""
    exec(example("print(json.dumps(ray_cluster("), {})
    made = json.loads(capsys.readouterr().out)
    assert made["metadata"]["namespace"] == "rayoffload-demo"
    spec = made["spec"]
    assert one(objects, "Secret", spec["authOptions"]["secretName"])
    quota, limits = one(objects, "ResourceQuota")["spec"]["hard"], {"cpu": 0.0, "memory": 0.0}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == default("RAY_IMAGE")
        assert [v["secret"]["secretName"] for v in pod["volumes"]] == ["rayoffload-store"]
        assert [m["mountPath"] for m in container["volumeMounts"]] == ["/etc/rayoffload"]
        for name, value in container["resources"]["limits"].items():
            limits[name] += quantity(value) * group.get("replicas", 1)
    for name, value in limits.items():
        assert 0 < value <= quantity(quota[f"limits.{name}"]) / 2
    assert spec["rayVersion"] in default("RAY_IMAGE")


def default(variable: str) -> str:
    """Give what `up` takes where the environment does not say."""
    [found] = re.findall(rf"\{{{variable}:-(\S+)\}}", (KIND / "up").read_text())
    return str(found)


def test_the_guide_and_up_install_the_same() -> None:
    text = (ROOT / "docs" / "administrators.md").read_text()
    assert re.findall(r"kuberay-operator --version (\S+)", text) == [default("KUBERAY_VERSION")]
    image = {str(found) for found in re.findall(r"rayproject/ray:\S+?(?=[`\"])", text)}
    assert image == {default("RAY_IMAGE")}
