"""Which names a cell may leave with another value, as far as its text and the types of the values tell.

Types are known by their package and name, so that nothing is imported for it.
"""

from __future__ import annotations

import builtins
import enum
import functools
import itertools
import re
import types
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analysis import Analysis

#: So many elements of a container are looked at, and so deep.
_MOST_ELEMENTS = 100
_DEEPEST = 3

#: Types whose values do not change, by package; what is derived from one of them counts as one. An empty
#: entry means all of the package: Arrow's tables and JAX's arrays; what Ray binds (`f.remote()` leaves `f` as
#: it is).
_CONSTANT = {
    "builtins": "NoneType bool int float complex str bytes range slice ellipsis NotImplementedType type "
    "module function builtin_function_or_method method",
    "datetime": "date time timedelta tzinfo",
    "decimal": "Decimal",
    "enum": "Enum",
    "fractions": "Fraction",
    "functools": "_lru_cache_wrapper",
    "ipaddress": "_IPAddressBase",
    "jax": "",
    "jaxlib": "",
    "logging": "Logger",
    "numpy": "generic dtype ufunc",
    "pathlib": "PurePath",
    "pyarrow": "",
    "ray": "",
    "re": "Pattern Match",
    "tensorflow": "Tensor EagerTensor",
    "types": "GenericAlias UnionType",
    "uuid": "UUID",
    "zoneinfo": "ZoneInfo",
}

#: numpy.ndarray: https://numpy.org/doc/stable/reference/arrays.ndarray.html. `byteswap(True)` swaps in place.
_NDARRAY = (
    "sort|fill|resize|put|partition|itemset|setflags|setfield|byteswap|"
    "harden_mask|soften_mask|unshare_mask|shrink_mask"
)
#: DataFrame, Series, Index: besides `inplace=True` these few; those of an array and of a dict through
#: `df.values` and `df.attrs`. https://pandas.pydata.org/docs/reference/frame.html
_FRAME = _NDARRAY + "|insert|isetitem|pop|update|setdefault|clear"

#: Methods that change a value, by package and (where not all) type name; any other leaves it as it is.
_MUTATORS: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (package, names, re.compile(pattern))
    for package, names, pattern in (
        ("numpy", "ndarray", _NDARRAY),
        ("pandas", "", _FRAME),
        ("modin", "", _FRAME),
        ("cudf", "", _FRAME),
        # Dataset, DataArray; `load` reads a lazy one into memory, in place.
        ("xarray", "", _NDARRAY + "|update|load|close|setdefault|clear"),
        # DataFrame, Series: https://docs.pola.rs/api/python/stable/reference/
        (
            "polars",
            "",
            "append|drop_in_place|extend|insert_at_idx|insert_column|replace|replace_at_idx|replace_column|"
            "scatter|set|set_at_idx",
        ),
        # Sparse matrices and arrays; the last five are those of the DOK format, which is a dict.
        (
            "scipy.sparse",
            "",
            "eliminate_zeros|prune|resize|setdiag|sort_indices|sum_duplicates|update|pop|popitem|setdefault|clear",
        ),
        # Tensors: what ends in one underscore works in place, and so do gradients.
        ("torch", "Tensor", r"(?!__)\w+_|backward|retain_grad"),
    )
)

_CONTAINERS = (list, dict, set, frozenset, tuple, deque, bytearray)
#: Methods of those that leave them, and what is in them, as they are; with those of text and numbers, since
#: `d["k"].strip()` is a method of an element.
_PURE = frozenset(
    name
    for kind in (str, bytes, tuple, frozenset, int, float, complex)
    for name in dir(kind)
    if name[:1] != "_"
) | frozenset("get keys values items fromkeys most_common elements total _asdict _replace".split())


class _Unknown:
    """A value that may be anything."""


#: Methods that say by their name that they only read, whatever they are called on: of data frames, arrays,
#: tensors and models. A value that another job will bring has no type yet, and a cell that reads it must not
#: wait for each job that reads it, too.
_READING = frozenset(
    "abs agg aggregate all any argmax argmin argsort assign astype bfill clip compute corr cov cpu "
    "cumsum describe detach diff dot drop_duplicates dropna equals eval ffill filter flatten groupby "
    "head hist iterrows itertuples isin isna isnull item join map max mean median melt merge min mode "
    "ndim nlargest notna nsmallest nunique numpy pct_change pivot pivot_table plot predict "
    "predict_proba prod quantile query rank ravel reindex rename resample reshape reset_index rolling "
    "round sample score select set_index shape shift size sort_values sort_index squeeze std sum tail "
    "to_csv to_dict to_excel to_json to_list to_numpy to_pandas to_parquet tolist transform transpose "
    "unique unstack stack value_counts var where".split()
)


def pending_writes(
    analysis: Analysis, namespace: Mapping[str, Any], unknown: Collection[str] = ()
) -> frozenset[str]:
    """Give the names whose next value other cells must wait for while the cell runs elsewhere.

    They are the names that it binds, deletes, item- or attribute-assigns, or calls a method on that may
    change the value. What is merely passed to a call is not waited for.

    Parameters
    ----------
    analysis : Analysis
    namespace : Mapping
        The notebook's `user_ns`; a name that is not in it yet may hold anything.
    unknown : collection of str
        As in :func:`watched`.

    Returns
    -------
    frozenset of str
    """
    return analysis.writes | analysis.deletes | changed_in_place(analysis, namespace, unknown)


