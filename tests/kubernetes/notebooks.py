"""Notebook pods as JupyterHub's values start them, and the browser's part: REST and a websocket."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import websocket
import yaml
from jupyter_server.services.kernels.connection.base import deserialize_binary_message

from tests.kernel_client import Run

ROOT = Path(__file__).parents[2]
VALUES = ROOT / "kind" / "hub" / "values.yaml"
PORT = 8888
#: Where the pods have their notebooks: a volume, as with the hub.
HOME = "/home/jovyan"
#: Of zero-to-jupyterhub: who runs in the pod, and the group of its volumes.
USER, GROUP = 1000, 100
_UNITS = {"G": 10**9, "M": 10**6}


def values() -> dict[str, Any]:
    """Give what kind/hub/values.yaml says of users' pods."""
    found: dict[str, Any] = yaml.safe_load(VALUES.read_text())["singleuser"]
    return found


def environment(owner: str) -> dict[str, str]:
    """Give what the values put into the environment of a user's pod, as KubeSpawner fills it in."""
    return {key: value.format(username=owner) for key, value in values()["extraEnv"].items()}


def notebook_pod(name: str, image: str, owner: str, token: str, **changes: Any) -> dict[str, Any]:
    """Give the pod that KubeSpawner would make of the values, with a server that needs no hub.

    Parameters
    ----------
    name, image : str
    owner : str
        The user's name in JupyterHub.
    token : str
        Lets into its Jupyter server.
    **changes
        Of ``env``, a mapping that is laid over that of the values, and ``account``.
    """
    told = values()
    env = {**environment(owner), "JUPYTERHUB_USER": owner, "JUPYTER_TOKEN": token, "HOME": HOME}
    env |= changes.get("env", {})
    server = ["jupyter", "server", "--ip=0.0.0.0", f"--port={PORT}", f"--ServerApp.root_dir={HOME}"]
    container = {
        "name": "notebook",
        "image": image,
        "command": [*server, "--ServerApp.log_level=DEBUG"],  # which names every request
        "workingDir": HOME,
        "env": [{"name": key, "value": value} for key, value in env.items() if value is not None],
        "ports": [{"name": "notebook-port", "containerPort": PORT}],
        "resources": {
            "requests": {"cpu": str(told["cpu"]["guarantee"]), "memory": _bytes(told["memory"]["guarantee"])},
            "limits": {"cpu": str(told["cpu"]["limit"]), "memory": _bytes(told["memory"]["limit"])},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "runAsUser": USER},
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            *told["storage"]["extraVolumeMounts"],
        ],
    }
    labels = {"app": "jupyterhub", "component": "singleuser-server", **told["extraLabels"]}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "serviceAccountName": changes.get("account", told["serviceAccountName"]),
            "securityContext": {"fsGroup": GROUP},
            "restartPolicy": "OnFailure",
            "containers": [container],
            "volumes": [{"name": "home", "emptyDir": {}}, *told["storage"]["extraVolumes"]],
        },
    }


def _bytes(size: str) -> str:
    return str(int(float(size[:-1]) * _UNITS[size[-1]]))


class Jupyter:
    """A Jupyter server, as a front end speaks with it.

    Parameters
    ----------
    address : str
        Host or IP address of its pod.
    token : str
    """

    def __init__(self, address: str, token: str) -> None:
        self.place = f"{address}:{PORT}"
        self._headers = {"Authorization": f"token {token}"}

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for something below ``/``, and give what it answers."""
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        request = Request(f"http://{self.place}/{path}", data, headers, method=method)
        with urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def answers(self) -> bool:
        """Whether it can be used."""
        try:
            return bool(self.api("GET", "api/status"))
        except (URLError, OSError):
            return False

    def upload(self, file: Path, name: str = "") -> None:
        """Write a file into the notebooks' folder."""
        body = {"type": "file", "format": "text", "content": file.read_text()}
        self.api("PUT", f"api/contents/{name or file.name}", body)

    def open(self, name: str) -> tuple[dict[str, Any], NotebookKernel]:
        """Open a notebook: give its content, and a kernel for it."""
        content = self.api("GET", f"api/contents/{name}?type=notebook")["content"]
        wanted = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
        session = self.api("POST", "api/sessions", wanted)
        return content, NotebookKernel(self, session["kernel"]["id"], self._headers)


class NotebookKernel:
    """A kernel of a Jupyter server, by its websocket.

    Parameters
    ----------
    server : Jupyter
    kernel : str
        Its id.
    headers : dict
        What lets in.
    """

    def __init__(self, server: Jupyter, kernel: str, headers: dict[str, str]) -> None:
        self._session = uuid.uuid4().hex
        url = f"ws://{server.place}/api/kernels/{kernel}/channels?session_id={self._session}"
        self._socket = websocket.create_connection(url, header=headers, timeout=60)
        self.run("", limit=60)  # it is there

    def __enter__(self) -> NotebookKernel:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self, source: str, limit: float = 300.0, headless: bool = True) -> Run:
        """Run a cell to its end.

        Parameters
        ----------
        source : str
        limit : float
            Seconds that it may take.
        headless : bool
            Whether the request says that nobody can answer ``input()``: such a cell waits for its job.
        """
        run = Run(source, secrets.token_hex(16), began=time.monotonic())
        header = {"msg_id": run.id, "msg_type": "execute_request", "session": self._session}
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": not headless}
        message = {
            "channel": "shell",
            "header": {**header, "username": "tested", "version": "5.3"},
            "parent_header": {},
            "metadata": {},
            "content": {**content, "user_expressions": {}, "stop_on_error": True},
        }
        self._socket.send(json.dumps(message))
        while not (run.reply and run.ended):
            left = run.began + limit - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"not within {limit:g} s:\n{source}\nafter {run.outputs}")
            self._receive(run, left)
        return run

    def _receive(self, run: Run, within: float) -> None:
        self._socket.settimeout(within)
        try:
            told = self._socket.recv()
        except websocket.WebSocketTimeoutException:
            return
        message = json.loads(told) if isinstance(told, str) else deserialize_binary_message(told)
        if message["parent_header"].get("msg_id") != run.id:
            return
        if message["channel"] == "shell":
            run.reply = message["content"]
        elif message["channel"] == "iopub":
            run.messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                run.ended = time.monotonic()
