"""Which libraries values and cells need, in which versions they are here and there, and whether that matters.

What a job needs is a mapping from modules to what pip would call them,
``{"sklearn": "scikit-learn==1.5.2"}``; what a cluster has is one from the same modules to versions,
``{"sklearn": "1.4.0"}``. No library is imported.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping

__all__ = [
    "PICKLES",
    "UNKNOWN",
    "differing",
    "installed",
    "name_and_version",
    "package_of",
    "pin",
    "requirements",
    "roots",
    "versions",
]

#: What :func:`installed` gives for a library that is there, and does not say in which version.
UNKNOWN = "?"
#: Libraries whose pickles are known not to cross versions, by module: so many numbers must agree.
PICKLES = {
    # Arrays of NumPy 2 name numpy._core, which 1.x has from 1.26.1 on, for reading alone:
    # https://github.com/numpy/numpy/pull/24906
    "numpy": 1,
    # Older pickles are read by newer versions, and not the other way round:
    # https://pandas.pydata.org/docs/reference/api/pandas.read_pickle.html
    "pandas": 1,
    # Not supported, and warned of, between any two versions; patches have been harmless:
    # https://scikit-learn.org/stable/model_persistence.html
    "sklearn": 2,
    # Newer versions read what older ones wrote, and not the other way round:
    # https://discuss.pytorch.org/t/model-saved-by-torch2-1-0-cant-load-in-2-0-0/204988/2
    "torch": 2,
    # Its objects are those of one version; Ray itself refuses a client of another one.
    "ray": 3,
}

#: Import names that differ from the distribution's; for others all distributions are searched, once.
_KNOWN = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "yaml": "PyYAML",
    "bs4": "beautifulsoup4",
    "dateutil": "python-dateutil",
    "skimage": "scikit-image",
}


def package_of(kind: type) -> str:
    """Give the first part of a type's module.

    It is empty where that is no text: a type of Cython's own has a descriptor there.
    """
    module = kind.__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Give the versions of the distributions behind `modules`; standard library and local files have none.

    Parameters
    ----------
    modules : iterable of str
        Dotted names.

    Returns
    -------
    dict of str to str
        ``{"numpy": "2.1.0"}``, sorted by name.
    """
    found = {_distribution(root) for root in roots(modules)}
    return dict(sorted(pair for pair in found if pair))


def roots(modules: Iterable[str]) -> frozenset[str]:
    """Give the first parts of dotted names, without the standard library and what travels with every job."""
    found = {module.partition(".")[0] for module in modules if module}
    ours = __name__.partition(".")[0]
    return frozenset(found - {ours, "cloudpickle", "__main__", "IPython"} - sys.stdlib_module_names)


def requirements(modules: Iterable[str]) -> dict[str, str]:
    """Give what pip would call the libraries behind `modules`, in the versions that are here.

    Parameters
    ----------
    modules : iterable of str
        Dotted names.

    Returns
    -------
    dict of str to str
        By the first part of the module's name. One that is not installed here has no version; one that
        several distributions share is left out.
    """
    found = {}
    for root in sorted(roots(modules)):
        pair = _distribution(root)
        if pair is None:
            names = set(_distributions().get(root, ()))
            if len(names) > 1:
                continue
            name = names.pop() if names else ""
            pair = (name, importlib.metadata.version(name)) if name else (_KNOWN.get(root, root), "")
        found[root] = "==".join(filter(None, pair))
    return found


def installed(needed: Mapping[str, str]) -> dict[str, str]:
    """Give the versions in which this process has what is needed.

    Parameters
    ----------
    needed : Mapping of str to str
        As :func:`requirements` gives it.

    Returns
    -------
    dict of str to str
        By module. Empty text: it is not here; :data:`UNKNOWN`: it is, and another distribution brings it.
        What a process has found once it gives again.
    """
    return {root: _version(root, name_and_version(text)[0]) for root, text in needed.items()}


@functools.cache
def _version(root: str, name: str) -> str:
    try:
        if importlib.util.find_spec(root) is None:
            return ""
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
    except (ImportError, ValueError):  # a module that was made by hand has no spec
        return UNKNOWN


def name_and_version(requirement: str) -> tuple[str, str]:
    """Take ``numpy==2.1.0`` apart; the version may be empty."""
    name, _, version = requirement.partition("==")
    return name, version


def pin(requirement: str) -> str:
    """Give what to write behind ``--pip``; a build's own suffix (``2.5.1+cu121``) pip would not find."""
    return requirement.partition("+")[0]


def differing(needed: Mapping[str, str], there: Mapping[str, str], *, all_: bool = False) -> list[str]:
    """Give the modules whose versions here and there differ so that values may not travel.

    Parameters
    ----------
    needed : Mapping of str to str
        As :func:`requirements` gives it here.
    there : Mapping of str to str
        As :func:`installed` gives it there.
    all_ : bool
        Any difference of any library, not only what :data:`PICKLES` knows of.
    """
    found = []
    for root, requirement in needed.items():
        here, other = name_and_version(requirement)[1], there.get(root, "")
        count = 9 if all_ else PICKLES.get(root, 0)
        if here and other not in ("", UNKNOWN) and _numbers(here, count) != _numbers(other, count):
            found.append(root)
    return found


def _numbers(version: str, count: int) -> list[str]:
    return re.findall(r"\d+", version.partition("+")[0])[:count]


@functools.cache
def _distribution(root: str) -> tuple[str, str] | None:
    name = _KNOWN.get(root, root)
    try:
        return name, importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
    origin = getattr(sys.modules.get(root), "__file__", None) or ""
    if "site-packages" not in origin and "dist-packages" not in origin:
        return None
    names = _distributions().get(root)
    return (names[0], importlib.metadata.version(names[0])) if names else None


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())
