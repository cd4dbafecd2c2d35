"""Standbys in workers' pods: they serve the next cell, and give way to all else that wants their place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kubernetes import watch

from tests.kubernetes.ground import LIMIT, until
from tests.kubernetes.notebooks import Jupyter, NotebookKernel
from tests.kubernetes.tenants import Tenant, cluster, settings
from tests.kubernetes.test_faults import API, killed, ready, said

#: Exit code of a container that the kubelet had to kill, for it had not ended in its grace.
KILLED = 137


def small(**changes: Any) -> str:
    """Give a cluster whose one worker has room for one standby, or one job."""
    made = cluster()
    [group] = made["groups"]
    groups = [{**group, "pod": {**group["pod"], "cpus": 1}}]
    return json.dumps({**made, "groups": groups, **changes})


@pytest.fixture(scope="module")
def server(tenant: Tenant) -> Jupyter:
    """Give the Jupyter server of somebody who asks for standbys."""
    env = {**settings(), "RAYOFFLOAD_STANDBY": "1", "RAYOFFLOAD_KUBERNETES_CLUSTER": small()}
    return tenant.start("jupyter-standing", env=env)


@pytest.fixture
def kernel(server: Jupyter) -> Iterator[NotebookKernel]:
    """Give a kernel behind whose first cell a standby waits."""
    _, kernel = server.open("quickstart.ipynb")
    with kernel:
        kernel.run("%load_ext jupyter_rayoffload").check()
        kernel.run("%%ray_job --wait\nfirst = 1").check()
        until(lambda: standbys(server) == 1, "a standby waits")
        yield kernel


def standbys(server: Jupyter) -> int:
    """Give how many wait, as the sidebar shows it."""
    return int(server.api("GET", f"{API}/clusters/default")["standbys"])


def submission(kernel: NotebookKernel, job: str) -> str:
    return said(kernel, f"print({job}.record.submission_id)")


def test_the_next_cell_is_handed_to_one_in_a_worker(tenant: Tenant, kernel: NotebookKernel) -> None:
    [worker] = tenant.pods("worker")
    kernel.run("numbers = [1, 2, 3]").check()
    cell = "import socket\nfound = sum(numbers), socket.gethostname()"
    kernel.run(f"%%ray_job second --wait\n{cell}").check()
    assert kernel.run("found").check().value == repr((6, worker.metadata.name))
    assert submission(kernel, "second").startswith("standby-")


def test_it_ends_when_a_job_waits_for_its_place(
    tenant: Tenant, server: Jupyter, kernel: NotebookKernel
) -> None:
    began = time.monotonic()
    kernel.run("%%ray_job needy --cpus 1 --wait\nanswer = 6 * 7", limit=120).check()
    print(f"\nthe job has run after {time.monotonic() - began:.1f} s")
    assert kernel.run("answer").check().value == "42"
    assert submission(kernel, "needy") == said(kernel, "print(needy.id)") + "-1"
    assert len(tenant.pods("worker")) == 1, "no worker was added for it"
    kernel.run("%%ray_job again --wait\nanswer += 1").check()
    until(lambda: standbys(server) == 1, "the next one waits, where there is room again")
    assert kernel.run("answer").check().value == "43"


def test_the_next_cell_runs_by_itself_where_the_pod_of_one_has_gone(
    tenant: Tenant, kernel: NotebookKernel
) -> None:
    [worker] = tenant.pods("worker")
    killed(tenant, worker)
    kernel.run("%%ray_job alone --wait\nimport socket\nplace = socket.gethostname()").check()
    assert submission(kernel, "alone") == said(kernel, "print(alone.id)") + "-1"
    [another] = ready(tenant, "worker")
    assert kernel.run("place").check().value == repr(another.metadata.name) != repr(worker.metadata.name)


def by_verb(kernel: NotebookKernel, server: Jupyter) -> None:
    kernel.run("%ray cluster suspend").check()


def by_rest(kernel: NotebookKernel, server: Jupyter) -> None:
    server.api("POST", f"{API}/clusters/default/suspend")


def deleted(kernel: NotebookKernel, server: Jupyter) -> None:
    server.api("DELETE", f"{API}/clusters/default")


@pytest.mark.parametrize("end", [by_verb, by_rest, deleted])
def test_no_pod_has_to_be_killed_for_one(
    tenant: Tenant,
    server: Jupyter,
    kernel: NotebookKernel,
    end: Callable[[NotebookKernel, Jupyter], None],
) -> None:
    """Ray drains a pod as long as something runs there, and the kubelet waits for it in vain."""
    with ThreadPoolExecutor(1) as thread:
        codes = thread.submit(exit_codes, tenant, {pod.metadata.name for pod in tenant.pods()})
        began = time.monotonic()
        end(kernel, server)
        until(lambda: not tenant.pods(), "no Ray pod")
        print(f"\nall pods have gone after {time.monotonic() - began:.1f} s: {codes.result(LIMIT)}")
    assert len(codes.result()) == 2 and KILLED not in codes.result().values()


def exit_codes(tenant: Tenant, left: set[str]) -> dict[str, int]:
    """Watch Ray pods until they have gone, and give how each ended."""
    ended: dict[str, int] = {}
    stream = watch.Watch().stream(
        tenant.core.list_namespaced_pod,
        tenant.namespace,
        label_selector="ray.io/is-ray-node=yes",
        timeout_seconds=int(LIMIT),
    )
    for event in stream:
        pod = event["object"]
        for container in pod.status.container_statuses or ():
            if container.state.terminated:
                ended[pod.metadata.name] = container.state.terminated.exit_code
        if event["type"] == "DELETED":
            left.discard(pod.metadata.name)
        if not left:
            return ended
    raise AssertionError(f"still there: {left}")


def test_an_autoscaled_worker_goes_when_one_has_waited_in_vain(tenant: Tenant) -> None:
    env = {
        **settings(),
        "RAYOFFLOAD_STANDBY": "1",
        "RAYOFFLOAD_STANDBY_IDLE": "20",
        "RAYOFFLOAD_KUBERNETES_CLUSTER": small(autoscale=True, idle_seconds=5),
    }
    server = tenant.start("jupyter-scaled", env=env)
    _, kernel = server.open("quickstart.ipynb")
    with kernel:
        kernel.run("%load_ext jupyter_rayoffload").check()
        kernel.run("%%ray_job --wait\nfirst = 1").check()
        until(lambda: standbys(server) == 1, "a standby waits")
        assert len(tenant.pods("worker")) == 1
        until(lambda: not tenant.pods("worker"), "the worker has gone")
        assert standbys(server) == 0
        kernel.run("%%ray_job --wait\nsecond = first + 1").check()
        assert kernel.run("second").check().value == "2"
        kernel.run("%ray cluster down").check()
