"""Functions, classes and cells of the notebook, written by value; :mod:`.rebuild` is the reading side.

Importable ones go by reference, as pickle does it. What cloudpickle knows about the types of the standard
library is used; its reducers of functions and classes are not, because they copy globals, separate closures
that share a variable, and run ``__init_subclass__`` and metaclasses a second time.
"""

from __future__ import annotations

import abc
import enum
import functools
import pickle
import sys
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

# Private names: the dependency is pinned to cloudpickle>=3.1,<4.
from cloudpickle import cloudpickle as cp

from .rebuild import Rebuilder, class_dict, identities

__all__ = ["CACHED", "ByValue", "functions_behind"]

#: What :func:`functools.lru_cache` makes.
CACHED: Any = type(functools.lru_cache(None)(len))

#: What cloudpickle writes in place of the name of a file.
_DYNAMIC = "<dynamic-code>"
_SINGLETON_TYPES = (type(None), type(Ellipsis), type(NotImplemented))
#: What a namespace made by ``exec`` needs so that relative imports and logging work in its functions.
_SCOPE_NAMES = ("__name__", "__package__", "__path__", "__file__")


class ByValue(pickle.Pickler):
    """A pickler's part for functions, classes, cells and modules.

    Parameters
    ----------
    namespace : dict
        The notebook's (or the runner's) own; the reader's takes its place.
    changed : collection of objects
        Functions and classes that the reader shall bring up to date, if it knows them.
    mentioned : collection of str
        Names in the code that will use the values: a module brings those loaded submodules that are spelled
        with them.
    """

    def __init__(
        self,
        file: Any,
        namespace: dict[str, Any],
        buffer_callback: Callable[[pickle.PickleBuffer], Any],
        changed: Collection[Any] = (),
        mentioned: Collection[str] = (),
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)
        self.namespace = namespace
        self.mentioned = frozenset(mentioned)
        #: Names of the files of code that goes by value.
        self.files: set[str] = set()
        #: Modules of what goes by reference.
        self.imported: set[str] = set()
        self._changed = {id(obj) for obj in changed}
        self._scopes: dict[int, dict[str, Any]] = {}
        self._cells: dict[int, tuple[Any, int]] = {}
        self._submodules: dict[str, list[tuple[str, frozenset[str]]]] = {}

    # -- functions ------------------------------------------------------------------------------------------

    def function(self, function: types.FunctionType) -> Any:
        """Reduce a function."""
        if function.__globals__ is not self.namespace and cp._should_pickle_by_reference(function):
            self.imported.add(function.__module__)
            return NotImplemented
        identity = identities.of(function)
        changed = id(function) in self._changed
        scope, extracted = self._scope(function)
        closure = function.__closure__ or ()
        # The first function that brings a cell owns it, and fills it once the function itself is known: a
        # function may close over itself. Others refer to the cell by its owner, so that they share it.
        own = [
            self._cells.setdefault(id(cell), (function, n)) == (function, n) for n, cell in enumerate(closure)
        ]
        cells = {
            n: cell.cell_contents for n, cell in enumerate(closure) if (own[n] or changed) and _filled(cell)
        }
        state = (
            identity,
            function.__code__ if changed else None,
            _function_fields(function),
            dict(function.__dict__),
            cells,
            extracted,
            self._used_submodules(function),
        )
        shared = tuple(None if mine else cell for mine, cell in zip(own, closure, strict=True))
        args = (identity, function.__code__, scope, shared)
        return Rebuilder.make_function, args, state, None, None, Rebuilder.set_function

    def code(self, code: types.CodeType) -> Any:
        """Reduce a code object, with the name of its file: tracebacks and warnings show its lines by that.

        cloudpickle's own reducer puts ``<dynamic-code>`` there since 3.1.3, for equal pickles of equal code.
        """
        self.files.add(code.co_filename)
        make, args = cp._code_reduce(code)
        return make, tuple(code.co_filename if arg == _DYNAMIC else arg for arg in args)

    def _scope(self, function: types.FunctionType) -> tuple[Any, dict[str, Any] | None]:
        """Give the function's globals as they travel, and what it reads of them if that travels with it."""
        scope = function.__globals__
        if scope is self.namespace:
            return scope, None
        module = sys.modules.get(scope.get("__name__", ""))
        # A wrapper made by an importable module, by a decorator for instance, lives in that module there too.
        if (
            module is not None
            and vars(module) is scope
            and module.__name__ not in ("__main__", "__mp_main__")
        ):
            return module, None
        base = self._scopes.setdefault(id(scope), {k: scope[k] for k in _SCOPE_NAMES if k in scope})
        return base, {k: scope[k] for k in cp._extract_code_globals(function.__code__) if k in scope}

    def cell(self, cell: types.CellType) -> Any:
        """Reduce a cell, by its owner if it has one."""
        owner = self._cells.get(id(cell))
        if owner is not None:
            return Rebuilder.cell_of, owner
        contents = (cell.cell_contents,) if _filled(cell) else ()
        return Rebuilder.make_cell, (), contents, None, None, Rebuilder.set_cell

    def cached(self, function: Any) -> Any:
        """Reduce a function of :func:`functools.lru_cache`; pickle itself would refer to it by name."""
        scope = getattr(function.__wrapped__, "__globals__", None)
        if scope is not self.namespace and cp._lookup_module_and_qualname(function) is not None:
            self.imported.add(function.__module__)
            return NotImplemented
        identity = identities.of(function)
        attributes = {k: v for k, v in vars(function).items() if k != "__wrapped__"}
        args = (identity, function.__wrapped__, function.cache_parameters())
        return Rebuilder.make_cached, args, (identity, attributes), None, None, Rebuilder.set_cached

    # -- modules --------------------------------------------------------------------------------------------

    def module(self, module: types.ModuleType) -> Any:
        """Reduce a module: by name if it can be imported, else as cloudpickle does."""
        if not cp._should_pickle_by_reference(module):
            return cp._module_reduce(module)
        self.imported.add(module.__name__)
        return Rebuilder.make_module, (module.__name__, tuple(self._loaded_below(module, self.mentioned)))

    def _used_submodules(self, function: types.FunctionType) -> tuple[str, ...]:
        """Give the loaded submodules that a function reaches as attributes: ``xml.etree.ElementTree``."""
        code, scope = function.__code__, function.__globals__
        values = [scope.get(name) for name in cp._extract_code_globals(code)]
        values += [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        modules = [v for v in values if type(v) is types.ModuleType]
        names = frozenset(code.co_names)
        return tuple(name for module in modules for name in self._loaded_below(module, names))

    def _loaded_below(self, module: types.ModuleType, names: Collection[str]) -> Iterator[str]:
        prefix = f"{module.__name__}."
        if names and prefix not in self._submodules:
            loaded = [name for name in list(sys.modules) if name.startswith(prefix)]
            self._submodules[prefix] = [(n, frozenset(n[len(prefix) :].split("."))) for n in sorted(loaded)]
        if names:
            yield from (name for name, parts in self._submodules[prefix] if parts <= frozenset(names))

    # -- classes --------------------------------------------------------------------------------------------

    def cls(self, cls: type) -> Any:
        """Reduce a class."""
        if cls in _SINGLETON_TYPES:
            return NotImplemented
        if type(cls) is type and cls in cp._BUILTIN_TYPE_NAMES:
            return cp._builtin_type, (cp._BUILTIN_TYPE_NAMES[cls],)
        if cp._should_pickle_by_reference(cls):
            self.imported.add(cls.__module__)
            return NotImplemented
        if cls.__module__ == "builtins":
            raise pickle.PicklingError(
                f"the type {cls.__qualname__} of Python itself cannot be imported by name"
            )
        return self.dynamic_class(cls)

    def dynamic_class(self, cls: type) -> Any:
        """Reduce a class by value."""
        identity = identities.of(cls)
        meta: type = type(cls)
        attributes = class_dict(cls)
        if "__annotate_func__" in vars(cls):  # Python 3.14 keeps a function in place of the annotations
            attributes["__annotations__"] = _annotations(cls)
        registered, members = [], {}
        if isinstance(cls, abc.ABCMeta):
            registered = [c for c in (reference() for reference in abc._get_dump(cls)[0]) if c]  # type: ignore[attr-defined]
        plumbing = ("__module__", "__qualname__", "__slots__", "__orig_bases__")
        body = {name: vars(cls)[name] for name in plumbing if name in vars(cls)}
        body["__qualname__"] = cls.__qualname__
        args: tuple[Any, ...]
        if isinstance(cls, enum.EnumMeta):
            make: Any = Rebuilder.make_enum
            own = ("_value_", "_name_", "__objclass__", "_sort_order_")
            everyone: dict[str, Any] = dict(cls.__members__)
            members = {n: {k: v for k, v in vars(m).items() if k not in own} for n, m in everyone.items()}
            args = (
                identity,
                type(cls),
                cls.__name__,
                cls.__bases__,
                body,
                {n: m._value_ for n, m in everyone.items()},
            )
        else:
            make = Rebuilder.make_class
            builder = next(m for m in meta.__mro__ if cp._should_pickle_by_reference(m))
            quiet = not _importable_hook(cls)
            args = (identity, type(cls), builder, cls.__name__, cls.__bases__, body, quiet)
        state = (identity, id(cls) in self._changed, attributes, registered, members)
        return make, args, state, None, None, Rebuilder.set_class


def functions_behind(value: Any) -> Iterator[Any]:
    """Give a function or class, and the functions that it calls through closure, ``partial`` or binding."""
    found: set[int] = set()
    queue = [value]
    while queue:
        value = queue.pop()
        if id(value) in found:
            continue
        found.add(id(value))
        if isinstance(value, types.FunctionType):
            yield value
            queue += [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        elif isinstance(value, types.MethodType):
            queue.append(value.__func__)
        elif isinstance(value, (functools.partial, functools.partialmethod)):
            queue.append(value.func)
        elif isinstance(value, CACHED):
            queue.append(value.__wrapped__)
        elif isinstance(value, type) and len(found) == 1:  # a class only where it is the value itself
            yield value
            # What its methods change may be an attribute of a class that it is derived from.
            yield from (c for c in value.__mro__[1:] if not cp._should_pickle_by_reference(c))


def _function_fields(function: types.FunctionType) -> dict[str, Any]:
    fields = {
        "__name__": function.__name__,
        "__qualname__": function.__qualname__,
        "__module__": function.__module__,
        "__doc__": function.__doc__,
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
        "__annotations__": _annotations(function),
    }
    if getattr(function, "__type_params__", None):
        fields["__type_params__"] = function.__type_params__  # type: ignore[attr-defined]
    return fields


def _annotations(obj: Any) -> dict[str, Any]:
    try:
        return dict(obj.__annotations__)
    except (
        Exception
    ):  # from Python 3.14 on they are computed when asked for, and may name what does not exist
        return {}


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - reading an empty one raises
    except ValueError:
        return False
    return True


def _importable_hook(cls: type) -> bool:
    """Whether the ``__init_subclass__`` that `cls` was made with comes from an importable class."""
    owner = next(base for base in cls.__mro__[1:] if "__init_subclass__" in vars(base))
    return bool(cp._should_pickle_by_reference(owner))
