"""From a command to a draft: programs, whose inputs are bytes or JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .drafting import Origin, draft_values
from .errors import UsageError
from .remote.command import mark_of

if TYPE_CHECKING:
    from .course import Draft
    from .mapping import Mapped
    from .models import JobOptions

__all__ = ["draft_program"]


def draft_program(
    origin: Origin,
    command: str,
    data: Any,
    options: JobOptions,
    label: str,
    mapped: Mapped | None = None,
) -> Draft:
    """Draft a program; its input is bytes or JSON, and never pickled.

    With `mapped` it is run once for each of those inputs.

    Raises
    ------
    UsageError
    """
    if not command.strip():
        raise UsageError("the entrypoint is empty", "Give a command: submit_program('python train.py')")
    if mapped:
        data = [_program_input(item, f"inputs: item {i}") for i, item in enumerate(mapped.items)]
        _check_words(command, mapped.name, data)
    elif data is not None:
        data = _program_input(data, "input")
    draft = draft_values(
        origin,
        command,
        options,
        label or "program",
        {},
        origin.namespace,
        modules=frozenset(),
        kind="program",
    )
    draft.program_input = data
    if mapped:
        draft.spec = draft.spec.replace(batch=mapped.batch)
    return draft


def _check_words(command: str, name: str, inputs: list[tuple[str, bytes]]) -> None:
    """Refuse inputs that a command has no words for."""
    mark = mark_of(name)
    if not name or mark not in command:
        return
    for index, (kind, data) in enumerate(inputs):
        if kind == "bytes" or b"\\u0000" in data:
            raise UsageError(
                f"inputs: item {index} cannot be a word of the command, where {mark} stands",
                "Give text or numbers, or let the program call read_input()",
            )


def _program_input(value: Any, said: str) -> tuple[str, bytes]:
    """Give an input as it travels: what it is, ``bytes`` or ``json``, and its bytes."""
    if isinstance(value, bytes):
        return "bytes", value
    try:
        return "json", json.dumps(value).encode()
    except (TypeError, ValueError) as problem:
        raise UsageError(f"{said}: {problem}", "Give bytes, or what JSON can say") from None
