"""The pickler and the unpickler: what travels, how, and what does not.

The first bytes of each stream put the makers of :mod:`.rebuild` and the reader's namespace into the memo of
the unpickler; the pickler's memo is primed to match. So a stream refers to them by number, whatever the
package is called where it is read, and the namespace's own dictionary stands for the reader's.
"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import io
import pickle
import sys
import types
import typing
import weakref
from collections.abc import Callable, Collection
from typing import Any

from cloudpickle import cloudpickle as cp

from .byvalue import CACHED, ByValue
from .libraries import package_of
from .memory import Memory, Stretch, address, is_array
from .rebuild import MAKERS, Rebuilder, StandIn, stand_in

__all__ = [
    "PRELUDE",
    "Reader",
    "Refused",
    "Writer",
    "known_prelude",
    "ray_handle",
    "refers_to",
    "what_is_absent",
]

#: Handles of a Ray job, by module and class; Ray itself is never imported here.
_RAY_HANDLES = {
    "ObjectRef": "a Ray object reference",
    "ObjectRefGenerator": "a Ray object reference generator",
    "DynamicObjectRefGenerator": "a Ray object reference generator",
    "StreamingObjectRefGenerator": "a Ray object reference generator",
    "ActorHandle": "a Ray actor handle",
    "ActorMethod": "a method of a Ray actor handle",
    "PlacementGroup": "a Ray placement group",
}


_C_FIELDS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _prelude() -> bytes:
    parts = [pickle.PROTO, b"\x05"]
    for name in MAKERS:
        parts += [pickle.SHORT_BINUNICODE, bytes([len(name)]), name.encode()]
        parts += [pickle.BINPERSID, pickle.MEMOIZE, pickle.POP]
    return b"".join([*parts, pickle.NONE, pickle.STOP])


PRELUDE = _prelude()
#: Marks the name of something that the reader has already, among those of the makers.
_KNOWN = "="


def known_prelude(names: Collection[str]) -> bytes:
    """Give what follows :data:`PRELUDE`: it puts what the reader has already into the unpickler's memo."""
    parts = [pickle.PROTO, b"\x05"]
    for name in names:
        text = (_KNOWN + name).encode()
        parts += [pickle.BINUNICODE, len(text).to_bytes(4, "little"), text]
        parts += [pickle.BINPERSID, pickle.MEMOIZE, pickle.POP]
    return b"".join([*parts, pickle.NONE, pickle.STOP])


def refers_to(number: int, stream: bytes) -> bool:
    """Whether a stream may refer to the known object `number`; it surely does not if this says no."""
    number += len(MAKERS)
    if number < 256:
        return pickle.BINGET + bytes([number]) in stream
    return pickle.LONG_BINGET + number.to_bytes(4, "little") in stream


class Refused(pickle.PicklingError):
    """A value lives only in its own process; the text says what it is."""


