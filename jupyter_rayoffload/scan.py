"""One pass over a folder: what of it may travel, and what stays behind for which reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .archive import unreadable
from .ignore import Rules, Scope, is_secret

__all__ = ["Found", "Scan"]

#: Files of which an environment is known, whatever the name of its folder (PEP 405; conda).
_ENVIRONMENTS = ("pyvenv.cfg", "conda-meta")
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Found(NamedTuple):
    """A file that may travel.

    Parameters
    ----------
    path : str
        In the package, with ``/``.
    source : str
        Absolute; for a link, what it leads to.
    info : os.stat_result
    allowed : bool
        Whether a ``.rayignore`` brought it back, though it looks like a secret.
    """

    path: str
    source: str
    info: os.stat_result
    allowed: bool


class _Folder(NamedTuple):
    path: str  # in the package; "" for the root
    source: str
    real: tuple[
        str, ...
    ]  # real paths of the folders from the root to this one: a link to one of them is a loop
    scope: Scope
    allowed: bool


@dataclass
class Scan:
    """What was found under one folder; :meth:`walk` fills it.

    Parameters
    ----------
    most : int
        Files and folders after which the walk stops, and `cut` is set.
    gitignore : bool
        Whether ``.gitignore`` counts, beside ``.rayignore``.
    """

    most: int
    gitignore: bool = True
    files: list[Found] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    excluded: dict[str, str] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)
    cut: bool = False

    def walk(self, root: str, exclude: Iterable[str] = (), prefix: str = "") -> None:
        """Look through `root`.

        Parameters
        ----------
        root : str
            Absolute.
        exclude : iterable of str
            Patterns of ``--exclude``, relative to the root.
        prefix : str
            Path of `root` in the package.

        Raises
        ------
        WorkspaceError
            Something cannot be read.
        """
        real = os.path.realpath(root)
        scope = Scope(Rules(exclude, "--exclude", prefix))
        pending = [_Folder(prefix, real, (real,), scope, allowed=True)]
        while pending and not self.cut:
            pending += self._folder(pending.pop(), real)
            self.cut |= self._full()

    def _full(self) -> bool:
        return len(self.files) + len(self.folders) > self.most

    def _folder(self, folder: _Folder, root: str) -> list[_Folder]:
        try:
            with os.scandir(folder.source) as listing:
                entries = list(listing)
        except FileNotFoundError:  # gone since it was listed
            return []
        except OSError as error:
            raise unreadable(f"{folder.path or folder.source}/", error) from None
        names = {entry.name for entry in entries}
        if not folder.allowed and not names.isdisjoint(_ENVIRONMENTS):
            self.excluded[f"{folder.path}/"] = "an environment"
            return []
        if folder.path:
            self.folders.add(folder.path)
            self.folders.discard(folder.path.rpartition("/")[0])
        scope = self._scope(folder, names)
        inner = []
        for entry in entries:
            path = f"{folder.path}/{entry.name}" if folder.path else entry.name
            try:
                found = self._entry(entry, path, folder, scope, root)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise unreadable(path, error) from None
            if found is not None:
                inner.append(found)
            if self._full():
                self.cut = True
                return []
        return inner

    def _scope(self, folder: _Folder, names: set[str]) -> Scope:
        texts: list[str | None] = []
        for name, counts in ((".rayignore", True), (".gitignore", self.gitignore)):
            texts.append(None)
            if counts and name in names and os.path.isfile(source := os.path.join(folder.source, name)):
                try:
                    with open(source, encoding="utf-8-sig", errors="surrogateescape") as file:
                        texts[-1] = file.read()
                except OSError as error:
                    raise unreadable(f"{folder.path}/{name}".lstrip("/"), error) from None
        return folder.scope if texts == [None, None] else folder.scope.inside(folder.path, *texts)

    def _entry(
        self, entry: os.DirEntry[str], path: str, folder: _Folder, scope: Scope, root: str
    ) -> _Folder | None:
        """Take in a file, or give the folder to be looked through."""
        source = entry.path
        # A link is judged by what it leads to, for that is what would travel.
        if is_link := entry.is_symlink():
            source = os.path.realpath(source)
            is_folder = os.path.isdir(source)
        else:
            is_folder = entry.is_dir(follow_symlinks=False)
        shown = f"{path}/" if is_folder else path
        verdict = scope.judge(path, entry.name, is_folder)
        secret = is_secret(path, is_folder) or (is_link and _leads_to_secret(source, root))
        # A secret that .gitignore leaves out too is still named: the cell may miss it.
        if secret and not verdict.deliberate:
            self.left_behind.append(shown)
            return None
        if verdict.stays:
            self.excluded[shown] = verdict.source
            return None
        reason = _unfit(path) or (_unfit_link(source, folder, root) if is_link else "")
        info = (
            None if reason or is_folder else os.stat(source) if is_link else entry.stat(follow_symlinks=False)
        )
        if info is not None and not stat.S_ISREG(info.st_mode):
            reason = _KINDS.get(stat.S_IFMT(info.st_mode), "not a file")
        if reason:
            self.excluded[shown] = reason
        elif info is None:
            return _Folder(path, source, (*folder.real, source), scope, verdict.deliberate)
        else:
            self.files.append(Found(path, source, info, verdict.deliberate))
            self.folders.discard(folder.path)
        return None


def _unfit(path: str) -> str:
    """Say why a path cannot be in a package."""
    if not path.isascii():
        try:
            path.encode()
        except UnicodeEncodeError:
            return "its name is not UTF-8"
    # Ray drops such members without a word (unzip_package in ray/_private/runtime_env/packaging.py).
    if "\\" in path or path[1:2] == ":":
        return "Ray does not unpack such a name"
    return ""


def _unfit_link(target: str, folder: _Folder, root: str) -> str:
    if not os.path.exists(target):
        return "a link that leads nowhere"
    if target != root and not target.startswith(os.path.join(root, "")):
        return "a link out of the folder"
    return "a link to a folder that it is in" if target in folder.real else ""


def _leads_to_secret(target: str, root: str) -> bool:
    parts: Sequence[str] = os.path.relpath(target, root).split(os.sep)
    paths = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(is_secret(path, path != paths[-1] or os.path.isdir(target)) for path in paths)
