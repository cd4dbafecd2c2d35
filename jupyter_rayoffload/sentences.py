"""What is said of a job: what it waits for, what happened, what that means, what to do.

All sentences have the marks of :mod:`.words`; the main voice carries no full stop when it stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from .models import JobRecord, Phase, Step, Value, ValueState
from .remote.libraries import differing, name_and_version, pin
from .words import capital, listing, number_text, stop

__all__ = [
    "expression",
    "job_name",
    "kernel_gone",
    "library_notes",
    "meaning",
    "sentence",
    "troubled",
    "voices",
    "workspace_notes",
    "worth_a_rerun",
]


def job_name(record: JobRecord) -> str:
    """Give the name that people see: the label, or the id where there is none."""
    return record.spec.label or record.id


def _missing(record: JobRecord) -> list[Value]:
    return [v for v in record.outputs if v.state in (ValueState.NOT_LANDED, ValueState.CANNOT_TRAVEL)]


def troubled(record: JobRecord) -> bool:
    """Whether a job that succeeded needs a decision: something did not land, or could not travel."""
    return record.phase is Phase.SUCCEEDED and bool(_missing(record))


def sentence(record: JobRecord) -> str:
    """Say what is waited for, or what happened: the main voice.

    Parameters
    ----------
    record : JobRecord

    Returns
    -------
    str
        With the marks of :mod:`.words`; ``""`` where there is nothing to say (the log speaks).
    """
    if record.phase is Phase.SUCCEEDED:
        return _landing(record)
    if record.phase is Phase.CANCELLED:
        return _cancelled(record)
    if record.failure is not None and record.phase.ended:
        failure = record.failure
        if failure.ename and not _of_an_item(record):
            return f"{failure.ename}: {failure.evalue}" if failure.evalue else failure.ename
        return capital(failure.message)
    if record.phase.ended:
        return capital(record.reason) or "Nothing says why"
    return capital(record.reason) or _DOING.get(record.phase, "")


def _of_an_item(record: JobRecord) -> bool:
    """Whether the failure is that of one item among others: how many failed is said, too."""
    return record.items is not None and bool(record.failure and record.failure.message)


_DOING = {
    Phase.PACKAGING: "Packing the workspace",
    Phase.STARTING_CLUSTER: "Starting the cluster",
    Phase.UPLOADING: "Sending the inputs",
    Phase.PENDING: "Waiting for the job to start",
}


def meaning(record: JobRecord) -> str:
    """Say what that means, and what to do: the second voice.

    Parameters
    ----------
    record : JobRecord

    Returns
    -------
    str
        Sentences with full stops, with the marks of :mod:`.words`, or ``""``.
    """
    if not record.phase.ended:
        notes = [*library_notes(record), *workspace_notes(record)]
        return " ".join(filter(None, [stop(record.detail), *notes]))
    if record.phase is Phase.SUCCEEDED:
        notes = library_notes(record) if troubled(record) else []
        return " ".join(filter(None, [_where_values_are(record), *notes]))
    failure = record.failure
    if record.phase is Phase.CANCELLED or failure is None:
        return ""
    # A failure that is not the cell's own says itself which versions differ.
    notes = library_notes(record) if failure.ename and not failure.hint else []
    return " ".join(filter(None, [stop(capital(failure.hint)), *notes, _came_back(record)]))


def voices(record: JobRecord) -> tuple[str, str]:
    """Give :func:`sentence` and :func:`meaning` as they stand together.

    A job that ended well has its table to say so, a traceback says itself what happened; and the first of two
    sentences ends with a full stop.
    """
    main, second = sentence(record), meaning(record)
    failure = record.failure
    said = failure is not None and bool(failure.ename and failure.traceback) and not _of_an_item(record)
    if said or (record.phase is Phase.SUCCEEDED and not troubled(record)):
        main = ""
    return (stop(main) if record.phase.ended and second else main), second


#: Of these failures the same job may well be free the next time; of all others the cell must change first.
_WORTH_A_RERUN = frozenset(
    {
        "ClusterStartFailed",
        "ClusterUnreachable",
        "EnvironmentFailed",
        "JobCrashed",
        "JobLost",
        "JobTimedOut",
        "OffloadError",
        "OutOfMemory",
        "StoreFull",
        "StoreUnreachable",
    }
)


def worth_a_rerun(record: JobRecord) -> bool:
    """Whether the same job may be started again, and that may help."""
    inputs = record.steps.get("inputs", Step())
    # The store has what a rerun needs before the first submission.
    if not record.attempt and (inputs.end is None or record.spec.after):
        return False
    failure = record.failure
    if record.phase in (Phase.FAILED, Phase.LOST) and failure is not None:
        return not failure.ename and failure.reason in _WORTH_A_RERUN
    return record.phase.ended


def _landing(record: JobRecord) -> str:
    missing = _missing(record)
    if missing:
        return ". ".join(_missed(v) for v in missing)
    landed = [v.name for v in record.outputs if v.state is ValueState.LANDED]
    kept = [v.name for v in record.outputs if v.state is ValueState.KEPT]
    parts = [f"{listing(landed)} landed"] if landed else []
    parts += [f"{listing(kept)} kept in the store"] if kept else []
    return " · ".join(parts)


def _missed(value: Value) -> str:
    if value.state is ValueState.CANNOT_TRAVEL:
        return f"`{value.name}` cannot travel" + (f": {value.reason}" if value.reason else "")
    return f"`{value.name}` did not land" + (f": {value.reason}" if value.reason else "")


def _where_values_are(record: JobRecord) -> str:
    there = [v.name for v in _missing(record) if v.state is ValueState.NOT_LANDED]
    if not there:
        return ""
    places = listing(f'{expression(record)}.outputs["{name}"]' for name in there)
    return f"The job’s {'value is' if len(there) == 1 else 'values are'} in {places}."


def expression(record: JobRecord) -> str:
    """Give the Python expression for the job: its name in the notebook, or how to attach to it."""
    label = record.spec.label
    if label.isidentifier():
        return label
    return f'jupyter_rayoffload.attach("{record.id}")'


def _cancelled(record: JobRecord) -> str:
    who = record.reason or "Cancelled"
    when = f" at {{at:{record.ended:.0f}}}" if record.ended else ""
    names = [v.name for v in record.outputs] or list(record.spec.expected)
    if not names:
        return f"{capital(who)}{when}"
    are = "is what it was" if len(names) == 1 else "are what they were"
    return f"{capital(who)}{when}. Nothing landed; {_joined(names)} {are}."


def _came_back(record: JobRecord) -> str:
    """Say where to find what was assigned before an error."""
    names = [v.name for v in record.outputs if v.state is not ValueState.CANNOT_TRAVEL]
    if not names:
        return ""
    return f"What was assigned before is in `{expression(record)}.outputs`: {listing(names)}."


def workspace_notes(record: JobRecord) -> list[str]:
    """Say what stayed behind of the workspace, and what else is to be known of it."""
    names, notes = record.spec.left_behind, [stop(capital(note)) for note in record.spec.notes]
    if not names:
        return notes
    shown, more = names[:5], len(names) - 5
    tail = f" and {number_text(more)} more" if more > 0 else ""
    verb = "Stays behind because it" if len(names) == 1 else "Stay behind because they"
    return [f"{verb} may hold secrets: {listing(shown)}{tail}.", *notes]


def library_notes(record: JobRecord) -> list[str]:
    """Say which libraries the cluster lacks, and which differ so that it may matter."""
    needed, there = record.spec.libraries, record.libraries
    differences = differing(needed, there)
    notes = []
    for root in differences:
        name, version = name_and_version(needed[root])
        notes.append(f"{name} is {version} here and {there[root]} on the cluster: values may not travel.")
    # One that is not here either is most often an import that the cell can do without.
    lacking = [root for root in needed if there.get(root) == "" and name_and_version(needed[root])[1]]
    names = [name_and_version(needed[root])[0] for root in lacking]
    if names:
        verb = "is" if len(names) == 1 else "are"
        pins = " ".join(pin(needed[root]) for root in lacking)
        notes.append(f"{listing(names)} {verb} not on the cluster: `--pip {pins}`.")
    return notes


def kernel_gone(record: JobRecord) -> tuple[str, str]:
    """Say what a panel says whose kernel has gone: main and second voice."""
    return (
        "This panel lost its kernel; the job goes on without it",
        f"Run `%ray attach {record.id}` in a cell.",
    )


def _joined(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"`{names[0]}`"
    return f"{listing(names[:-1])} and `{names[-1]}`"
