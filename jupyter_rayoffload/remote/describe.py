"""What a value is, in a few words, for lists of inputs and outputs.

Nothing here runs code of a user's class that may be slow or raise, and no library is imported: types are
recognized by the names of their classes and modules.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from .libraries import package_of

__all__ = ["describe"]

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType)
#: Containers whose length is known at once, and what they hold.
_CONTAINERS: dict[type, str] = {
    dict: "keys",
    list: "items",
    tuple: "items",
    set: "items",
    frozenset: "items",
    str: "characters",
    bytes: "bytes",
    bytearray: "bytes",
}
#: Classes with a shape, by the first part of their module: whether the words name the element type too.
_SHAPED = {
    ("numpy", "ndarray"): True,
    ("pandas", "DataFrame"): False,
    ("pandas", "Series"): False,
    ("pandas", "Index"): False,
    ("polars", "DataFrame"): False,
    ("polars", "Series"): False,
    ("pyarrow", "Table"): False,
    ("torch", "Tensor"): True,
    ("jaxlib", "ArrayImpl"): True,
    ("tensorflow", "Tensor"): True,
    ("scipy", "_spbase"): True,
    ("scipy", "spmatrix"): True,
    ("cupy", "ndarray"): True,
}


def describe(value: Any) -> str:
    """Say what a value is: ``DataFrame 1,000,000 × 12``, ``dict, 4 keys``, ``module numpy``, ``Model``.

    Parameters
    ----------
    value : object

    Returns
    -------
    str
    """
    kind = type(value)
    try:
        if isinstance(value, types.ModuleType):
            return f"module {types.ModuleType.__getattribute__(value, '__name__')}"
        if issubclass(kind, type):
            return "class"
        if issubclass(kind, _FUNCTIONS) or kind.__name__ == "_lru_cache_wrapper":
            return "function"
        return _shaped(value, kind) or _counted(value, kind) or kind.__name__
    except Exception:  # a shape or length of the user's own that raises: the name says enough
        return kind.__name__


def _shaped(value: Any, kind: type) -> str:
    for base in kind.__mro__:
        typed = _SHAPED.get((package_of(base), base.__name__))
        if typed is not None:
            sizes = " × ".join(f"{size:,}" for size in tuple(value.shape)) or "scalar"
            dtype = str(value.dtype).removeprefix("torch.") if typed else ""
            return " ".join(part for part in (kind.__name__, sizes, dtype) if part)
    return ""


def _counted(value: Any, kind: type) -> str:
    for base, unit in _CONTAINERS.items():
        if issubclass(kind, base):
            length: Callable[[Any], int] = base.__len__  # type: ignore[attr-defined]
            count = length(value)
            return f"{kind.__name__}, {count:,} {unit[:-1] if count == 1 else unit}"
    return ""
