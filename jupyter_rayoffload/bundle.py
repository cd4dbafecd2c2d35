"""The runner's own package: made from this environment, so that nothing has to be installed on the cluster.

Ray unpacks a py_module as it is and puts its folder first on ``sys.path``. The top level holds what must win
there: the runner, under a versioned name, and the two libraries whose versions must match ours. The folder
:data:`SITE`, which the runner appends to ``sys.path``, holds what the image may have in a version of its
own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path, PurePosixPath

from blake3 import blake3
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from . import __version__
from .archive import (
    Entry,
    cache_folder,
    entry_of,
    manifest,
    platform_tag,
    prune,
    read_settled,
    replacing,
    write_zip,
)
from .errors import WorkspaceError

__all__ = ["SITE", "Bundle", "build", "cached"]

#: Folder in the bundle that the runner appends to ``sys.path``; remote/__main__.py has the same name.
SITE = "rayoffload_site"
#: Distributions that must be ours: what pickles and what signs.
FIRST = ("cloudpickle", "blake3")
#: Distributions that an image may have in a version of its own; what they need comes along.
LAST = ("redis", "ipython")
#: Never needed by the runner, and 34 MB: completion (IPython works without).
OMITTED = frozenset({"jedi", "parso"})
#: What programs import: a name that does not change with our version.
_JOB_MODULE = '''"""Input and output of a program that runs as a job."""

from {package}.program import read_input, write_output

__all__ = ["read_input", "write_output"]
'''
#: Of the metadata, what importlib.metadata and plug-ins (matplotlib finds its inline back end so) are asked
#: for.
_METADATA = frozenset({"METADATA", "entry_points.txt"})
_LAYOUT = "1"  # another layout is another bundle


@dataclass(frozen=True)
class Bundle:
    """The runner's package in this environment's cache.

    Parameters
    ----------
    digest : str
        64 hex digits: of content, not keyed, for it holds nothing of anybody's.
    path : Path
        Of the zip.
    package : str
        What ``python -m`` runs.
    platform : str
        Platform and Python that its compiled modules are made for: ``linux-x86_64-cp311``.
    """

    digest: str
    path: Path
    package: str
    platform: str


def cached(digest: str, cache_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Give the zip of a bundle that was built here, if it is still there."""
    path = _folder(cache_dir) / f"{digest}.zip"
    return path if path.exists() else None


def build(cache_dir: str | os.PathLike[str] | None = None) -> Bundle:
    """Give the runner's package, built anew only when this environment has changed.

    Parameters
    ----------
    cache_dir : path-like, optional
        By default in Jupyter's data folder.

    Raises
    ------
    WorkspaceError
        A distribution is missing or incomplete, or the cache folder cannot be written.
    """
    folder = _folder(cache_dir)
    remote = list(_remote_files())
    runner = _digest("".join(f"{e.path} {e.digest}\n" for e in remote).encode())
    package = f"rayoffload_remote_{__version__.replace('.', '_').replace('+', '_')}_{runner[:8]}"
    name = _digest("\0".join((_LAYOUT, package, sys.prefix, platform_tag())).encode())[:32]
    index = folder / f"{name}.json"
    known = _known(index, folder)
    if known is not None:
        return known
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _build(folder, index, package, remote)
    except OSError as error:
        raise WorkspaceError(
            f"the runner's package cannot be written to {folder}: {error.strerror}",
            "Make room there, or name another folder in JUPYTER_DATA_DIR",
        ) from None


def _folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    return cache_folder(cache_dir) / "bundles"


def _digest(data: bytes) -> str:
    return blake3(data).hexdigest()


# ---------------------------------------------------------------------- the cache


def _known(index: Path, folder: Path) -> Bundle | None:
    """Give the bundle of the last build, if the distributions are still those that it was made of."""
    try:
        noted = json.loads(index.read_bytes())
        if any(_stamp(Path(path)) != stamp for path, stamp in noted["stamps"].items()):
            return None
        bundle = Bundle(
            noted["digest"], folder / f"{noted['digest']}.zip", noted["package"], noted["platform"]
        )
        os.utime(bundle.path)  # in use: not to be pruned
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return bundle


def _stamp(path: Path) -> list[int]:
    """Give what changes when an installer writes to a distribution's metadata."""
    info = path.stat()
    return [info.st_mtime_ns, info.st_ino]


# ---------------------------------------------------------------------- the build