class Writer(ByValue):
    """The pickler of values; one for each stream.

    Parameters are those of :class:`.byvalue.ByValue`, and one more.

    Parameters
    ----------
    known : collection of objects
        What the reader has already, in the order of the names given to :func:`known_prelude`.
    memory : Memory, optional
        How arrays are reduced that may share memory; without it each goes by itself.
    """

    def __init__(
        self,
        file: Any,
        namespace: dict[str, Any],
        buffer_callback: Callable[[pickle.PickleBuffer], Any],
        changed: Collection[Any] = (),
        mentioned: Collection[str] = (),
        known: Collection[Any] = (),
        memory: Memory | None = None,
    ) -> None:
        super().__init__(file, namespace, buffer_callback, changed, mentioned)
        self._memory = memory
        makers = [namespace if name == "namespace" else getattr(Rebuilder, name) for name in MAKERS]
        self.memo = {id(obj): (number, obj) for number, obj in enumerate([*makers, *known])}
        #: The reducer of each type that was met; None is pickle's own way.
        self.reducers: dict[type, Callable[[Any], Any] | None] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Reduce `obj`; called for all but Python's plain values and containers, so it must be quick."""
        kind = type(obj)
        try:
            reducer = self.reducers[kind]
        except KeyError:
            reducer = self.reducers[kind] = self.choose(kind)
        return NotImplemented if reducer is None else reducer(obj)

    def release(self) -> None:
        """Let go of all values: the reducers hold this pickler, and it the values, until a collection.

        They may be a million objects, or arrays that a notebook has deleted since; and the pause of a
        collection that frees them would come at any time.
        """
        self.clear_memo()
        self.reducers.clear()

    def choose(self, kind: type) -> Callable[[Any], Any] | None:
        """Give the reducer of a type."""
        if issubclass(kind, type):
            return self.cls
        own: dict[Any, Callable[[Any], Any]] = {
            types.FunctionType: self.function,
            types.CodeType: self.code,
            types.CellType: self.cell,
            types.ModuleType: self.module,
            CACHED: self.cached,
        }
        if kind in own:
            return own[kind]
        if self._memory is not None and is_array(kind):
            return self._memory.reduce
        if kind in (type(sys.stdout), type(sys.stderr)):
            return _standard_stream
        if kind in _REDUCERS:
            return _REDUCERS[kind]
        if kind in copyreg.dispatch_table:
            return None
        if kind in cp.Pickler._dispatch_table and not issubclass(
            kind, io.IOBase
        ):  # it reads files, and sends that
            reducer: Callable[[Any], Any] = cp.Pickler._dispatch_table[kind]
            return reducer
        if issubclass(kind, BaseException):
            return _exception
        return functools.partial(_refuse_ray, kind) if ray_handle(kind) else None


class Reader(pickle.Unpickler):
    """The unpickler of what :class:`Writer` wrote, after :data:`PRELUDE`.

    Parameters
    ----------
    namespace : dict
        The reader's own.
    lenient : bool
        Let a :class:`.rebuild.StandIn` take the place of what cannot be imported.
    known : callable, optional
        Gives what the reader has already by its name.
    """

    def __init__(
        self,
        file: Any,
        namespace: dict[str, Any],
        buffers: Any,
        lenient: bool = False,
        known: Callable[[str], Any] | None = None,
    ) -> None:
        super().__init__(file, buffers=buffers)
        self._lenient, self._known = lenient, known
        self._rebuilder = Rebuilder(namespace, lenient)

    def load(self) -> Any:
        """Read the next value; what a failed reading had begun is forgotten."""
        try:
            return super().load()
        except BaseException:
            self._rebuilder.abandon()
            raise

    def persistent_load(self, name: Any) -> Any:
        """Give a maker, the namespace, or what the reader has already."""
        if self._known is not None and name.startswith(_KNOWN):
            return self._known(name.removeprefix(_KNOWN))
        if name not in MAKERS:
            raise pickle.UnpicklingError(f"this stream wants {name!r}, which this version does not have")
        return getattr(self._rebuilder, name)

    def find_class(self, module: str, name: str) -> Any:
        """Import by name; for ``__main__`` look in the reader's namespace first."""
        if module == "__main__" and name in self._rebuilder.namespace:
            return self._rebuilder.namespace[name]
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            if not self._lenient:
                raise
            return stand_in(error)


class _Search(Writer):
    """Writes nothing, and raises :class:`_Found` where a value holds a stand-in."""

    def reducer_override(self, obj: Any) -> Any:
        kind = obj if isinstance(obj, type) else type(obj)
        if issubclass(kind, StandIn):
            raise _Found(kind.why)
        return super().reducer_override(obj)


class _Found(Exception):
    pass


