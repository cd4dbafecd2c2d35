"""What a stream calls while it is read: makers of functions, classes, cells and exceptions.

A stream names these makers by the names of :data:`MAKERS`, never by a module path, because this package has
another name on the cluster. What a stream defines carries an identity; whoever knows that identity already
uses its own object, so that an instance that comes back is an instance of the notebook's own class.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import enum
import functools
import importlib
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Mapping
from typing import Any

__all__ = ["MAKERS", "Identities", "Rebuilder", "StandIn", "class_dict", "identities", "stand_in"]

#: Attributes that Python makes anew with every class, or that are given when it is made.
_CLASS_PLUMBING = frozenset(
    "__dict__ __weakref__ __module__ __qualname__ __slots__ __orig_bases__ __annotate_func__ "
    "__annotations_cache__ __classdictcell__ __slotnames__ _abc_impl".split()
)
#: The same of enums; other names in single underscores are made from the members.
_ENUM_KEPT = frozenset("_missing_ _boundary_ _numeric_repr_ _value_repr_".split())
_ENUM_PLUMBING = frozenset("__new__ __new_member__".split())


class Identities:
    """Which object is meant by an identity, for as long as the object lives.

    Keyed by ``id`` and not by the object, because a metaclass may make its classes unhashable.
    """

    def __init__(self) -> None:
        self._names: dict[int, tuple[str, weakref.ref[Any]]] = {}
        self._objects: dict[str, weakref.ref[Any]] = {}
        # Re-entrant: a weak reference may die, and call back, while we hold it.
        self._lock = threading.RLock()

    def of(self, obj: Any) -> str:
        """Give the identity of `obj`; an object that has none gets one."""
        with self._lock:
            known = self._names.get(id(obj))
            if known is not None and known[1]() is obj:
                return known[0]
            name = uuid.uuid4().hex
            self.enter(name, obj)
            return name

    def find(self, name: str) -> Any:
        """Give the living object of that identity, or None."""
        reference = self._objects.get(name)
        return None if reference is None else reference()

    def drop(self, name: str) -> None:
        """Forget that identity."""
        with self._lock:
            reference = self._objects.pop(name, None)
            obj = None if reference is None else reference()
            if obj is not None:
                self._names.pop(id(obj), None)

    def enter(self, name: str, obj: Any) -> None:
        """Say that `obj` is what `name` means in this process."""
        key = id(obj)

        def forget(reference: weakref.ref[Any]) -> None:
            with self._lock:
                if self._objects.get(name) is reference:
                    del self._objects[name]
                if key in self._names and self._names[key][1] is reference:
                    del self._names[key]

        with self._lock:
            reference = weakref.ref(obj, forget)
            self._names[key] = (name, reference)
            self._objects[name] = reference


#: One for the process: what was sent by one job may come back from another.
identities = Identities()


def class_dict(cls: type) -> dict[str, Any]:
    """Give what a class body, its decorators and later assignments put into `cls`, in order."""
    plumbing = _CLASS_PLUMBING
    if isinstance(cls, enum.EnumMeta):
        plumbing = plumbing | _ENUM_PLUMBING | set(cls.__members__)
    slots = (types.MemberDescriptorType, types.GetSetDescriptorType)
    return {
        name: value
        for name, value in vars(cls).items()
        if name not in plumbing
        and not (isinstance(value, slots) and getattr(value, "__objclass__", None) is cls)
        and not (plumbing is not _CLASS_PLUMBING and _is_sunder(name) and name not in _ENUM_KEPT)
    }


def _is_sunder(name: str) -> bool:
    return name.startswith("_") and name.endswith("_") and not name.startswith("__")


class StandIn:
    """Takes the place of what cannot be imported here, so that the values beside it can be read."""

    why = ""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Take whatever the absent class or function would."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Take what a list would."""

    def extend(self, items: Any) -> None:
        """Take what a list would."""


def stand_in(error: Exception) -> type[StandIn]:
    """Make a stand-in for what could not be imported because of `error`."""
    return type("StandIn", (StandIn,), {"why": f"{type(error).__name__}: {error}"})


