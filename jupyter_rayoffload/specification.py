"""A ClusterSpec from what a site writes: every kind is checked, sizes have units, and parts go by paths."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .models import ClusterSpec, Model
from .options import memory

__all__ = ["KINDS", "check_groups", "cluster_spec", "did_you_mean", "part", "with_part"]

#: What a field of each kind can set.
KINDS: Mapping[str, tuple[Any, ...]] = {
    "integer": (int, float),
    "number": (float,),
    "size": (int,),
    "choice": (),  # whatever its choices are
}
#: What is said of a value of another kind.
_EXPECTED = {str: "some text", bool: "true or false", int: "a whole number", float: "a number"}
#: Given otherwise: with --cluster, and with --profile.
_NO_PART = ("name", "profile", "choices")


def cluster_spec(given: Any, where: str = "cluster") -> ClusterSpec:
    """Read what `models.ClusterSpec` is in JSON or YAML, and nothing else.

    Parameters
    ----------
    given : Mapping
    where : str
        What it is called in an error's text.

    Raises
    ------
    ValueError
        One line that names the place.
    """
    return ClusterSpec.from_json(_checked(ClusterSpec, given, where))


def _checked(hint: Any, value: Any, where: str) -> Any:
    """Give `value` as JSON that is of the kind `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _checked(_bare(hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: expected a list, not {value!r:.80}")
        return [_checked(args[0], entry, f"{where}.{_entry(entry, n)}") for n, entry in enumerate(value)]
    if origin is Mapping or (isinstance(hint, type) and issubclass(hint, Model)):
        return _mapping(hint, value, where)
    if hint is int and where.endswith(".memory") and isinstance(value, str):
        try:
            return memory(value)
        except ValueError as problem:
            raise ValueError(f"{where}: expected {problem}, not {value!r:.80}") from None
    if hint in _EXPECTED:
        kinds = (int, float) if hint is float else (hint,)
        wrong = not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool)
        if wrong or (hint in (int, float) and not 0 <= value < float("inf")):
            raise ValueError(f"{where}: expected {_EXPECTED[hint]}, not {value!r:.80}")
    return value


def _mapping(hint: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected names with values, not {value!r:.80}")
    if typing.get_origin(hint) is Mapping:
        kind = typing.get_args(hint)[1]
        return {str(name): _checked(kind, entry, f"{where}.{name}") for name, entry in value.items()}
    kinds = typing.get_type_hints(hint)
    for name in value:
        if name not in kinds:
            raise ValueError(f"{where}: no {name!r} there. {did_you_mean(str(name), kinds)}")
    return {name: _checked(kinds[name], entry, f"{where}.{name}") for name, entry in value.items()}


def _entry(entry: Any, number: int) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return str(name or number)


def _bare(hint: Any) -> Any:
    """Give a kind without the None that it allows."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Give a hint for a word that is none of `known`."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]}?" if near else "There are: " + ", ".join(known)


# ---------------------------------------------------------------------- parts


def part(spec: ClusterSpec, path: str) -> tuple[Any, Any]:
    """Give what stands at a path, and its kind.

    Parameters
    ----------
    spec : ClusterSpec
    path : str
        ``head.memory``, ``groups.workers.replicas``: entries of a list go by their names.

    Raises
    ------
    ValueError
        There is no such part, or it is not for people to set.
    """
    found: Any = spec
    hint: Any = ClusterSpec
    names = path.split(".")
    if names[0] in _NO_PART:
        raise ValueError(f"path: {names[0]} is no part that a field can set")
    for number, name in enumerate(names):
        if isinstance(found, Mapping):
            key = ".".join(names[number:])
            return found.get(key), typing.get_args(hint)[1]
        if isinstance(found, Model):
            kinds = typing.get_type_hints(type(found))
        elif isinstance(found, tuple):
            kinds = {entry.name: type(entry) for entry in found if isinstance(entry, Model)}  # type: ignore[attr-defined]
        else:
            kinds = {}
        if name not in kinds:
            known = f". {did_you_mean(name, kinds)}" if kinds else ""
            raise ValueError(f"path: the cluster has no {'.'.join(names[: number + 1])!r}{known}")
        found, hint = _below(found, name), _bare(kinds[name])
    return found, hint


def _below(node: Any, name: str) -> Any:
    if isinstance(node, tuple):
        return next(entry for entry in node if entry.name == name)
    return getattr(node, name)


def with_part(spec: ClusterSpec, path: str, value: Any) -> ClusterSpec:
    """Give `spec` with another value at a path.

    Raises
    ------
    ValueError
        That part cannot have it.
    """
    _, hint = part(spec, path)
    checked = _checked(hint, value, path)
    return ClusterSpec.from_json(_placed(spec, path.split("."), checked).to_json())


def _placed(node: Any, names: Sequence[str], value: Any) -> Any:
    if not names:
        return value
    first, *rest = names
    if isinstance(node, Model):
        return node.replace(**{first: _placed(getattr(node, first), rest, value)})
    if isinstance(node, tuple):
        return tuple(_placed(e, rest, value) if e.name == first else e for e in node)
    return {**node, ".".join(names): value}


def check_groups(spec: ClusterSpec) -> None:
    """Refuse a number of workers that its group's bounds do not allow.

    Raises
    ------
    ValueError
    """
    for group in spec.groups:
        high = group.replicas if group.maximum is None else group.maximum
        if not group.minimum <= group.replicas <= high:
            raise ValueError(
                f"worker group {group.name!r} cannot have {group.replicas} workers: it goes from "
                f"{group.minimum} to {high}"
            )
