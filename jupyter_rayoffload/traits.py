"""Kinds of settings: how text of a variable, of ``%ray config`` or a command line becomes their values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from traitlets import Dict, List, TraitError, TraitType

from .options import duration, memory

__all__ = ["OPTIONS", "Duration", "Json", "JsonList", "Number", "Size"]


class _Quantity(TraitType[Any, Any]):
    """A number that may be written with a unit; ``none`` where None is allowed."""

    _parse: Callable[[str], float]

    def __init__(self, default: float | None, **options: Any) -> None:
        super().__init__(default, allow_none=default is None, **options)

    def validate(self, obj: Any, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = 0 if value.strip() == "0" else type(self)._parse(value)
            except ValueError as error:
                raise TraitError(str(error)) from None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
            return value
        raise TraitError(f"{value!r} is not {self.info()}")

    def from_string(self, s: str) -> Any:
        """Read what a command line, a variable or ``%ray config`` says."""
        if self.allow_none and s.strip().lower() in ("", "none", "auto"):
            return None
        return self.validate(None, s)


class Size(_Quantity):
    """Bytes."""

    info_text = "a size such as 8GiB or 500MB"
    _parse = staticmethod(memory)

    def validate(self, obj: Any, value: Any) -> int:
        """Give whole bytes."""
        return int(super().validate(obj, value))


class Duration(_Quantity):
    """Seconds."""

    info_text = "a duration such as 90s, 15m or 2h"
    _parse = staticmethod(duration)


class Number(_Quantity):
    """A number that is not negative."""

    info_text = "a number that is not negative"
    _parse = staticmethod(float)


class Json(Dict):
    """A mapping, in text as JSON."""

    def from_string(self, s: str) -> dict[str, Any]:
        """Read what a variable or ``%ray config`` says."""
        found = json.loads(s)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        return found


class JsonList(List):  # type: ignore[type-arg]
    """A list, in text as JSON."""

    def from_string(self, s: str) -> list[Any]:
        """Read what a variable or ``%ray config`` says."""
        found = json.loads(s)
        if not isinstance(found, list):
            raise ValueError("it is no JSON list")
        return found


def _flag(text: str) -> bool:
    try:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is not true or false") from None


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text) if word]


def _pairs(text: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in _words(text)]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("NAME=VALUE pairs")
    return {name: value for name, _, value in pairs}


#: Job options that may have a default, and how text of ``%ray config`` becomes what :mod:`.options` reads.
OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "cluster": str,
    "cpus": str,
    "env": _pairs,
    "exclude": _words,
    "fetch": _words,
    "gpus": str,
    "lazy": _flag,
    "memory": str,
    "pip": _words,
    "profile": str,
    "py_modules": _words,
    "resources": _pairs,
    "retries": str,
    "timeout": str,
    "workdir": str,
}
