"""Packages: what is in one, its digest, and the zip, whose bytes are the same for the same content."""

from __future__ import annotations

import functools
import json
import os
import stat
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .errors import WorkspaceError
from .remote.signing import Signer, Tampered

__all__ = [
    "Changed",
    "Entry",
    "Progress",
    "StatCache",
    "cache_folder",
    "entry_of",
    "file_state",
    "manifest",
    "platform_tag",
    "prune",
    "read_settled",
    "replacing",
    "settled",
    "unreadable",
    "write_zip",
]

#: Called with (files done, files in all, bytes done), now and then, and at the end.
Progress = Callable[[int, int, int], None]
#: Between two calls of it, seconds: each may become a message to every front end.
PROGRESS_SECONDS = 0.2

#: Names the layout of :func:`manifest`; another layout gives other digests.
_MANIFEST = b"rayoffload-package-1\0"
#: A file that was changed this shortly before it was read may change again without its times showing it: file
#: systems count in up to two seconds (FAT), and git has the same rule for its index ("racy git").
RACY_NS = 2_000_000_000
#: Waits between attempts to read a file that is being written.
_PAUSES = (0.05, 0.2, 0.5)
#: Deflate at level 1 halves source text at 60 MB/s; larger files and these suffixes are not worth that time.
STORED_BYTES = 8 << 20
STORED_SUFFIXES = frozenset(
    ".7z .avif .br .bz2 .docx .feather .gif .gz .heic .jar .jpeg .jpg .lz4 .mkv .mp3 .mp4 .npz .ogg .onnx "
    ".parquet .pdf .png .pt .pth .safetensors .tgz .webm .webp .whl .woff2 .xlsx .xz .zip .zst".split()
)
#: What a stat cache or a built package may lie unused before it is removed.
KEPT_SECONDS = 30 * 86400


class Changed(Exception):
    """A file is not, or not any more, what was digested; the argument is its path in the package."""


class Entry(NamedTuple):
    """One file of a package.

    Parameters
    ----------
    path : str
        In the package, with ``/``.
    size : int
        Bytes.
    mode : int
        Permission bits, ``0o755`` or ``0o644``: the executable bit is all that travels, as in git.
    digest : str
        Of its content, 64 hex digits.
    source : str
        Where its content is read: an absolute path.
    """

    path: str
    size: int
    mode: int
    digest: str
    source: str


def entry_of(path: str, source: str, info: os.stat_result, digest: str) -> Entry:
    """Give the entry of a file with this stat and this digest."""
    return Entry(path, info.st_size, 0o755 if info.st_mode & stat.S_IXUSR else 0o644, digest, source)


def manifest(entries: Iterable[Entry], folders: Iterable[str]) -> bytes:
    """Give what a package's digest is taken of: path, mode and digest of each file, and the empty folders."""
    lines = [f"{e.path}\0{e.mode:o} {e.digest}\0" for e in sorted(entries)]
    lines += [f"{folder}/\0\0" for folder in sorted(folders)]
    return _MANIFEST + "".join(lines).encode()


# ---------------------------------------------------------------------- reading


def unreadable(path: str, error: OSError) -> WorkspaceError:
    """Give the error for what cannot be read."""
    return WorkspaceError(
        f"{path} cannot be read: {error.strerror}",
        f"Leave it out with --exclude '{path}' or a line in .rayignore, or change its permissions",
    )


def file_state(info: os.stat_result) -> list[int]:
    """Give the fields that differ when a file was changed."""
    return [info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_mode]


def settled(info: os.stat_result, now_ns: int) -> bool:
    """Say whether a later change of this file is sure to show in its stat."""
    return max(info.st_mtime_ns, info.st_ctime_ns) + RACY_NS < now_ns


def read_settled(source: str) -> tuple[bytes, os.stat_result]:
    """Read a file in a state that it kept while it was read.

    Raises
    ------
    Changed
        It changed during each attempt, or is no regular file any more.
    OSError
    """
    for pause in (0.0, *_PAUSES):
        if pause:
            time.sleep(pause)
        # Not blocking: a pipe may have taken the file's place since it was listed.
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                break
            data = file.read(before.st_size + 1)
            if file_state(before) == file_state(os.fstat(handle)) and len(data) == before.st_size:
                return data, before
    raise Changed(source)


