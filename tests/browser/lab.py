"""A JupyterLab of its own for tests in a browser: on loopback, with a token, below a folder of its own."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from nbformat import NotebookNode, read, write
from nbformat.v4 import new_code_cell, new_notebook

from jupyter_rayoffload.errors import ClusterError
from tests.ray_fixture import SETTINGS, jupyter_environment, make_backend, run, short_folder, start
from tests.servers import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Seconds until the server must answer: the machine may be busy.
START_SECONDS = 120
CLUSTER_ATTEMPTS = 4

#: Nothing that asks the network or stands in the way.
_OVERRIDES = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
}


@dataclass
class Lab:
    """One running JupyterLab, and the folder that it serves.

    Parameters
    ----------
    root : Path
        Holds everything; short, for unix sockets are below it.
    more : Mapping of str to str
        Variables of the environment besides: another back end than the embedded one.
    """

    root: Path
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The folder that it serves: a copy of the examples."""
        return self.root / "work"

    @property
    def environment(self) -> dict[str, str]:
        """What keeps server, kernels and cluster below the root."""
        settings = {f"RAYOFFLOAD_{name.upper()}": str(value) for name, value in SETTINGS.items()}
        places = {"IPYTHONDIR": str(self.root / "ipython"), "JUPYTER_TOKEN": self.token}
        return {**jupyter_environment(self.root), **settings, **places, **self.more}

    def address(self, path: str) -> str:
        """Give the address of a notebook, alone in its workspace."""
        return f"http://127.0.0.1:{self.port}/doc/tree/{path}?token={self.token}&reset"

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._lay_out()
        self.serve()

    def _lay_out(self) -> None:
        shutil.copytree(EXAMPLES, self.folder, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_*"))
        overrides = self.root / "etc" / "labconfig" / "default_setting_overrides.json"
        overrides.parent.mkdir(parents=True)
        overrides.write_text(json.dumps(_OVERRIDES))

    def serve(self) -> None:
        """Start the server alone, and return when it answers; also again, after :meth:`end_server`."""
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": self.port,
            "ServerApp.port_retries": 0,
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            "ServerApp.root_dir": self.folder,
            "ServerApp.terminals_enabled": False,
            "LabApp.extension_manager": "readonly",
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
            "LabApp.expose_app_in_browser": True,
            "JupyterNotebookApp.expose_app_in_browser": True,  # the same server has Notebook 7
        }
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            *(f"--{key}={value}" for key, value in options.items()),
        ]
        with (self.root / "lab.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._await()

    def _await(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        request = Request(
            f"http://127.0.0.1:{self.port}/api", headers={"Authorization": f"token {self.token}"}
        )
        while True:
            try:
                with urlopen(request, timeout=10):
                    return
            except (URLError, OSError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.root / "lab.log").read_text()[-3000:]) from None
                time.sleep(0.1)

    def start_cluster(self) -> None:
        """Start the cluster that its kernels will find; Ray gives up early on a busy machine."""
        for attempt in range(CLUSTER_ATTEMPTS):
            try:
                start(make_backend(self.root))
                return
            except ClusterError:
                if attempt + 1 == CLUSTER_ATTEMPTS:
                    raise

    def end_server(self, kill: bool = False) -> None:
        """End the server with its kernels, or kill it so that they go on."""
        if self.process is None:
            return
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process = None

    def stop(self) -> None:
        """End the server with its kernels, and then the cluster that they have started."""
        self.end_server()
        run(make_backend(self.root).delete())

    def add(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook of code cells; give its path for :meth:`address`."""
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(
            cells=[new_code_cell(source) for source in cells], metadata={"kernelspec": kernel}
        )
        write(notebook, self.folder / name)
        return name

    def saved(self, name: str) -> NotebookNode:
        """Give a notebook as it is on disk."""
        return read(self.folder / name, as_version=4)


@contextmanager
def running_lab() -> Iterator[Lab]:
    """Start a JupyterLab, and end it and its cluster afterwards, whatever has happened."""
    with short_folder() as root:
        lab = Lab(root)
        try:
            lab.start()
            yield lab
        finally:
            lab.stop()