def _build(folder: Path, index: Path, package: str, remote: Iterable[Entry]) -> Bundle:
    stamps: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        job = Path(scratch, "rayoffload_job.py")
        job.write_text(_JOB_MODULE.format(package=package), encoding="utf-8")
        entries = [_entry(job.name, job), *(e._replace(path=f"{package}/{e.path}") for e in remote)]
        first, last = _distributions()
        whole = True
        for prefix, distributions in (("", first), (f"{SITE}/", last)):
            for distribution in distributions:
                members = _Members(distribution)
                whole = whole and members.installed
                stamps.update((str(path), _stamp(path)) for path in members.metadata.values())
                entries += [_entry(prefix + path, source) for path, source in members]
        digest = _digest(manifest(entries, ()))
        bundle = Bundle(digest, folder / f"{digest}.zip", package, platform_tag())
        write_zip(bundle.path, entries, (), _digest, level=6)  # made once, sent to many clusters
    if whole:  # a distribution that is developed in place changes without its metadata
        noted = {"digest": digest, "package": package, "platform": bundle.platform, "stamps": stamps}
        with replacing(index) as temporary:
            temporary.write_text(json.dumps(noted), encoding="utf-8")
    prune(folder, ".zip")
    prune(folder, ".json")
    return bundle


def _entry(path: str, source: Path) -> Entry:
    data, info = read_settled(str(source))
    return entry_of(path, str(source), info, _digest(data))


def _remote_files() -> Iterator[Entry]:
    folder = Path(__file__).parent / "remote"
    for source in sorted(folder.rglob("*.py")):
        yield _entry(source.relative_to(folder).as_posix(), source)


def _distributions() -> tuple[list[metadata.Distribution], list[metadata.Distribution]]:
    """Find what travels: what must be ours, and what the rest needs."""
    first = [_distribution(name) for name in FIRST]
    last: dict[str, metadata.Distribution] = {}
    pending = [*LAST, *(name for distribution in first for name in _needs(distribution))]
    while pending:
        name = canonicalize_name(pending.pop())
        if name not in last and name not in FIRST and name not in OMITTED:
            last[name] = _distribution(name)
            pending += _needs(last[name])
    return first, [last[name] for name in sorted(last)]


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise WorkspaceError(
            f"{name} is not installed in this environment, and the runner on the cluster needs it",
            f"Install it: pip install {name}",
        ) from None


def _needs(distribution: metadata.Distribution) -> Iterator[str]:
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


class _Members:
    """The files of a distribution that travel: ``(path in the package, source)``.

    Parameters
    ----------
    distribution : Distribution
    """

    def __init__(self, distribution: metadata.Distribution) -> None:
        self._distribution = distribution
        listed = {
            path.as_posix(): source
            for path in distribution.files or ()
            if (source := Path(str(distribution.locate_file(path)))).is_file()
        }
        self._modules = {path: source for path, source in listed.items() if _is_module_file(path)}
        #: False for one that is developed in place, or comes from a packager who leaves no list of files.
        self.installed = any(path.endswith((".py", *EXTENSION_SUFFIXES)) for path in self._modules)
        if not self.installed:
            self._modules = dict(self._imported())
        self.metadata = {path: source for path, source in listed.items() if _is_metadata(path)}
        if not self.metadata:
            self.metadata = dict(self._noted())

    def __iter__(self) -> Iterator[tuple[str, Path]]:
        yield from self._modules.items()
        yield from self.metadata.items()

    def _imported(self) -> Iterator[tuple[str, Path]]:
        """Find the files where the import system finds the modules."""
        name = self._distribution.metadata["Name"]
        for module in (self._distribution.read_text("top_level.txt") or name.replace("-", "_")).split():
            spec = importlib.util.find_spec(module)
            if spec is None or spec.origin is None:
                raise WorkspaceError(
                    f"the files of {name} cannot be found", f"Install it again: pip install {name}"
                )
            source = Path(spec.origin)
            if not spec.submodule_search_locations:
                yield source.name, source
                continue
            for file in source.parent.rglob("*"):
                path = file.relative_to(source.parent.parent).as_posix()
                if file.is_file() and _is_module_file(path):
                    yield path, file

    def _noted(self) -> Iterator[tuple[str, Path]]:
        place = Path(str(getattr(self._distribution, "_path")))  # noqa: B009  no public name for it
        for file in place.glob("*"):
            if file.name in _METADATA or file.name == "PKG-INFO":
                yield f"{place.name}/{file.name}", file


def _is_metadata(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder.endswith((".dist-info", ".egg-info")) and (name in _METADATA or name == "PKG-INFO")


def _is_module_file(path: str) -> bool:
    place = PurePosixPath(path)
    top = place.parts[0]
    return not (
        top in ("..", "/")
        or top.endswith((".dist-info", ".egg-info", ".pth"))
        or place.suffix in (".pyc", ".pyi")
        or place.name == "py.typed"
        or not {"__pycache__", "tests"}.isdisjoint(place.parts)
    )
