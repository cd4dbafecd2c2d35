"""What a job's own page shows beside its panel: facts, and tables for its tabs, in ready words.

Texts of cells have the marks of :mod:`.words`; a cell may be ``{"mark": state, "text": ...}`` where a drawing
stands before the text, or ``{"job": id, "text": ...}`` where it leads to another job. ``at`` is seconds since
the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import words
from .models import STEPS, FileInfo, JobOptions, JobRecord, Step, Value, ValueState
from .remote.libraries import differing, name_and_version

__all__ = ["job_page", "row_fact"]

Json = dict[str, Any]

#: What happened, by the name of a step: at its beginning, and at its end.
_STEP_EVENTS = {
    "cluster": ("Asked for the cluster", "The cluster is there"),
    "workspace": ("Began to pack the workspace", "The workspace is on the cluster"),
    "inputs": ("Began to send the inputs", "The inputs are in the store"),
    "queued": ("Submitted to Ray", "The process has started"),
    "running": ("The cell began", "The cell ended"),
}
_VERSION_NAMES = {"python": "Python", "ray": "Ray", "cloudpickle": "cloudpickle"}


def job_page(record: JobRecord, kept: float = 0.0) -> Json:
    """Give what a job's page shows beside the panel.

    Parameters
    ----------
    record : JobRecord
    kept : float
        How long the store keeps a record after its job's end, seconds; 0 where nobody knows.

    Returns
    -------
    dict
        ``facts``, and the tables of ``outputs``, ``inputs``, ``environment`` and ``timeline``.
    """
    return {
        "facts": _facts(record, kept),
        "source": record.spec.source,
        "outputs": [_values_out(record), *_files(record)],
        "inputs": [_values_in(record), *_workspace(record)],
        "environment": [*_versions(record), _asked(record.spec.options)],
        "bars": _bars(record),
        "timeline": [_happened(record)],
    }


def row_fact(record: JobRecord) -> str:
    """Give what stands behind a job's state in a list: what failed, what is waited for, or its notebook."""
    failed = words.failure_word(record.failure) if record.failure else ""
    items = record.items
    if items and record.phase.ended:
        return (
            f"{words.number_text(items.failed)} of {words.number_text(items.total)} failed"
            if items.failed
            else (words.items_text(items.total))
        )
    if items and not record.reason:
        return f"{words.number_text(items.done)} of {words.number_text(items.total)}"
    if record.phase.ended:
        return failed or record.spec.notebook.rpartition("/")[2]
    return _lower(record.reason) or record.spec.notebook.rpartition("/")[2]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _facts(record: JobRecord, kept: float) -> list[Json]:
    spec, facts = record.spec, list[Json]()
    if spec.notebook:
        cell = f", cell {spec.count}" if spec.count is not None else ""
        facts.append({"title": "Notebook", "text": f"{spec.notebook}{cell}", "notebook": spec.notebook})
    if record.cluster:
        asked = spec.options.resources.words()
        facts.append({"title": "Cluster", "text": ", ".join(filter(None, (record.cluster, asked)))})
    times = {"Started": record.started, "Ended": record.ended}
    facts += [{"title": title, "at": at} for title, at in times.items() if at]
    if kept and record.ended:
        facts.append({"title": "Kept until", "at": record.ended + kept, "day": True})
    return [*facts, {"title": "Id", "text": spec.id}]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> Json:
    """Give a table; of the columns those that are numbers begin with ``#``."""
    heads = [{"title": column.lstrip("#"), "number": column.startswith("#")} for column in columns]
    return {"title": title, "columns": heads, "rows": [list(row) for row in rows], "empty": empty}


def _value(value: Value, where: Any) -> list[Any]:
    size = "" if value.size is None else words.size_text(value.size)
    return [f"`{value.name}`", value.type, size, where]


def _values_out(record: JobRecord) -> Json:
    rows = [_value(value, words.capital(words.value_state(value))) for value in record.outputs]
    if not rows and not record.phase.ended:
        rows = [[f"`{name}`", "", "", "Lands when the job succeeds"] for name in record.spec.expected]
    empty = "The cell assigns nothing that comes back"
    return _table("Variables", ("Name", "Type", "#Size", "Where it is"), rows, empty)


def _values_in(record: JobRecord) -> Json:
    rows = [_value(value, _way(value)) for value in record.inputs or record.spec.inputs]
    return _table("Variables", ("Name", "Type", "#Size", "How it got there"), rows, "The cell reads none")


def _way(value: Value) -> Any:
    text = words.capital(words.value_state(value))
    if not value.job:
        return text
    if value.state is ValueState.WAITS:
        return {"job": value.job, "text": "Waits for job"}
    return {"job": value.job, "text": f"{text or 'Comes'} from job"}


def _files(record: JobRecord) -> list[Json]:
    def row(file: FileInfo) -> list[str]:
        return [f"`{file.path}`", words.size_text(file.size), words.capital(words.file_state(file))]

    columns = ("Path", "#Size", "Where it is")
    return [_table("Files", columns, map(row, record.files), "")] if record.files else []


