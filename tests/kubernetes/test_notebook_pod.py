"""A tenant's notebook pod: the quickstart runs in it, and its first job makes the RayCluster."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from jupyter_rayoffload.clusters.kubernetes.manifest import labels_of, ray_cluster
from jupyter_rayoffload.models import ClusterSpec
from tests.kernel_client import Run, fold
from tests.kubernetes.bed.image import ray_image, ray_version
from tests.kubernetes.ground import until
from tests.kubernetes.notebooks import HOME, Jupyter, NotebookKernel
from tests.kubernetes.tenants import EXAMPLES, OWNER, Tenant, cluster
from tests.tenant import one

sys.path.insert(0, str(EXAMPLES))

import demo

#: How much longer than a plain create our cluster may take; a busy machine gets three chances.
OWN_SECONDS = 3.0


def seconds_of(kernel: NotebookKernel, job: str) -> dict[str, float]:
    """Give how long a job took from its submission until its cluster was ready, and until its result."""
    said = kernel.run(f"_r = {job}.record; print(_r.spec.created, _r.steps['cluster'].end, _r.ended)").check()
    created, ready, ended = map(float, said.stdout.split())
    return {"cluster ready": ready - created, "result": ended - created}


def test_the_quickstart_runs_and_makes_its_own_cluster(tenant: Tenant, notebook: Jupyter) -> None:
    assert tenant.clusters() == []
    content, kernel = notebook.open("quickstart.ipynb")
    on_disk = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    sources = ["".join(cell["source"]) for cell in on_disk["cells"] if cell["cell_type"] == "code"]
    assert [cell["source"] for cell in content["cells"] if cell["cell_type"] == "code"] == sources
    with kernel:
        runs = [kernel.run(source).check() for source in [*sources, demo.VALUES]]
        review(runs)
        took = seconds_of(kernel, "forecasts")
        print(f"\nfrom nothing, caches cold: {words(took)}")
        loaded = kernel.run("import sys; print('ray' in sys.modules, 'kubernetes' in sys.modules)").check()
        assert loaded.stdout == "False False\n", "neither Ray nor the Kubernetes client is in a kernel"
    [made] = tenant.clusters()
    assert made["metadata"]["labels"].items() >= labels_of(OWNER, "default").items()
    assert "POST /rayoffload/api/clusters" in tenant.log("jupyter-tested"), "the server has made the cluster"


def review(runs: list[Run]) -> None:
    """Let the demo look at what came back."""
    check = demo.Checks()
    cells = {}
    for run, outputs in zip(runs, fold(runs), strict=True):
        cells[run.source.partition("\n")[0]] = Cell(outputs)
    demo.review(cells, check)
    assert not check.failed


@dataclass(frozen=True)
class Cell:
    """A cell with its outputs, as a notebook has them."""

    outputs: list[Any]


def words(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} after {took:.1f} s" for name, took in seconds.items())


def test_our_own_share_of_a_start_is_small(tenant: Tenant, notebook: Jupyter) -> None:
    """Beside the same RayCluster, made by hand and asked until Ray itself answers; the best of three."""
    _, kernel = notebook.open("quickstart.ipynb")
    own = []
    with kernel:
        kernel.run("%load_ext jupyter_rayoffload").check()
        for _ in range(3):
            kernel.run("%ray cluster down --force").check()
            until(lambda: not tenant.pods(), "no Ray pod")
            hand = ByHand(tenant)
            plain = timed(hand.create, hand.answers, "Ray answers")
            hand.delete()
            until(lambda: not tenant.pods(), "no Ray pod")
            kernel.run("%%ray_job timed --wait\nanswer = 6 * 7").check()
            assert kernel.run("answer").check().value == "42"
            took = seconds_of(kernel, "timed")
            own.append(took["cluster ready"] - plain)
            print(f"\nRay answers {plain:.1f} s after a plain create; {words(took)}: ours is {own[-1]:.1f} s")
            if own[-1] < OWN_SECONDS:
                return
    pytest.fail(f"our own share of a start is {min(own):.1f} s: the machine is too busy, or we are slow")


class ByHand:
    """The same RayCluster, as somebody with ``kubectl`` makes and changes it."""

    def __init__(self, tenant: Tenant) -> None:
        data = tenant.core.read_namespaced_secret("rayoffload-token", tenant.namespace).data
        self.tenant, self.token = tenant, base64.b64decode(data["auth_token"]).decode()
        spec = ClusterSpec.from_json(cluster()).replace(image=ray_image(), ray=ray_version())
        self.body = ray_cluster(spec, "by-hand", tenant.namespace)
        self.where = ("ray.io", "v1", tenant.namespace, "rayclusters")

    def create(self) -> None:
        self.tenant.custom.create_namespaced_custom_object(*self.where, self.body)

    def scale(self, workers: int) -> None:
        [group] = self.body["spec"]["workerGroupSpecs"]
        self._patch(workerGroupSpecs=[{**group, "replicas": workers, "maxReplicas": workers}])

    def suspend(self, suspended: bool) -> None:
        self._patch(suspend=suspended)

    def _patch(self, **spec: Any) -> None:
        self.tenant.custom.patch_namespaced_custom_object(
            *self.where, self.body["metadata"]["name"], {"spec": spec}
        )

    def delete(self) -> None:
        self.tenant.custom.delete_namespaced_custom_object(*self.where, self.body["metadata"]["name"])

    def answers(self) -> bool:
        """Whether Ray itself answers."""
        addresses = [pod.status.pod_ip for pod in self.tenant.pods("head")]
        if not (addresses and addresses[0]):
            return False
        request = Request(
            f"http://{addresses[0]}:8265/api/version", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urlopen(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


def timed(action: Callable[[], Any], done: Callable[[], bool], what: str) -> float:
    """Do something, wait until it is done, and give how long that took, seconds."""
    began = time.monotonic()
    action()
    until(done, what)
    return time.monotonic() - began


def test_a_verb_takes_little_longer_than_the_same_by_hand(tenant: Tenant, notebook: Jupyter) -> None:
    """Each beside the plain change of the same object; the best of three rounds."""

    def running(count: int) -> bool:
        return [pod.status.phase for pod in tenant.pods("worker")] == ["Running"] * count

    def gone() -> bool:
        return not tenant.pods()

    def by_hand() -> dict[str, float]:
        hand = ByHand(tenant)
        hand.create()
        until(lambda: hand.answers() and running(1), "the cluster made by hand")
        return {
            "scale": timed(lambda: hand.scale(2), lambda: running(2), "two workers"),
            "suspend": timed(lambda: hand.suspend(True), gone, "no Ray pod"),
            "wake": timed(lambda: hand.suspend(False), hand.answers, "Ray answers"),
            "delete": timed(hand.delete, gone, "no Ray pod"),
        }

    def by_verb(kernel: NotebookKernel) -> dict[str, float]:
        def say(cell: str) -> None:
            kernel.run(cell).check()

        say("%%ray_job --wait\nfirst = 1")
        until(lambda: running(1), "a worker")
        took = {
            "scale": timed(lambda: say("%ray cluster scale 2"), lambda: running(2), "two workers"),
            "suspend": timed(lambda: say("%ray cluster suspend"), gone, "no Ray pod"),
        }
        say("%%ray_job woken --wait\nsecond = 2")
        took["wake"] = seconds_of(kernel, "woken")["cluster ready"]
        took["delete"] = timed(lambda: say("%ray cluster down"), gone, "no Ray pod")
        return took

    _, kernel = notebook.open("quickstart.ipynb")
    own: dict[str, float] = {}
    with kernel:
        kernel.run("%load_ext jupyter_rayoffload\n%ray cluster down --force").check()
        for _ in range(3):
            until(gone, "no Ray pod")
            plain, ours = by_hand(), by_verb(kernel)
            print(f"\nby hand: {words(plain)}; by verb: {words(ours)}")
            own = {verb: min(own.get(verb, 999), ours[verb] - plain[verb]) for verb in plain}
            if max(own.values()) < OWN_SECONDS:
                return
    pytest.fail(f"our own share is too large: {words(own)}")


def test_a_suspended_cluster_wakes_by_a_cell_and_is_scaled_and_deleted(
    tenant: Tenant, notebook: Jupyter
) -> None:
    def running(kind: str) -> int:
        return sum(pod.status.phase == "Running" for pod in tenant.pods(kind))

    _, kernel = notebook.open("quickstart.ipynb")
    with kernel:
        kernel.run("%load_ext jupyter_rayoffload").check()
        kernel.run("%%ray_job --wait\nfirst = 'here'").check()
        [before] = tenant.clusters()
        assert "being suspended" in kernel.run("%ray cluster suspend").check().stdout
        until(lambda: not tenant.pods(), "no Ray pod")
        assert "suspended" in kernel.run("%ray").check().stdout.lower()
        kernel.run("%%ray_job --wait\nsecond = first + ' again'").check()
        assert kernel.run("second").check().value == "'here again'"
        [after] = tenant.clusters()
        assert after["metadata"]["uid"] == before["metadata"]["uid"]

        kernel.run("%ray cluster scale 2").check()
        until(lambda: running("worker") == 2, "two workers")
        kernel.run("%ray cluster scale 1").check()
        until(lambda: len(tenant.pods("worker")) == 1, "one worker")
        kernel.run("%%ray_job --wait\nthird = second.upper()").check()
        assert kernel.run("third").check().value == "'HERE AGAIN'"

        assert "down" in kernel.run("%ray cluster down").check().stdout
        assert tenant.clusters() == [] and tenant.pods() == []


def test_a_pod_without_rights_is_told_which_and_starts_no_ray(tenant: Tenant) -> None:
    name = "without-rights"
    tenant.core.create_namespaced_service_account(tenant.namespace, {"metadata": {"name": name}})
    before = tenant.clusters()
    _, kernel = tenant.start(name, account=name).open("quickstart.ipynb")
    with kernel:
        kernel.run("%load_ext jupyter_rayoffload").check()
        failed = kernel.run("%%ray_job --wait\nx = 1")
        assert not failed.ok
        said = "\n".join(failed.reply["traceback"])
        assert "may not create rayclusters.ray.io" in said and tenant.namespace in said
        listed = kernel.run("!ps -eo args").check().stdout
        assert "jupyter" in listed and "raylet" not in listed and "gcs_server" not in listed
    assert tenant.clusters() == before


def test_the_image_of_the_notebook_has_no_ray_and_the_extension_is_on(
    tenant: Tenant, notebook: Jupyter
) -> None:
    _, kernel = notebook.open("quickstart.ipynb")
    with kernel:
        found = kernel.run("import importlib.util; print(importlib.util.find_spec('ray'))").check()
        assert found.stdout == "None\n"
        on = kernel.run("!jupyter server extension list 2>&1").check().stdout
        assert "jupyter_rayoffload" in on and "enabled" in on
        assert HOME in kernel.run("%pwd").check().value
    store = one(tenant.objects, "Secret", "rayoffload-store")
    connection = json.loads(base64.b64decode(store["data"]["connection.json"]))
    assert connection["ray"]["address"] == "", "the RayCluster is not configured, but made"
