"""The folder that a cell runs in, and what it can import there; for the runner and for its Ray workers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import Folder
from .store import Store

__all__ = ["enter", "made", "make_folder"]


def made(folder: Path) -> Path:
    """Make a private folder and give it; what was made ahead for another workspace gives way."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    return folder


def make_folder(store: Store, spec: Mapping[str, Any], home: Path) -> Folder:
    """Make the working folder of a job below `home`, and the folders of its local modules; enter it.

    Parameters
    ----------
    store : Store
        Has the packages.
    spec : Mapping
        The job's ``JobSpec``.
    home : pathlib.Path

    Returns
    -------
    Folder
    """
    work = Folder(made(home / "work"))
    if spec.get("package"):
        _unpack(store, spec["package"], work, home)
    for name in spec.get("overlays") or ():
        _unpack(store, name, work, home)
    modules = []
    for number, name in enumerate(spec.get("modules") or ()):
        module = Folder(made(home / f"modules{number}"))
        _unpack(store, name, module, home)
        modules.append(str(module.root))
    enter(str(work.root), modules)
    return work


def _unpack(store: Store, name: str, folder: Folder, home: Path) -> None:
    archive = home / "package.zip"
    store.get_package(name, archive)
    folder.unpack(archive)
    archive.unlink()


def enter(work: str, modules: list[str]) -> None:
    """Make the private folder the current one, in place of the one that Ray shares between jobs."""
    shared = {os.path.realpath(os.getcwd()), "", *map(os.path.realpath, (work, *modules))}
    sys.path[:] = [work, *modules, *(p for p in sys.path if p and os.path.realpath(p) not in shared)]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [p for p in inherited if p and os.path.realpath(p) not in shared]
    os.environ["PYTHONPATH"] = os.pathsep.join([work, *modules, *kept])
    os.chdir(work)
    sys.argv = [""]
