"""What tests do with a bed: have one, and reach into it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import binaries, containers, requirements, supervisor
from .certificates import kubeconfig, write_secret
from .namespaces import ROOT
from .places import BedError, Place
from .rest import READY_SECONDS


@dataclass(frozen=True)
class Bed:
    """A Kubernetes that runs on this machine.

    Parameters
    ----------
    place : Place
        Its folder and its addresses.
    seconds : float
        How long its programs took to start; 0 if it was there already.
    """

    place: Place
    seconds: float = 0.0

    @classmethod
    def start(cls, real_nodes: bool = True, stay: bool = False, say: Callable[[str], None] = print) -> Bed:
        """Start one.

        Parameters
        ----------
        real_nodes : bool
            Whether it has a node that runs pods beside those that are simulated.
        stay : bool
            Whether it is to outlive this process.
        say : callable
            Is told what had to be made for it, and how long that took.

        Raises
        ------
        BedError
            If something is missing, or does not start.
        """
        requirements.provide(real_nodes)
        binaries.build(say)
        if real_nodes:
            containers.make_store(say)
        arguments = [] if stay else [f"--watch={os.getpid()}"]
        arguments += ["--real-nodes"] if real_nodes else []
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.kubernetes.bed", "supervise", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        assert process.stdout
        with process.stdout as answers:
            line = answers.readline()
        answer = json.loads(line or '{"error": "the supervisor of the bed has ended"}')
        if "error" in answer:
            process.wait()
            raise BedError(answer["error"])
        if not stay:
            _started[answer["number"]] = process
        return cls(Place(answer["number"]), answer["seconds"])

    @classmethod
    def found(cls) -> Bed | None:
        """Give one that was started to stay, as by ``make kube-up`` in this folder."""
        for place in supervisor.living():
            mark = place.folder / "stays"
            if mark.exists() and mark.read_text() == str(ROOT) and place.kubeconfig.exists():
                return cls(place)
        return None

    def close(self) -> None:
        """Remove it, and all that is in it."""
        supervisor.end(self.place)
        if process := _started.pop(self.place.number, None):
            process.wait()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.place.kubeconfig

    def write_kubeconfig(self, path: Path, token: str, namespace: str) -> Path:
        """Write the kubeconfig of someone who has a token.

        Parameters
        ----------
        path : Path
            The file.
        token : str
            As TokenRequest gives it.
        namespace : str
            What is meant when none is named.
        """
        authority = (self.place.folder / "pki" / "ca.crt").read_bytes()
        write_secret(path, kubeconfig(self.place.api, authority, {"token": token}, namespace))
        return path

    def notebook_image(self) -> str:
        """Give the name of an image of notebook pods with this project as it is now; made if it is not there.

        Returns
        -------
        str
            The name; what is in it: Jupyter Server, a kernel, this project as its wheel installs it, no Ray.
        """
        name, layout = containers.write_notebook(self.place)
        if layout is not None:
            self._ask("import", layout.name)
        return name

    def stop(self, component: str) -> None:
        """Kill a program of the bed, by the name of its log.

        Parameters
        ----------
        component : str
            ``kube-apiserver``, ``kuberay-operator``, ``kubelet``, ...
        """
        self._ask("stop", component)

    def restart(self, component: str) -> None:
        """Start a program that was stopped, and wait until it is ready."""
        self._ask("start", component)

    def revive(self) -> list[str]:
        """Start what has ended by itself, as a kubelet does with static pods; give the names."""
        return self._ask("revive")

    def _ask(self, verb: str, name: str = "") -> list[str]:
        request = json.dumps({"verb": verb, "name": name})
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(READY_SECONDS + 10)
            try:
                control.connect(str(self.place.folder / "control"))
            except OSError as error:
                raise BedError(f"bed {self.place.number} has ended: {error}") from None
            with control.makefile("rw") as file:
                file.write(request + "\n")
                file.flush()
                answer = json.loads(file.readline())
        if "error" in answer:
            raise BedError(answer["error"])
        started: list[str] = answer["started"]
        return started


#: Supervisors that are children of this process.
_started: dict[int, subprocess.Popen[str]] = {}
