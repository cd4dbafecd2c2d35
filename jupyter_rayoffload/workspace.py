"""The workspace: which files travel with a cell, their digest, and the zip."""

from __future__ import annotations

import heapq
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING

from . import archive
from .archive import Changed, Entry, Progress, StatCache, unreadable
from .errors import WorkspaceError, WorkspaceTooLarge
from .ignore import holds_private_key
from .scan import Found, Scan
from .words import number_text, size_text

if TYPE_CHECKING:
    from .remote.signing import Signer

__all__ = [
    "DEFAULT_LIMITS",
    "Limits",
    "Recipe",
    "Snapshot",
    "choose_root",
    "preflight",
    "snapshot",
    "without_folder",
]

#: Snapshots that are taken before a file that keeps changing is an error.
_ATTEMPTS = 3
#: Times the limit of files that are looked at, to say how far beyond it a folder is.
_OVERRUN = 5
#: Entries that :func:`preflight` counts in what was left out; a package cache may hold a million.
_COUNTED = 50_000
#: Lines that :func:`preflight` gives to what was left out.
_LISTED = 20


@dataclass(frozen=True)
class Limits:
    """What a workspace may be at most.

    Parameters
    ----------
    files : int
        Empty folders count, too.
    bytes : int
        Of the files together, and of the zip. The default is what Ray's Jobs API takes for a package
        (``DASHBOARD_CLIENT_MAX_SIZE`` in ray/_private/ray_constants.py).
    """

    files: int = 20_000
    bytes: int = 100 * 1024**2


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Snapshot:
    """A package as it would travel now; nothing is packed yet.

    Parameters
    ----------
    root : Path
    files : tuple of Entry
        Sorted by path.
    folders : tuple of str
        Empty ones: a program may want to write there.
    digest : str
        64 hex digits, keyed: the same for the same paths, contents and executable bits.
    size : int
        Bytes of all files together.
    left_behind : tuple of str
        What stays because it may hold secrets.
    excluded : Mapping of str to str
        What else stays, to the reason; of a folder that stays only itself, with a slash behind.
    notes : tuple of str
        Sentences for people.
    """

    root: Path
    files: tuple[Entry, ...]
    folders: tuple[str, ...]
    digest: str
    size: int
    left_behind: tuple[str, ...]
    excluded: Mapping[str, str]
    notes: tuple[str, ...]
    _recipe: Recipe = field(repr=False, compare=False)

    @property
    def platform(self) -> str:
        """What compiled modules in it are made for (``linux-x86_64-cp311``); ``""`` where there are none."""
        compiled = any(entry.path.endswith(tuple(EXTENSION_SUFFIXES)) for entry in self.files)
        return archive.platform_tag() if compiled else ""

    @property
    def largest(self) -> tuple[Entry, ...]:
        """The ten largest files, largest first."""
        return tuple(_largest(self.files))

    def zip_to(self, path: str | os.PathLike[str], on_progress: Progress | None = None) -> Snapshot:
        """Write the package, whose bytes are the same for the same content.

        Parameters
        ----------
        path : path-like
        on_progress : callable, optional
            Called with files done, files in all, bytes done: some times a second, and at the end.

        Returns
        -------
        Snapshot
            What is in the zip: this one, or a newer one where files have changed since.

        Raises
        ------
        WorkspaceError
            A file changes all the time, or cannot be read.
        WorkspaceTooLarge
            The zip is beyond the limit.
        """
        shot, path = self, Path(path)
        for _ in range(_ATTEMPTS):
            try:
                archive.write_zip(path, shot.files, shot.folders, shot._recipe.signer.digest, on_progress)
            except Changed as changed:
                restless = str(changed)
                shot = shot._recipe.take()
                continue
            size, limits = path.stat().st_size, shot._recipe.limits
            if size > limits.bytes:
                path.unlink()
                raise _too_large(shot._recipe.title, f"{size_text(size)} when packed", shot.files, limits)
            return shot
        raise _restless(restless)


