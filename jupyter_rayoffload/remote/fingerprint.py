"""Whether a value has changed: a digest of its pickle, blind to what merely reading a value leaves behind."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

from blake3 import blake3

from .byvalue import functions_behind
from .libraries import package_of
from .pickling import Writer
from .rebuild import Rebuilder, identities
from .signing import PARALLEL_BYTES

__all__ = ["fingerprint"]

#: Attributes, by the first part of a type's module, in which libraries remember what they have computed.
_CACHES = {
    "pandas": frozenset({"_cache", "_item_cache"}),
    "scipy": frozenset({"_has_sorted_indices", "_has_canonical_format"}),
}


def fingerprint(value: Any, namespace: dict[str, Any]) -> bytes | None:
    """Give a digest of a value that is the same before and after, in one process, if nothing changed.

    Parameters
    ----------
    value : object
    namespace : dict
        As in :func:`.codec.freeze`.

    Returns
    -------
    bytes or None
        None where the value cannot be pickled: then nothing can be said, and it counts as unchanged.

    Notes
    -----
    Classes of the notebook count by their identity and not by their attributes, except where the value
    itself is one, with those that it is derived from: a changed class is not a change of its instances. Sets
    are taken in the order that they have.
    """
    sink = _Sink()
    pickler = _Pickler(sink, namespace, sink.take, value)
    try:
        pickler.dump(value)
    except Exception:  # whatever the value's own methods raise
        return None
    finally:
        pickler.release()
    return sink.digest()


class _Sink:
    """Takes a stream and its buffers; keeps none of it."""

    def __init__(self) -> None:
        self._stream, self._buffers = blake3(), blake3()

    def write(self, data: Any) -> int:
        self._stream.update(data)
        return len(data)

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        try:
            self._buffers.update(_digest(buffer.raw()))
        except BufferError:  # not contiguous: in the stream, then
            return True
        return False

    def digest(self) -> bytes:
        self._stream.update(self._buffers.digest())
        return self._stream.digest()


def _digest(data: memoryview) -> bytes:
    hasher = blake3(max_threads=blake3.AUTO if data.nbytes >= PARALLEL_BYTES else 1)
    hasher.update(data)
    return hasher.digest()


class _Pickler(Writer):
    """A pickler whose stream is only compared."""

    def __init__(self, file: Any, namespace: dict[str, Any], take: Callable[[Any], bool], value: Any) -> None:
        super().__init__(file, namespace, take)
        self._whole = {id(v) for v in functions_behind(value) if isinstance(v, type)}

    def dynamic_class(self, cls: type) -> Any:
        """Reduce a class to who it is, except the value itself and what it is derived from."""
        if id(cls) in self._whole:
            return super().dynamic_class(cls)
        return Rebuilder.make_class, (identities.of(cls),)

    def choose(self, kind: type) -> Callable[[Any], Any] | None:
        """As the writer, but without caches."""
        for base in kind.__mro__:
            if package_of(base) == "pandas" and base.__name__ in ("DataFrame", "Series"):
                return _frame if base.__name__ == "DataFrame" else _series
        if package_of(kind) == "weakref":
            return _weak
        caches = _caches(kind)
        chosen = super().choose(kind)
        return functools.partial(_without, caches) if caches and chosen is None else chosen


def _caches(kind: type) -> frozenset[str]:
    """Give the attributes of a type's instances that hold what can be computed again."""
    properties = functools.cached_property
    names = {
        name for base in kind.__mro__ for name, item in vars(base).items() if isinstance(item, properties)
    }
    return _CACHES.get(package_of(kind), frozenset()) | names


def _without(caches: frozenset[str], value: Any) -> Any:
    reduced = value.__reduce_ex__(5)
    if not (isinstance(reduced, tuple) and len(reduced) > 2):
        return reduced
    state = reduced[2]
    if isinstance(state, tuple):  # of slots and attributes, or of what a C type holds besides
        state = tuple(_kept(part, caches) if type(part) is dict else part for part in state)
    elif isinstance(state, dict):
        state = _kept(state, caches) or None  # as pickle does it for an object without attributes
    return (*reduced[:2], state, *reduced[3:])


def _kept(attributes: dict[str, Any], caches: frozenset[str]) -> dict[str, Any]:
    return {name: item for name, item in attributes.items() if name not in caches}


def _weak(value: Any) -> Any:
    return type(value), ()


def _frame(frame: Any) -> Any:
    """Reduce a data frame to its columns: reading it may merge the blocks in which it holds them."""
    state = (frame.columns, frame.index, _more(frame))
    return type(frame), (), state, _columns(frame)


def _columns(frame: Any) -> Iterator[Any]:
    for _, column in frame.items():
        yield _array(column)


def _series(series: Any) -> Any:
    return type(series), (), (series.name, series.index, _array(series), _more(series))


def _more(value: Any) -> tuple[Any, ...]:
    own = {name: getattr(value, name, None) for name in value._metadata if name not in ("name", "_name")}
    return dict(value.attrs), value.flags.allows_duplicate_labels, own


def _array(series: Any) -> Any:
    """Give the values as a digest, whatever their strides are, or as the array that they are in."""
    values = series.array
    if type(values).__name__ not in ("NumpyExtensionArray", "PandasArray") or values.dtype.kind == "O":
        return values
    plain = series.to_numpy()
    if plain.dtype.hasobject:
        return plain
    if not plain.flags.c_contiguous:
        plain = plain.copy()
    return plain.dtype.str, len(plain), _digest(memoryview(plain.view("u1")))
