"""One pure function: a job's record and something that was learnt of it give the next record.

Three witnesses speak, and none is trusted alone: the runner's own events, Ray's job status, and the cluster.
A runner that the kernel of its node kills writes no event; a head that died answers nothing; a RUNNING that
Ray reports may be stale for ever after the head was restarted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .models import (
    FAILED_SHOWN,
    STEPS,
    FailedItem,
    Failure,
    FileInfo,
    ItemCounts,
    JobRecord,
    Phase,
    Step,
    Value,
)

__all__ = ["SILENCE_SECONDS", "Event", "advance"]

#: A runner gives a sign of life every 5 s; one that has missed three has ended, seconds.
SILENCE_SECONDS = 15.0
# Of a terminal, and as a quotation writes them.
_COLOURS = re.compile(r"(?:\x1b|\\x1b|\\033)(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


@dataclass(frozen=True)
class Event:
    """Something that was learnt of a job.

    Parameters
    ----------
    type : str
        A Jupyter message type, or one of the types that :func:`advance` documents.
    at : float
        When it happened, seconds since the epoch.
    content : Mapping
    """

    type: str
    at: float
    content: Mapping[str, Any] = field(default_factory=dict)


#: Step -> phase while that step is the current one; the first current step in this order names the phase.
_PHASE_OF = {
    "workspace": Phase.PACKAGING,
    "cluster": Phase.STARTING_CLUSTER,
    "inputs": Phase.UPLOADING,
    "queued": Phase.PENDING,
    "running": Phase.RUNNING,
}


def advance(record: JobRecord, event: Event) -> JobRecord:
    """Give the record after `event`.

    Parameters
    ----------
    record : JobRecord
    event : Event
        ``step {name, state: begin|end, note}``, ``wait {reason, detail, event}``, ``chained {reason}``,
        ``progress {done, total}``, ``inputs {inputs}``, ``cluster {name, dashboard, session}``,
        ``libraries {libraries}``, ``item {counts, errors}`` (of a batch),
        ``submitted {attempt, submission}``, ``again {attempt, reason}`` (a retry),
        ``alive`` (a sign of life), the runner's ``phase``,
        Ray's ``ray {status, message, exit_code, error_type}``,
        ``gone {message, hint}`` (the cluster died), ``failed {failure}`` (this side could not go on),
        ``cancelled {by}``, ``landed {outputs}``, ``files {files}``, and Jupyter's messages.

    Returns
    -------
    JobRecord
        The same object where nothing changed. An ended phase is never taken back, but by ``again``.
    """
    handler = _HANDLERS.get(event.type)
    if handler is None or (record.phase.ended and event.type not in _AFTER_THE_END):
        return record
    return handler(record, event)


def _step(record: JobRecord, event: Event) -> JobRecord:
    name, note = event.content["name"], event.content.get("note", "")
    step = record.steps.get(name, Step())
    if event.content["state"] == "begin":
        step = Step(begin=event.at, note=note)
    else:
        begin = event.at if step.begin is None else step.begin
        step = step.replace(begin=begin, end=event.at, note=note or step.note)
    steps = {**record.steps, name: step}
    return record.replace(
        steps=steps,
        phase=_phase(steps, record.phase),
        started=event.at if record.started is None else record.started,
        reason="",
        detail="",
        event="",
        progress=(),
    )


def _phase(steps: Mapping[str, Step], default: Phase) -> Phase:
    for name, phase in _PHASE_OF.items():
        step = steps.get(name)
        if step and step.begin is not None and step.end is None:
            return phase
    return default


def _wait(record: JobRecord, event: Event) -> JobRecord:
    c = event.content
    return record.replace(
        reason=c.get("reason", ""), detail=c.get("detail", ""), event=c.get("event", ""), progress=()
    )


def _chained(record: JobRecord, event: Event) -> JobRecord:
    """Wait for another job's output: that is the step of the inputs, and the phase of a queue."""
    inputs = record.steps.get("inputs", Step(begin=event.at)).replace(end=None)
    return _wait(record, event).replace(phase=Phase.PENDING, steps={**record.steps, "inputs": inputs})


def _progress(record: JobRecord, event: Event) -> JobRecord:
    c = event.content
    return record.replace(
        reason=c.get("reason", record.reason), progress=(float(c["done"]), float(c["total"]))
    )


def _inputs(record: JobRecord, event: Event) -> JobRecord:
    return record.replace(inputs=tuple(Value.from_json(v) for v in event.content["inputs"]))


