"""Files that a job made or changed, brought into the notebook's folder; what changed here meanwhile stays."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from .models import FileInfo

__all__ = ["bring_home"]


def bring_home(
    came: Path, sent: Sequence[Path], folder: Path, files: Sequence[FileInfo]
) -> tuple[FileInfo, ...]:
    """Write the files of a job into the folder that its workspace came from.

    Parameters
    ----------
    came : Path
        Zip of the files that came back.
    sent : sequence of Path
        Zips of the workspace as it was sent, and of what was laid over it: what one of them has was not
        changed here.
    folder : Path
    files : sequence of FileInfo
        All that the job made or changed, empty folders with a slash behind; those in state ``fetched`` are in
        `came`.

    Returns
    -------
    tuple of FileInfo
        The same, with what has become of each.
    """
    with ExitStack() as stack:
        new, *old = (stack.enter_context(zipfile.ZipFile(path)) for path in (came, *sent))
        return tuple(_bring(f, new, old, folder) if f.state == "fetched" else f for f in files)


def _bring(file: FileInfo, new: zipfile.ZipFile, old: Sequence[zipfile.ZipFile], folder: Path) -> FileInfo:
    path = PurePosixPath(file.path)
    target = folder / path
    if path.is_absolute() or ".." in path.parts or not _inside(target, folder):
        return file.replace(state="there", reason="its path leads out of the workspace")
    if file.path.endswith("/"):
        return _bring_folder(file, target)
    if os.path.lexists(target):
        if _same(target, new, file.path):
            return file
        if not any(_same(target, each, file.path) for each in old):
            return file.replace(state="kept here", reason="it was changed here meanwhile")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, new, file.path)
    except OSError as error:
        return file.replace(state="there", reason=f"it cannot be written here: {error.strerror}")
    return file


def _bring_folder(file: FileInfo, target: Path) -> FileInfo:
    """Make an empty folder, where there is nothing of its name."""
    if target.is_dir():
        return file
    if os.path.lexists(target):
        return file.replace(state="kept here", reason="here it is no folder")
    try:
        target.mkdir(parents=True)
    except OSError as error:
        return file.replace(state="there", reason=f"it cannot be made here: {error.strerror}")
    return file


def _inside(target: Path, folder: Path) -> bool:
    """Whether `target` lies in `folder` also after links are followed."""
    return Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(folder))


def _same(target: Path, archive: zipfile.ZipFile, name: str) -> bool:
    try:
        info = archive.getinfo(name)
    except KeyError:
        return False
    if target.is_symlink() or not target.is_file() or target.stat().st_size != info.file_size:
        return False
    with archive.open(info) as there, open(target, "rb") as here:
        while block := there.read(1 << 20):
            if here.read(len(block)) != block:
                return False
    return True


def _write(target: Path, archive: zipfile.ZipFile, name: str) -> None:
    """Write a file in one step, with the mode that it had there."""
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with os.fdopen(handle, "wb") as out, archive.open(name) as there:
            shutil.copyfileobj(there, out, 1 << 20)
        mode = (archive.getinfo(name).external_attr >> 16) & 0o777
        os.chmod(draft, mode or 0o644)
        os.replace(draft, target)
    except BaseException:
        os.unlink(draft)
        raise
