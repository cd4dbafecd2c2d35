"""The cell's private folder: made from the workspace package, and compared with it afterwards."""

from __future__ import annotations

import fnmatch
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["FILE_LIMIT", "LISTED", "TOTAL_LIMIT", "BadPackage", "Changes", "Folder", "ray_package"]

#: A file up to this size comes back by itself, bytes.
FILE_LIMIT = 1_000_000
#: And all of them together up to this, bytes.
TOTAL_LIMIT = 20_000_000
#: A job's end names so many files at most; the record must stay small.
LISTED = 2000

#: What tools leave behind for themselves is not the cell's work.
_CACHES = {
    "__pycache__",
    ".ipynb_checkpoints",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".git",
    ".ipython",
}
#: At most so many bytes are in memory while a file is compared.
_BLOCK = 1 << 20
#: In the place of a checksum: nobody has read the file.
_UNKNOWN = -2


class BadPackage(Exception):
    """A package has an entry that does not belong into the folder."""


@dataclass(frozen=True)
class _Known:
    """How a file was when the cell began: of two signs that it is unchanged, the cheaper is asked first."""

    sign: tuple[int, ...]
    size: int
    checksum: int


@dataclass
class Changes:
    """What the cell did to its folder.

    Parameters
    ----------
    files : list of dict
        ``FileInfo`` of each file that it made or changed, and of each folder that it made and left empty; the
        path of a folder ends in a slash.
    travel : list of str
        Paths of those that come back.
    deleted : list of str
    more : int
        Beyond :data:`LISTED`, not named.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    travel: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    more: int = 0


class Folder:
    """A private working folder.

    Parameters
    ----------
    root : pathlib.Path
        An empty folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        # What stayed on other nodes, by paths; what is to be said of what is here; how many nobody names.
        self.elsewhere: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, str] = {}
        self.unlisted = 0
        self._known: dict[str, _Known] = {}
        self._folders: set[str] = set()

    def unpack(self, package: Path) -> None:
        """Fill the folder from a zip whose digest has been checked.

        Raises
        ------
        BadPackage
            It is no zip, or an entry would land outside.
        """
        try:
            with zipfile.ZipFile(package) as archive:
                entries = archive.infolist()
                for entry in entries:
                    _check(entry)
                for entry in entries:
                    self._extract(archive, entry)
        except (zipfile.BadZipFile, EOFError) as error:
            raise BadPackage(f"the package is not a zip: {error}") from None

    def _extract(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        path = PurePosixPath(entry.filename)
        self._folders.update(p.as_posix() for p in (path, *path.parents))
        self.write(archive, entry)
        if not entry.is_dir():
            self._known[entry.filename] = _Known(self.sign(entry.filename), entry.file_size, entry.CRC)

    def write(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        """Write one file or folder of a zip, as if the cell had.

        Raises
        ------
        BadPackage
            It would land outside.
        """
        _check(entry)
        target = self.root / entry.filename
        if entry.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, _BLOCK)
        mode = (entry.external_attr >> 16) & 0o777
        if mode:
            target.chmod(mode | stat.S_IRUSR | stat.S_IWUSR)  # the cell must be able to change its own copy

    def sign(self, path: str) -> tuple[int, ...]:
        """Give what differs as soon as a file is written to."""
        return _sign((self.root / path).lstat())

    def is_unchanged(self, path: str) -> bool:
        """Whether a file is there as it was unpacked, or accepted."""
        return self._unchanged(path, (self.root / path).lstat())

    def is_same(self, path: str, entry: zipfile.ZipInfo) -> bool:
        """Whether a file has the content of an entry of a zip."""
        target = self.root / path
        return target.lstat().st_size == entry.file_size and _checksum(target) == entry.CRC

    def accept(self, paths: Sequence[str]) -> None:
        """Take files and folders as they are now: they have changed only if they do so from now on."""
        for path in paths:
            if path.endswith("/"):
                self._folders.add(path.rstrip("/"))
                continue
            with suppress(OSError):  # it has just been removed
                sign = self.sign(path)
                self._known[path] = _Known(sign, sign[0], _UNKNOWN)

    def changes(
        self, fetch: Sequence[str] = (), file_limit: int = FILE_LIMIT, total_limit: int = TOTAL_LIMIT
    ) -> Changes:
        """Compare the folder with what it was.

        Parameters
        ----------
        fetch : sequence of str
            Patterns of files that come back whatever their size: ``out/*.csv``, ``models/**``.
        file_limit, total_limit : int
            Bytes up to which others come back.

        Returns
        -------
        Changes
        """
        found = Changes()
        left, there = total_limit, set()
        for path, info in sorted(_contents(self.root)):
            there.add(path)
            if self._unchanged(path, info):
                continue
            if len(found.files) >= LISTED:
                found.more += 1
                continue
            reason = ""
            size = 0 if path.endswith("/") else info.st_size
            if not any(_matches(path, pattern) for pattern in fetch):
                reason = _too_large(path, size, file_limit, left)
                left -= 0 if reason else size
            if not reason:
                found.travel.append(path)
            state = "there" if reason else "fetched"
            entry = {"path": path, "size": size, "state": state, "reason": reason or self.notes.get(path, "")}
            found.files.append({k: v for k, v in entry.items() if v != ""})
        apart = [file for path, file in sorted(self.elsewhere.items()) if path not in there]
        room = LISTED - len(found.files)
        found.files += apart[:room]
        found.more += len(apart[room:]) + self.unlisted
        found.deleted = sorted(set(self._known) - there)
        return found

    def pack(self, paths: Sequence[str], target: Path) -> None:
        """Write a zip of some files and empty folders of the folder."""
        with zipfile.ZipFile(
            target, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False
        ) as archive:
            for path in paths:
                archive.write(self.root / path, path)

    def _unchanged(self, path: str, info: os.stat_result) -> bool:
        if path.endswith("/"):
            return path.rstrip("/") in self._folders
        known = self._known.get(path)
        if known is None or known.size != info.st_size:
            return False
        return known.sign == _sign(info) or known.checksum == _checksum(self.root / path)


def _check(entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or not path.parts:
        raise BadPackage(f"the package has an entry outside its folder: {entry.filename!r}")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadPackage(f"the package has an entry that is neither file nor folder: {entry.filename!r}")


def _sign(info: os.stat_result) -> tuple[int, ...]:
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode


def _contents(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Give the regular files below `root`, and with a slash behind the folders that have nothing in them.

    Links are not followed, they may lead anywhere.
    """
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if n not in _CACHES and not os.path.islink(os.path.join(folder, n))]
        empty = not names and Path(folder) != root
        for name in files:
            path = Path(folder, name)
            try:
                info = path.lstat()
            except OSError:
                continue  # a process of the cell has just removed it
            if stat.S_ISREG(info.st_mode) and not name.endswith(".pyc"):
                empty = False
                yield path.relative_to(root).as_posix(), info
        if empty:
            with suppress(OSError):
                yield f"{Path(folder).relative_to(root).as_posix()}/", os.lstat(folder)


def _checksum(path: Path) -> int:
    value = 0
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                value = zlib.crc32(block, value)
    except OSError:
        return -1
    return value


def _matches(path: str, pattern: str) -> bool:
    """As a shell would: ``*`` stays within a folder, ``**`` crosses them; a folder means all in it."""
    wanted = PurePosixPath(pattern.rstrip("/")).parts
    return _match_parts(PurePosixPath(path).parts, wanted)


def _match_parts(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return True
    if wanted[0] == "**":
        return any(_match_parts(parts[i:], wanted[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _match_parts(parts[1:], wanted[1:])


def _too_large(path: str, size: int, file_limit: int, left: int) -> str:
    if size > file_limit:
        return f"larger than {file_limit / 1e6:.3g} MB: --fetch {path!r} brings it"
    if size > left:
        return f"too many files for all to come back by themselves: --fetch {path!r} brings it"
    return ""


def ray_package(digest: str) -> str:
    """Give Ray's name of a package; 160 bits of the digest are beyond any accident."""
    return f"_ray_pkg_{digest[:40]}.zip"


def limits(environment: Mapping[str, str]) -> tuple[int, int]:
    """Give (per file, in all) in bytes, as the site may have set them."""
    return (
        int(environment.get("RAYOFFLOAD_FETCH_BELOW") or FILE_LIMIT),
        int(environment.get("RAYOFFLOAD_FETCH_TOTAL") or TOTAL_LIMIT),
    )