def _cluster(record: JobRecord, event: Event) -> JobRecord:
    c = event.content
    return record.replace(
        cluster=c.get("name", record.cluster),
        dashboard=c.get("dashboard", record.dashboard),
        session=c.get("session", record.session),
    )


def _libraries(record: JobRecord, event: Event) -> JobRecord:
    """Take in what the cluster has: as earlier jobs of the session found it, then as this one does."""
    return record.replace(libraries={**record.libraries, **event.content["libraries"]})


def _item(record: JobRecord, event: Event) -> JobRecord:
    """Take in how far a batch has come: its counts, and what failed first; never every item."""
    known = record.items.first if record.items else ()
    fresh = [FailedItem(*error) for error in event.content.get("errors", ())[:FAILED_SHOWN]]
    # By number: who attaches reads events that the record in the store has already.
    first = tuple({item.index: item for item in (*known, *fresh)}.values())[:FAILED_SHOWN]
    counts = ItemCounts.from_json(event.content["counts"]).replace(first=first)
    if record.phase.ended:
        counts = counts.replace(running=0)
    return record.replace(items=counts, last_seen=event.at)


def _submitted(record: JobRecord, event: Event) -> JobRecord:
    c = event.content
    names = (*record.submissions, c["submission"]) if c.get("submission") else record.submissions
    return record.replace(attempt=c["attempt"], submissions=names, last_seen=event.at)


def _again(record: JobRecord, event: Event) -> JobRecord:
    steps = {k: s for k, s in record.steps.items() if k not in ("queued", "running")}
    return record.replace(
        phase=Phase.PENDING,
        reason=event.content.get("reason", ""),
        detail="",
        steps={**steps, "queued": Step(begin=event.at)},
        ended=None,
        failure=None,
        exit_code=None,
        outputs=(),
        files=(),
        items=None,
        last_seen=event.at,
    )


def _alive(record: JobRecord, event: Event) -> JobRecord:
    return record.replace(last_seen=event.at)


def _stream(record: JobRecord, event: Event) -> JobRecord:
    return record.replace(lines=record.lines + event.content.get("text", "").count("\n"), last_seen=event.at)


def _runner(record: JobRecord, event: Event) -> JobRecord:
    phase = Phase(event.content["phase"])
    if phase is Phase.RUNNING:
        steps, python = _close(record.steps, event.at), event.content.get("python")
        return record.replace(
            phase=phase,
            libraries={**record.libraries, "python": python} if python else record.libraries,
            steps={**steps, "running": Step(begin=event.at)},
            session=event.content.get("session") or record.session,
            reason="",
            detail="",
            event="",
            progress=(),
            last_seen=event.at,
        )
    failure = event.content.get("failure")
    return _end(
        record,
        phase,
        event.at,
        failure=Failure.from_json(failure) if failure else None,
        exit_code=event.content.get("exit_code"),
        outputs=tuple(Value.from_json(v) for v in event.content.get("outputs", ())),
        files=tuple(FileInfo.from_json(f) for f in event.content.get("files", ())),
        last_seen=event.at,
    )


def _close(steps: Mapping[str, Step], at: float) -> dict[str, Step]:
    return {
        k: s if s.end is not None or s.begin is None else s.replace(end=max(at, s.begin))
        for k, s in steps.items()
    }


def _end(record: JobRecord, phase: Phase, at: float, **changes: Any) -> JobRecord:
    return record.replace(
        phase=phase,
        steps=_close(record.steps, at),
        started=at if record.started is None else record.started,
        ended=at,
        items=record.items.replace(running=0) if record.items else None,
        reason=changes.pop("reason", ""),
        detail="",
        event="",
        progress=(),
        **changes,
    )


def _ray(record: JobRecord, event: Event) -> JobRecord:
    """Ray's word alone: only its final states say something that the runner may be unable to say."""
    status = event.content["status"]
    if status == "STOPPED":
        return _end(record, Phase.CANCELLED, event.at)
    if status == "FAILED":
        failure = _crash(record, event.content)
        return _end(record, Phase.FAILED, event.at, failure=failure, exit_code=event.content.get("exit_code"))
    if status == "SUCCEEDED":  # and the runner never said so
        failure = Failure(
            reason="JobCrashed",
            message="The cell's process ended with exit code 0 before the cell did",
            hint="Something in the cell calls os._exit; what was printed until then is in the log",
        )
        return _end(record, Phase.FAILED, event.at, failure=failure, exit_code=0)
    return record


