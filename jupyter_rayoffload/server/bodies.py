"""What of clusters and jobs goes out: their JSON, less what might be a secret, with the words for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .. import sentences, words
from ..cluster_view import cluster_view
from ..models import ClusterInfo, JobRecord
from ..pages import job_page, row_fact
from ..record import bundle
from ..remote.events import Entry
from ..view import job_view

__all__ = ["cluster_body", "entry_body", "job_body", "job_filter", "job_summary", "log_text", "record_output"]

#: Instead of a value that people may have meant for the job alone.
MASK = "…"

Json = dict[str, Any]


def cluster_body(info: ClusterInfo, dashboard: str) -> Json:
    """Give a cluster; `dashboard` is the path of our proxy, for nobody else has Ray's token."""
    shown = info.replace(dashboard=dashboard if info.address else "")
    return {"name": shown.name, **shown.to_json(), "view": cluster_view(shown)}


def job_body(record: JobRecord, dashboard: str, kept: float = 0.0) -> Json:
    """Give all that is known of a job; `kept` is how long the store keeps records, seconds."""
    shown = record.replace(dashboard=dashboard if record.dashboard else "")
    body = shown.to_json()
    spec = body["spec"] = dict(body["spec"])
    # The magic line has the values of --env, too.
    spec.pop("cell_line", None)
    if env := spec.get("options", {}).get("env"):
        spec["options"] = {**spec["options"], "env": dict.fromkeys(env, MASK)}
    return {**body, "view": job_view(shown), "page": job_page(shown, kept)}


def job_summary(record: JobRecord) -> Json:
    """Give a row of the list."""
    spec = record.spec
    return {
        "id": record.id,
        "name": sentences.job_name(record),
        "kind": spec.kind,
        "phase": record.phase.value,
        "ended": record.phase.ended,
        "word": words.phase_word(record.phase),
        "state": words.icon(record.phase),
        "reason": sentences.sentence(record),
        "fact": row_fact(record),
        "notebook": spec.notebook,
        "cluster": record.cluster,
        "created": spec.created,
        "begun": record.started,
        "finished": record.ended,
        "attempt": record.attempt,
    }


def record_output(record: JobRecord, tail: Sequence[str], total: int) -> Json:
    """Give the static record as an output, without what the cell displayed: that stands behind it."""
    metadata = {"rayoffload": {"job": record.id, "phase": record.phase.value, "home": True}}
    data = dict(bundle(record, (), tail, total))
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def job_filter(phase: str = "", notebook: str = "", text: str = "") -> Callable[[JobRecord], bool]:
    """Give what tells whether a job is among those that are asked for; empty words ask for all."""
    sought = text.casefold()

    def accept(record: JobRecord) -> bool:
        spec = record.spec
        kinds = (record.phase.value, "ended" if record.phase.ended else "live")
        texts = (spec.id, spec.label, spec.notebook, spec.source)
        return (
            (not phase or phase in kinds)
            and (not notebook or notebook == spec.notebook)
            and (not sought or any(sought in part.casefold() for part in texts))
        )

    return accept


def entry_body(entry: Entry) -> Json:
    """Give one entry of a stream."""
    body = {"id": entry.id, "writer": entry.writer, "number": entry.number, "messages": entry.messages}
    return {**body, "lost": entry.lost} if entry.lost else body


def log_text(entries: Iterable[Entry]) -> str:
    """Give what was printed in `entries`; a gap is said, not skipped."""
    parts = []
    for entry in entries:
        if entry.lost:
            parts.append(f"\n[{words.number_text(entry.lost)} parts of the log are missing here]\n")
        parts += [_printed(message) for message in entry.messages]
    return "".join(parts)


def _printed(message: Mapping[str, Any]) -> str:
    return str(message["content"].get("text", "")) if message["type"] == "stream" else ""