@dataclass(frozen=True)
class Recipe:
    """How a snapshot is taken, so that it can be taken again.

    Parameters
    ----------
    root : Path
    title : str
        What it is of, in error texts.
    scan : callable
        Called with the number of files and folders after which to stop.
    limits : Limits
    cache_dir : path-like or None
    cache_name : str
        Of the stat cache.
    signer : Signer
    """

    root: Path
    title: str
    scan: Callable[[int], Scan]
    limits: Limits
    cache_dir: str | os.PathLike[str] | None
    cache_name: str
    signer: Signer

    def take(self) -> Snapshot:
        """Take a snapshot.

        Raises
        ------
        WorkspaceTooLarge, WorkspaceError
        """
        scan = self.scan(_OVERRUN * self.limits.files)
        size = sum(found.info.st_size for found in scan.files)
        if len(scan.files) + len(scan.folders) > self.limits.files or size > self.limits.bytes:
            raise _too_large(self.title, _found(scan, size), scan.files, self.limits)
        cache = StatCache(archive.cache_folder(self.cache_dir), self.cache_name, self.signer)
        left_behind = list(scan.left_behind)
        files = tuple(sorted(self._entries(scan.files, cache, left_behind)))
        cache.save()
        folders = tuple(sorted(scan.folders))
        return Snapshot(
            self.root,
            files,
            folders,
            self.signer.digest(archive.manifest(files, folders)),
            sum(entry.size for entry in files),
            tuple(sorted(left_behind)),
            dict(sorted(scan.excluded.items())),
            tuple(_surprises(scan.excluded)),
            self,
        )

    def _entries(self, found: Iterable[Found], cache: StatCache, left_behind: list[str]) -> Iterator[Entry]:
        now = time.time_ns()
        for file in found:
            info, digest = file.info, cache.digest(file.path, file.info)
            if digest is None:
                try:
                    data, info = archive.read_settled(file.source)
                except FileNotFoundError:  # gone since it was listed
                    continue
                except Changed:
                    raise _restless(file.path) from None
                except OSError as error:
                    raise unreadable(file.path, error) from None
                digest = self.signer.digest(data)
                if not holds_private_key(data):
                    cache.remember(file.path, info, digest, now)
                elif not file.allowed:
                    left_behind.append(file.path)
                    continue
            yield archive.entry_of(file.path, file.source, info, digest)


def snapshot(
    root: str | os.PathLike[str],
    *,
    exclude: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    cache_dir: str | os.PathLike[str] | None = None,
    signer: Signer,
) -> Snapshot:
    """Look at a folder: which of its files travel, and their digest.

    What ``.gitignore`` and ``.rayignore`` name, in the folder and below it, stays behind, with git's
    semantics. So do caches, environments and notebooks (:data:`.ignore.DEFAULT_EXCLUDES` says why
    notebooks), what looks like a secret (:data:`.ignore.SECRETS`, and any file that holds a private key) and
    links that lead out of the folder. A negation in a ``.rayignore`` brings any of them back but the links:
    ``!data.ipynb``.

    Parameters
    ----------
    root : path-like
    exclude : sequence of str, optional
        Further patterns in gitignore syntax, relative to `root`; they outrank the ignore files.
    limits : Limits, optional
    cache_dir : path-like, optional
        Where digests of unchanged files are kept; by default in Jupyter's data folder.
    signer : Signer
        Whose key the digests are made with.

    Raises
    ------
    WorkspaceTooLarge
        It is beyond the limits.
    WorkspaceError
        It is no folder, or something in it cannot be read; the message names it.
    """
    folder = Path(os.path.realpath(root))
    if not folder.is_dir():
        raise WorkspaceError(f"{root} is not a folder", "Name the workspace with --workdir")

    def scan(most: int) -> Scan:
        found = Scan(most)
        found.walk(str(folder), exclude)
        return found

    return Recipe(folder, f"workspace {folder}", scan, limits, cache_dir, str(folder), signer).take()


def choose_root(
    notebook_dir: str | os.PathLike[str], workdir: str = "", home: str | os.PathLike[str] | None = None
) -> tuple[Path | None, str]:
    """Choose the folder that travels.

    Parameters
    ----------
    notebook_dir : path-like
    workdir : str, optional
        Of ``--workdir``, relative to `notebook_dir`; it is taken at its word, whatever it is.
    home : path-like, optional
        By default that of this user.

    Returns
    -------
    root : Path or None
        None: only the local modules that the cell imports travel. The same is to be done when
        :func:`snapshot` raises :class:`.WorkspaceTooLarge` and no `workdir` was given;
        :func:`without_folder` has the note for it.
    note : str
        For the panel.

    Raises
    ------
    WorkspaceError
        `workdir` is no folder.
    """
    notebook = Path(os.path.realpath(notebook_dir))
    if workdir:
        root = Path(os.path.realpath(notebook / Path(workdir).expanduser()))
        if not root.is_dir():
            raise WorkspaceError(f"--workdir {workdir}: there is no folder {root}", "Name one that exists")
        return root, ""
    own = Path(os.path.realpath(home if home is not None else Path.home()))
    if notebook == own:
        return None, without_folder("the notebook is in the home folder")
    # Folders that belong to nobody's project: what is in them has nothing to do with the notebook.
    if notebook in own.parents or notebook in {Path("/"), Path(os.path.realpath(tempfile.gettempdir()))}:
        return None, without_folder(f"the notebook is in {notebook}")
    return notebook, ""


