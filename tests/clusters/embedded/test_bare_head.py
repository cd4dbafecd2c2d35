"""A cluster that has ``ray[default]`` and nothing else: the rest comes from the kernel."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import subprocess
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from jupyter_rayoffload import submit, submit_program
from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.clusters.connection import write_private
from jupyter_rayoffload.clusters.embedded import head
from jupyter_rayoffload.errors import MissingLibrary
from jupyter_rayoffload.models import ClusterInfo
from jupyter_rayoffload.remote.store import StoreAddress
from tests.distributions import closure
from tests.faults.ground import other_process
from tests.ray_fixture import jupyter_environment, short_folder
from tests.servers import RedisServer

pytestmark = pytest.mark.ray
#: How long a head may take to start on a busy machine, seconds.
START_SECONDS = 200


def bare_environment(folder: Path) -> Path:
    """Make an environment with ``ray[default]`` alone, of the files that are installed here; give its Python.

    Links instead of an installation: the same content, in a second and without a network.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name in closure("ray[default]"):
        distribution = metadata.distribution(name)
        base = Path(str(distribution.locate_file("")))
        tops = {file.parts[0] for file in distribution.files or ()}
        for top in tops - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(base / top)
    return folder / "bin" / "python"


def _answers(address: str, token: str) -> bool:
    request = urllib.request.Request(f"{address}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return b'"ALIVE"' in answer.read()
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(scope="module")
def python() -> Iterator[Path]:
    """Run such a head and a store, and let this process use them."""
    with short_folder() as root, pytest.MonkeyPatch.context() as patch:
        python = bare_environment(root / "env")
        store = RedisServer(root / "redis", unix=True)
        store.start()
        ports, token = head.free_ports(), "t" * 64
        write_private(root / "token", token)
        command = head.ray_command(root, ports, num_cpus=2, memory=2 << 30, object_store_memory=100 << 20)
        env = head.environment({"PATH": os.defpath, "HOME": str(root)}, root)
        env["PATH"] = f"{python.parent}{os.pathsep}{os.defpath}"
        log = (root / "ray.log").open("wb")
        ray = subprocess.Popen([str(python), *command[1:]], env=env, stdout=log, stderr=log, cwd=root)
        address = f"http://127.0.0.1:{ports.dashboard}"
        connection = Connection(
            info=ClusterInfo(address=address),
            store=StoreAddress(url=store.url, password=store.password),
            owner="tester",
            key=bytes(range(32)),
            file=root / "connection.json",
            ray_token=token,
        )
        connection.write()
        for name, value in jupyter_environment(root).items():
            patch.setenv(name, value)
        patch.setenv("RAYOFFLOAD_CONNECTION_FILE", str(connection.file))
        (root / "work").mkdir()
        patch.chdir(root / "work")
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(address, token):
                assert ray.poll() is None and time.monotonic() < deadline, (root / "ray.log").read_text()[
                    -3000:
                ]
                time.sleep(0.2)
            with other_process():
                yield python
        finally:
            _end(ray)
            log.close()
            store.stop()


def _end(ray: subprocess.Popen[bytes]) -> None:
    children = psutil.Process(ray.pid).children(recursive=True) if ray.poll() is None else []
    ray.terminate()
    ray.wait(30)
    for child in children:
        if child.is_running():
            child.kill()
    psutil.wait_procs(children, 10)


def test_nothing_of_ours_is_there(python: Path) -> None:
    for module in ("redis", "IPython", "cloudpickle", "hiredis", "blake3", "numpy", "jupyter_rayoffload"):
        done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, text=True)
        assert "ModuleNotFoundError" in done.stderr, module
    assert not subprocess.run([python, "-c", "import ray"]).returncode


def test_a_cell_runs_there_with_all_that_a_notebook_has(python: Path) -> None:
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec("def area(width):\n    return width * width", notebook)
    job = submit(
        "import sys, ray\n"
        "from IPython.display import HTML\n"
        "print('printed', sys.prefix)\n"
        "display(HTML('<b>shown</b>'))\n"
        "@ray.remote\n"
        "def task(width):\n    return area(width)\n"
        "total = sum(ray.get([task.remote(i) for i in range(4)]))\n"
        "!echo shell\n"
        "total",
        inputs={"area": notebook["area"]},
    )
    assert job.result(timeout=120) == 14
    assert f"printed {python.parents[1]}\n" in job.logs() + "\n"
    assert "shell" in job.logs()
    assert job.outputs["total"] == 14
    assert "<b>shown</b>" in str(job.displays.outputs)


def test_an_error_and_a_call_and_a_program_too(python: Path) -> None:
    failed = submit("raise ValueError('here')")
    error = failed.exception(timeout=120)
    assert isinstance(error, ValueError) and str(error) == "here"
    assert submit(sum, [1, 2, 3]).result(timeout=120) == 6
    Path("program.py").write_text(
        "from rayoffload_job import read_input, write_output\nwrite_output({'got': read_input()})\n"
    )
    assert submit_program("python program.py", input=[1, 2]).result(timeout=120) == {"got": [1, 2]}


def test_a_library_that_is_only_here_is_named(python: Path) -> None:
    import numpy

    job = submit("double = values * 2", inputs={"values": numpy.arange(3)})
    error = job.exception(timeout=120)
    assert isinstance(error, MissingLibrary), error
    assert "numpy" in str(error)