def _crash(record: JobRecord, ray: Mapping[str, Any]) -> Failure:
    code, message = ray.get("exit_code"), ray.get("message") or ""
    error_type = ray.get("error_type") or ""
    if "RUNTIME_ENV" in error_type:
        return Failure(
            reason="EnvironmentFailed",
            message="Ray could not make the job's environment: " + _of_pip(message),
            hint="Check --pip and the packages that it names",
        )
    if "TIMEOUT" in error_type or "TIMED_OUT" in error_type:
        return Failure(
            reason="NotEnoughResources",
            message="Ray gave up waiting for a place for the job: " + _tail(message),
            hint="Ask for less, or make the cluster larger",
        )
    if code in (-9, 137):
        return Failure(
            reason="JobCrashed",
            message="The cell's process was killed (SIGKILL)",
            hint="Most often the node ran out of memory: ask for more with --memory, or use less",
        )
    if code is not None and (code < 0 or code > 128):
        signal = -code if code < 0 else code - 128
        return Failure(
            reason="JobCrashed",
            message=f"The cell's process was ended by signal {signal}",
            hint="A library crashed, or someone ended the process; the log has its last words",
        )
    if code is not None:
        return Failure(
            reason="JobCrashed",
            message=f"The cell's process ended with exit code {code} before the cell did",
            hint="Something in the cell calls os._exit, or the runner could not start: the log says more",
        )
    if "its node has died" in message:  # Ray's ActorDiedError, of the job's supervisor
        return Failure(
            reason="JobCrashed",
            message="The node that the job ran on died, and the job with it",
            hint="Its pod was removed, its machine failed, or it ran out of memory; "
            f"%ray rerun {record.id} starts it again from the same inputs",
        )
    return Failure(reason="JobCrashed", message="Ray reports: " + _tail(message), hint="Run it again")


def _of_pip(message: str) -> str:
    """Give pip's own errors of the whole output that Ray quotes, without Ray's paths; or else its end."""
    errors = [line for line in _lines(message) if line.startswith("ERROR: ")]
    text = "; ".join(dict.fromkeys(line.removeprefix("ERROR: ") for line in errors))
    text = re.sub(r"\s*\(from line \d+ of [^)]*\)", "", text or _tail(message))
    return re.sub(r"(?<![\w.])/tmp/[^\s'\",)]*/", "", text)[:600]


def _tail(message: str) -> str:
    return " ".join(_lines(message)[-3:])[-600:] or "no reason given"


def _lines(message: str) -> list[str]:
    """Give the lines that say something, without a terminal's colours and with single blanks."""
    lines = (" ".join(line.split()) for line in _COLOURS.sub("", message).splitlines())
    return [line for line in lines if line]


def _gone(record: JobRecord, event: Event) -> JobRecord:
    failure = Failure(
        reason="JobLost",
        message=event.content.get("message", "The cluster’s head died, and the job with it"),
        hint=event.content.get(
            "hint",
            f"Its inputs and log are kept: %ray rerun {record.id} starts it again from the same inputs",
        ),
    )
    return _end(record, Phase.LOST, event.at, failure=failure)


def _failed(record: JobRecord, event: Event) -> JobRecord:
    return _end(record, Phase.FAILED, event.at, failure=Failure.from_json(event.content["failure"]))


def _cancelled(record: JobRecord, event: Event) -> JobRecord:
    return _end(record, Phase.CANCELLED, event.at, reason=event.content.get("reason", ""))


def _landed(record: JobRecord, event: Event) -> JobRecord:
    changed = {v["name"]: Value.from_json(v) for v in event.content["outputs"]}
    kept = [changed.pop(v.name, v) for v in record.outputs]
    return record.replace(outputs=(*kept, *changed.values()))


def _files(record: JobRecord, event: Event) -> JobRecord:
    return record.replace(files=tuple(FileInfo.from_json(f) for f in event.content["files"]))


_HANDLERS = {
    "step": _step,
    "wait": _wait,
    "chained": _chained,
    "progress": _progress,
    "inputs": _inputs,
    "cluster": _cluster,
    "libraries": _libraries,
    "item": _item,
    "submitted": _submitted,
    "again": _again,
    "alive": _alive,
    "beat": _alive,
    "stream": _stream,
    "phase": _runner,
    "ray": _ray,
    "gone": _gone,
    "failed": _failed,
    "cancelled": _cancelled,
    "landed": _landed,
    "files": _files,
}
_AFTER_THE_END = {"again", "landed", "files", "stream", "item"}

assert set(_PHASE_OF) == set(STEPS)
