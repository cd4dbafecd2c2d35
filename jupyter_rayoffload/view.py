"""What a panel shows of a job: a JSON tree of ready words, so that no front end has sentences of its own.

Front ends draw it, make times of the marks (see :mod:`.words`), and count what still runs. Numbers with the
name ``begin`` are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import ansi, sentences, words
from .models import (
    STEPS,
    Failure,
    FileInfo,
    JobRecord,
    Phase,
    Step,
    Value,
    ValueState,
)
from .record import traceback_lines

__all__ = ["job_view"]

Json = dict[str, Any]


def job_view(record: JobRecord) -> Json:
    """Give all that a panel shows of `record`, but its log and its outputs.

    Parameters
    ----------
    record : JobRecord

    Returns
    -------
    dict
        JSON-ready; the keys are those of ``static/panel.js``.
    """
    quiet_line = record.phase is Phase.SUCCEEDED and not sentences.troubled(record)
    name, word = sentences.job_name(record), words.phase_word(record.phase)
    return {
        "id": record.id,
        "name": name,
        "group": f"Job {name}",
        "state": words.icon(record.phase),
        "word": word,
        "ended": record.phase.ended,
        "line": quiet_line,
        "status": _status(record, f"Job {name}: {word}"),
        "time": _time(record.started, record.ended),
        "meta": [fact for fact in _meta(record, quiet_line) if fact],
        "actions": _actions(record, quiet_line),
        "strip": _strip(record),
        "batch": _batch(record),
        "failed": _failed_items(record),
        "reason": None if quiet_line else _reason(record),
        "values": _values(record),
        "footer": _footer(record) if quiet_line else "",
        "traceback": _traceback(record.failure),
        "log": {"label": f"Log of job {name}", "shown": _log_shown(record), "words": words.LOG_WORDS},
        "gone": _gone(record),
    }


def _status(record: JobRecord, said: str) -> str:
    """Give what a screen reader announces: the phase, and a reason that is not mere progress."""
    if record.phase in (Phase.PACKAGING, Phase.UPLOADING) or record.progress:
        return said
    reason = sentences.sentence(record)
    return f"{said}. {reason}" if reason else said


def _time(begin: float | None, end: float | None) -> Json | None:
    if begin is None:
        return None
    return {"begin": begin} if end is None else {"text": words.duration_text(end - begin)}


def _meta(record: JobRecord, quiet_line: bool) -> list[str]:
    """Facts behind the time."""
    lines = words.lines_text(record.lines) if record.lines else ""
    if record.phase is Phase.RUNNING:
        asked = record.spec.options.resources.words()
        where = f"on {record.cluster}" if record.cluster else ""
        if record.items:
            return [words.batch_text(record.items), _left(record)]
        return [" ".join(filter(None, (asked, where)))]
    if quiet_line:
        count = words.items_text(record.items.total) if record.items else ""
        return [count, sentences.sentence(record), lines]
    if record.phase is Phase.LOST and record.last_seen:
        return [f"last sign of life {{at:{record.last_seen:.0f}}}"]
    if record.phase is Phase.FAILED and record.failure is not None:
        if record.items and record.items.failed:
            return [words.failed_items(record.items.failed), lines]
        if record.failure.line is not None and record.failure.ename:
            return [f"line {record.failure.line} of the cell"]
        return [words.failure_word(record.failure)]
    return [lines] if record.phase.ended else []


# ---------------------------------------------------------------------- actions


def _action(do: str, label: str, *, text: bool = False, icon: str = "", **more: Any) -> Json:
    return {"do": do, "icon": icon or do, "label": label, "text": text, **more}


def _actions(record: JobRecord, quiet_line: bool) -> list[Json]:
    out = []
    if not record.phase.ended:
        out.append(_action("cancel", "Cancel", text=True))
    elif (quiet_line or record.phase is Phase.CANCELLED) and sentences.worth_a_rerun(record):
        out.append(_action("rerun", "Rerun", text=True))
    if record.dashboard and not record.phase.ended:
        out.append(_action("dashboard", "Open Ray dashboard", href=record.dashboard))
    if record.failure is not None and record.failure.traceback:
        trace = "\n".join(ansi.strip(line) for line in traceback_lines(record.failure))
        out.append(_action("copy", "Copy traceback", value=trace))
    else:
        out.append(_action("copy", "Copy job id", value=record.id))
    # Only where the page has a job view: static/panel.js takes it away elsewhere.
    out.append(_action("open", "Open job view"))
    return out


def _remedy(record: JobRecord) -> Json | None:
    """Give the one action for what went wrong, the remedy inside."""
    missed = [v.name for v in record.outputs if v.state is ValueState.NOT_LANDED]
    if sentences.troubled(record) and missed:
        value = f'{sentences.expression(record)}.outputs["{missed[0]}"]'
        return _action("copy", "Copy expression", text=True, value=value)
    failure = record.failure
    if failure is None or not sentences.worth_a_rerun(record):
        return None
    memory, timeout = record.spec.options.resources.memory, record.spec.options.timeout
    if failure.reason == "OutOfMemory" and memory:
        failed = {"failed": True} if record.items and record.items.failed else {}
        label = f"{'Retry failed' if failed else 'Rerun'} with {words.memory_text(2 * memory)}"
        return _action("rerun", label, text=True, options={"memory": 2 * memory, **failed})
    if failure.reason == "JobTimedOut" and timeout:
        label = f"Rerun with {words.duration_text(2 * timeout)}"
        return _action("rerun", label, text=True, options={"timeout": 2 * timeout})
    return _action("rerun", "Rerun", text=True)


# ---------------------------------------------------------------------- parts


def _strip(record: JobRecord) -> list[Json]:
    if record.phase is Phase.CANCELLED or sentences.troubled(record):
        return []
    broken = _broken_step(record)
    return [_step(name, record.steps.get(name, Step()), record, name == broken) for name in STEPS]


def _step(name: str, step: Step, record: JobRecord, broken: bool) -> Json:
    if step.begin is None:
        return {"name": name}
    time = {"text": step.note} if step.note else _time(step.begin, step.end)
    if broken:
        word = "lost" if record.phase is Phase.LOST else "failed"
        return {"name": name, "mod": word, "time": time}
    if step.end is None and not record.phase.ended:
        return {"name": name, "mod": "current", "time": time}
    return {"name": name, "mod": "done", "time": time}


def _broken_step(record: JobRecord) -> str:
    """Give the step in which a job failed or was lost: the one that ended last."""
    if record.phase not in (Phase.FAILED, Phase.LOST):
        return ""
    begun = {name: record.steps[name] for name in STEPS if name in record.steps}
    return max(begun, key=lambda name: begun[name].end or 0, default="")


def _left(record: JobRecord) -> str:
    """Say about how long a batch still takes."""
    begin = record.steps.get("running", Step()).begin
    if record.items is None or begin is None or record.last_seen is None:
        return ""
    return words.batch_left(record.items, max(0.0, record.last_seen - begin))


def _batch(record: JobRecord) -> Json | None:
    """Give the bar of a batch, its parts as shares of a hundred, and the same in words."""
    items = record.items
    if items is None or not items.total:
        return None
    parts = {"ok": items.succeeded, "failed": items.failed, "running": items.running}
    failed = f", {words.number_text(items.failed)} failed" if items.failed else ""
    return {
        "label": f"Items of job {sentences.job_name(record)}",
        "total": items.total,
        "done": items.done,
        "text": f"{words.number_text(items.done)} of {words.number_text(items.total)} done{failed}",
        "parts": [[name, round(100 * count / items.total, 2)] for name, count in parts.items() if count],
        "counts": [{"state": state, "text": text} for state, text in words.batch_counts(items)],
    }


def _failed_items(record: JobRecord) -> Json | None:
    """Give the first failed items, and the one action for all of them; a batch that runs has none yet."""
    items = record.items
    if items is None or not items.failed:
        return None
    action = _action("rerun", "Retry failed", text=True, options={"failed": True})
    more = items.failed - len(items.first)
    place = f"`{sentences.expression(record)}.items.failed`"
    return {
        "title": words.failed_items(items.failed),
        "columns": ["Item", "Value", "Error", "Took"],
        "rows": [
            [
                words.number_text(item.index),
                item.value,
                item.error,
                "" if item.seconds is None else words.duration_text(item.seconds),
            ]
            for item in items.first
        ],
        "more": f"{words.number_text(more)} more: {place}" if more > 0 else "",
        "action": action if record.phase.ended else None,
    }


def _reason(record: JobRecord) -> Json | None:
    """Give main voice, second voice, the raw event, and one action."""
    main, second = sentences.voices(record)
    if not (main or second):
        return None
    event = {"title": "Event", "text": record.event} if record.event else None
    quiet = record.phase is Phase.CANCELLED
    return {"main": main, "second": second, "quiet": quiet, "event": event, "action": _remedy(record)}


def _values(record: JobRecord) -> list[Json]:
    rows = []
    inputs = record.inputs or record.spec.inputs
    if (
        inputs
        and not (record.phase.ended and record.phase is not Phase.SUCCEEDED)
        and not sentences.troubled(record)
    ):
        rows.append({"title": "Inputs", "items": [_chip(v) for v in inputs]})
    if record.outputs:
        rows.append({"title": "Outputs", "items": [_chip(v) for v in record.outputs]})
    elif record.spec.expected and not record.phase.ended:
        note = (
            "lands when the job succeeds" if len(record.spec.expected) == 1 else "land when the job succeeds"
        )
        ready: Json = {}
        if record.spec.batch:
            count = words.number_text(record.items.succeeded if record.items else 0)
            ready = {"facts": [f"list of {words.number_text(record.spec.batch.total)}", f"{count} ready"]}
        chips = [{"name": n, **ready} for n in record.spec.expected]
        rows.append({"title": "Outputs", "items": chips, "note": note})
    if record.files:
        rows.append({"title": "Files", "items": [_file_chip(f) for f in record.files]})
    return rows


def _chip(value: Value) -> Json:
    kind = value.type or (f"from job {value.job}" if value.job else "")
    size = "" if value.size is None else words.size_text(value.size)
    attention = value.state in (ValueState.NOT_LANDED, ValueState.CANNOT_TRAVEL)
    facts = [fact for fact in (kind, size, words.value_state(value)) if fact]
    title = value.reason if value.state is ValueState.NOT_LANDED else ""
    return {"name": value.name, "facts": facts, "attention": attention, "title": title}


def _file_chip(file: FileInfo) -> Json:
    facts = [words.size_text(file.size), words.file_state(file)]
    return {"name": file.path, "facts": facts, "attention": file.state == "kept here"}


def _footer(record: JobRecord) -> str:
    """Say when and where it ran, and the id to attach to."""
    when = (
        f"{{at:{record.started:.0f}}} to {{at:{record.ended:.0f}}}" if record.started and record.ended else ""
    )
    where = f"on {record.cluster}" if record.cluster else ""
    return " ".join(filter(None, (when, where))) + f" · `{record.id}`"


def _traceback(failure: Failure | None) -> Json | None:
    """Give the lines of the traceback, and which of them is the cell's own line that raised."""
    if failure is None or not failure.traceback:
        return None
    style, lines = ansi.Style(), []
    for line in traceback_lines(failure):
        folded, style = ansi.fold(line, style)
        lines.append(folded)
    return {"lines": lines, "marked": _marked_line(lines, failure.line)}


def _marked_line(lines: Sequence[str], number: int | None) -> int | None:
    if number is None:
        return None
    arrow = f"> {number} "
    arrows = [i for i, line in enumerate(lines) if arrow in ansi.strip(line) + " "]
    return arrows[0] if arrows else None


def _log_shown(record: JobRecord) -> bool:
    """Whether the log stands open: not where something else comes first, or where nobody must read it."""
    if record.phase in (Phase.CANCELLED, Phase.LOST) or sentences.troubled(record):
        return False
    return record.failure is None or not record.failure.traceback


def _gone(record: JobRecord) -> Mapping[str, Any]:
    """Give what the panel says when its own kernel has gone; ``{now}`` is the moment when that was seen."""
    name, word = sentences.job_name(record), words.phase_word(record.phase).lower()
    main, second = sentences.kernel_gone(record)
    return {
        "state": "unknown",
        "word": "Unknown",
        "status": f"Job {name}: Unknown. {main}",
        "meta": ["as of {now}", f"{word} when the kernel ended"],
        "reason": {
            "main": f"{main}.",
            "second": second,
            "action": _action("copy", "Copy", text=True, value=f"%ray attach {record.id}"),
        },
    }
