"""The record's state as the runner writes it: so much of ``JobRecord`` (docs/architecture.md) as it knows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ended_state", "running_state"]

#: What said why the job waits says nothing any more.
_WAITING = ("reason", "detail", "event", "progress")


def running_state(
    state: Mapping[str, Any], attempt: int, session: str, submission: str = ""
) -> dict[str, Any]:
    """Give the state of a job whose cell begins now, in that submission of Ray."""
    now = time.time()
    steps = {**_closed(state, now), "running": {"begin": now}}
    kept = {k: v for k, v in state.items() if k not in _WAITING}
    return {
        **kept,
        "phase": "running",
        "attempt": attempt,
        "submissions": _with(state.get("submissions") or (), submission),
        "started": state.get("started") or now,
        "last_seen": now,
        "steps": steps,
        "session": session or state.get("session") or "",
    }


def ended_state(state: Mapping[str, Any], end: Mapping[str, Any]) -> dict[str, Any]:
    """Give the state of a job that ended as `end` says."""
    kept = {k: v for k, v in state.items() if k not in _WAITING}
    said = {
        k: end[k]
        for k in ("phase", "attempt", "exit_code", "failure", "outputs", "files", "lines", "items")
        if k in end
    }
    steps = _closed(state, end["t"])
    return {**kept, **said, "ended": end["t"], "last_seen": end["t"], "steps": steps}


def _with(names: Sequence[str], name: str) -> list[str]:
    return [*names, name] if name and name not in names else [*names]


def _closed(state: Mapping[str, Any], now: float) -> dict[str, Any]:
    steps = dict(state.get("steps") or {})
    for name, step in steps.items():
        if step.get("begin") is not None and step.get("end") is None:
            steps[name] = {**step, "end": now}
    return steps
