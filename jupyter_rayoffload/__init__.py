"""Run a notebook cell as a Ray job: variables, figures, files and errors come back into the notebook.

Nothing is imported here but the standard library: a notebook pod pays for Ray, Redis and aiohttp only
when a cell is offloaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that holds it; loaded at first use (PEP 562).
_PUBLIC = {
    "Job": "job",
    "OffloadError": "errors",
    "RayOffload": "config",
    "attach": "api",
    "cluster": "api",
    "jobs": "api",
    "offload": "api",
    "start_cluster": "api",
    "submit": "api",
    "submit_program": "api",
}

__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension", *sorted(_PUBLIC)]

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register ``%%ray_job`` and ``%ray`` (called by ``%load_ext jupyter_rayoffload``)."""
    from .magics import load

    load(shell)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Tell Jupyter Server which extension this package has."""
    from .server.app import RayOffloadApp

    return [{"module": __name__, "app": RayOffloadApp}]


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take back what :func:`load_ipython_extension` registered."""
    from .magics import unload

    unload(shell)
