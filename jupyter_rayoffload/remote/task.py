"""What Ray runs for a batch: one task for each chunk of its items. Light, for every worker imports it."""

from __future__ import annotations

import sys
from typing import Any

from .__main__ import SITE

__all__ = ["run_chunk"]

_runners: dict[str, Any] = {}


def run_chunk(shared: list[Any], order: dict[str, Any]) -> dict[str, Any]:
    """Run some items of a batch.

    Parameters
    ----------
    shared : list of one ObjectRef
        What all items need; in a list, so that a worker reads it once and not for every chunk.
    order : dict
        ``{job, indices, items}``; see :mod:`.items`.

    Returns
    -------
    dict
        As :meth:`.items.ItemRunner.run` gives it.
    """
    runner = _runners.get(order["job"])
    if runner is None:
        import ray

        if SITE.is_dir() and str(SITE) not in sys.path:
            sys.path.append(str(SITE))  # at the end: what the image has wins
        from .items import ItemRunner

        runner = _runners[order["job"]] = ItemRunner(ray.get(shared[0]))
    result: dict[str, Any] = runner.run(order)
    return result
