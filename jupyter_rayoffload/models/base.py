"""Frozen dataclasses with JSON out and in: what all models are made of."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import FormatMismatch

__all__ = ["Model"]

_T = TypeVar("_T", bound="Model")


class Model:
    """Base of the frozen dataclasses: JSON out and in."""

    def to_json(self) -> dict[str, Any]:
        """Give a JSON-ready dictionary; fields that are None or empty are left out."""
        out = {}
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _plain(getattr(self, f.name))
            if value is not None and value != [] and value != {} and value != "":
                out[f.name] = value
        return out

    @classmethod
    def from_json(cls: type[_T], data: Mapping[str, Any]) -> _T:
        """Read what :meth:`to_json` wrote; fields of newer versions are ignored.

        Raises
        ------
        FormatMismatch
            A field is missing or of the wrong kind.
        """
        hints = _hints(cls)  # type: ignore[arg-type]  # classes are hashable
        try:
            return cls(**{k: _typed(hints[k], v) for k, v in data.items() if k in hints})
        except (TypeError, ValueError, AttributeError) as error:
            raise FormatMismatch(
                f"this is not a {cls.__name__} that this version can read: {error}",
                "Compare the versions of jupyter_rayoffload here and where it was written",
            ) from None

    def replace(self: _T, **changes: Any) -> _T:
        """Give a copy with `changes`."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_json()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _typed(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if value is None or hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _typed(next(a for a in args if a is not type(None)), value)
    if origin is tuple:
        return tuple(_typed(args[0], v) for v in value)
    if origin is Mapping:
        return {k: _typed(args[1], v) for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, Model):
        return hint.from_json(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    return value
