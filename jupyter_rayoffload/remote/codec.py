"""Values to bytes and back, keeping their meaning.

All values of a mapping are one pickle graph: one stream of protocol 5, one dump per name, one memo, so that
what they share they still share on the other side. Large buffers stay out of the stream. A stream is::

    prelude | known | dump of each name | footer | its length (4 bytes)

The footer is JSON: ``{format, python, names, buffers, known}``.

``buffers`` of the footer gives, for each buffer in the order in which the stream asks for it, its number in
:attr:`Frozen.buffers`: buffers over the same memory are one. Arrays that are views of one memory are places
in one buffer (:mod:`.memory`). ``known`` names what the values refer to because the reader has it already: an
output that holds an unchanged input.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .byvalue import functions_behind
from .culprit import explain
from .describe import describe
from .fingerprint import fingerprint
from .libraries import PICKLES, package_of, roots, versions
from .memory import Memory, address
from .pickling import PRELUDE, Reader, Writer, known_prelude, refers_to, what_is_absent
from .signing import Signer
from .wire import allocate

__all__ = [
    "FORMAT",
    "Buffer",
    "Frozen",
    "Unpicklable",
    "WrongFormat",
    "check_header",
    "fingerprint",
    "freeze",
    "header",
    "thaw",
    "travelled",
]

#: Version of what this module writes; a reader takes this one alone, because both ends travel together.
FORMAT = 2
#: Smaller buffers stay in the stream: each of the others costs a digest and a key in the store.
IN_BAND_BYTES = 32 << 10
#: Copied in pieces, so that other threads get their turn.
COPY_BYTES = 32 << 20
_LENGTH = 4


class Unpicklable(Exception):
    """A value cannot travel.

    Parameters
    ----------
    name : str
        The name of the value.
    path : str
        Leads from the name to the culprit: ``config["sources"][2].handle``.
    reason : str
        What the culprit is: ``an open file``.
    """

    def __init__(self, name: str, path: str, reason: str) -> None:
        super().__init__(name, path, reason)
        self.name, self.path, self.reason = name, path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class WrongFormat(Exception):
    """The bytes were written by a version, or a Python, whose values this process cannot read."""


@dataclass(frozen=True)
class Buffer:
    """A buffer that stays outside the stream, by its :meth:`.signing.Signer.digest`; `size` is bytes."""

    digest: str
    size: int
    data: memoryview


@dataclass
class Frozen:
    """What :func:`freeze` gives.

    Parameters
    ----------
    graph : bytes
        The stream.
    buffers : list of Buffer
        To be given to :func:`thaw` in this order. Equal ones have the same digest and the same `data`.
    values : list of dict
        ``{name, type, size}`` in order; `type` is in words, `size` is bytes of stream and buffers.
    refused : dict of str to str
        Name to reason, of what cannot travel.
    libraries : dict of str to str
        Versions of the distributions whose types are inside.
    files : frozenset of str
        Names of the files of the code that is inside.
    needs : frozenset of str
        Modules, by the first part of their names, without which a reader cannot read it.
    held : bool
        Whether the buffers are copies.
    """

    graph: bytes
    buffers: list[Buffer]
    values: list[dict[str, Any]]
    refused: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    held: bool = False

    @property
    def size(self) -> int:
        """Bytes of all buffers together, equal ones counted once."""
        return sum({b.digest: b.size for b in self.buffers}.values())

    def hold(self) -> None:
        """Give the buffers memory of their own, so that later changes of the values do not show."""
        held: dict[str, Buffer] = {}
        for i, b in enumerate(self.buffers):
            if b.digest not in held:
                held[b.digest] = Buffer(b.digest, b.size, _copied(b.data))
            self.buffers[i] = held[b.digest]
        self.held = True


def header() -> dict[str, Any]:
    """Give what a reader must know before it reads: for :func:`check_header`."""
    return {"format": FORMAT, "python": _python()}


def check_header(header: Mapping[str, Any]) -> None:
    """Check that this process can read what was written under `header`.

    Raises
    ------
    WrongFormat
        Another format, or another minor version of Python: the code of functions does not cross those.
    """
    if header.get("format") != FORMAT:
        raise WrongFormat(
            f"these values have format {header.get('format')!r}, "
            f"and this version of jupyter_rayoffload reads format {FORMAT}"
        )
    if header.get("python") != _python():
        raise WrongFormat(
            f"these values were written by Python {header.get('python')}, and this is Python {_python()}: "
            "functions and classes of a notebook cannot cross minor versions"
        )


def _python() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def freeze(
    values: Mapping[str, Any],
    namespace: dict[str, Any],
    signer: Signer,
    *,
    copy: bool,
    most: int | None = None,
    skip: bool = False,
    changed: Collection[str] = (),
    mentioned: Collection[str] = (),
    known: Mapping[str, Any] | None = None,
) -> Frozen:
    """Pickle `values` as one graph.

    Parameters
    ----------
    values : mapping of str to object
    namespace : dict
        The notebook's (or the runner's) own. Functions whose globals it is will have the reader's as theirs.
    signer : Signer
        Makes the digests of buffers.
    copy : bool
        Copy the buffers, so that what happens to the values later does not show.
    most : int, optional
        Copy none if they are more bytes than this together; :attr:`Frozen.held` tells.
    skip : bool
        Leave out what cannot travel, and say why in :attr:`Frozen.refused`, instead of raising.
    changed : collection of str
        Names whose value is a function or class that a reader who has it already shall bring up to date.
    mentioned : collection of str
        Names in the code that will use the values. A package among the values brings its loaded submodules
        that are spelled with these (``xml`` and ``etree.ElementTree``).
    known : mapping of str to object, optional
        What the reader has already: values that hold one of these refer to it.

    Returns
    -------
    Frozen

    Raises
    ------
    Unpicklable
        A value cannot travel, and `skip` is false.
    """
    refused: dict[str, str] = {}
    memory = Memory()
    while True:
        wanted = {name: value for name, value in values.items() if name not in refused}
        draft = _Draft(namespace, [wanted[n] for n in changed if n in wanted], mentioned, known or {}, memory)
        try:
            sizes = [draft.dump(name, value) for name, value in wanted.items()]
            if memory.plan():
                continue
            held = copy and (most is None or sum(view.nbytes for view in draft.views) <= most)
            kinds, imported = {package_of(kind) for kind in draft.writer.reducers}, draft.writer.imported
            return Frozen(
                draft.finish(list(wanted)),
                _settle(draft.views, signer, held),
                [
                    {"name": name, "type": describe(value), "size": size}
                    for (name, value), size in zip(wanted.items(), sizes, strict=True)
                ],
                refused,
                versions(kinds | imported),
                frozenset(draft.writer.files),
                _needs(kinds, imported),
                held,
            )
        except Unpicklable as error:
            if not skip:
                raise
            # A dump that failed half-way leaves memo entries that were never written: begin anew.
            refused[error.name] = error.reason if error.path == error.name else str(error)
        finally:
            draft.release()


def _needs(kinds: set[str], imported: set[str]) -> frozenset[str]:
    """Give the libraries that a reader must have.

    That is what goes by reference. A type's own package may not be needed: a kernel's standard output goes as
    the reader's. And every cluster has a Ray, whose version matters to Ray's own objects alone.
    """
    return roots(imported) - {"ray"} | (kinds & PICKLES.keys())


class _Draft:
    """One attempt at a stream; its buffers are not copied before it is known to succeed."""

    def __init__(
        self,
        namespace: dict[str, Any],
        changed: list[Any],
        mentioned: Collection[str],
        known: Mapping[str, Any],
        memory: Memory,
    ) -> None:
        self.views: list[memoryview] = []
        self._order: list[int] = []
        self._known: dict[tuple[int, int], int] = {}
        self._namespace = namespace
        self._known_names = list(known)
        self._file = io.BytesIO()
        self._file.write(PRELUDE + known_prelude(known))
        inside = [part for value in changed for part in functions_behind(value)]
        self.writer = Writer(
            self._file, namespace, self._keep, inside, mentioned, list(known.values()), memory
        )

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Take a buffer out of the stream; a true answer leaves it in."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < IN_BAND_BYTES:
            return True
        # Two arrays over the same memory shall share it there too.
        place = (address(view), view.nbytes)
        number = self._known.setdefault(place, len(self.views))
        if number == len(self.views):
            self.views.append(view)
        self._order.append(number)
        return False

    def dump(self, name: str, value: Any) -> int:
        """Write one value and give its size: its part of the stream, and the buffers that it brought."""
        begin, first = self._file.tell(), len(self.views)
        try:
            self.writer.dump(value)
        except Exception as error:
            raise Unpicklable(name, *explain(name, value, self._namespace, error)) from error
        return self._file.tell() - begin + sum(view.nbytes for view in self.views[first:])

    def release(self) -> None:
        """As :meth:`.pickling.Writer.release`; the pickler holds this, too, by what it calls for buffers."""
        self.writer.release()
        self.views = []
        del self.writer

    def finish(self, names: list[str]) -> bytes:
        known: list[str] = []
        if self._known_names:
            stream = self._file.getvalue()
            known = [name for number, name in enumerate(self._known_names) if refers_to(number, stream)]
        fields = {**header(), "names": names, "buffers": self._order, "known": known}
        footer = json.dumps(fields).encode()
        self._file.write(footer + len(footer).to_bytes(_LENGTH, "little"))
        return self._file.getvalue()


def _settle(views: list[memoryview], signer: Signer, copy: bool) -> list[Buffer]:
    """Give the buffers their digests, and copy them if asked; equal ones share their memory."""
    known: dict[str, Buffer] = {}
    buffers = []
    for view in views:
        data = allocate(view.nbytes) if copy else view
        digest = signer.copy(view, data) if copy else signer.digest(data)
        buffers.append(known.setdefault(digest, Buffer(digest, view.nbytes, data)))
    return buffers


def _copied(view: memoryview) -> memoryview:
    target = allocate(view.nbytes)
    for begin in range(0, view.nbytes, COPY_BYTES):
        target[begin : begin + COPY_BYTES] = view[begin : begin + COPY_BYTES]
    return target


def thaw(
    graph: bytes,
    buffers: Sequence[Any],
    namespace: dict[str, Any],
    names: Sequence[str] | None = None,
    refused: dict[str, str] | None = None,
    known: Callable[[str], Any] | None = None,
) -> dict[str, Any]:
    """Unpickle what :func:`freeze` wrote; the caller has checked the signatures of `graph` and `buffers`.

    Parameters
    ----------
    graph : bytes
    buffers : sequence of writable buffers
        In the order of :attr:`Frozen.buffers`; arrays live in this memory and are writable if it is.
    namespace : dict
        The reader's own.
    names : sequence of str, optional
        Which values are wanted; all by default.
    refused : dict, optional
        Filled with names and reasons, of values that need a library that is not here; without it that raises.
    known : callable, optional
        ``known(name)`` gives what the reader has already; called only for what the values may refer to.

    Returns
    -------
    dict of str to object
        In the order of the stream.

    Raises
    ------
    WrongFormat
        The stream was written by a version, or a Python, that this one cannot read.
    """
    footer = _footer(graph)
    check_header(footer)
    wanted = set(footer["names"] if names is None else names)
    if not wanted.issubset(footer["names"]):
        raise KeyError(
            f"these values are not in the stream: {', '.join(sorted(wanted - set(footer['names'])))}"
        )
    memory = _separate(buffers)
    if footer["known"] and known is None:
        raise WrongFormat(f"these values refer to others that are not at hand: {', '.join(footer['known'])}")
    had = {name: known(name) for name in footer["known"]} if known else {}

    def read(lenient: bool) -> dict[str, Any]:
        out_of_band = (memory[number] for number in footer["buffers"])
        reader = Reader(io.BytesIO(graph), namespace, out_of_band, lenient, lambda name: had.get(name))
        reader.load()  # the prelude
        reader.load()  # what is known
        found: dict[str, Any] = {}
        for name in footer["names"]:
            if not wanted - found.keys():
                break
            value = reader.load()
            if name in wanted:
                found[name] = value
        return found

    try:
        return read(lenient=False)
    except (ImportError, AttributeError):
        if refused is None:
            raise
        found = read(lenient=True)
    refused.update({n: why for n, value in found.items() if (why := what_is_absent(value, namespace))})
    return {name: value for name, value in found.items() if name not in refused}


def travelled(value: Any, namespace: dict[str, Any], signer: Signer) -> Any:
    """Give `value` as a reader has it, over the same buffers: to be looked at only.

    A fingerprint may tell the two apart, because strings that were two objects may be one in the copy.
    """
    frozen = freeze({"value": value}, namespace, signer, copy=False)
    return thaw(frozen.graph, [buffer.data for buffer in frozen.buffers], namespace)["value"]


def _footer(graph: bytes) -> dict[str, Any]:
    end = len(graph) - _LENGTH
    begin = end - int.from_bytes(graph[end:], "little")
    try:
        footer = json.loads(bytes(graph[begin:end]))
    except ValueError:
        raise WrongFormat("these bytes are not values that jupyter_rayoffload wrote") from None
    if begin < len(PRELUDE) or not isinstance(footer, dict):
        raise WrongFormat("these bytes are not values that jupyter_rayoffload wrote")
    return footer


def _separate(buffers: Sequence[Any]) -> list[memoryview]:
    """Give each buffer memory of its own: equal ones may have been fetched once, but are two arrays."""
    seen: set[int] = set()
    memory = []
    for buffer in buffers:
        view = memoryview(buffer)
        place = address(view)
        memory.append(_copied(view) if place in seen else view)
        seen.add(place)
    return memory