def without_folder(reason: str | WorkspaceTooLarge) -> str:
    """Give the note for a job whose notebook's folder does not travel."""
    if isinstance(reason, WorkspaceTooLarge):
        reason = reason.message.partition("; ")[0]
    return (
        f"{reason[:1].upper()}{reason[1:]}, so only the local modules that the cell imports travel; "
        "to send files along, move the notebook to a folder of its own or name one with --workdir"
    )


def preflight(shot: Snapshot) -> str:
    """Give what ``--dry-run`` prints: what would travel, and what stays for which reason."""
    lines = [f"Workspace {shot.root}: {_amount(len(shot.files), shot.size, len(shot.folders))}"]
    if shot.files:
        lines += ["", "Largest", *(_row(size_text(e.size), e.path) for e in shot.largest)]
    if shot.left_behind:
        lines += ["", "Stays because it may hold secrets", *(f"  {path}" for path in shot.left_behind)]
        lines += ["  (!NAME in a .rayignore lets one travel)"]
    if shot.excluded:
        lines += ["", "Left out", *_left_out(shot)]
    if shot.notes:
        lines += ["", *shot.notes]
    return "\n".join(lines)


def _left_out(shot: Snapshot) -> Iterator[str]:
    budget = _COUNTED
    for number, (path, reason) in enumerate(shot.excluded.items()):
        if number == _LISTED:
            yield f"  and {number_text(len(shot.excluded) - _LISTED)} more"
            return
        count, size, budget = _measure(shot.root / path, budget)
        amount = size_text(size) if not path.endswith("/") else _amount(count, size)
        yield f"  {path} ({reason}): {amount if budget else f'more than {amount}'}"


def _measure(path: Path, budget: int) -> tuple[int, int, int]:
    """Count files and bytes under `path`, looking at `budget` entries at most; give what is left of it."""
    count = size = 0
    pending = [str(path)]
    while pending and budget:
        budget -= 1
        place = pending.pop()
        with suppress(OSError):
            info = os.lstat(place)
            if stat.S_ISDIR(info.st_mode):
                pending += [os.path.join(place, name) for name in os.listdir(place)]
            else:
                count, size = count + 1, size + info.st_size
    return count, size, budget


def _surprises(excluded: Mapping[str, str]) -> Iterator[str]:
    for path, reason in sorted(excluded.items()):
        if reason.startswith(("a link", "its name", "Ray ")):  # nobody asked for these to stay
            yield f"`{path}` stays: {reason}"


def _largest(files: Iterable[Entry | Found]) -> list[Entry]:
    entries = (f if isinstance(f, Entry) else archive.entry_of(f.path, f.source, f.info, "") for f in files)
    return heapq.nsmallest(10, entries, key=lambda e: (-e.size, e.path))


def _found(scan: Scan, size: int) -> str:
    files, folders = len(scan.files), len(scan.folders)
    if not scan.cut:
        return _amount(files, size, folders)
    return f"more than {_amount(files - 1, size, folders) if files else _amount(0, size, folders - 1)}"


def _amount(count: int, size: int, folders: int = 0) -> str:
    empty = f", {number_text(folders)} empty {'folder' if folders == 1 else 'folders'}" if folders else ""
    return f"{number_text(count)} {'file' if count == 1 else 'files'}{empty}, {size_text(size)}"


def _row(number: str, text: str) -> str:
    return f"  {number:>8}  {text}"


def _too_large(title: str, amount: str, files: Iterable[Entry | Found], limits: Limits) -> WorkspaceTooLarge:
    largest = ", ".join(f"{e.path} ({size_text(e.size)})" for e in _largest(files))
    return WorkspaceTooLarge(
        f"too large: {title} has {amount}, and {_amount(limits.files, limits.bytes)} may travel"
        f"; the largest are {largest}",
        "Leave files out with --exclude PATTERN or a line in .rayignore, choose a smaller folder "
        "with --workdir, or read large data from a volume that the cluster mounts too",
    )


def _restless(path: str) -> WorkspaceError:
    return WorkspaceError(
        f"{path} changes while it is packed",
        f"Wait until nothing writes to it, or leave it out with --exclude '{path}'",
    )