def _workspace(record: JobRecord) -> list[Json]:
    spec = record.spec
    rows = [["Package", f"`{spec.package[:12]}`"]] if spec.package else []
    rows += [["Local module", f"`{digest[:12]}`"] for digest in spec.modules]
    rows += [["Files of an earlier job", f"`{digest[:12]}`"] for digest in spec.overlays]
    if spec.left_behind:
        rows.append(["Stayed behind", f"{words.listing(spec.left_behind)}: may hold secrets"])
    rows += [["Note", words.capital(note)] for note in spec.notes]
    return [_table("Workspace", ("Part", "What"), rows, "")] if rows else []


def _versions(record: JobRecord) -> list[Json]:
    """Compare what the cell imports: the notebook's versions with the cluster's."""
    spec = record.spec
    rows: list[list[Any]] = []
    for name in _VERSION_NAMES:
        if name in spec.versions:
            here, there = spec.versions[name], record.libraries.get(name)
            matters = there is not None and here.split(".")[:2] != there.split(".")[:2]
            verdict = _verdict(here, there if matters or there is None else here, matters)
            rows.append([_VERSION_NAMES[name], here, there or "", verdict])
    apart = set(differing(spec.libraries, record.libraries))
    for root, requirement in sorted(spec.libraries.items()):
        name, here = name_and_version(requirement)
        there = record.libraries.get(root)
        rows.append([name, here or "not installed", there or "", _verdict(here, there, root in apart)])
    if not rows:
        return []
    return [_table("Notebook and cluster", ("Library", "Notebook", "Cluster", "Verdict"), rows, "")]


def _verdict(here: str, there: str | None, matters: bool) -> Any:
    if there is None:
        return ""
    if not there:
        return {"mark": "warning", "text": "Not on the cluster"}
    if matters:
        return {"mark": "warning", "text": "Differs: values may not travel"}
    return {"mark": "succeeded", "text": "Same" if here == there else "Differs, and that does not matter"}


def _asked(options: JobOptions) -> Json:
    """Give what the cell asked for; the values of ``--env`` are nobody's business."""
    resources = options.resources
    given: Mapping[str, Any] = {
        "--profile": options.profile,
        "--cluster": options.cluster,
        "--cpus": "" if resources.cpus is None else f"{resources.cpus:g}",
        "--gpus": "" if resources.gpus is None else f"{resources.gpus:g}",
        "--memory": words.memory_text(resources.memory) if resources.memory else "",
        "--resource": ", ".join(f"{name}={amount:g}" for name, amount in resources.custom.items()),
        "--pip": ", ".join(options.pip),
        "--py-module": ", ".join(options.py_modules),
        "--env": f"{words.listing(options.env)} (values are not shown)" if options.env else "",
        "--workdir": options.workdir,
        "--exclude": ", ".join(options.exclude),
        "--fetch": ", ".join(options.fetch),
        "--map": options.map,
        "--max-parallel": str(options.max_parallel or ""),
        "--timeout": words.duration_text(options.timeout) if options.timeout else "",
        "--retries": str(options.retries or ""),
        "--lazy": "yes" if options.lazy else "",
    }
    rows = [[f"`{flag}`", text] for flag, text in given.items() if text]
    return _table("Asked for", ("Option", "Value"), rows, "Nothing but what the cluster gives by default")


def _bars(record: JobRecord) -> list[Json]:
    """Give the steps as bars on one line of time: shares of the whole, and their times in words."""
    begun = {name: step for name in STEPS if (step := record.steps.get(name)) and step.begin is not None}
    if not begun:
        return []
    moments = [at for step in begun.values() for at in (step.begin, step.end) if at is not None]
    first = min(moments)
    last = max([*moments, record.ended or first, record.last_seen or first])
    whole = max(last - first, 1e-3)
    bars = []
    for name, step in begun.items():
        assert step.begin is not None
        end = last if step.end is None else step.end
        text = step.note or words.duration_text(end - step.begin)
        bars.append(
            {
                "name": name,
                "from": (step.begin - first) / whole,
                "share": max(0.0, end - step.begin) / whole,
                "text": text if step.end is not None or record.phase.ended else "",
                "begin": step.begin,
            }
        )
    return bars


def _happened(record: JobRecord) -> Json:
    found: list[tuple[float, str]] = [(record.spec.created, "The cell was run, its inputs were frozen")]
    for name, (begin, end) in _STEP_EVENTS.items():  # in order, for those of one moment
        step = record.steps.get(name, Step())
        found += [(at, text) for at, text in ((step.begin, begin), (step.end, end)) if at is not None]
    if record.ended:
        found.append((record.ended, words.phase_word(record.phase)))
    known = sorted(((at, text) for at, text in found if at), key=lambda one: one[0])
    rows = [
        [{"at": at}, words.duration_text(at - known[0][0]) if at > known[0][0] else "0 s", text]
        for at, text in known
    ]
    return _table("Events", ("Time", "#After", "What happened"), rows, "")