class _Nowhere(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


def what_is_absent(value: Any, namespace: dict[str, Any]) -> str:
    """Say what `value`, which a lenient :class:`Reader` has read, lacks here; empty where it is whole."""
    try:
        _Search(_Nowhere(), namespace, lambda _: False).dump(value)
    except _Found as found:
        return str(found)
    except Exception:
        return ""  # it was written once, so this says nothing about what is here
    return ""


def ray_handle(kind: type) -> str:
    """Give what a type of Ray's is called in words if its values live only inside their job, else ``""``."""
    for base in kind.__mro__:
        if base.__name__ in _RAY_HANDLES and package_of(base) == "ray":
            return _RAY_HANDLES[base.__name__]
    return ""


def _refuse_ray(kind: type, obj: Any) -> Any:
    raise Refused(f"{ray_handle(kind)}, which lives only inside its job")


def _standard_stream(obj: Any) -> Any:
    for name in ("stdout", "stderr"):
        if obj is getattr(sys, name):
            return getattr, (sys, name)
    return NotImplemented


def _exception(error: BaseException) -> Any:
    """Reduce an exception without its traceback; one with a ``__reduce__`` of its own keeps that.

    Python's default calls the class with ``args``, which fails for a constructor that wants something else.
    """
    kind = type(error)
    base: Any = next(
        c for c in kind.__mro__ if not c.__flags__ & 1 << 9
    )  # Py_TPFLAGS_HEAPTYPE: not made by C
    links = (error.__cause__, error.__context__, error.__suppress_context__)
    own = next(c for c in kind.__mro__ if "__reduce__" in vars(c) or "__reduce_ex__" in vars(c))
    if own.__flags__ & 1 << 9:
        reduced = error.__reduce_ex__(5)
        if isinstance(reduced, str) or len(reduced) > 3:
            return reduced
        state = reduced[2] if len(reduced) == 3 else dict(vars(error))
        return reduced[0], reduced[1], (state, {}, *links), None, None, Rebuilder.set_exception
    names = [
        n for c in base.__mro__ for n, item in vars(c).items() if isinstance(item, _C_FIELDS) and n[0] != "_"
    ]
    # `obj` of an AttributeError is whatever was asked for the attribute; pickle leaves it behind too.
    names = [n for n in (*names, *copyreg._slotnames(kind)) if n not in ("args", "obj")]  # type: ignore[attr-defined]
    fields = {n: getattr(error, n) for n in names if getattr(error, n, None) is not None}
    state = (dict(vars(error)), fields, *links)
    args = (kind, base, base.__reduce__(error)[1])
    return Rebuilder.make_exception, args, state, None, None, Rebuilder.set_exception


def _cached_property(value: functools.cached_property[Any]) -> Any:
    state = {k: v for k, v in vars(value).items() if k not in ("lock", "func")}
    return Rebuilder.make_cached_property, (value.func,), state


def _weak_dict(value: Any) -> Any:
    return type(value), (), None, None, iter(list(value.items()))


def _new_type(value: Any) -> Any:
    return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}


def _memoryview(value: memoryview) -> Any:
    """Reduce a view of bytes with these, where it shows most of them: cloudpickle makes bytes of it."""
    whole: Any = value.obj
    if (
        type(whole) not in (bytearray, bytes)
        or not value.c_contiguous
        or len(whole) > 2 * value.nbytes + 4096
    ):
        return bytes, (value.tobytes(),)
    begin = address(value) - address(memoryview(whole))
    place = (begin, begin + value.nbytes, value.format, value.shape, value.readonly)
    return Rebuilder.make_memoryview, (whole, *place)


def _by_name(name: str) -> Callable[[Any], str]:
    return lambda _: name


#: Types for which neither pickle nor cloudpickle does what a notebook needs.
_REDUCERS: dict[type, Callable[[Any], Any]] = {
    functools.cached_property: _cached_property,
    weakref.WeakKeyDictionary: _weak_dict,
    weakref.WeakValueDictionary: _weak_dict,
    typing.NewType: _new_type,
    memoryview: _memoryview,
    Stretch: Stretch.reduced,
    # Sentinels of dataclasses, compared by identity: a class that is derived there looks for them.
    type(dataclasses.MISSING): _by_name("MISSING"),
    type(dataclasses.KW_ONLY): _by_name("KW_ONLY"),
    dataclasses._HAS_DEFAULT_FACTORY_CLASS: _by_name("_HAS_DEFAULT_FACTORY"),  # type: ignore[attr-defined]
}
