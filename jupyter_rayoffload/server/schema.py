"""``openapi.yaml``: what may be asked, so that the file that is published is the one that is enforced."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import JobNotFound, UsageError

__all__ = ["NO_BODY", "checked_body", "checked_path", "checked_query", "document", "methods", "route"]

_FILE = Path(__file__).with_name("openapi.yaml")
#: What a request has that was sent without a body; ``null`` would be one.
NO_BODY = object()
_WORDS = {"true": True, "false": False}


@functools.cache
def document() -> dict[str, Any]:
    """Give the whole file, with every ``$ref`` replaced by what it names."""
    import yaml

    raw = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    whole: dict[str, Any] = _resolved(raw, raw)
    return whole


def _resolved(part: Any, whole: Any) -> Any:
    if isinstance(part, Mapping):
        if "$ref" in part:
            found = whole
            for key in part["$ref"].removeprefix("#/").split("/"):
                found = found[key]
            return _resolved(found, whole)
        return {key: _resolved(value, whole) for key, value in part.items()}
    if isinstance(part, list):
        return [_resolved(value, whole) for value in part]
    return part


def route(path: str) -> str:
    """Give the pattern of tornado for a path of the file."""
    return "rayoffload/api" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)


def methods(path: str) -> list[str]:
    """Give the methods of a path, in capitals."""
    return [name.upper() for name in document()["paths"][path] if name != "parameters"]


def _parameters(path: str, method: str, place: str) -> list[Mapping[str, Any]]:
    item = document()["paths"][path]
    both = [*item.get("parameters", ()), *item[method.lower()].get("parameters", ())]
    return [parameter for parameter in both if parameter["in"] == place]


def checked_path(path: str, method: str, given: Mapping[str, str]) -> None:
    """Refuse what cannot be the name of anything.

    Raises
    ------
    JobNotFound, UsageError
    """
    for parameter in _parameters(path, method, "path"):
        name = parameter["name"]
        if _fault(parameter["schema"], given[name]):
            if name == "id":
                raise JobNotFound(
                    f"there is no job {given[name]!r:.100}", "GET jobs lists those that are kept"
                )
            raise UsageError(
                f"a cluster cannot be called {given[name]!r:.100}",
                "Its name has lower-case letters, digits and dashes, 63 at most",
            )


def checked_query(path: str, method: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Give the parameters of a query, read by their type, with their defaults.

    Raises
    ------
    UsageError
    """
    out: dict[str, Any] = {}
    known = _parameters(path, method, "query")
    if unknown := set(given) - {parameter["name"] for parameter in known}:
        # A filter with a slip in its name would otherwise let everything through.
        raise UsageError(
            f"there is no parameter {min(unknown)!r:.100}", "openapi.yaml lists those that there are"
        )
    for parameter in known:
        name, schema = parameter["name"], parameter["schema"]
        if name not in given:
            if parameter.get("required"):
                raise UsageError(f"the parameter {name} is missing", "openapi.yaml says what it may be")
            out |= {name: schema["default"]} if "default" in schema else {}
            continue
        out[name] = _read(given[name], schema.get("type"))
        if fault := _fault(schema, out[name]):
            raise UsageError(f"{name}: {fault}", "openapi.yaml says what it may be")
    return out


def _read(text: str, kind: str | None) -> Any:
    """Read a text of a query; one that is not of its kind stays a text, and is refused as such."""
    try:
        if kind == "integer":
            return int(text) if text.isascii() else text
        if kind == "number":
            return float(text) if math.isfinite(float(text)) else text
    except ValueError:
        return text
    return _WORDS.get(text, text) if kind == "boolean" else text


def checked_body(path: str, method: str, given: Any) -> dict[str, Any]:
    """Give the body of a request; one that is not there is an empty object where the file allows that.

    Raises
    ------
    UsageError
        The operation takes none.
    InvalidBody
        It is not what the file says.
    """
    declared = document()["paths"][path][method.lower()].get("requestBody")
    if declared is None:
        if given not in (NO_BODY, {}):
            raise UsageError(f"{method} {path} takes no body", "Send it without one")
        return {}
    if given is NO_BODY:
        if declared.get("required"):
            raise InvalidBody(f"{method} {path} needs a body", "openapi.yaml says what it may be")
        return {}
    fault = _fault(declared["content"]["application/json"]["schema"], given)
    if fault:
        raise InvalidBody(f"the body cannot be used: {fault}", "openapi.yaml says what it may be")
    body: dict[str, Any] = given
    return body


class InvalidBody(UsageError):
    """The body is JSON, but not what the operation takes."""

    status = 422
    reason = "UsageError"  # a property of the base


def _fault(schema: Mapping[str, Any], value: Any) -> str:
    """Say what is wrong with `value`, or nothing."""
    import jsonschema

    checker = jsonschema.Draft202012Validator(schema)
    fault = next(iter(sorted(checker.iter_errors(value), key=lambda e: list(map(str, e.path)))), None)
    if fault is None:
        return ""
    where = ".".join(map(str, fault.path))
    return (f"{where}: " if where else "") + f"{fault.message:.300}"
