"""A laptop: a script and the quickstart run by way of the API server alone, by a restricted account."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.kubernetes.manifest import object_name
from jupyter_rayoffload.models import ClusterInfo, ClusterSpec, PodSpec
from jupyter_rayoffload.remote.store import StoreAddress
from tests.kubernetes.bed import Bed
from tests.kubernetes.bed.image import ray_image, ray_version
from tests.kubernetes.ground import LIMIT, until
from tests.kubernetes.tenants import EXAMPLES
from tests.ray_fixture import short_folder
from tests.servers import RedisServer

ROOT = EXAMPLES.parent
#: Variables of this test's own environment that a laptop has not.
FOREIGN = ("RAYOFFLOAD_", "KUBERNETES_", "PYTHON", "PYTEST", "VIRTUAL_ENV")
#: What a person has there for notebooks, and what the quickstart imports.
NOTEBOOKS = ("ipykernel", "nbclient", "pandas", "matplotlib", "tqdm")
NAME, SECRET, REDIS = object_name("ada", "default"), "rayoffload-store", "rayoffload-redis"
#: What docs/clusters.md asks a site to grant to whoever is outside, and nothing more.
ROLE = [
    {
        "apiGroups": ["ray.io"],
        "resources": ["rayclusters"],
        "verbs": ["get", "list", "watch", "create", "delete", "patch"],
    },
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [NAME, SECRET], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["services"], "resourceNames": [REDIS], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get", "create", "update", "delete"]},
    {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
]
SPEC = ClusterSpec(
    image=ray_image(),
    ray=ray_version(),
    head=PodSpec(
        cpus=3,  # the job takes one, and its own tasks want some
        memory=4 << 30,
        requests={"cpu": "100m", "memory": "512Mi"},
        start_params={"object-store-memory": str(100 << 20)},
    ),
    groups=(),
    store_secret=SECRET,
)
#: Stands in a pod in front of a Redis of this machine: the bed has no image of one.
RELAY = """
import asyncio, sys

