"""Each part of a tenant is killed in the middle of a job, and comes back: what holds, and what is said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kubernetes import client

from tests.kubernetes.bed import Bed
from tests.kubernetes.ground import until
from tests.kubernetes.notebooks import Jupyter, NotebookKernel
from tests.kubernetes.tenants import REDIS, Tenant, redis_runs

#: How long the API server is away, seconds: longer than whoever has a lease keeps it without one.
AWAY = 30.0
#: Within this time, in seconds, a job that has gone with its cluster must be known to be lost.
LOST = 90.0
#: Where the extension of the Jupyter server answers.
API = "rayoffload/api"


@pytest.fixture
def kernel(notebook: Jupyter) -> Iterator[NotebookKernel]:
    """Give a kernel of the tenant's notebook, with a cluster that has a worker."""
    _, kernel = notebook.open("quickstart.ipynb")
    with kernel:
        kernel.run("%load_ext jupyter_rayoffload").check()
        kernel.run(
            "%%ray_job --wait\nimport ray\nthere = ray.get(ray.remote(lambda: 6 * 7).remote())"
        ).check()
        assert kernel.run("there").check().value == "42"
        yield kernel


def begun(kernel: NotebookKernel, name: str, seconds: int) -> str:
    """Start a job that counts seconds, see that it does, and give its id."""
    cell = f"import time\nfor second in range({seconds}):\n    print(second)\n    time.sleep(1)\n'the end'"
    kernel.run(f"%%ray_job {name}\n{cell}", headless=False).check()
    until(lambda: said(kernel, f"print({name}.logs())").startswith("0\n1"), f"job {name} counts")
    return said(kernel, f"print({name}.id)")


def said(kernel: NotebookKernel, source: str) -> str:
    """Run a cell, and give what it has printed."""
    return kernel.run(source).check().stdout.strip()


def is_whole(kernel: NotebookKernel, name: str, seconds: int) -> bool:
    """See that a job ends as if nothing had been, with every line in its place."""
    assert said(kernel, f"print({name}.result(timeout=240))") == "the end"
    lines = said(kernel, f"print({name}.logs())").splitlines()
    assert lines == [str(second) for second in range(seconds)]
    return True


def killed(tenant: Tenant, pod: Any) -> None:
    """End a pod at once, and wait until it is gone; another may have its name by then."""
    name, uid = pod.metadata.name, pod.metadata.uid
    tenant.core.delete_namespaced_pod(name, tenant.namespace, grace_period_seconds=0)
    until(lambda: uid not in uids(tenant), f"the end of {name}")
    until(lambda: not processes(uid), f"the end of what ran in {name}")


def uids(tenant: Tenant) -> set[str]:
    return {pod.metadata.uid for pod in tenant.core.list_namespaced_pod(tenant.namespace).items}


def processes(uid: str) -> list[psutil.Process]:
    """Give the processes of a pod: they are this machine's own, in control groups named after it."""
    found = []
    for process in psutil.process_iter():
        try:
            if f"pod{uid}" in Path(f"/proc/{process.pid}/cgroup").read_text():
                found.append(process)
        except OSError:  # it has just ended
            continue
    return found


def ready(tenant: Tenant, kind: str) -> list[Any]:
    """Give the Ray pods of a kind that are ready."""
    return [
        pod
        for pod in tenant.pods(kind)
        if not pod.metadata.deletion_timestamp
        and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or ())
    ]


def works(kernel: NotebookKernel) -> None:
    """See that a cell gets its result from the cluster."""
    kernel.run("%%ray_job --wait\nafterwards = 'fine'").check()
    assert kernel.run("afterwards").check().value == "'fine'"


def test_the_jupyter_server(tenant: Tenant, notebook: Jupyter, kernel: NotebookKernel) -> None:
    """With it go its kernels, in a pod: the job goes on, and the next kernel has all of it."""
    job = begun(kernel, "counting", 30)
    pod = tenant.core.read_namespaced_pod("jupyter-tested", tenant.namespace)
    [server] = [p for p in processes(pod.metadata.uid) if "--port=8888" in p.cmdline()]
    server.kill()
    until(lambda: not server.is_running(), "the end of the server")
    until(notebook.answers, "the server that the kubelet has started again")
    [listed] = notebook.api("GET", f"{API}/clusters")["clusters"]
    assert listed["phase"] == "running"
    assert job in [entry["id"] for entry in notebook.api("GET", f"{API}/jobs")["jobs"]]
    _, after = notebook.open("quickstart.ipynb")
    with after:
        after.run(f"from jupyter_rayoffload import attach\nsame = attach({job!r})").check()
        assert is_whole(after, "same", 30)
        after.run("%load_ext jupyter_rayoffload").check()
        works(after)


def test_the_notebook_pod(tenant: Tenant, kernel: NotebookKernel) -> None:
    [cluster] = tenant.clusters()
    _, doomed = tenant.start("jupyter-doomed").open("quickstart.ipynb")
    with doomed:
        doomed.run("%load_ext jupyter_rayoffload").check()
        job = begun(doomed, "counting", 30)
        killed(tenant, tenant.core.read_namespaced_pod("jupyter-doomed", tenant.namespace))
    _, after = tenant.start("jupyter-next").open("quickstart.ipynb")
    with after:
        after.run(f"from jupyter_rayoffload import attach\nsame = attach({job!r})").check()
        assert is_whole(after, "same", 30)
        after.run("%load_ext jupyter_rayoffload").check()
        works(after)
    assert [made["metadata"]["uid"] for made in tenant.clusters()] == [cluster["metadata"]["uid"]]
    killed(tenant, tenant.core.read_namespaced_pod("jupyter-next", tenant.namespace))


