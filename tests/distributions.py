"""What a requirement brings, as it is installed here."""

from __future__ import annotations

import importlib.metadata as metadata

from packaging.requirements import Requirement


def closure(requirement: str) -> set[str]:
    """Give the distributions that a requirement brings, as they are installed here."""
    found: dict[tuple[str, str], None] = {}
    todo = [Requirement(requirement)]
    while todo:
        wanted = todo.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in found:
                continue
            found[wanted.name, extra] = None
            for text in metadata.requires(wanted.name) or ():
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return {name for name, _ in found}
