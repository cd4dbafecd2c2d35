"""What goes wrong with a cluster, brought about on a real Kubernetes: what is said of it, and how soon.

Two look: a witness, who asks the API server for everything ten times a second, and the back end's own watch,
which a panel shows. What the witness can tell, the API server knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from jupyter_rayoffload.clusters.kubernetes.backend import KubernetesBackend
from jupyter_rayoffload.clusters.kubernetes.conditions import Verdict, judged
from jupyter_rayoffload.clusters.kubernetes.manifest import object_name
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import ClusterError
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase
from tests.kubernetes.bed import Bed
from tests.kubernetes.ground import FAREWELL, head_address, ray_cluster, until

RAY = ("ray.io", "v1")
OWNER = "told"
NAME = object_name(OWNER, "default")
#: How much later than the API server a panel may know, seconds.
PANEL_SECONDS = 5.0
#: What was seen here is the table of tests/clusters/kubernetes/test_conditions.py.
#: RAYOFFLOAD_RECORD=1 writes it anew.
RECORDED = Path(__file__).parents[1] / "clusters" / "kubernetes" / "recorded"
Json = dict[str, Any]
SMALL = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}
STARTING, FAILED, RUNNING = ClusterPhase.STARTING, ClusterPhase.FAILED, ClusterPhase.RUNNING


@dataclass
class Case:
    """Something that goes wrong.

    Parameters
    ----------
    name : str
    phase, reason, hopeless
        What is said of it; `reason` is a regular expression.
    change : callable
        Changes the RayCluster that will not come up.
    prepare : callable, optional
        Changes the namespace before.
    simulated : bool
        Whether its pods need not run.
    """

    name: str
    phase: ClusterPhase
    reason: str
    hopeless: bool = False
    change: Callable[[Json], Any] = lambda spec: None
    prepare: Callable[[client.CoreV1Api, str], Any] = lambda core, namespace: None
    simulated: bool = True
    workers: int = 0


def head(spec: Json) -> Json:
    """Give the container of the head."""
    container: Json = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    return container


def worker(spec: Json) -> Json:
    """Give the container of the workers."""
    container: Json = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    return container


def quota(**hard: str) -> Callable[[client.CoreV1Api, str], Any]:
    """Give what sets a quota, and waits until it counts."""

    def prepare(core: client.CoreV1Api, namespace: str) -> None:
        limits = {name.replace("__", "."): amount for name, amount in hard.items()}
        core.create_namespaced_resource_quota(
            namespace, {"metadata": {"name": "tenant"}, "spec": {"hard": limits}}
        )
        until(lambda: core.read_namespaced_resource_quota("tenant", namespace).status.used, "the quota")

    return prepare


def restricted(core: client.CoreV1Api, namespace: str) -> None:
    """Let Pod Security forbid what is not locked in."""
    core.patch_namespace(
        namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )


def nearly_used_up(core: client.CoreV1Api, namespace: str) -> None:
    """Set a quota of half a core, of which a pod that nothing runs has a part."""
    quota(requests__cpu="500m")(core, namespace)
    container = {"name": "a", "image": "a", "resources": {"requests": {"cpu": "200m"}}}
    spec = {"nodeSelector": {"no": "where"}, "containers": [container]}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "there"}, "spec": spec})


def half_a_core_each(core: client.CoreV1Api, namespace: str) -> None:
    """Let no container have more."""
    limits = [{"type": "Container", "max": {"cpu": "500m"}}]
    core.create_namespaced_limit_range(
        namespace, {"metadata": {"name": "tenant"}, "spec": {"limits": limits}}
    )


def mount_what_is_not_there(spec: Json) -> None:
    """Let the head mount a Secret that nobody has made."""
    pod = spec["headGroupSpec"]["template"]["spec"]
    pod["volumes"] = [{"name": "store", "secret": {"secretName": "nowhere"}}]
    pod["containers"][0]["volumeMounts"] = [{"name": "store", "mountPath": "/store"}]


def prepare_slowly(spec: Json) -> None:
    """Let a worker do something first that takes its time."""
    pod = spec["workerGroupSpecs"][0]["template"]["spec"]
    image = pod["containers"][0]["image"]
    slow = {"name": "prepares", "image": image, "command": ["sleep", "600"], "resources": SMALL}
    pod["initContainers"] = [slow]


CASES = [
    Case(
        "quota",
        STARTING,
        r"Quota exceeded: requests.cpu 0\.6 of 0\.5",
        change=lambda spec: head(spec)["resources"]["requests"].update(cpu="400m"),
        prepare=nearly_used_up,
    ),
    Case(
        "quota-for-ever",
        FAILED,
        r"Quota exceeded: requests.cpu 0\.9 of 0\.5",
        hopeless=True,
        change=lambda spec: head(spec)["resources"]["requests"].update(cpu="900m"),
        prepare=quota(requests__cpu="500m"),
    ),
    Case(
        "quota-wants-limits",
        FAILED,
        r"The quota tenant takes only pods that state .*limits\.cpu.*",
        hopeless=True,
        change=lambda spec: head(spec).update(resources={}),
        prepare=quota(limits__cpu="8"),
    ),
    Case(
        "pod-security",
        FAILED,
        r"Pod Security \(restricted:latest\) forbids the pods: .*",
        hopeless=True,
        prepare=restricted,
    ),
    Case(
        "limit-range",
        FAILED,
        r"Outside the limits of this namespace: maximum cpu usage per Container is 500m, but limit is 1",
        hopeless=True,
        prepare=half_a_core_each,
    ),
    Case(
        "gpu",
        STARTING,
        "Waiting for 1 GPU: no node has one free",
        change=lambda spec: head(spec).update(resources={"limits": {"nvidia.com/gpu": "1"}}),
    ),
    Case(
        "cpus",
        STARTING,
        "Waiting for 4000 CPUs: no node has so much free",
        change=lambda spec: head(spec).update(resources={"limits": {"cpu": "4000"}}),
    ),
    Case(
        "selector",
        STARTING,
        "Waiting for a node: .*didn't match Pod's node affinity/selector.*",
        change=lambda spec: spec["headGroupSpec"]["template"]["spec"].update(nodeSelector={"no": "where"}),
    ),
    Case(
        "invalid",
        FAILED,
        "KubeRay refuses the cluster: .*",
        hopeless=True,
        change=lambda spec: spec.update(rayVersion="2.9.0"),
    ),
    Case(
        "image",
        STARTING,
        "The image registry.invalid/ray:1 cannot be pulled",
        change=lambda spec: head(spec).update(image="registry.invalid/ray:1"),
        simulated=False,
    ),
    Case(
        "image-of-a-worker",
        RUNNING,
        "No worker yet: the image registry.invalid/ray:1 cannot be pulled",
        change=lambda spec: worker(spec).update(image="registry.invalid/ray:1"),
        simulated=False,
        workers=1,
    ),
    Case(
        "slow-worker",
        RUNNING,
        "No worker yet: its init container prepares has run for .*",
        change=prepare_slowly,
        simulated=False,
        workers=1,
    ),
    Case(
        "image-name",
        FAILED,
        "Ray:: is no name of an image",
        hopeless=True,
        change=lambda spec: head(spec).update(image="Ray::"),
        simulated=False,
    ),
    Case(
        "no-secret",
        FAILED,
        "There is no Secret nowhere, which the pod needs",
        hopeless=True,
        change=lambda spec: spec["authOptions"].update(secretName="nowhere"),
        simulated=False,
    ),
    Case(
        "no-volume",
        FAILED,
        "There is no Secret nowhere, which the pod mounts",
        hopeless=True,
        change=mount_what_is_not_there,
        simulated=False,
    ),
    Case(
        "crash",
        STARTING,
        r"The head crashes at its start: exit code 2.*",
        change=lambda spec: spec["headGroupSpec"]["rayStartParams"].update(nonsense="1"),
        simulated=False,
    ),
    Case(
        "out-of-memory",
        STARTING,
        r"The head ran out of memory \(64 MiB\).*",
        change=lambda spec: head(spec)["resources"].update(limits={"memory": "64Mi"}, requests={}),
        simulated=False,
    ),
]  # fmt: skip


@dataclass
class Witness:
    """What the API server knows of the cluster of a test."""

    namespace: str
    core: client.CoreV1Api
    custom: client.CustomObjectsApi
    last: Json = field(default_factory=dict)

    def create(self, workers: int, simulated: bool, change: Callable[[Json], Any]) -> None:
        """Ask for a RayCluster."""
        made = ray_cluster(NAME, workers=workers, simulated=simulated)
        made["spec"]["workerGroupSpecs"] = made["spec"]["workerGroupSpecs"][: workers or 0]
        change(made["spec"])
        self.custom.create_namespaced_custom_object(*RAY, self.namespace, "rayclusters", made)

    def look(self) -> Verdict:
        """Judge what is there now."""
        plain = self.core.api_client.sanitize_for_serialization
        cluster = self.custom.get_namespaced_custom_object(*RAY, self.namespace, "rayclusters", NAME)
        pods = self.core.list_namespaced_pod(self.namespace, label_selector=f"ray.io/cluster={NAME}").items
        events = self.core.list_namespaced_event(self.namespace).items
        now = time.time()
        self.last = {"cluster": cluster, "pods": plain(pods), "events": plain(events), "now": now}
        return judged(cluster, self.last["pods"], self.last["events"], now)

    def record(self, name: str, verdict: Verdict) -> None:
        """Keep what was seen, less what says nothing, where the table of the pure test reads it."""
        kept = {
            **self.last,
            "phase": verdict.phase.value,
            "reason": verdict.reason,
            "hopeless": verdict.hopeless,
        }
        for thing in (kept["cluster"], *kept["pods"], *kept["events"]):
            thing["metadata"].pop("managedFields", None)
            thing["metadata"].pop("annotations", None)
        RECORDED.mkdir(exist_ok=True)
        (RECORDED / f"{name}.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


class Panel:
    """What the back end tells whoever watches a cluster, and when.

    Parameters
    ----------
    bed : Bed
    namespace : str
    """

    def __init__(self, bed: Bed, namespace: str) -> None:
        kubeconfig = str(bed.kubeconfig)
        self._config = RayOffload(
            backend="kubernetes", owner=OWNER, kubeconfig=kubeconfig, namespace=namespace
        )
        self.heard: list[tuple[float, ClusterInfo]] = []
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._watch())
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Panel:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.gather(self._task, return_exceptions=True))

    async def _watch(self) -> None:
        backend = KubernetesBackend(self._config, reach=head_address)
        try:
            async for info in backend.watch("default"):
                self.heard.append((time.monotonic(), info))
        finally:
            await backend.aclose()
            await asyncio.sleep(FAREWELL)

    def failure(self) -> ClusterError | None:
        """Give why there is nothing to watch, once that is known."""
        if not self._task.done():
            return None
        error = self._task.exception()
        assert isinstance(error, ClusterError), error
        return error

    def knows(self, reason: str, phase: ClusterPhase, since: float) -> None:
        """See that this was said soon after the API server has known it.

        Parameters
        ----------
        reason : str
            A regular expression.
        phase : ClusterPhase
        since : float
            When the witness knew, on the monotonic clock.
        """

        def said() -> list[float]:
            if self._task.done():
                self._task.result()
            return [t for t, i in self.heard if i.phase is phase and re.fullmatch(reason, i.reason)]

        try:
            later = until(said, f"the panel says {reason}", 60)[0] - since
        except AssertionError:
            raise AssertionError(
                [f"{t - since:+.1f} s: {i.phase}: {i.reason}" for t, i in self.heard]
            ) from None
        print(f"\nthe panel says so {later:+.2f} s after the API server")
        assert later < PANEL_SECONDS


@pytest.fixture
def panel(bed: Bed, namespace: str) -> Iterator[Panel]:
    """Give what a panel of the cluster of this test is told."""
    with Panel(bed, namespace) as watching:
        yield watching


@pytest.fixture
def witness(namespace: str, core: client.CoreV1Api, custom: client.CustomObjectsApi) -> Witness:
    """Give what looks at the cluster of this test."""
    return Witness(namespace, core, custom)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_goes_wrong_is_said(case: Case, witness: Witness, panel: Panel) -> None:
    case.prepare(witness.core, witness.namespace)
    witness.create(case.workers, case.simulated, case.change)
    seen: list[str] = []

    def told() -> Verdict | None:
        verdict = witness.look()
        if not seen or seen[-1] != verdict.reason:
            seen.append(verdict.reason)
        fits = re.fullmatch(case.reason, verdict.reason) and verdict.phase is case.phase
        return verdict if fits and verdict.hopeless == case.hopeless else None

    try:
        verdict = until(told, f"{case.reason}; seen {seen}", 120)
    except AssertionError:
        raise AssertionError(f"seen: {seen}, and in the end {witness.look()}") from None
    panel.knows(case.reason, case.phase, time.monotonic())
    if "RAYOFFLOAD_RECORD" in os.environ:
        witness.record(case.name, verdict)


@pytest.fixture
def no_operator(bed: Bed) -> Iterator[None]:
    """Stop the operator for one test."""
    bed.stop("kuberay-operator")
    yield
    bed.restart("kuberay-operator")


def test_an_operator_that_is_away_is_missed(no_operator: None, witness: Witness, panel: Panel) -> None:
    witness.create(0, True, lambda spec: None)
    reason = "No KubeRay operator has taken up .*"
    until(lambda: re.fullmatch(reason, witness.look().reason), "the sentence", 60)
    panel.knows(reason, STARTING, time.monotonic())
    assert witness.look().phase is STARTING


def test_a_deletion_that_does_not_get_on_names_what_holds_it(witness: Witness, panel: Panel) -> None:
    where = (*RAY, witness.namespace, "rayclusters", NAME)
    witness.create(0, True, lambda spec: None)
    witness.custom.patch_namespaced_custom_object(*where, {"metadata": {"finalizers": ["tests/holds-it"]}})
    witness.custom.delete_namespaced_custom_object(*where)
    try:
        reason = r"Being deleted for .*: tests/holds-it has not let go"
        until(lambda: re.fullmatch(reason, witness.look().reason), "the sentence", 60)
        panel.knows(reason, ClusterPhase.STOPPING, time.monotonic())
    finally:
        witness.custom.patch_namespaced_custom_object(*where, {"metadata": {"finalizers": []}})


@pytest.fixture
def no_kuberay(admin: client.ApiClient, witness: Witness) -> Iterator[None]:
    """Take the kind of object away that KubeRay brings, for one test; see the operator take it up again."""
    api, kind = client.ApiextensionsV1Api(admin), "rayclusters.ray.io"
    kept = admin.sanitize_for_serialization(api.read_custom_resource_definition(kind))

    def there() -> list[str]:
        found = api.list_custom_resource_definition(field_selector=f"metadata.name={kind}").items
        return [c.type for crd in found for c in crd.status.conditions or () if c.status == "True"]

    api.delete_custom_resource_definition(kind)
    try:
        until(lambda: not there(), "the definition is gone")
        yield
    finally:
        api.create_custom_resource_definition(
            {**kept, "metadata": {key: kept["metadata"][key] for key in ("name", "annotations")}}
        )
        until(lambda: "Established" in there(), "the definition is back")
    witness.create(0, True, lambda spec: None)
    until(lambda: witness.look().phase is not STARTING or witness.last["pods"], "the operator is at work")


def test_a_kubernetes_without_kuberay_is_said(no_kuberay: None, panel: Panel) -> None:
    since = time.monotonic()
    error = until(panel.failure, "the panel hears of it", PANEL_SECONDS)
    print(f"\nthe panel says so {time.monotonic() - since:+.2f} s after it began to look: {error}")
    assert "KubeRay is not installed" in error.message and error.hint