async def pump(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()

async def serve(reader, writer):
    there, to = await asyncio.open_connection(sys.argv[1], int(sys.argv[2]))
    await asyncio.gather(pump(reader, to), pump(there, writer), return_exceptions=True)

async def main():
    async with await asyncio.start_server(serve, "0.0.0.0", 6379) as server:
        await server.serve_forever()

asyncio.run(main())
"""
#: What somebody does on a laptop, with settings in the environment alone.
SCRIPT = """
import hashlib, os, sys, tempfile
from pathlib import Path

from jupyter_rayoffload import submit

job = submit(
    "import ray, socket\\n"
    "print('Hello from', socket.gethostname())\\n"
    "total = ray.get(ray.remote(lambda given: sum(given)).remote(numbers))\\n"
    "total",
    inputs={"numbers": list(range(10))},
)
print(job.result(), job.outputs["total"], flush=True)
print(job.logs(), flush=True)
data = os.urandom(30 << 20)
back = submit(lambda given: given[::-1], data).result()
print("reversed" if back == data[::-1] else "another one", flush=True)
print([p.name for p in Path(tempfile.gettempdir()).glob("rayoffload-forward-*")])
"""


@pytest.fixture
def store(bed: Bed, namespace: str, core: client.CoreV1Api) -> Iterator[StoreAddress]:
    """Run a Redis here, with a pod and a service in front of it as a tenant's Redis has them."""
    with short_folder() as folder:
        server = RedisServer(folder, options=("--bind", "127.0.0.1", bed.place.machine))
        server.start()
        try:
            labels = {"app.kubernetes.io/name": REDIS}
            container: dict[str, Any] = {
                "name": "redis",
                "image": ray_image(),
                "command": ["python", "-c", RELAY, bed.place.machine, str(server.port)],
                "ports": [{"name": "redis", "containerPort": 6379}],
                "readinessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 1},
            }
            core.create_namespaced_pod(
                namespace,
                {"metadata": {"name": f"{REDIS}-0", "labels": labels}, "spec": {"containers": [container]}},
            )
            ports = [{"name": "redis", "port": 6379, "targetPort": "redis"}]
            core.create_namespaced_service(
                namespace, {"metadata": {"name": REDIS}, "spec": {"selector": labels, "ports": ports}}
            )
            url = f"redis://{REDIS}.{namespace}.svc:6379/0"
            yield StoreAddress(url=url, password=server.password)
        finally:
            server.stop()


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """Install what a laptop needs, which is no Ray, and what the quickstart imports; give its Python."""
    folder = tmp_path / "laptop"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    uv = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", python]
    subprocess.run([*uv, f"{ROOT}[kubernetes]", *NOTEBOOKS], check=True, timeout=300)
    return python


def settings(kubeconfig: Path, folder: Path) -> dict[str, str]:
    """Give the environment of a laptop: nothing of a pod, and nothing of this test's user."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    temporary = folder / "tmp"
    temporary.mkdir()
    return {
        **kept,
        "HOME": str(folder),
        "TMPDIR": str(temporary),
        "RAYOFFLOAD_BACKEND": "kubernetes",
        "RAYOFFLOAD_OWNER": "ada",
        "RAYOFFLOAD_KUBECONFIG": str(kubeconfig),
        "RAYOFFLOAD_KUBERNETES_CLUSTER": json.dumps(SPEC.to_json()),
        "RAYOFFLOAD_KUBERNETES_START_TIMEOUT": f"{LIMIT:g}s",
        "RAYOFFLOAD_CHECK_TIMEOUT": "30",
    }


def give_way(core: client.CoreV1Api, namespace: str, store: StoreAddress) -> None:
    """Put the way to the store where pods and people find it, and wait until it leads there."""
    file = Connection(ClusterInfo(), store, "ada", os.urandom(32), Path("unused"))
    content = base64.b64encode(json.dumps(file.to_json()).encode()).decode()
    core.create_namespaced_secret(
        namespace, {"metadata": {"name": SECRET}, "data": {"connection.json": content}}
    )

    def ready() -> bool:
        found = core.read_namespaced_pod(f"{REDIS}-0", namespace).status.container_statuses
        return bool(found) and found[0].ready

    until(ready, "the pod in front of Redis")


def test_cells_run_from_a_laptop_through_the_api_server_alone(
    bed: Bed,
    account: Callable[..., Path],
    namespace: str,
    core: client.CoreV1Api,
    store: StoreAddress,
    laptop: Path,
    tmp_path: Path,
) -> None:
    give_way(core, namespace, store)
    work = tmp_path / "work"
    work.mkdir()
    with short_folder() as home:
        environment = settings(account("laptop", ROLE), home)
        done, quickstart = (
            subprocess.run(
                [laptop, *command],
                env=environment,
                cwd=work,
                capture_output=True,
                text=True,
                timeout=400,
            )
            for command in (["-c", SCRIPT], [str(EXAMPLES / "demo.py")])
        )
        left = list((home / "tmp").iterdir())
        kept = [p for p in home.rglob("*") if p.is_file() and store.password.encode() in p.read_bytes()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert quickstart.returncode == 0, quickstart.stdout + quickstart.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "45 45"
    assert not list((laptop.parents[1] / "lib").glob("*/site-packages/ray")), "a laptop needs no Ray"
    assert f"Hello from {NAME}-head" in done.stdout
    assert "reversed" in lines
    assert lines[-1].startswith("['rayoffload-forward-"), "the store was reached by port-forward"
    assert not [p.name for p in left if p.name.startswith("rayoffload-forward-")]
    assert kept == [] and store.password not in done.stdout + done.stderr


CELL = """import socket, time
from IPython.display import HTML, display
display(HTML("<b>a table</b>"))
print("Hello from", socket.gethostname())
time.sleep(3)
answer = 6 * 7
answer"""


@pytest.mark.browser
def test_a_person_sees_it_all_beside_the_notebook(
    bed: Bed,
    account: Callable[..., Path],
    namespace: str,
    core: client.CoreV1Api,
    store: StoreAddress,
) -> None:
    """The sidebar's whole way, on a cluster of pods: form, start, a cell, its page, suspend, delete."""
    pytest.importorskip("selenium")
    from tests.browser.lab import Lab
    from tests.browser.page import MISSING, open_browser
    from tests.browser.sidebar import Sidebar

    if MISSING:
        pytest.skip(MISSING)
    give_way(core, namespace, store)
    with short_folder() as home, short_folder() as root:
        lab = Lab(root, more=settings(account("laptop", ROLE), home))
        lab.start()
        try:
            with open_browser(lab, (1300, 1000)) as page:
                sidebar = Sidebar(page)
                sidebar.open(lab.add("far.ipynb", ["%load_ext jupyter_rayoffload", CELL]))
                sidebar.says("No cluster yet")
                page.click("#jupyter-rayoffload-sidebar .jp-mod-primary")
                sidebar.says("Profile")  # what may be chosen, as the site has declared it
                page.click("#jupyter-rayoffload-sidebar form .jp-mod-primary")
                sidebar.says("Running", "CPU")
                page.run_cell(0)
                sidebar.run_on_ray(1)
                page.until(lambda: len(sidebar.jobs()) == 1, "the job")
                [(name, _)] = sidebar.jobs()
                sidebar.open_job(name)
                sidebar.page_says(f"Hello from {NAME}-head")
                sidebar.job_is(name, "Succeeded")
                page.click(".jp-RayOffload-facts .jp-mod-link")
                page.until(lambda: len(sidebar.outputs(1)) == 3, "the outputs at home")
                sidebar.cluster_verb("suspend")
                sidebar.dialog("Suspend cluster default?", "No job runs on it")
                sidebar.accept()
                sidebar.says("Suspended")
                assert name in [job for job, _ in sidebar.jobs()]  # its store is not suspended
                sidebar.cluster_verb("resume")
                sidebar.says("Running", "CPU")
                sidebar.cluster_verb("delete")
                sidebar.dialog("Delete cluster default?")
                sidebar.accept()
                sidebar.says("No cluster yet")
        finally:
            lab.end_server()
