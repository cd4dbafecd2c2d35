"""Which image Ray's pods get: the site's for this Python and Ray, else that of Ray's makers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import UsageError

__all__ = ["bad_key", "choose"]

#: ``py311``, ``py311-ray2.60`` or ``py311-ray2.60.0``.
_KEY = re.compile(r"py(\d)\.?(\d{1,2})(?:-ray(\d+(?:\.\d+){1,2}))?")


def bad_key(images: Mapping[str, object]) -> str:
    """Say what is wrong with a map of images; ``""`` where nothing is.

    Parameters
    ----------
    images : Mapping
    """
    for key, image in images.items():
        if not _KEY.fullmatch(key):
            return f"{key!r} is no key of images: those look like py311, py311-ray2.60 or py311-ray2.60.0"
        if not isinstance(image, str) or not image.strip():
            return f"{key!r} has no image: give its name, as in registry.example/ray:2.60.0-py311"
    return ""


def choose(
    images: Mapping[str, str], image: str, python: tuple[int, int], ray: str, default_ray: str
) -> tuple[str, str]:
    """Give the image for a Python and a Ray, and the version of Ray that is in it.

    Of several entries that fit, the one that says most of Ray's version counts. Where it does not matter
    which Ray it is, an entry of any Ray fits, and the newest counts.

    Parameters
    ----------
    images : Mapping of str to str
        The site's images; :func:`bad_key` has found nothing wrong with them.
    image : str
        What is used where none of them fits; empty where there is none.
    python : tuple of int
        Major and minor version.
    ray : str
        Empty where any will do.
    default_ray : str
        The version for an image whose key says nothing of Ray, where any will do.

    Returns
    -------
    tuple of str
        Image and version of Ray.

    Raises
    ------
    UsageError
        There are images, none fits, and there is no `image`.
    """
    best: tuple[tuple[int, ...], str, str] | None = None
    for key, candidate in images.items():
        found = _KEY.fullmatch(key)
        if found is None or (int(found[1]), int(found[2])) != python:
            continue
        there = found[3] or ""
        numbers = tuple(int(n) for n in there.split(".") if n)
        if ray and there and not f"{ray}.".startswith(f"{there}."):
            continue
        # Prefixes of one version are ordered by their length, others by which is newer.
        if best is None or numbers > best[0]:
            best = numbers, candidate, ray or there or default_ray
    if best is not None:
        return best[1], best[2]
    ray = ray or default_ray
    name = f"py{python[0]}{python[1]}"
    if image or not images:
        return image or f"rayproject/ray:{ray}-{name}", ray
    raise UsageError(
        f"images has no image for Python {python[0]}.{python[1]} and Ray {ray}; "
        f"there are images for {', '.join(sorted(images))}",
        f"Add {name} or {name}-ray{ray} to images, set image, or use a notebook with one of those versions",
    )
