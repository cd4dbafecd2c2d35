"""The items of a batch in the store: their values in few payloads, and the list that says which is where.

Items are run, and come back, in chunks. The values of a chunk are one payload, ``items-N``; of item 7 it has
``7.y`` for each output `y`, ``7=`` for the value of the last expression, ``7!`` for its exception and ``7:``
for what it displayed and how its traceback reads. At the end a list of all items, a blob, is their manifest.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .codec import Buffer, Frozen

if TYPE_CHECKING:
    from .store import Store

__all__ = [
    "ABOUT",
    "ERROR",
    "ITEMS",
    "RESULT",
    "Done",
    "Parcel",
    "dump",
    "ended_of",
    "key_of",
    "lists_of",
    "load",
    "pack",
    "slot_of",
    "stored_lists",
    "unpack",
]

#: The name of the items among a job's inputs: no name of Python's.
ITEMS = "--map"
#: What follows the number of an item, where it is no output's name behind a dot.
RESULT, ERROR, ABOUT = "=", "!", ":"


class Done(NamedTuple):
    """One item that has ended: its number, whether well, its seconds, and the number of its payload."""

    item: int
    ok: bool
    seconds: float
    slot: int


def slot_of(number: int) -> str:
    """Give the slot of a payload by its number."""
    return f"items-{number}"


def key_of(index: int, name: str) -> str:
    """Give the key of an output, or of :data:`RESULT`, :data:`ERROR` or :data:`ABOUT`, in its payload."""
    return f"{index}{name}" if name in (RESULT, ERROR, ABOUT) else f"{index}.{name}"


def dump(done: Iterable[Done]) -> bytes:
    """Write a manifest."""
    return json.dumps([[d.item, int(d.ok), d.seconds, d.slot] for d in done]).encode()


def load(data: bytes | memoryview) -> list[Done]:
    """Read a manifest."""
    return [Done(item, bool(ok), seconds, slot) for item, ok, seconds, slot in json.loads(bytes(data))]


def ended_of(events: Iterable[Mapping[str, Any]]) -> dict[int, Done]:
    """Give what the ``item`` events of a batch tell of the items that have ended, in the order of that.

    Parameters
    ----------
    events : iterable of Mapping
        Contents of the events, oldest first.
    """
    ended: dict[int, Done] = {}
    for content in events:
        for slot, items in content.get("chunks", ()):
            ended.update({i: Done(i, bool(ok), seconds, slot) for i, ok, seconds in items})
    return ended


def lists_of(
    done: Iterable[Done],
    total: int,
    names: Sequence[str],
    read: Callable[[str, set[str]], Mapping[str, Any]],
) -> dict[str, list[Any]]:
    """Put the values of the items into lists, in the order of the items.

    Parameters
    ----------
    done : iterable of Done
    total : int
        Number of items.
    names : sequence of str
        Names of outputs; :data:`RESULT` for the values of the last expression.
    read : callable
        ``read(slot, keys)`` gives those of `keys` that the payload has.

    Returns
    -------
    dict of str to list
        None stands for an item that failed, or that has no such value.
    """
    lists: dict[str, list[Any]] = {name: [None] * total for name in names}
    by_slot: dict[int, list[int]] = {}
    for one in done:
        if one.ok:
            by_slot.setdefault(one.slot, []).append(one.item)
    for slot, indices in by_slot.items():
        found = read(slot_of(slot), {key_of(i, name) for i in indices for name in names})
        for i in indices:
            for name in names:
                lists[name][i] = found.get(key_of(i, name))
    return lists


def stored_lists(
    store: Store, job: str, end: Mapping[str, Any], names: Sequence[str], namespace: dict[str, Any]
) -> dict[str, list[Any]]:
    """Read lists of a batch that has ended.

    Parameters
    ----------
    store : Store
    job : str
    end : Mapping
        The runner's last word; its ``manifest`` says where all items are.
    names : sequence of str
        As for :func:`lists_of`.
    namespace : dict
        The reader's own.
    """
    manifest = end["manifest"]

    def read(slot: str, keys: set[str]) -> dict[str, Any]:
        there = [v["name"] for v in store.peek_payload(job, slot)["values"] if v["name"] in keys]
        return store.get_payload(job, slot, namespace, there) if there else {}

    done = load(store.get_blob(manifest["digest"], manifest["size"]))
    return lists_of(done, manifest["total"], names, read)


def pack(inputs: Iterable[tuple[str, bytes]]) -> bytes:
    """Write the inputs of a program's batch, ``json`` or ``bytes`` and the data of each, as one blob."""
    pairs = list(inputs)
    head = json.dumps([[kind, len(data)] for kind, data in pairs]).encode()
    return b"".join([head, b"\n", *(data for _, data in pairs)])


def unpack(blob: bytes | memoryview) -> list[tuple[str, bytes]]:
    """Read what :func:`pack` wrote."""
    head, _, rest = bytes(blob).partition(b"\n")
    found, place = [], 0
    for kind, size in json.loads(head or b"[]"):
        found.append((kind, rest[place : place + size]))
        place += size
    return found


class Parcel(NamedTuple):
    """Frozen values on their way through Ray, which keeps large buffers apart and shares them on a node."""

    graph: bytes
    buffers: list[tuple[str, int, Any]]
    values: list[dict[str, Any]]
    refused: dict[str, str]
    libraries: dict[str, str]

    @classmethod
    def of(cls, frozen: Frozen) -> Parcel:
        """Wrap what :func:`.codec.freeze` gave."""
        buffers = [(b.digest, b.size, pickle.PickleBuffer(b.data)) for b in frozen.buffers]
        return cls(frozen.graph, buffers, frozen.values, frozen.refused, frozen.libraries)

    def views(self, copy: bool = False) -> list[memoryview]:
        """Give the buffers: those of Ray, which nobody can write to, or copies."""
        return [
            memoryview(bytearray(data)) if copy else memoryview(data).cast("B") for _, _, data in self.buffers
        ]

    def frozen(self) -> Frozen:
        """Give what :meth:`of` was given."""
        buffers = [
            Buffer(digest, size, view)
            for (digest, size, _), view in zip(self.buffers, self.views(), strict=True)
        ]
        return Frozen(self.graph, buffers, self.values, self.refused, self.libraries)
