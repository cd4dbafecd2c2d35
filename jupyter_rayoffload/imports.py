"""Names that an offloaded cell imported, bound here without paying for them.

``import torch`` in an offloaded cell binds ``torch`` in the notebook, as it would have here. But a notebook
pod must not load what only the cluster computes with, and may not even have it installed: so a module that is
not loaded yet is bound lazily, and one that is not installed as a stand-in that says so when it is used.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Collection
from typing import Any

__all__ = ["Absent", "bind", "imported_value"]


class Absent(types.ModuleType):
    """Stands for a module that the cluster has and this environment lacks; travels as that module."""

    def __init__(self, module: str, attribute: str = "") -> None:
        super().__init__(module)
        self.__dict__["_rayoffload_import"] = (module, attribute)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        module = self.__dict__["_rayoffload_import"][0]
        raise ImportError(
            f"{module} is not installed in this notebook's environment. Use it in a %%ray_job cell, "
            f"or install it here: pip install {module.partition('.')[0]}"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as any other use does."""
        return self.__getattr__("call")

    def __reduce__(self) -> tuple[Any, ...]:
        module, attribute = self.__dict__["_rayoffload_import"]
        if attribute:
            return getattr, (_Import(module), attribute)
        return importlib.import_module, (module,)

    def __repr__(self) -> str:
        return f"<module {self.__name__!r}: on the cluster, not in this environment>"


_LazyModule: Any = importlib.util._LazyModule  # type: ignore[attr-defined]


class _Lazy(_LazyModule):  # type: ignore[misc]
    """A module that is executed at its first use; that somebody asks what it is, is none.

    importlib's own is executed by ``isinstance(module, list)`` already, which asks it for its class.
    """

    # Not __path__: who asks for that imports a submodule, before which its package must have run.
    _ASKED = frozenset(
        (
            "__class__",
            "__name__",
            "__spec__",
            "__loader__",
            "__package__",
            "__file__",
            "__reduce__",
            "__reduce_ex__",
        )
    )

    def __getattribute__(self, name: str) -> Any:
        if name in _Lazy._ASKED:
            return object.__getattribute__(self, name)
        object.__setattr__(self, "__class__", _LazyModule)
        return getattr(self, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


class _Import:
    """Pickles as the module of that name."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self._module,)


def bind(module: str, attribute: str | None = "", submodules: Collection[str] = ()) -> Any:
    """Give what ``import module`` or ``from module import attribute`` would bind here.

    Parameters
    ----------
    module : str
        Dotted name.
    attribute : str, optional
    submodules : collection of str
        Dotted names of what ``import module.submodule`` loads besides.

    Returns
    -------
    object
        The module (loaded at first use), the attribute, or an :class:`Absent`.
    """
    value = _bound(module, attribute or "")
    if submodules and not isinstance(value, Absent):
        _with_submodules(value, submodules)
    return value


def _bound(module: str, attribute: str) -> Any:
    loaded = sys.modules.get(module)
    if loaded is not None:
        return getattr(loaded, attribute, loaded) if attribute else loaded
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return Absent(module, attribute)
    return imported_value(module, attribute) if attribute else _lazy(module, spec)


def _with_submodules(module: Any, submodules: Collection[str]) -> None:
    """Let a module have its submodules: at once, or when its own code has run, if that is to come yet."""
    if not isinstance(module, _Lazy):
        for name in submodules:
            bind(name)
        return
    loader: Any = module.__spec__.loader
    execute = loader.exec_module

    def exec_module(module: types.ModuleType) -> None:
        execute(module)
        for name in submodules:
            bind(name)

    loader.exec_module = exec_module


def imported_value(module: str, attribute: str | None = "", submodules: Collection[str] = ()) -> Any:
    """Import now, and give the module or its attribute."""
    loaded = importlib.import_module(module)
    for name in submodules:
        importlib.import_module(name)
    return getattr(loaded, attribute) if attribute else loaded


def _lazy(name: str, spec: Any) -> types.ModuleType:
    """Give a module that is executed at its first attribute access (importlib's own recipe)."""
    if spec.loader is None or not hasattr(spec.loader, "exec_module"):
        return importlib.import_module(name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    object.__setattr__(module, "__class__", _Lazy)
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)
    return module
