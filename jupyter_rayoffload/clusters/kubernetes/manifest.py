"""A ClusterSpec as a RayCluster of KubeRay (1.6 or newer): pure, nobody is asked.

Field by field it is what the CRD ``rayclusters.ray.io`` describes; its source is
https://github.com/ray-project/kuberay/blob/v1.6.2/ray-operator/apis/ray/v1/raycluster_types.go.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ...errors import UsageError
from ...models import ClusterSpec, PodSpec, Volume, WorkerGroup
from .pods import quantity

__all__ = [
    "ANNOTATION_CHOICES",
    "ANNOTATION_CLUSTER",
    "ANNOTATION_PROFILE",
    "CONNECTION_FILE",
    "LABEL_CLUSTER",
    "LABEL_OWNER",
    "has_store",
    "labels_of",
    "limits_of",
    "made_from",
    "name_of",
    "object_name",
    "overlaid",
    "ray_cluster",
    "worker_group",
]

LABEL_OWNER = "rayoffload/owner"
LABEL_CLUSTER = "rayoffload/cluster"
#: Labels are short and take few characters; these say the names as they are.
ANNOTATION_OWNER, ANNOTATION_CLUSTER = "rayoffload/owner-name", "rayoffload/cluster-name"
#: What it was made from, so that it is not taken for a cluster of another size.
ANNOTATION_PROFILE, ANNOTATION_CHOICES = "rayoffload/profile", "rayoffload/choices"
MANAGED_BY = {"app.kubernetes.io/managed-by": "jupyter-rayoffload"}
#: Where the Secret of the store is mounted in Ray pods.
STORE_PATH = "/etc/rayoffload"
CONNECTION_FILE = f"{STORE_PATH}/connection.json"
_STORE = "rayoffload-store"
#: Supplementary group of Ray pods, to which a mounted Secret is readable (mode 0440). Any number will do.
STORE_GROUP = 1000
#: A group name becomes part of names of pods, which KubeRay cuts at 50 characters.
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")


def object_name(owner: str, cluster: str) -> str:
    """Name a cluster's object in Kubernetes: valid and short for every owner, and never that of another one.

    KubeRay takes DNS-1035 labels of up to 53 characters, and makes longer names of them; this has up to 37.

    Parameters
    ----------
    owner, cluster : str
        As people write them.
    """
    return f"ray-{_slug(owner)}{_digest(owner, cluster)}"


def labels_of(owner: str, cluster: str = "") -> dict[str, str]:
    """Give the labels by which the clusters of an owner, or one of them, are found."""
    found = {LABEL_OWNER: f"{_slug(owner)}{_digest(owner)}"}
    if cluster:
        found[LABEL_CLUSTER] = f"{_slug(cluster)}{_digest(cluster)}"
    return found


def _slug(text: str) -> str:
    """Keep what a label may have of a name, for those who read it: 20 characters, and a dash."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:20].strip("-")
    return f"{slug}-" if slug else ""


def _digest(*names: str) -> str:
    return hashlib.blake2b("\0".join(names).encode(), digest_size=6).hexdigest()


def ray_cluster(spec: ClusterSpec, owner: str, namespace: str) -> dict[str, Any]:
    """Give the RayCluster that `spec` describes.

    Parameters
    ----------
    spec : ClusterSpec
    owner : str
    namespace : str

    Returns
    -------
    dict
        JSON-ready, complete: with token authentication, without a ServiceAccount's token in Ray pods.

    Raises
    ------
    UsageError
        Something in `spec` cannot be: it says what.
    """
    _check(spec)
    body: dict[str, Any] = {
        "rayVersion": spec.ray,
        "authOptions": {"mode": "token", "secretName": spec.token_secret},
        "enableInTreeAutoscaling": spec.autoscale or None,
        "autoscalerOptions": {"idleTimeoutSeconds": _whole(spec.idle_seconds)},
        "headGroupSpec": {
            "serviceType": spec.service_type,
            "rayStartParams": _head_params(spec),
            "template": _template(spec, spec.head.replace(env=_head_env(spec)), "ray-head"),
        },
        "workerGroupSpecs": [_group(spec, group) for group in spec.groups],
    }
    made = {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": object_name(owner, spec.name),
            "namespace": namespace,
            "labels": {**spec.labels, **MANAGED_BY, **labels_of(owner, spec.name)},
            "annotations": {
                **spec.annotations,
                ANNOTATION_OWNER: owner,
                ANNOTATION_CLUSTER: spec.name,
                ANNOTATION_PROFILE: spec.profile,
                ANNOTATION_CHOICES: json.dumps(dict(spec.choices)) if spec.choices else "",
            },
        },
        "spec": body,
    }
    whole = _filled(made)
    # KubeRay wants these even where they are empty.
    whole["spec"]["headGroupSpec"].setdefault("rayStartParams", {})
    for group in whole["spec"].get("workerGroupSpecs", []):
        group.setdefault("rayStartParams", {})
    return dict(overlaid(whole, spec.overlay))


