"""What the notebook had when a job was submitted: only what it has not bound anew since may land."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .job import Job

__all__ = ["MISSING", "Claim", "pair_up"]

#: Stands for the value of a name that is not bound.
MISSING = object()
#: Objects that :func:`pair_up` looks at.
_PAIRS = 10_000
#: What has no identity that anyone could miss.
_CONSTANT = (type(None), bool, int, float, complex, str, bytes, range, type, FunctionType, ModuleType)


@dataclass
class Claim:
    """What a job may land.

    Parameters
    ----------
    job : Job
    originals : Mapping of str to object
        What its names were bound to when it was submitted; :data:`MISSING` where they were not.
    before : dict of str to int
        Ids of what all other names were bound to.
    aliases : frozenset of str
        Names that the job does not know, of values that it may change.
    """

    job: Job
    originals: Mapping[str, Any]
    before: dict[str, int]
    aliases: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        #: What the names are bound to if the notebook itself has not bound them anew.
        self.expected = dict(self.originals)
        #: Name to the id of the older job that has bound it since.
        self.sources: dict[str, str] = {}

    def untouched(self, name: str, now: Any) -> bool:
        """Whether the notebook has not bound `name`, which is `now`, anew since the job was submitted."""
        if name in self.expected:
            return now is self.expected[name]
        return self.before.get(name, id(MISSING)) == id(now)

    def follow(self, name: str, value: Any, job: Job) -> None:
        """Note what an older job has bound `name` to."""
        self.sources[name] = job.id
        if name in self.expected:
            self.expected[name] = value
        else:
            self.before[name] = id(value)

    def held(self) -> dict[str, Any]:
        """Give the values that were there."""
        return {name: value for name, value in self.originals.items() if value is not MISSING}


def pair_up(old: Any, new: Any, pairs: dict[int, tuple[Any, Any]]) -> None:
    """Find what an object that was changed in place, and what is inside it, has become.

    Parameters
    ----------
    old, new : object
        Before and after.
    pairs : dict
        Filled with ``id(before): (before, after)``; containers and instances are looked into
        where both sides have the same key, index or attribute.
    """
    todo = [(old, new)]
    while todo and len(pairs) < _PAIRS:
        old, new = todo.pop()
        if type(old) is not type(new) or old is new or id(old) in pairs or isinstance(old, _CONSTANT):
            continue
        pairs[id(old)] = (old, new)
        if isinstance(old, dict):
            todo += [(old[k], new[k]) for k in old if k in new]
        elif isinstance(old, (list, tuple)):
            todo += zip(old, new, strict=False)
        elif isinstance(old, MethodType):
            todo.append((old.__self__, new.__self__))
        elif all(isinstance(getattr(x, "__dict__", None), dict) for x in (old, new)):
            todo.append((vars(old), vars(new)))
