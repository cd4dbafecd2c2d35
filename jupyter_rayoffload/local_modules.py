"""Local modules: what a cell imports from outside site-packages, and has to travel.

Nothing is imported to find out. Modules that are loaded say where they come from, others are looked for, and
what they import in turn is read from their source.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import os
import sys
import sysconfig
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from .archive import file_state, settled
from .errors import UsageError
from .scan import Found, Scan
from .workspace import DEFAULT_LIMITS, Limits, Recipe, Snapshot

if TYPE_CHECKING:
    from .remote.signing import Signer

__all__ = ["LocalModule", "local_modules", "pack_modules"]

#: This package, which may be an editable install: a logger, for one, leads to it, and no cell needs it there.
_OURS = __name__.partition(".")[0]


@dataclass(frozen=True)
class LocalModule:
    """A module or package that is not installed: the whole of it travels.

    Parameters
    ----------
    name : str
        Its top-level name; of one in a namespace package the dotted name below it.
    path : Path
        The package's folder, or the module's file.
    member : str
        Its path in a package of modules.
    search : Path
        The folder that has to be on ``sys.path``.
    sys_path : str or None
        `search` as a path in the workspace, ``""`` for the workspace itself; None where the workspace does
        not have the module.
    """

    name: str
    path: Path
    member: str
    search: Path
    sys_path: str | None

    @property
    def apart(self) -> bool:
        """Whether the workspace alone does not make it importable."""
        return self.sys_path != ""


def local_modules(
    names: Iterable[str],
    root: Path | None,
    *,
    explicit: Sequence[str] = (),
    files: Collection[str] | None = None,
) -> list[LocalModule]:
    """Find the local modules among `names`, and those that they import.

    Parameters
    ----------
    names : iterable of str
        Dotted names of modules that the cell and its inputs import.
    root : Path or None
        The workspace.
    explicit : sequence of str
        Of ``--py-module``: dotted names, also of installed modules, or paths of a package's folder or a
        ``.py`` file.
    files : collection of str, optional
        What of the workspace travels, if not all: ``_version.py``, which ``.gitignore`` usually names, is
        needed.

    Raises
    ------
    UsageError
        There is no module that `explicit` names.
    """
    names = list(names)
    if not names and not explicit:
        return []
    importlib.invalidate_caches()  # a file made this second is found too
    search = _Search(Path(os.path.realpath(root)) if root is not None else None, files)
    for text in explicit:
        search.follow_explicit(text)
    search.follow(name for name in names if name not in explicit)
    return sorted(search.found.values(), key=lambda module: module.name)


def pack_modules(
    modules: Iterable[LocalModule],
    *,
    signer: Signer,
    limits: Limits = DEFAULT_LIMITS,
    cache_dir: str | os.PathLike[str] | None = None,
) -> list[Snapshot]:
    """Give the packages of those modules that the workspace alone does not make importable.

    There is one for each folder that has to be on ``sys.path``, laid out as that folder is. ``.gitignore``
    does not count in them, for what it usually names (``_version.py``, compiled modules) is needed to import
    the rest; ``.rayignore`` does.

    Raises
    ------
    WorkspaceTooLarge
    WorkspaceError
        A file cannot be read.
    """
    apart = sorted((m for m in modules if m.apart), key=lambda m: (m.search, m.name))
    groups = [(search, tuple(group)) for search, group in itertools.groupby(apart, lambda m: m.search)]
    return [_snapshot(search, group, signer, limits, cache_dir) for search, group in groups]


def _snapshot(
    search: Path,
    modules: Sequence[LocalModule],
    signer: Signer,
    limits: Limits,
    cache_dir: str | os.PathLike[str] | None,
) -> Snapshot:
    names = ", ".join(module.name for module in modules)

    def scan(most: int) -> Scan:
        found = Scan(most, gitignore=False)
        for module in modules:
            if module.path.is_dir():
                found.walk(str(module.path), prefix=module.member)
            elif module.path.exists():
                found.files.append(Found(module.member, str(module.path), module.path.stat(), allowed=True))
        return found

    title = f"module{'s' * (len(modules) > 1)} {names}"
    shot = Recipe(search, title, scan, limits, cache_dir, f"{search}:{names}", signer).take()
    if shot.platform:
        note = (
            f"{title[0].upper()}{title[1:]}: compiled for {shot.platform}, and of no use on another platform"
        )
        shot = replace(shot, notes=(*shot.notes, note))
    return shot


# ---------------------------------------------------------------------- the search


class _Search:
    """Follows imports from module to module.

    Parameters
    ----------
    root : Path or None
    files : collection of str or None
    """

    def __init__(self, root: Path | None, files: Collection[str] | None) -> None:
        self.found: dict[str, LocalModule] = {}
        self._root, self._files = root, files
        self._specs: dict[str, ModuleSpec | None] = {}  # None: not found, or installed

    def follow(self, names: Iterable[str]) -> None:
        """Take in the local ones of `names`, and what they import."""
        pending = list(names)
        while pending:
            name = pending.pop()
            if name.partition(".")[0] == _OURS:
                continue
            for prefix in _prefixes(name):
                if prefix not in self._specs:
                    self._specs[prefix] = spec = self._local_spec(prefix)
                    if spec is not None and not _is_namespace(spec):
                        pending += self._take(prefix, spec)
                if self._specs[prefix] is None:
                    break

    def follow_explicit(self, text: str) -> None:
        """Take in what ``--py-module`` names, installed or not."""
        spec = None if os.sep in text else _find(text, self._specs)
        if spec is None or _is_namespace(spec) or not spec.has_location:
            name, spec = _spec_of_path(text)
        else:
            name = text.partition(".")[0]
            spec = _find(name, self._specs) or spec
        self._specs[name] = spec
        self.follow(self._take(name, spec))

    def _local_spec(self, name: str) -> ModuleSpec | None:
        spec = _find(name, self._specs)
        if spec is None:
            return None
        parent = self._specs.get(name.rpartition(".")[0])
        if _is_namespace(spec):
            places = [
                place for place in spec.submodule_search_locations or () if not _is_installed(Path(place))
            ]
            local = ModuleSpec(name, None, is_package=True)
            local.submodule_search_locations = places
            return local if places else None
        if not spec.has_location or not os.path.exists(spec.origin or ""):
            return None
        inner = parent is not None and not _is_namespace(parent)  # as local as the package that it is in
        return spec if inner or not _is_installed(_place(spec).resolve()) else None

    def _take(self, name: str, spec: ModuleSpec) -> Iterator[str]:
        """Note the module, and give the names of what it imports."""
        unit = next(p for p in _prefixes(name) if not _is_namespace(self._specs[p]))
        if unit == name:
            self.found[name] = self._module(name, spec)
            yield from [loaded for loaded in list(sys.modules) if loaded.startswith(f"{name}.")]
        origin = Path(spec.origin or "")
        module = self.found[unit]
        if module.sys_path is not None and not self._travels(origin):
            self.found[unit] = replace(module, sys_path=None)
        if origin.suffix == ".py":
            yield from _imports(origin, name if spec.submodule_search_locations else name.rpartition(".")[0])

    def _module(self, name: str, spec: ModuleSpec) -> LocalModule:
        place = _place(spec)
        parts = name.split(".")
        search = place.parents[len(parts) - 1].resolve()
        file = parts[-1] if spec.submodule_search_locations else place.name
        inside = self._root is not None and search.is_relative_to(self._root)
        sys_path = None
        if inside and self._root is not None:
            relative = search.relative_to(self._root).as_posix()
            sys_path = "" if relative == "." else relative
        return LocalModule(name, place.resolve(), "/".join([*parts[:-1], file]), search, sys_path)

    def _travels(self, origin: Path) -> bool:
        """Say whether the workspace has this file; one that is linked to from outside does not travel."""
        path = origin.resolve()
        if self._root is None or not path.is_relative_to(self._root):
            return False
        return self._files is None or path.relative_to(self._root).as_posix() in self._files


def _prefixes(name: str) -> list[str]:
    return list(itertools.accumulate(name.split("."), lambda left, right: f"{left}.{right}"))


def _is_namespace(spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.submodule_search_locations is not None and not spec.has_location


def _place(spec: ModuleSpec) -> Path:
    """Give the folder of a package, or the file of a module."""
    origin = Path(os.path.abspath(spec.origin or ""))
    return origin.parent if spec.submodule_search_locations is not None else origin


def _is_installed(path: Path) -> bool:
    # Not all below sys.prefix: a system's Python has /usr, and images keep their projects in /usr/src/app.
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return True
    library = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    return any(path.is_relative_to(folder) for folder in library)


def _find(name: str, known: dict[str, ModuleSpec | None]) -> ModuleSpec | None:
    """Find a module without executing anything, its packages included."""
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None)
    if isinstance(spec, ModuleSpec):
        return spec
    parent = name.rpartition(".")[0]
    try:
        if not parent:
            return importlib.util.find_spec(name)
        above = known.get(parent) or _find(parent, known)
        if above is None or above.submodule_search_locations is None:
            return None
        # By its last part: for a dotted name, a namespace package asks for its loaded parent.
        return PathFinder.find_spec(name.rpartition(".")[2], list(above.submodule_search_locations))
    except (ImportError, ValueError, AttributeError):  # what finders of others raise
        return None


def _spec_of_path(text: str) -> tuple[str, ModuleSpec]:
    path = Path(text).expanduser().resolve()
    source = path / "__init__.py" if path.is_dir() else path
    if not path.is_dir() and path.suffix not in (".py", *EXTENSION_SUFFIXES):
        raise UsageError(
            f"--py-module {text}: there is no such module, package folder or .py file",
            "Give a name that can be imported here, or a path; what pip installs goes to --pip",
        )
    name = path.name.partition(".")[0]
    if not name.isidentifier():
        raise UsageError(f"--py-module {text}: {name} cannot be imported by that name", "Rename it")
    places = [str(path)] if path.is_dir() else None
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=places)
    if spec is None or not path.exists():
        raise UsageError(f"--py-module {text}: there is no {path}", "Give the path of one that exists")
    return name, spec


# ---------------------------------------------------------------------- imports, read from source

_Import = tuple[int, str, tuple[str, ...]]  # level, module, names
_parsed: dict[str, tuple[list[int], tuple[_Import, ...]]] = {}


def _imports(source: Path, package: str) -> Iterator[str]:
    """Give the dotted names that a source file in `package` may import."""
    for level, module, names in _statements(source):
        if level:
            above = package.split(".")[: len(package.split(".")) - level + 1]
            module = ".".join([*above, *([module] if module else [])])
        if module:
            yield module
            yield from (f"{module}.{name}" for name in names)  # a name may be a module


def _statements(source: Path) -> tuple[_Import, ...]:
    try:
        info, now = source.stat(), time.time_ns()
        known = _parsed.get(str(source))
        if known is not None and known[0] == file_state(info):
            return known[1]
        with warnings.catch_warnings():  # of doubtful escapes: Python says so when the module is imported
            warnings.simplefilter("ignore")
            tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):  # it fails where it is imported, with the right words
        return ()
    found = tuple(
        _statement(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
    )
    statements = tuple(itertools.chain.from_iterable(found))
    if settled(info, now):
        _parsed[str(source)] = (file_state(info), statements)
    return statements


def _statement(node: ast.Import | ast.ImportFrom) -> list[_Import]:
    if isinstance(node, ast.Import):
        return [(0, alias.name, ()) for alias in node.names]
    return [(node.level, node.module or "", tuple(alias.name for alias in node.names))]