def worker_group(
    cluster: Mapping[str, Any], spec: ClusterSpec, owner: str, group: WorkerGroup
) -> dict[str, Any]:
    """Give the entry of one more worker group for a RayCluster that is there.

    Parameters
    ----------
    cluster : Mapping
        The RayCluster: image and Ray are what it has, whatever the settings say by now.
    spec : ClusterSpec
        What it was made from: volumes, Secrets, the overlay.
    owner : str
    group : WorkerGroup

    Raises
    ------
    UsageError
        It cannot be: it says what.
    """
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    spec = spec.replace(image=head["image"], ray=cluster["spec"].get("rayVersion", ""), groups=(group,))
    made = ray_cluster(spec, owner, cluster["metadata"]["namespace"])
    return next(dict(g) for g in made["spec"]["workerGroupSpecs"] if g["groupName"] == group.name)


def limits_of(cluster: Mapping[str, Any]) -> dict[str, float]:
    """Give what all pods of a RayCluster may use together: ``cpus``, ``memory`` (bytes) and ``gpus``."""
    spec = cluster["spec"]
    number = "maxReplicas" if spec.get("enableInTreeAutoscaling") else "replicas"
    pods = [(1, spec["headGroupSpec"]), *((g.get(number) or 0, g) for g in spec.get("workerGroupSpecs", ()))]
    total = {"cpus": 0.0, "memory": 0.0, "gpus": 0.0}
    for count, group in pods:
        for container in group["template"]["spec"]["containers"]:
            for resource, amount in (container.get("resources", {}).get("limits") or {}).items():
                # What a device plugin offers has a domain in its name.
                name = {"cpu": "cpus", "memory": "memory"}.get(resource, "gpus" if "/" in resource else "")
                if name:
                    total[name] += count * (group.get("numOfHosts") or 1) * quantity(str(amount))
    return total


def name_of(cluster: Mapping[str, Any]) -> str:
    """Give the name that a RayCluster has for its owner."""
    metadata = cluster["metadata"]
    return str((metadata.get("annotations") or {}).get(ANNOTATION_CLUSTER) or metadata["name"])


