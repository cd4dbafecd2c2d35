"""Arrays that are views of one memory: found among the values of a graph, so that they are that there, too.

numpy pickles each array by itself: of ``grid`` and ``row = grid[1]`` two arrays would arrive that have
nothing to do with each other. So the stretch of memory that several arrays of a graph have in common travels
once, and each of them as a place in it.
"""

from __future__ import annotations

import bisect
import ctypes
import pickle
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .parts import parts
from .rebuild import Rebuilder

__all__ = ["Memory", "Stretch", "address", "is_array", "sharing"]

#: So many times what its arrays hold may a stretch have: two rows of a large array are no reason to send it.
_SPARSE = 4
_SMALL = 64 << 10


class Stretch:
    """Bytes that several arrays lie in.

    Parameters
    ----------
    begin, end : int
        Addresses.
    arrays : list of numpy.ndarray
        They keep the memory alive.
    """

    def __init__(self, begin: int, end: int, arrays: list[Any]) -> None:
        self.begin, self.end, self._arrays = begin, end, arrays

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """What numpy asks for, to make an array of it."""
        fixed = not any(array.flags.writeable for array in self._arrays)
        return {
            "version": 3,
            "shape": (self.end - self.begin,),
            "typestr": "|u1",
            "data": (self.begin, fixed),
        }

    def reduced(self) -> Any:
        """Reduce it for the pickler: to its bytes."""
        import numpy

        data: Any = numpy.asarray(self)
        return Rebuilder.make_memory, (pickle.PickleBuffer(data),)


class Memory:
    """The arrays of one graph: those of a first writing are looked at, those of a second are places."""

    def __init__(self) -> None:
        self._seen: list[Any] = []  # which keeps them: no address is given twice
        self._stretches: list[Stretch] = []
        self._planned = False

    def reduce(self, array: Any) -> Any:
        """Reduce an array: as numpy does, to its place, or so that its bytes stay out of the stream."""
        if array.dtype.hasobject or not array.size:
            return NotImplemented
        if not self._planned:
            self._seen.append(array)
            return _alone(array)
        begin, end = _bounds(array)
        number = bisect.bisect_right(self._stretches, begin, key=lambda s: s.begin) - 1
        if number < 0 or end > self._stretches[number].end:
            return _alone(array)
        return _placed(array, self._stretches[number], bool(array.flags.writeable))

    def plan(self) -> bool:
        """Whether the graph has to be written again, because arrays of it share memory."""
        if self._planned:
            return False
        self._planned = True
        spans = sorted(((*_bounds(array), array) for array in self._seen), key=lambda span: span[:2])
        self._seen = []
        groups: list[Stretch] = []
        for begin, end, array in spans:
            if groups and begin < groups[-1].end:
                groups[-1].end = max(groups[-1].end, end)
                groups[-1]._arrays.append(array)
            else:
                groups.append(Stretch(begin, end, [array]))
        self._stretches = [
            s
            for s in groups
            if len(s._arrays) > 1 and s.end - s.begin <= _SMALL + _SPARSE * sum(a.nbytes for a in s._arrays)
        ]
        return bool(self._stretches)


def _alone(array: Any) -> Any:
    """Reduce an array that shares its memory with no other.

    What numpy would put into the stream, although it is large, goes beside it, too: dates, of which it gives
    no buffer, and arrays with gaps, less the gaps.
    """
    compact = array.flags.c_contiguous or array.flags.f_contiguous
    if array.nbytes < _SMALL or (compact and array.dtype.kind not in "mM"):
        return NotImplemented
    whole = array if compact else array.copy()
    return _placed(whole, Stretch(*_bounds(whole), [array, whole]), bool(array.flags.writeable))


def _placed(array: Any, stretch: Stretch, writeable: bool) -> Any:
    """Reduce an array to its place in a stretch of memory."""
    offset = array.__array_interface__["data"][0] - stretch.begin
    return Rebuilder.make_view, (stretch, offset, array.shape, array.strides, array.dtype, writeable)


def is_array(kind: type) -> bool:
    """Whether a type is numpy's array itself."""
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy"


def _bounds(array: Any) -> tuple[int, int]:
    """Give the addresses that an array lies between."""
    begin = end = array.__array_interface__["data"][0]
    for length, stride in zip(array.shape, array.strides, strict=True):
        reach = (length - 1) * stride
        begin, end = begin + min(0, reach), end + max(0, reach)
    return begin, end + array.itemsize


def sharing(values: Mapping[str, Any], names: Collection[str]) -> set[str]:
    """Give those of `values` that have memory in common with one of `names`."""
    spans: list[tuple[int, int, str]] = []
    for name, value in values.items():
        spans += [(*span, name) for _, part in parts(value) for span in _spans(part)]
    found: set[str] = set()
    group: set[str] = set()
    last = 0
    for begin, end, name in sorted(spans):
        if begin >= last:
            found |= group if group & set(names) else set()
            group = set()
        group.add(name)
        last = max(last, end)
    return found | (group if group & set(names) else set())


def _spans(value: Any) -> Iterator[tuple[int, int]]:
    if is_array(type(value)):
        if value.size:
            yield _bounds(value)
    elif type(value) is memoryview:
        yield id(value.obj), id(value.obj) + 1
    elif type(value) is bytearray:
        yield id(value), id(value) + 1


class _PyBuffer(ctypes.Structure):
    """The C structure of a buffer (https://docs.python.org/3/c-api/buffer.html); `buf` is its address."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def address(view: memoryview) -> int:
    """Give where a buffer's memory begins, also that of one that is read-only."""
    raw = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(raw), 0)
    try:
        return int(raw.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))