class StatCache:
    """Digests of the files of one folder, by their stat: an unchanged file is not read again.

    It is one signed file, replaced as a whole, so processes may share it. A damaged one counts as empty.

    Parameters
    ----------
    folder : Path
        Where it is kept; need not exist or be writable.
    name : str
        Of what it is: the root's path.
    signer : Signer
    """

    def __init__(self, folder: Path, name: str, signer: Signer) -> None:
        # The digests are keyed, so another key has another cache.
        self._context = f"stat-cache-1:{name}"
        self._path = folder / f"{signer.digest(self._context.encode())[:32]}.files"
        self._signer = signer
        self._known = self._load()
        self._fresh: dict[str, list[int | str]] = {}
        self._new = 0

    def _load(self) -> dict[str, list[int | str]]:
        try:
            known = json.loads(self._signer.check(self._context, self._path.read_bytes()))
        except (OSError, ValueError, Tampered):
            return {}
        return dict(known)

    def digest(self, path: str, info: os.stat_result) -> str | None:
        """Give the digest of the file that has this stat, if it is known."""
        entry = self._known.get(path)
        if entry is None or entry[:5] != file_state(info):
            return None
        self._fresh[path] = entry
        return str(entry[5])

    def remember(self, path: str, info: os.stat_result, digest: str, now_ns: int) -> None:
        """Keep the digest of a file that was read at `now_ns` in the state `info`, unless it may be racy."""
        if settled(info, now_ns):
            self._fresh[path] = [*file_state(info), digest]
            self._new += 1

    def save(self) -> None:
        """Write what was seen since this cache was made, if it differs from what is on disk."""
        if not self._new and len(self._fresh) == len(self._known):
            return
        data = json.dumps(self._fresh, separators=(",", ":")).encode()
        with suppress(OSError):  # it only saves time
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_bytes(self._signer.sign(self._context, data))
            prune(self._path.parent, ".files")


def cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Give `cache_dir`, or the default one in Jupyter's data folder."""
    if cache_dir is not None:
        return Path(cache_dir)
    return _data_folder(*map(os.environ.get, _DATA_FOLDER))


#: What Jupyter's data folder depends on.
_DATA_FOLDER = ("JUPYTER_DATA_DIR", "JUPYTER_PLATFORM_DIRS", "XDG_DATA_HOME", "HOME")


@functools.lru_cache(maxsize=4)
def _data_folder(*_: str | None) -> Path:
    """Give our folder in Jupyter's, remembered: Jupyter resolves links each time."""
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir()) / "rayoffload"


def prune(folder: Path, suffix: str) -> None:
    """Remove the files of `folder` with this suffix that were not written for long."""
    for path in folder.glob(f"*{suffix}"):
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                path.unlink()


# ---------------------------------------------------------------------- writing


def platform_tag() -> str:
    """Give the platform and Python minor version of this process: ``linux-x86_64-cp311``."""
    return f"{sysconfig.get_platform()}-cp{sys.version_info[0]}{sys.version_info[1]}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path that takes the place of `path` when the block ends well, and else goes."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def write_zip(
    path: Path,
    entries: Sequence[Entry],
    folders: Sequence[str],
    digest: Callable[[bytes], str],
    on_progress: Progress | None = None,
    level: int = 1,
) -> None:
    """Write a package; `path` has its name only once the package is whole.

    Raises
    ------
    Changed
        A file is not what its entry says.
    WorkspaceError
        A file cannot be read.
    OSError
        The package cannot be written.
    """
    done, told = 0, time.monotonic()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as package:
        for number, entry in enumerate(sorted(entries), 1):
            data = _content(entry, digest)
            package.writestr(
                _info(entry.path, stat.S_IFREG | entry.mode), data, _method(entry), compresslevel=level
            )
            done += entry.size
            now = time.monotonic()
            if on_progress is not None and (number == len(entries) or now - told >= PROGRESS_SECONDS):
                told = now
                on_progress(number, len(entries), done)
        for folder in sorted(folders):
            package.writestr(_info(f"{folder}/", stat.S_IFDIR | 0o755), b"")


def _content(entry: Entry, digest: Callable[[bytes], str]) -> bytes:
    try:
        data, info = read_settled(entry.source)
    except (FileNotFoundError, NotADirectoryError, Changed):
        raise Changed(entry.path) from None
    except OSError as error:
        raise unreadable(entry.path, error) from None
    if digest(data) != entry.digest or entry_of(entry.path, entry.source, info, entry.digest) != entry:
        raise Changed(entry.path)
    return data


def _method(entry: Entry) -> int:
    small = entry.size < STORED_BYTES and os.path.splitext(entry.path)[1].lower() not in STORED_SUFFIXES
    return zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED


def _info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # the earliest date that a zip can say
    info.create_system = 3  # Unix: the upper half of external_attr is its mode, which Ray and we restore
    info.external_attr = mode << 16
    return info
