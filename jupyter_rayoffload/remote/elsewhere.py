"""Files that items of a batch write on other nodes: they come into the runner's folder, chunk by chunk."""

from __future__ import annotations

import os
import pickle
import sys
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .blobs import file_view
from .files import Changes, Folder

__all__ = ["Harvest", "Outpost"]

#: What is said of a file that would hide another.
TWICE = (
    "items on several nodes wrote it, and not the same: this is one of them. Give each item a file of its own"
)


class Outpost:
    """The working folder of a process on another node.

    Parameters
    ----------
    folder : Folder
        As it was unpacked.
    home : pathlib.Path
        A folder for what is packed.
    fetch : sequence of str
        Patterns of files that come back whatever their size.
    """

    def __init__(self, folder: Folder, home: Path, fetch: Sequence[str]) -> None:
        self._folder, self._home, self._fetch = folder, home, fetch
        self._place = uuid.uuid4().hex

    def changed(self, limits: tuple[int, int]) -> dict[str, Any] | None:
        """Give the files that were made or changed here since the last time, None if there are none.

        Parameters
        ----------
        limits : (int, int)
            Bytes up to which a file comes back unasked, and all of them.

        Returns
        -------
        dict, optional
            ``{place, files, more, archive}``; the archive is a zip, which Ray takes without another copy.
        """
        changes = self._folder.changes(self._fetch, *limits)
        if not changes.files:
            return None
        self._folder.accept([file["path"] for file in changes.files])
        came = {"place": self._place, "files": changes.files, "more": changes.more, "archive": None}
        try:
            came["archive"] = self._packed(changes)
        except OSError as error:
            reason = f"it could not be read on its node: {error.strerror}"
            came["files"] = [{**file, "state": "there", "reason": reason} for file in changes.files]
        return came

    def _packed(self, changes: Changes) -> pickle.PickleBuffer | None:
        if not changes.travel:
            return None
        archive = self._home / "files.zip"
        try:
            self._folder.pack(changes.travel, archive)
            return pickle.PickleBuffer(file_view(archive))
        finally:
            archive.unlink(missing_ok=True)


class Harvest:
    """What comes from other nodes into the runner's folder.

    Items on the runner's node share that folder; those on others have one in each process. Where two of them
    write the same path, one would hide the other: that is told, and the first to come stays.

    Parameters
    ----------
    folder : Folder
        The runner's.
    home : pathlib.Path
        A folder for what is unpacked.
    limits : (int, int)
        Bytes up to which a file comes back unasked, and all of them.
    """

    def __init__(self, folder: Folder, home: Path, limits: tuple[int, int]) -> None:
        self._folder, self._home = folder, home
        self._limit, self._left = limits
        self._more: dict[str, int] = {}
        self._brought: dict[str, tuple[str, tuple[int, ...]]] = {}

    @property
    def limits(self) -> tuple[int, int]:
        """What the next chunk may bring."""
        return self._limit, max(0, self._left)

    def add(self, came: Mapping[str, Any]) -> None:
        """Take in what :meth:`Outpost.changed` gave."""
        entries = {file["path"]: file for file in came["files"]}
        self._more[came["place"]] = came["more"]  # they are in the next chunk's files
        self._folder.unlisted = sum(self._more.values())
        self._folder.elsewhere |= {p: file for p, file in entries.items() if file["state"] != "fetched"}
        if came["archive"] is None:
            return
        copy = self._home / "elsewhere.zip"
        copy.write_bytes(memoryview(came["archive"]))
        with zipfile.ZipFile(copy) as archive:
            for info in archive.infolist():
                try:
                    self._take(archive, info, came["place"])
                except OSError as error:
                    self._refuse(entries[info.filename], f"there is no place for it: {error.strerror}")
        copy.unlink()

    def _take(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str) -> None:
        path = info.filename
        target = self._folder.root / path
        if not info.is_dir() and os.path.lexists(target) and not self._mine(path, place):
            if self._folder.is_same(path, info):
                return
            if path not in self._folder.notes:
                print(f"{path}: {TWICE}", file=sys.stderr)
            self._folder.notes[path] = TWICE
            return
        self._folder.write(archive, info)
        self._folder.elsewhere.pop(path, None)
        if not info.is_dir():
            self._left -= info.file_size
            self._brought[path] = place, self._folder.sign(path)

    def _mine(self, path: str, place: str) -> bool:
        """Whether what is there is from the same place, or as the job's package had it."""
        if path in self._brought:
            return self._brought[path] == (place, self._folder.sign(path))
        return self._folder.is_unchanged(path)

    def _refuse(self, file: Mapping[str, Any], reason: str) -> None:
        self._folder.elsewhere[file["path"]] = {**file, "state": "there", "reason": reason}
