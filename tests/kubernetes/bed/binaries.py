"""The programs of the bed: built once from the modules in ``go/``, and kept by the digest of these."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .places import BedError, cache, only_one

SOURCES = Path(__file__).parent / "go"
#: What the API server and the kubelet say that they are; must be the version in go/kube/go.mod.
KUBERNETES = "v1.35.4"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Family:
    """Programs that are built together.

    Parameters
    ----------
    name : str
        The folder below ``go/``.
    target : str
        What is built: ``tool`` for the tools that go.mod names, or a package.
    flags : str
        For the linker.
    files : dict
        What else is taken from a module: its path, and patterns below it.
    """

    name: str
    target: str = "tool"
    flags: str = "-s -w"
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)


def _stamp() -> str:
    """Say the version where Kubernetes keeps it: elsewhere it is filled in by its own build."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    values = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in values.items()
    )


FAMILIES = (
    Family("pause", target="."),
    Family("coredns", target="."),
    Family(
        "kwok",
        files={
            "sigs.k8s.io/kwok": tuple(
                f"kustomize/stage/{stage}/[!k]*.yaml"  # not kustomization.yaml
                for stage in ("node/fast", "node/heartbeat-with-lease", "pod/general", "pod/chaos")
            )
        },
    ),
    Family(
        "kuberay",
        files={
            "github.com/ray-project/kuberay/ray-operator": (
                "config/crd/bases/*.yaml",
                "config/rbac/role.yaml",
            )
        },
    ),
    Family("kube", flags=f"-s -w {_stamp()}"),
)


def folder(name: str) -> Path:
    """Give where the programs of a family are, or will be.

    Parameters
    ----------
    name : str
        The name of the family.
    """
    [family] = [family for family in FAMILIES if family.name == name]
    digest = hashlib.sha256(repr(family).encode())
    for path in sorted((SOURCES / name).iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return cache() / "bin" / f"{name}-{digest.hexdigest()[:16]}"


def program(family: str, name: str) -> Path:
    """Give the path of a program."""
    return folder(family) / name


def build(say: Say = print) -> None:
    """Build what is missing, at the lowest priority: others may be measuring on this machine.

    Parameters
    ----------
    say : callable
        Is told how long each family took.
    """
    with only_one("build"):
        for family in FAMILIES:
            if not folder(family.name).exists():
                begin = time.monotonic()
                _build(family)
                say(f"built {family.name} in {time.monotonic() - begin:.0f} s")


def _build(family: Family) -> None:
    done = folder(family.name)
    unfinished = done.with_name(done.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # A folder as target puts every program there under its own name; that of a lone package is its module's.
    _go(family, "build", "-trimpath", "-ldflags", family.flags, "-o", f"{unfinished}/", family.target)
    for module, patterns in family.files.items():
        root = Path(_go(family, "list", "-m", "-f", "{{.Dir}}", module).strip())
        for pattern in patterns:
            for path in root.glob(pattern):
                target = unfinished / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)  # not its mode: modules are kept read-only
    unfinished.rename(done)


def _go(family: Family, *arguments: str) -> str:
    if not shutil.which("go"):
        raise BedError("Go is not on PATH: install Go 1.26 or newer (https://go.dev/dl)")
    done = subprocess.run(
        ["nice", "-n", "19", "go", *arguments],
        cwd=SOURCES / family.name,
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BedError(f"go {arguments[0]} in {SOURCES / family.name} failed:\n{done.stderr[-3000:]}")
    return done.stdout
