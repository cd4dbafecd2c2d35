"""Which distributions the values of a stream need, and in which versions they are here."""

from __future__ import annotations

import functools
import importlib.metadata
import sys
from collections.abc import Iterable

__all__ = ["package_of", "versions"]

#: Import names that differ from the distribution's; for others all distributions are searched, once.
_KNOWN = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "yaml": "PyYAML",
    "bs4": "beautifulsoup4",
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
    roots = {module.partition(".")[0] for module in modules if module}
    ours = __name__.partition(".")[0]
    found = {
        _distribution(root)
        for root in roots - {ours, "cloudpickle", "__main__"}
        if root not in sys.stdlib_module_names
    }
    return dict(sorted(pair for pair in found if pair))


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
