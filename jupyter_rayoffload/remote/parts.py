"""Objects inside unchanged inputs: named by where they are, and found again on the other side.

``model = search.best_estimator_`` binds an object that the notebook has already, inside ``search``. It must
come back as that very object and not as an equal one, so what travels is the way to it.
"""

from __future__ import annotations

import json
import types
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

__all__ = ["Part", "has_identity", "parts", "shared"]

#: Objects of one value that are found, and looked at: their identity is worth some milliseconds, and no more.
_LIMIT, _LOOKS = 10_000, 100_000
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range)


@dataclass(frozen=True)
class Part:
    """An input, or an object inside one.

    Parameters
    ----------
    name : str
        The input's.
    steps : tuple of (str or int)
        From the input to the object: the name of an attribute, or a position among the items of a list or
        tuple or the values of a dictionary.
    print : str
        Fingerprint (hexadecimal) of the whole input that the steps were found in; empty without steps.
    """

    name: str
    steps: tuple[str | int, ...] = ()
    print: str = ""

    @property
    def key(self) -> str:
        """The part as text, for a stream; an input itself is its name."""
        return json.dumps([self.name, self.print, *self.steps]) if self.steps else self.name

    @classmethod
    def from_key(cls, key: str) -> Part:
        """Read :attr:`key`."""
        if not key.startswith("["):
            return cls(key)
        name, print_, *steps = json.loads(key)
        return cls(name, tuple(steps), print_)

    def of(self, value: Any) -> Any:
        """Give the part of `value`, which is the input."""
        for step in self.steps:
            value = vars(value)[step] if isinstance(step, str) else _item(value, step)
        return value


def _item(value: Any, position: int) -> Any:
    return next(islice(dict.values(value), position, None)) if isinstance(value, dict) else value[position]


def _inside(value: Any) -> Iterator[tuple[str | int, Any]]:
    """Give the objects right inside a value, with the step to each; no code of the value's class runs."""
    if isinstance(value, dict):
        yield from enumerate(dict.values(value))
    elif type(value) in (list, tuple):
        yield from enumerate(value)
    attributes = getattr(value, "__dict__", None) if has_identity(value) else None
    if type(attributes) is dict:
        yield from list(attributes.items())


def has_identity(value: Any) -> bool:
    """Whether anyone could tell `value` from an equal one, and it is no function, class or module.

    These have ways of their own to be the same on both sides.
    """
    return not isinstance(value, (*_PLAIN, type, types.FunctionType, types.ModuleType))


def parts(value: Any, stop: Collection[int] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Find what is inside a value, the value itself included: nearest first, each object once.

    Parameters
    ----------
    value : object
    stop : collection of int
        Ids of objects that are not looked into.

    Yields
    ------
    tuple of (steps, object)
    """
    seen, looks = {id(value)}, _LOOKS
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    for way, found in todo:  # which grows
        yield way, found
        if id(found) in stop:
            continue
        for step, item in islice(_inside(found), looks):
            looks -= 1
            if len(seen) >= _LIMIT:
                break
            if id(item) not in seen and has_identity(item):
                seen.add(id(item))
                todo.append(((*way, step), item))


def shared(inputs: Mapping[str, Any], values: Collection[Any]) -> dict[Part, Any]:
    """Find the objects inside of `inputs` that `values` hold, or are."""
    places: dict[int, tuple[Part, Any]] = {}
    for name, value in inputs.items():
        for way, item in parts(value):
            if way:
                places.setdefault(id(item), (Part(name, way), item))
    found: dict[Part, Any] = {}
    for value in values if places else ():
        for _, item in parts(value, places):
            if id(item) in places:
                part, _ = places[id(item)]
                found[part] = item
    return found
