"""The first process in a bed's namespaces: starts the programs, and starts and stops one when it is told to.

With it the bed ends. It waits for its orphans, as the first process of a namespace must.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import components, containers, namespaces
from .binaries import folder
from .components import Component
from .places import HERE, BedError, Place
from .rest import Rest, tail, until

#: Pods of simulated nodes must ask for them.
TAINT = {"key": components.SIMULATED, "value": "true", "effect": "NoSchedule"}


class Inside:
    """The programs of a bed.

    Parameters
    ----------
    place : Place
        The bed.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rest = Rest(place)
        self._known: dict[str, Component] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, real_nodes: bool) -> None:
        """Start everything, in the order in which one needs the other."""
        if real_nodes:
            self._launch(components.containerd())
        self.start(components.etcd())
        self.start(components.api_server(self.place))
        self._launch(components.controller_manager())
        self._launch(components.scheduler())
        self._create_kinds()
        self.start(components.operator())
        self.start(components.kwok(self.place))
        self.rest.create("/api/v1/nodes", simulated_node("simulated"))
        if real_nodes:
            self._begin_node()
        self._ready("the default account", "/api/v1/namespaces/default/serviceaccounts/default")
        self._node_ready("simulated")

    def _begin_node(self) -> None:
        containers.wait_for(f"{HERE}/containerd.sock")
        components.write_kubelet_config(self.place)
        self._launch(components.coredns(self.place))
        self.start(components.kubelet(self.place))
        self._node_ready(components.REAL_NODE)
        self.start(components.proxy(self.place))

    def _create_kinds(self) -> None:
        """Create the kinds of KubeRay, and the rights of its operator."""
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        base = folder("kuberay") / "config"
        for path in sorted(base.glob("crd/bases/*.yaml")):
            self.rest.create(crds, path.read_bytes())
        rights = "/apis/rbac.authorization.k8s.io/v1"
        self.rest.create(f"{rights}/clusterroles", (base / "rbac" / "role.yaml").read_bytes())
        group = "rbac.authorization.k8s.io"
        binding = {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "kuberay-operator"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "kuberay-operator"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "kuberay"}],
        }
        self.rest.create(f"{rights}/clusterrolebindings", binding)
        for path in sorted(base.glob("crd/bases/*.yaml")):
            kind = f"{path.stem.split('_')[1]}.ray.io"
            self._ready(kind, f"{crds}/{kind}", lambda crd: _is(crd, "Established"))

    def start(self, component: Component) -> None:
        """Start a program and wait until it is ready."""
        self._launch(component)
        if component.ready:
            until(
                lambda: self.rest.answers(component.ready),
                component.name,
                lambda: self._look(component.name),
            )

    def stop(self, name: str) -> None:
        """Kill a program."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def revive(self) -> list[str]:
        """Start what has ended by itself; give the names."""
        self._reap()
        ended = [name for name, process in self._running.items() if process.returncode is not None]
        for name in ended:
            self.start(self._known[name])
        return ended

    def serve(self, control: socket.socket) -> None:
        """Do what is asked for at the socket, for ever."""
        while True:
            if select.select([control], [], [], 0.5)[0]:
                connection, _ = control.accept()
                with connection, connection.makefile("rw") as file:
                    file.write(self._answer(json.loads(file.readline())) + "\n")
            self._reap()

    def _answer(self, request: dict[str, str]) -> str:
        started: list[str] = []
        try:
            verb, name = request["verb"], request["name"]
            if verb == "stop":
                self.stop(name)
            elif verb == "import":
                containers.import_layout(HERE / name, f"{HERE}/containerd.sock")
            elif verb == "revive":
                started = self.revive()
            else:
                self.start(self._known[name])
        except BedError as error:
            return json.dumps({"error": str(error)})
        except KeyError as error:
            return json.dumps({"error": f"no program {error} is running here: there are {list(self._known)}"})
        return json.dumps({"started": started})

    def _launch(self, component: Component) -> None:
        self._known[component.name] = component
        with (self.place.log / f"{component.name}.log").open("ab") as log:
            self._running[component.name] = subprocess.Popen(
                component.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **component.environment},
                start_new_session=True,
            )

    def _look(self, name: str = "") -> None:
        """Raise if a program, or any of them, has ended by itself."""
        self._reap()
        for one in [name] if name else self._running:
            process = self._running[one]
            if process.returncode is not None:
                end = tail(self.place.log / f"{one}.log")
                raise BedError(f"{one} has ended with {process.returncode}:\n{end}")

    def _reap(self) -> None:
        """Take what processes leave that have ended, our own and those of containers."""
        own = {process.pid: process for process in self._running.values()}
        while True:
            for process in own.values():
                process.poll()
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid not in own:
                os.waitpid(ended.si_pid, 0)

    def _ready(self, what: str, path: str, look: Callable[[Any], bool] = bool) -> None:
        until(lambda: look(self.rest.get(path)), what, self._look)

    def _node_ready(self, name: str) -> None:
        self._ready(f"node {name}", f"/api/v1/nodes/{name}", lambda node: _is(node, "Ready"))


def _is(found: dict[str, Any], condition: str) -> bool:
    conditions = found["status"].get("conditions") or ()  # null at first
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def simulated_node(name: str, **capacity: str) -> dict[str, object]:
    """Give a node that kwok plays.

    Parameters
    ----------
    name : str
        Its name.
    **capacity : str
        What it has: Kubernetes' words, with ``gpu`` for NVIDIA's.
    """
    has = {"cpu": "8", "memory": "32Gi", "pods": "110", **capacity}
    if gpus := has.pop("gpu", None):
        has["nvidia.com/gpu"] = gpus
    labels = {components.SIMULATED: "true", "kubernetes.io/hostname": name}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [TAINT]},
        "status": {"capacity": has, "allocatable": has},
    }


def main(number: int, real_nodes: bool) -> None:
    """Be the first process of a bed.

    Parameters
    ----------
    number : int
        Which bed.
    real_nodes : bool
        Whether it has a node that runs pods.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ends with the supervisor, not before it
    place = Place(number)
    namespaces.mount_own(place)
    print("namespaces", flush=True)
    sys.stdin.readline()  # the link is there
    namespaces.link_inside(place)
    if real_nodes:
        _prepare_node(place)
    with socket.socket(socket.AF_UNIX) as control:
        control.bind(f"{HERE}/control")
        control.listen()
        inside = Inside(place)
        begin = time.monotonic()
        inside.begin(real_nodes)
        print(f"ready {time.monotonic() - begin:.1f}", flush=True)
        inside.serve(control)


def _prepare_node(place: Place) -> None:
    namespaces.shield_settings()
    containers.copy_store(place.folder / "containerd")
    containers.write_network(place)
    containers.write_config(
        Path(f"{HERE}/containerd.toml"), HERE / "containerd", "/run/containerd", f"{HERE}/containerd.sock"
    )