def made_from(cluster: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Give the profile and the choices that a RayCluster was made from; empty where nobody has said so."""
    annotations = cluster["metadata"].get("annotations") or {}
    try:
        choices = json.loads(annotations.get(ANNOTATION_CHOICES) or "{}")
    except ValueError:  # written by hand
        choices = {}
    return str(annotations.get(ANNOTATION_PROFILE) or ""), choices if isinstance(choices, dict) else {}


def has_store(cluster: Mapping[str, Any]) -> bool:
    """Whether the connection file is mounted in the pods of a RayCluster."""
    pod = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    return any(volume["name"] == _STORE for volume in pod.get("volumes") or ())


def _check(spec: ClusterSpec) -> None:
    if not spec.image:
        raise UsageError(f"no image is given for the cluster {spec.name!r}", "Set image in its profile")
    if not spec.ray:
        raise UsageError(
            f"the version of Ray in {spec.image} is not given", "Set ray in the profile: KubeRay needs it"
        )
    seen = set()
    for group in spec.groups:
        if not _LABEL.fullmatch(group.name) or group.name == "headgroup":
            raise UsageError(
                f"{group.name!r} is no name for a worker group",
                "Up to 32 lower-case letters, digits and dashes, a letter first; and not headgroup",
            )
        if group.name in seen:
            raise UsageError(f"two worker groups are called {group.name!r}", "Rename one of them")
        seen.add(group.name)
        low, high = group.minimum, _maximum(group)
        if not 0 <= low <= group.replicas <= high:
            raise UsageError(
                f"worker group {group.name!r} cannot have {group.replicas} workers: it goes from {low} to "
                f"{high}",
                "Correct replicas, minimum or maximum",
            )
    for volume in spec.volumes:
        if sum(map(bool, (volume.claim, volume.secret, volume.config_map))) != 1:
            raise UsageError(
                f"volume {volume.name!r} must be one of a claim, a secret and a config_map",
                "Correct it in the profile",
            )


def _maximum(group: WorkerGroup) -> int:
    return group.replicas if group.maximum is None else group.maximum


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


def _head_params(spec: ClusterSpec) -> dict[str, str]:
    """Keep cells off the head where there are workers: an OOM kill of one must not take the head with it."""
    first = {"num-cpus": "0"} if spec.groups else {}
    return {**first, **spec.head.start_params}


def _head_env(spec: ClusterSpec) -> dict[str, str]:
    """Keep Ray's second autoscaler from a cluster that is not scaled by it.

    It takes every task that waits for its turn for one that can never run, and says so in the cell's output.
    """
    return {**({} if spec.autoscale else {"RAY_enable_autoscaler_v2": "0"}), **spec.head.env}


def _group(spec: ClusterSpec, group: WorkerGroup) -> dict[str, Any]:
    return {
        "groupName": group.name,
        "replicas": group.replicas,
        "minReplicas": group.minimum,
        "maxReplicas": _maximum(group),
        "rayStartParams": dict(group.pod.start_params),
        "template": _template(spec, group.pod, "ray-worker"),
    }


def _template(spec: ClusterSpec, pod: PodSpec, container: str) -> dict[str, Any]:
    volumes = list(spec.volumes)
    env = dict(pod.env)
    if spec.store_secret:
        volumes.append(Volume(_STORE, STORE_PATH, secret=spec.store_secret, read_only=True))
        env["RAYOFFLOAD_CONNECTION_FILE"] = CONNECTION_FILE
    return {
        "metadata": {"labels": dict(pod.labels), "annotations": dict(pod.annotations)},
        "spec": {
            "automountServiceAccountToken": None if spec.autoscale else False,
            "securityContext": {"fsGroup": STORE_GROUP, "seccompProfile": {"type": "RuntimeDefault"}},
            "imagePullSecrets": [{"name": name} for name in spec.pull_secrets],
            "nodeSelector": dict(pod.node_selector),
            "tolerations": [dict(t) for t in pod.tolerations],
            "priorityClassName": pod.priority_class,
            "containers": [
                {
                    "name": container,
                    "image": spec.image,
                    "imagePullPolicy": spec.pull_policy,
                    "resources": _resources(pod),
                    "env": [{"name": k, "value": v} for k, v in env.items()],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [_mount(v) for v in volumes],
                }
            ],
            "volumes": [_volume(v) for v in volumes],
        },
    }


def _resources(pod: PodSpec) -> dict[str, Any]:
    limits: dict[str, str] = {}
    if pod.cpus is not None:
        limits["cpu"] = f"{round(pod.cpus * 1000)}m"
    if pod.memory is not None:
        limits["memory"] = str(pod.memory)
    if pod.gpus:
        limits[pod.gpu_resource] = str(pod.gpus)
    return {"limits": limits, "requests": {**limits, **pod.requests} if pod.requests else {}}


def _volume(volume: Volume) -> dict[str, Any]:
    if volume.claim:
        source: dict[str, Any] = {"persistentVolumeClaim": {"claimName": volume.claim}}
    elif volume.secret:
        source = {"secret": {"secretName": volume.secret, "defaultMode": 0o440}}
    else:
        source = {"configMap": {"name": volume.config_map}}
    return {"name": volume.name, **source}


def _mount(volume: Volume) -> dict[str, Any]:
    return {
        "name": volume.name,
        "mountPath": volume.path,
        "subPath": volume.sub_path,
        "readOnly": volume.read_only or None,
    }


def _filled(value: Any) -> Any:
    """Leave out what is empty: to Kubernetes an empty list and none at all are not always the same."""
    if isinstance(value, Mapping):
        inner = {key: _filled(v) for key, v in value.items()}
        # An environment variable may be empty; nothing else that is made here may.
        return {k: v for k, v in inner.items() if v not in (None, {}, [], "") or (k == "value" and v == "")}
    if isinstance(value, list):
        return [_filled(v) for v in value]
    return value


def overlaid(base: Any, overlay: Any) -> Any:
    """Lay `overlay` over `base`, and give the result.

    Mappings are merged; None removes a key; lists whose entries have names (``name`` or ``groupName``) are
    merged by them, as Kubernetes does with containers; everything else is replaced.

    Parameters
    ----------
    base, overlay : JSON-ready
    """
    if isinstance(base, Mapping) and isinstance(overlay, Mapping):
        kept = {k: v for k, v in base.items() if not (k in overlay and overlay[k] is None)}
        laid = {k: overlaid(kept.get(k), v) for k, v in overlay.items() if v is not None}
        return {**kept, **laid}
    if isinstance(overlay, Mapping):
        return overlaid({}, overlay)
    if isinstance(base, list) and isinstance(overlay, list):
        ours, theirs = _by_name(base), _by_name(overlay)
        if ours and theirs:
            return list(
                {**ours, **{name: overlaid(ours.get(name), entry) for name, entry in theirs.items()}}.values()
            )
    return overlay


def _by_name(entries: list[Any]) -> dict[str, Any]:
    """Give the entries of a list by their names; nothing where one has none, or shares it."""
    named = {str(e.get("name") or e.get("groupName") or ""): e for e in entries if isinstance(e, Mapping)}
    return {} if len(named) < len(entries) or "" in named else named