def test_the_head_pod(tenant: Tenant, kernel: NotebookKernel) -> None:
    kernel.run("numbers = [1, 2, 3]").check()
    kernel.run(
        "%%ray_job doomed\nimport time\nprint('so far', sum(numbers))\ntime.sleep(600)", headless=False
    ).check()
    until(lambda: said(kernel, "print(doomed.logs())") == "so far 6", "the job runs")
    kernel.run("numbers[:] = [9]").check()
    [head] = tenant.pods("head")
    began = time.monotonic()
    killed(tenant, head)
    until(lambda: said(kernel, "print(doomed.phase.value)") == "lost", "the job is known to be lost", LOST)
    print(f"\nlost after {time.monotonic() - began:.1f} s: {said(kernel, 'print(doomed.exception())')}")
    why = said(kernel, "print(type(doomed.exception()).__name__, doomed.exception())")
    assert why.startswith("JobLost ") and "head" in why and "%ray rerun" in why
    assert said(kernel, "print(doomed.logs())") == "so far 6"
    until(lambda: ready(tenant, "head") and ready(tenant, "worker"), "KubeRay has made another head")
    works(kernel)
    kernel.run("again = doomed.rerun()").check()
    until(lambda: said(kernel, "print(again.logs())") == "so far 6", "it runs again from its frozen input")
    kernel.run("again.cancel()").check()


def test_a_worker_pod(tenant: Tenant, kernel: NotebookKernel) -> None:
    """Cells run on workers: a job whose own one dies ends with the reason, and the next has another."""
    begun(kernel, "doomed", 600)
    [worker] = tenant.pods("worker")
    began = time.monotonic()
    killed(tenant, worker)
    ended = ("failed", "lost")
    until(lambda: said(kernel, "print(doomed.phase.value)") in ended, "the job has ended", LOST)
    why = said(kernel, "print(type(doomed.exception()).__name__, doomed.exception())")
    print(f"\nended after {time.monotonic() - began:.1f} s: {why}")
    assert why.startswith("JobCrashed The node that the job ran on died") and "%ray rerun" in why
    assert said(kernel, "print(doomed.logs())").startswith("0\n1")
    until(lambda: ready(tenant, "worker"), "KubeRay has made another worker")
    works(kernel)


@pytest.fixture
def without(bed: Bed) -> Iterator[Callable[[str], Callable[[], None]]]:
    """Give what kills a program of the bed, and gives what brings it back, with those that ended for it."""
    away = set()

    def kill(program: str) -> Callable[[], None]:
        bed.stop(program)
        away.add(program)

        def restore() -> None:
            bed.restart(program)
            away.discard(program)
            print(f"\nstarted again beside {program}: {bed.revive()}")

        return restore

    yield kill
    for program in away:
        bed.restart(program)
    bed.revive()


def test_the_operator(
    tenant: Tenant, kernel: NotebookKernel, without: Callable[[str], Callable[[], None]]
) -> None:
    begun(kernel, "counting", 15)
    restore = without("kuberay-operator")
    works(kernel)
    assert is_whole(kernel, "counting", 15)
    # What is asked for meanwhile is done when it is back.
    kernel.run("%ray cluster scale 2").check()
    time.sleep(5)
    assert len(tenant.pods("worker")) == 1
    restore()
    until(lambda: len(ready(tenant, "worker")) == 2, "the second worker")
    kernel.run("%ray cluster scale 1").check()
    until(lambda: len(tenant.pods("worker")) == 1, "one worker")


def test_the_api_server_for_half_a_minute(
    tenant: Tenant,
    notebook: Jupyter,
    kernel: NotebookKernel,
    without: Callable[[str], Callable[[], None]],
) -> None:
    begun(kernel, "counting", 40)
    restore = without("kube-apiserver")
    began = time.monotonic()
    until(lambda: "not answer since" in said(kernel, "%ray"), "the silence is said", AWAY)
    assert notebook.api("GET", f"{API}/clusters/default")["phase"] == "unknown"
    works(kernel)
    _, new = notebook.open("quickstart.ipynb")
    with new:
        new.run("%load_ext jupyter_rayoffload").check()
        works(new)
    print(f"\nsaid, and worked without it, after {time.monotonic() - began:.1f} s")
    time.sleep(max(0.0, began + AWAY - time.monotonic()))
    assert said(kernel, "print(counting.phase.value)") in ("running", "succeeded")
    restore()
    assert is_whole(kernel, "counting", 40)
    until(
        lambda: notebook.api("GET", f"{API}/clusters/default")["phase"] == "running",
        "the cluster is seen again",
        60,
    )
    kernel.run("%ray cluster scale 2").check()
    until(lambda: len(ready(tenant, "worker")) == 2, "scheduler, controllers and operator work again")
    kernel.run("%ray cluster scale 1").check()
    until(lambda: len(tenant.pods("worker")) == 1, "one worker")


def test_redis(
    tenant: Tenant, admin: client.ApiClient, core: client.CoreV1Api, kernel: NotebookKernel
) -> None:
    """What a job prints meanwhile is kept where it runs, and comes in order."""

    def wanted(pods: int) -> None:
        body = {"spec": {"replicas": pods}}
        client.AppsV1Api(admin).patch_namespaced_stateful_set_scale(REDIS, tenant.namespace, body)

    begun(kernel, "counting", 60)
    redis = core.read_namespaced_pod(f"{REDIS}-0", tenant.namespace)
    began = time.monotonic()
    wanted(0)
    try:
        killed(tenant, redis)
        time.sleep(20)
        assert said(kernel, "print(counting.phase.value)") == "running"
    finally:
        wanted(1)
    redis_runs(core, tenant.namespace, after=redis.metadata.uid)
    print(f"\nRedis was away for {time.monotonic() - began:.1f} s")
    assert is_whole(kernel, "counting", 60)
    works(kernel)
