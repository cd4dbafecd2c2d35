"""What a kernel sets up for libraries, done when the cell imports them and not before."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .on_ray import lasting_connection

__all__ = ["AfterImport", "prepare_libraries"]

#: Draws figures as outputs of the cell; importing it registers the flush at the cell's end.
INLINE_BACKEND = "module://matplotlib_inline.backend_inline"


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function once, right after a module has been imported.

    Parameters
    ----------
    hooks : dict of str to callable
        By the full name of the module; called with the module.
    """

    def __init__(self, hooks: dict[str, Callable[[ModuleType], None]]) -> None:
        self._hooks = dict(hooks)

    def install(self) -> None:
        """Begin to watch; modules that are there already are served at once."""
        for name in [n for n in self._hooks if n in sys.modules]:
            self._hooks.pop(name)(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module as everybody else does, and run the hook behind its code."""
        hook = self._hooks.pop(fullname, None)  # gone, so that the search below does not come here again
        if hook is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            hook(module)

        # On the instance: the loader stays the real one for whoever asks it for resources.
        setattr(spec.loader, "exec_module", exec_module)  # noqa: B010
        return spec


def prepare_libraries() -> None:
    """Watch for the libraries that behave differently in a notebook."""
    AfterImport(
        {
            "matplotlib": _inline_figures,
            "matplotlib.figure": _figures_as_pictures,
            "pandas": _frames_of_a_notebook,
            "tqdm.notebook": _text_bars,
            "ray": lasting_connection,
        }
    ).install()


def _inline_figures(matplotlib: Any) -> None:
    # Not by MPLBACKEND, as kernels do it: child processes inherit that and may lack the back end.
    if not os.environ.get("MPLBACKEND"):
        matplotlib.rcParams["backend"] = INLINE_BACKEND


def _figures_as_pictures(module: Any) -> None:
    # As pyplot's import does in a kernel; a figure may be an input of a cell that does not import that.
    from IPython.core.getipython import get_ipython
    from IPython.core.pylabtools import select_figure_formats

    shell = get_ipython()
    if shell is not None:
        select_figure_formats(shell, {"png"})  # type: ignore[no-untyped-call,unused-ignore]


def _frames_of_a_notebook(pandas: Any) -> None:
    # It takes this for a terminal, whose width it would ask for (is_terminal in pandas/core/config_init.py).
    if pandas.get_option("display.max_columns") == 0:
        pandas.set_option("display.max_columns", 20)


def _text_bars(module: Any) -> None:
    """Let bars be text: as widgets they would need a kernel behind them."""
    std = importlib.import_module("tqdm.std")
    module.tqdm = module.tqdm_notebook = std.tqdm
    module.trange = module.tnrange = std.trange