def changed_in_place(
    analysis: Analysis, namespace: Mapping[str, Any], unknown: Collection[str] = ()
) -> frozenset[str]:
    """Give those of :func:`pending_writes` whose value itself the cell's own statements may change."""
    untyped = {n for n in unknown if _mutators(namespace.get(n)) is None}  # the next frame is a frame, too
    namespace = {n: v for n, v in namespace.items() if n not in untyped}
    items = {n for n in analysis.items if not isinstance(namespace.get(n), types.ModuleType)}
    return frozenset(items | _changed_by_methods(analysis, namespace))


def watched(
    analysis: Analysis,
    namespace: Mapping[str, Any],
    reached: Collection[str] = (),
    unknown: Collection[str] = (),
) -> frozenset[str]:
    """Give the inputs that the cell may change in place: they come back if their pickle differs afterwards.

    Parameters
    ----------
    analysis : Analysis
    namespace : Mapping
        The notebook's `user_ns`.
    reached : collection of str
        Names that only the functions which the cell calls read: these may change their values, too.
    unknown : collection of str
        Inputs that another job will bring, whatever the notebook has under their names now.

    Returns
    -------
    frozenset of str
    """
    namespace = {**namespace, **dict.fromkeys(unknown, _Unknown())}
    hidden = {n for n in reached if _is_data(namespace.get(n)) and _is_mutable(namespace.get(n))}
    hidden |= {n for n in {*analysis.reads, *reached} if _has_state(namespace.get(n))}
    found = {n for n in analysis.items if not isinstance(namespace.get(n), types.ModuleType)}
    found |= _changed_by_methods(analysis, namespace)
    found |= {n for n in analysis.passed if _is_mutable(namespace.get(n))}
    # A part of an array or of a data frame, `df["a"]` or `x[0]`, is a value of its own in nearly all cells.
    found |= {
        n for n in analysis.parts if _is_mutable(namespace.get(n)) and _mutators(namespace.get(n)) is None
    }
    return frozenset((found & analysis.reads | hidden) & namespace.keys())


def _changed_by_methods(analysis: Analysis, namespace: Mapping[str, Any]) -> set[str]:
    found = set()
    for name, methods in analysis.methods.items():
        if name not in namespace:
            reading = methods <= _READING | _PURE and name not in analysis.inplace
            if not reading and not hasattr(builtins, name):
                found.add(name)
            continue
        value = namespace[name]
        switched = name in analysis.inplace and not _is_constant(value)
        if switched or any(_changes(value, method) for method in methods):
            found.add(name)
    return found


def _changes(value: Any, method: str, depth: int = _DEEPEST) -> bool:
    """Whether calling `method` on `value`, or on what it leads to, may change it."""
    if isinstance(value, _CONTAINERS):
        if method in _PURE:
            return False
        if hasattr(type(value), method) or depth == 0:
            return True
        inside = _elements(value)
        return not inside or any(_changes(element, method, depth - 1) for element in inside)
    if _is_constant(value):
        return False
    mutators = _mutators(value)
    return mutators is None or bool(mutators.fullmatch(method)) or method in _methods_of_notebook(type(value))


def _has_state(value: Any) -> bool:
    """Whether a call of `value` may change what it closes over, is bound to, or holds.

    Of a class of the notebook that is its attributes, which its methods and ``__init_subclass__`` may change.
    """
    if isinstance(value, (types.MethodType, types.BuiltinMethodType)):
        return _is_mutable(value.__self__) and not isinstance(value.__self__, (type, types.ModuleType))
    if isinstance(value, functools.partial):
        return True
    if isinstance(value, types.FunctionType):
        return value.__module__ == "__main__" and _keeps_state(value)
    if isinstance(value, type):
        return value.__module__ == "__main__" and not issubclass(value, enum.Enum)
    return type(value).__module__ == "__main__" and callable(value)


def _keeps_state(function: types.FunctionType) -> bool:
    """Whether a function has variables or attributes of its own, or defaults that it may change."""
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    named = function.__name__ in function.__code__.co_names  # `f.calls = 1` in f itself
    return bool(function.__closure__ or vars(function)) or named or any(map(_is_mutable, defaults))


def _is_data(value: Any) -> bool:
    return not isinstance(value, (types.FunctionType, types.ModuleType, type))


def _is_mutable(value: Any, depth: int = _DEEPEST) -> bool:
    if isinstance(value, (tuple, frozenset)) and depth:
        return any(_is_mutable(element, depth - 1) for element in _elements(value))
    return not _is_constant(value)


def _is_constant(value: Any) -> bool:
    return any(
        _is_one_of(cls, package, names) for cls in type(value).__mro__ for package, names in _CONSTANT.items()
    )


def _mutators(value: Any) -> re.Pattern[str] | None:
    """Give the pattern of the methods that change `value`; None if its type is not known."""
    for cls in type(value).__mro__:
        for package, names, pattern in _MUTATORS:
            if _is_one_of(cls, package, names):
                return pattern
    return None


def _is_one_of(cls: type, package: str, names: str) -> bool:
    module = str(cls.__module__)
    return (module == package or module.startswith(f"{package}.")) and (
        not names or cls.__name__ in names.split()
    )


def _methods_of_notebook(kind: type) -> set[str]:
    """Give what the notebook added to a library's class by deriving from it: it may do anything."""
    return {name for cls in kind.__mro__ if cls.__module__ == "__main__" for name in vars(cls)}


def _elements(value: Any) -> list[Any]:
    elements: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return list(itertools.islice(elements, _MOST_ELEMENTS))