class Rebuilder:
    """The makers, for one reading of one stream.

    Parameters
    ----------
    namespace : dict
        The reader's own: globals of the functions that were made in the writer's.
    lenient : bool
        Let a :class:`StandIn` take the place of what cannot be imported.
    """

    def __init__(self, namespace: dict[str, Any], lenient: bool = False) -> None:
        self.namespace = namespace
        self._lenient = lenient
        self._fresh: set[str] = set()

    def _enter(self, identity: str, obj: Any) -> Any:
        self._fresh.add(identity)
        identities.enter(identity, obj)
        return obj

    def abandon(self) -> None:
        """Forget what was made: the reading broke off, so that it may be unfinished."""
        for identity in self._fresh:
            identities.drop(identity)

    # -- functions ------------------------------------------------------------------------------------------

    def make_function(self, identity: str, code: types.CodeType, scope: Any, cells: tuple[Any, ...]) -> Any:
        """Make a function without state; `scope` is its globals or their module, None a cell of its own."""
        known = identities.find(identity)
        if known is not None:
            return known
        if isinstance(scope, types.ModuleType):
            scope = vars(scope)
        elif scope is not self.namespace:
            scope.setdefault("__builtins__", builtins)
        closure = tuple(types.CellType() if cell is None else cell for cell in cells)
        return self._enter(identity, types.FunctionType(code, scope, None, None, closure or None))

    def set_function(self, function: Any, state: tuple[Any, ...]) -> None:
        """Give a function the state that :meth:`.byvalue.ByValue.function` took."""
        identity, changed_code, fields, attributes, cells, scope, modules = state
        for module in modules:
            with contextlib.suppress(ImportError):  # the call that needs it will say so
                importlib.import_module(module)
        if identity not in self._fresh and changed_code is None:
            return
        # Another number of free variables does not fit into the function that is there.
        if changed_code is not None and changed_code.co_freevars == function.__code__.co_freevars:
            function.__code__ = changed_code
        for name, value in fields.items():
            setattr(function, name, value)
        function.__dict__.clear()
        function.__dict__.update(attributes)
        for number, value in cells.items():
            function.__closure__[number].cell_contents = value
        if scope:
            function.__globals__.update(scope)

    def make_cell(self) -> types.CellType:
        """Make a cell that belongs to no function of the stream."""
        return types.CellType()

    def set_cell(self, cell: types.CellType, contents: tuple[Any, ...]) -> None:
        """Fill a cell; `contents` is empty for an empty one."""
        for value in contents:
            cell.cell_contents = value

    def cell_of(self, function: Any, number: int) -> types.CellType:
        """Give a cell of a function, which others share."""
        cell: types.CellType = function.__closure__[number]
        return cell

    def make_cached(self, identity: str, function: Any, parameters: dict[str, Any]) -> Any:
        """Make a function of :func:`functools.lru_cache`; one that is known keeps its cache."""
        known = identities.find(identity)
        if known is not None:
            return known
        return self._enter(identity, functools.lru_cache(**parameters)(function))

    def set_cached(self, function: Any, state: tuple[str, dict[str, Any]]) -> None:
        """Give it the attributes that were set on it."""
        if state[0] in self._fresh:
            function.__dict__.update(state[1])

    # -- classes --------------------------------------------------------------------------------------------

    def make_class(
        self,
        identity: str,
        meta: type,
        builder: type,
        name: str,
        bases: tuple[type, ...],
        body: dict[str, Any],
        quiet: bool,
    ) -> Any:
        """Make a class without its attributes.

        `builder` is the first importable class of the metaclass's order: where the metaclass is the
        notebook's own, its ``__new__`` has had its effect and is not run again. For the same reason `quiet`
        keeps the notebook's own ``__init_subclass__`` from running: it would see an empty class, and
        register it twice.
        """
        known = identities.find(identity)
        if known is not None:
            return known

        def build(parents: tuple[type, ...]) -> Any:
            if builder is meta:
                return meta(name, parents, dict(body))
            return builder.__new__(meta, name, parents, dict(body))

        return self._enter(
            identity, _build_quietly(build, bases) if quiet else _build(build, meta, name, bases, body)
        )

    def make_enum(
        self, identity: str, meta: Any, name: str, bases: tuple[type, ...], body: dict[str, Any], members: Any
    ) -> Any:
        """Make an enum with its members, but without its methods."""
        known = identities.find(identity)
        if known is not None:
            return known
        namespace = meta.__prepare__(name, bases)
        for key, value in (*body.items(), *members.items()):
            namespace[key] = value
        return self._enter(identity, enum.EnumMeta.__new__(meta, name, bases, namespace))

    def set_class(self, cls: Any, state: tuple[Any, ...]) -> None:
        """Give a class its attributes; one that is known only if the class itself came back changed."""
        identity, update, attributes, registered, members = state
        fresh = identity in self._fresh
        if not fresh and not update:
            return
        if not fresh:
            for name in class_dict(cls).keys() - attributes.keys():
                type.__delattr__(cls, name)
        for name, value in attributes.items():
            with contextlib.suppress(AttributeError) if name == "__doc__" else contextlib.nullcontext():
                type.__setattr__(cls, name, value)
        if sys.version_info >= (3, 13) and "__firstlineno__" in attributes:  # setting others deletes it
            type.__setattr__(cls, "__firstlineno__", attributes["__firstlineno__"])
        for subclass in registered:
            abc.ABCMeta.register(cls, subclass)
        for name, member_state in members.items():
            vars(cls[name]).update(member_state)

    # -- exceptions -----------------------------------------------------------------------------------------

    def make_exception(self, cls: type, base: type, args: tuple[Any, ...]) -> Any:
        """Make an exception as its nearest built-in class does; the constructors of others are not called."""
        error = base.__new__(cls, *args)
        base.__init__(error, *args)  # type: ignore[misc]  # not the constructor of its own class, on purpose
        return error

    def set_exception(self, error: Any, state: tuple[Any, ...]) -> None:
        """Give an exception its attributes (notes are among them) and its causes."""
        attributes, fields, cause, context, suppress = state
        if isinstance(attributes, Mapping):
            vars(error).update(attributes)
        elif attributes is not None:
            error.__setstate__(attributes)
        for name, value in fields.items():
            with contextlib.suppress(AttributeError, TypeError):
                setattr(error, name, value)
        error.__cause__, error.__context__, error.__suppress_context__ = cause, context, suppress

    # -- others ---------------------------------------------------------------------------------------------

    def make_module(self, name: str, submodules: tuple[str, ...]) -> Any:
        """Import a module, and those of its submodules that are used here."""
        try:
            module: Any = importlib.import_module(name)
        except ImportError as error:
            if not self._lenient:
                raise
            module = stand_in(error)()
        for submodule in submodules:
            with contextlib.suppress(ImportError):
                importlib.import_module(submodule)
        return module

    def make_memory(self, data: Any) -> Any:
        """Make the bytes that several arrays lie in."""
        try:
            import numpy
        except ImportError as error:
            if not self._lenient:
                raise
            return stand_in(error)()
        return numpy.frombuffer(data, "u1")

    def make_view(
        self, memory: Any, offset: int, shape: Any, strides: Any, dtype: Any, writeable: bool
    ) -> Any:
        """Make an array that lies in `memory`."""
        if isinstance(memory, StandIn):
            return memory
        import numpy

        array: Any = numpy.ndarray(shape, dtype, memory, offset, strides)
        if not writeable:
            array.flags.writeable = False
        return array

    def make_memoryview(self, data: Any, begin: int, end: int, format: str, shape: Any, fixed: bool) -> Any:
        """Make a view of the bytes that `data` has from `begin` to `end`."""
        view: Any = memoryview(data)[begin:end]
        view = view.cast(format, shape) if len(shape) > 1 or format != "B" else view
        return view.toreadonly() if fixed else view

    def make_cached_property(self, function: Any) -> Any:
        """Make a :class:`functools.cached_property`, with a new lock where it has one (to Python 3.11)."""
        return functools.cached_property(function)


#: The makers that a stream may name, and the namespace. A stream's first bytes refer to them in this order.
MAKERS = (
    "namespace",
    *sorted(n for n in vars(Rebuilder) if n.startswith(("make_", "set_")) or n == "cell_of"),
)


class _Quiet:
    """Put first among the bases, it answers ``__init_subclass__`` in their place."""

    def __init_subclass__(cls, **_: Any) -> None:
        pass


class _QuietSlots:
    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        pass


def _build(build: Any, meta: type, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
    try:
        return build(bases)
    except TypeError:
        # Metaclasses that want more than this (TypedDict's looks at the bases as they were written).
        return type.__new__(meta, name, bases, dict(body))


def _build_quietly(build: Any, bases: tuple[type, ...]) -> Any:
    # Assigning the real bases afterwards needs the same memory layout: that of one of the two, or of neither.
    for quiet in (_Quiet, _QuietSlots):
        with contextlib.suppress(TypeError):
            cls = build((quiet, *bases))
            cls.__bases__ = bases
            return cls
    return build(bases)
