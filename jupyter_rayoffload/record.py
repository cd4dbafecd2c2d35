"""The static record of a job: one bundle that every viewer of notebooks shows, and the same facts as text.

The HTML has no class, no script and no style but alignment, margins and the colours of a traceback; it passes
the sanitizers of JupyterLab and GitHub, and reads in the same order with every style removed. What the cell
displayed stands at its end, so that markup of others cannot break ours.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import ansi, sentences, words
from .models import Failure, JobRecord, Phase, Value
from .outputs import Outputs

__all__ = [
    "MAX_OUTPUT",
    "MAX_OUTPUTS",
    "TAIL_LINES",
    "Outputs",
    "bundle",
    "live_bundle",
    "render_outputs",
    "text",
    "traceback_lines",
]

#: Lines of log that a record carries.
TAIL_LINES = 40
#: Bytes of one output, and of all, that a record carries: they are in the notebook for good.
MAX_OUTPUT = 5_000_000
MAX_OUTPUTS = 20_000_000

_SIGNS = {Phase.SUCCEEDED: "✓", Phase.FAILED: "✗", Phase.CANCELLED: "⊘", Phase.LOST: "!"}
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def render_outputs(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Fold Jupyter messages into the outputs that a notebook would show at their end.

    Parameters
    ----------
    messages : iterable of Mapping
        As :meth:`.outputs.Outputs.add` takes them.

    Returns
    -------
    list of dict
        ``{output_type, data, metadata}`` each.
    """
    outputs = Outputs()
    for message in messages:
        outputs.add(message)
    return outputs.outputs


def traceback_lines(failure: Failure) -> list[str]:
    """Give the traceback of the cell's own exception, one line each, with terminal colours."""
    return "\n".join(failure.traceback).split("\n") if failure.traceback else []


def bundle(
    record: JobRecord,
    outputs: Sequence[Mapping[str, Any]] = (),
    log_tail: Sequence[str] = (),
    total_lines: int | None = None,
) -> dict[str, Any]:
    """Give the static mimebundle of a job that has ended.

    Parameters
    ----------
    record : JobRecord
    outputs : sequence of Mapping
        What the cell displayed, ``{data, metadata}`` each.
    log_tail : sequence of str
        The last lines of its log; more than :data:`TAIL_LINES` are left out.
    total_lines : int, optional
        Lines of the whole log; the record's count by default.

    Returns
    -------
    dict
        ``text/html`` and ``text/plain``.
    """
    tail = list(log_tail)[-TAIL_LINES:]
    total = max(len(tail), record.lines if total_lines is None else total_lines)
    parts = [
        _status_html(record),
        _sentences_html(record),
        _table_html(record),
        _files_html(record),
        _traceback_html(record.failure),
        _notes_html(record),
        _log_html(tail, total),
        _commands_html(record),
        *_outputs_html(record, outputs),
    ]
    return {
        "text/html": "<div>\n" + "\n".join(filter(None, parts)) + "\n</div>",
        "text/plain": text(record, outputs, tail, total),
    }


def live_bundle(record: JobRecord) -> dict[str, Any]:
    """Give what viewers without the live panel show of a job: where it runs, and how to see it again."""
    html_parts = [_status_html(record), _sentences_html(record), _commands_html(record)]
    return {
        "text/html": "<div>\n" + "\n".join(filter(None, html_parts)) + "\n</div>",
        "text/plain": "\n".join([_status_text(record), *_said(record), _command_lines(record)]),
    }


def text(
    record: JobRecord,
    outputs: Sequence[Mapping[str, Any]] = (),
    log_tail: Sequence[str] = (),
    total_lines: int | None = None,
    *,
    colour: bool = False,
) -> str:
    """Give the same facts for a terminal.

    Parameters
    ----------
    record, outputs, log_tail, total_lines
        As for :func:`bundle`.
    colour : bool
        Keep the colours of traceback and log.

    Returns
    -------
    str
        Lines without a newline at the end.
    """
    clean = (lambda line: line) if colour else ansi.strip
    tail = list(log_tail)[-TAIL_LINES:]
    total = max(len(tail), record.lines if total_lines is None else total_lines)
    lines = [_status_text(record), *_said(record), *_table_text(record)]
    lines += [f"  File    {f.path}  {words.size_text(f.size)}  {words.file_state(f)}" for f in record.files]
    if record.failure is not None:
        lines += [clean(line) for line in traceback_lines(record.failure)]
    if tail:
        lines += [words.log_title(total, len(tail)), *("  " + clean(line) for line in tail)]
    lines.append(_command_lines(record))
    for output in outputs:
        plain = output["data"].get("text/plain")
        lines += [_joined(plain)] if plain else []
    return "\n".join(lines)


# ---------------------------------------------------------------------- facts


def _status(record: JobRecord) -> tuple[str, str]:
    """Give word with its sign, and the facts behind the name."""
    word = f"{_SIGNS[record.phase]} " if record.phase in _SIGNS else ""
    word += words.phase_word(record.phase)
    facts = []
    if record.started and record.ended:
        facts.append(words.duration_text(record.ended - record.started))
        facts.append(words.span_text(record.started, record.ended))
    elif record.started:
        facts.append(f"since {words.clock_text(record.started)} UTC")
    if record.items:
        facts.append(words.items_text(record.items.total))
        facts += [text for _, text in words.batch_counts(record.items)]
    if record.cluster:
        asked = record.spec.options.resources.words()
        facts.append(f"cluster {record.cluster}" + (f" ({asked})" if asked else ""))
    return word, ", ".join(facts)


def _status_text(record: JobRecord) -> str:
    word, facts = _status(record)
    return f"{word}  {sentences.job_name(record)}" + (f"  {facts}" if facts else "")


def _sentences(record: JobRecord) -> list[str]:
    return [said for said in sentences.voices(record) if said]


def _said(record: JobRecord) -> list[str]:
    notes = sentences.workspace_notes(record) if record.phase.ended else []
    return [words.plain(s, record.ended) for s in (*_sentences(record), *notes)]


def _command_lines(record: JobRecord) -> str:
    lines = [f"To see it live or again: %ray attach {record.id}"]
    if record.phase is not Phase.SUCCEEDED and sentences.worth_a_rerun(record):
        lines.append(f"To start it again from the same inputs: %ray rerun {record.id}")
    return "\n".join(lines)


def _rows(record: JobRecord) -> list[tuple[str, str, str, str, str]]:
    kinds = [("Input", record.inputs or record.spec.inputs), ("Output", record.outputs)]
    return [(kind, *_cells(value)) for kind, values in kinds for value in values]


def _cells(value: Value) -> tuple[str, str, str, str]:
    size = "" if value.size is None else words.size_text(value.size)
    kind = value.type or (f"from job {value.job}" if value.job else "")
    return value.name, kind, size, words.value_state(value)


def _table_text(record: JobRecord) -> list[str]:
    rows = _rows(record)
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    return [
        f"  {kind:<7} {name:<{widths[1]}}  {type_:<{widths[2]}}  {size:>{widths[3]}}  {state}".rstrip()
        for kind, name, type_, size, state in rows
    ]


# ---------------------------------------------------------------------- HTML


def _status_html(record: JobRecord) -> str:
    word, facts = _status(record)
    name = f"<code>{_safe(sentences.job_name(record))}</code>"
    return f'<p style="margin: 0 0 8px"><b>{word}</b> {name} {_safe(facts)}</p>'


def _sentences_html(record: JobRecord) -> str:
    return _paragraph([_marked(s, record.ended) for s in _sentences(record)])


def _table_html(record: JobRecord) -> str:
    rows = _rows(record)
    if not rows:
        return ""
    head = "".join(_cell("th", title, i == 3) for i, title in enumerate(("", "Name", "Type", "Size", "")))
    body = "\n".join(
        "<tr>"
        + "".join(_cell("td", _code(v) if i == 1 else _safe(v), i == 3) for i, v in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return (
        '<table style="border-collapse: collapse; margin: 0 0 8px">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    )


def _cell(tag: str, inner: str, right: bool) -> str:
    side = "right" if right else "left"
    return f'<{tag} align="{side}" style="text-align: {side}">{inner}</{tag}>'


def _files_html(record: JobRecord) -> str:
    if not record.files:
        return ""
    items = "\n".join(
        f"<li>{_code(f.path)} {words.size_text(f.size)}, {_safe(words.file_state(f))}</li>"
        for f in record.files
    )
    count = "1 file" if len(record.files) == 1 else f"{words.number_text(len(record.files))} files"
    return (
        f"<details><summary>{count} made or changed by the cell</summary>\n<ul>\n{items}\n</ul>\n</details>"
    )


def _traceback_html(failure: Failure | None) -> str:
    lines = traceback_lines(failure) if failure else []
    return f'<pre style="margin: 4px 0">{ansi.to_html(chr(10).join(lines))}</pre>' if lines else ""


def _notes_html(record: JobRecord) -> str:
    return _paragraph([_marked(note, record.ended) for note in sentences.workspace_notes(record)])


def _paragraph(lines: Sequence[str]) -> str:
    return f'<p style="margin: 0 0 8px">{"<br/>".join(lines)}</p>' if lines else ""


def _log_html(tail: Sequence[str], total: int) -> str:
    if not tail:
        return ""
    title = words.log_title(total, len(tail))
    body = _safe("\n".join(ansi.strip(line) for line in tail))
    return f'<details><summary>{title}</summary>\n<pre style="margin: 4px 0">{body}</pre>\n</details>'


def _commands_html(record: JobRecord) -> str:
    lines = [line.split(": ", 1) for line in _command_lines(record).split("\n")]
    said = "<br/>".join(f"{what}: {_code(command)}" for what, command in lines)
    return f'<p style="margin: 8px 0 0">{said}</p>'


def _outputs_html(record: JobRecord, outputs: Sequence[Mapping[str, Any]]) -> list[str]:
    parts, room = [], MAX_OUTPUTS
    for number, output in enumerate(outputs, 1):
        body = _output_html(output["data"], output.get("metadata") or {})
        if len(body) > min(room, MAX_OUTPUT):
            size = words.size_text(len(body))
            body = (
                f"<p>Output {number} is {size}, more than a record carries: "
                f"{_code(f'%ray attach {record.id}')} shows it</p>"
            )
        room -= len(body)
        parts.append(f'<div style="margin: 8px 0 0">{body}</div>' if body else "")
    return parts


def _output_html(data: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Render one bundle by its richest type that needs no script of ours."""
    alt = _safe(_joined(data.get("text/plain", "")))[:200]
    for mime in _IMAGES:
        if mime in data:
            width = (metadata.get(mime) or {}).get("width")  # of figures with twice the pixels
            size = f' width="{int(width)}"' if isinstance(width, (int, float)) else ""
            return f'<img src="data:{mime};base64,{"".join(_joined(data[mime]).split())}" alt="{alt}"{size}/>'
    if "image/svg+xml" in data:
        encoded = base64.b64encode(_joined(data["image/svg+xml"]).encode()).decode()
        return f'<img src="data:image/svg+xml;base64,{encoded}" alt="{alt}"/>'
    if "text/html" in data:
        return _joined(data["text/html"])
    for mime in ("text/latex", "text/markdown", "text/plain"):
        if mime in data:
            return f'<pre style="margin: 4px 0">{ansi.to_html(_joined(data[mime]))}</pre>'
    return f"<p>An output of the type {_safe(', '.join(data))}</p>" if data else ""


def _joined(value: Any) -> str:
    """Give the text of a value of a mimebundle: nbformat allows a list of lines too."""
    return "".join(value) if isinstance(value, list) else str(value)


def _safe(value: str) -> str:
    return html.escape(value, quote=True)


def _code(value: str) -> str:
    return f"<code>{_safe(value)}</code>"


def _marked(sentence: str, now: float | None) -> str:
    """Escape a sentence and set its names in code type."""
    return words.plain(_safe(sentence), now, "<code>{}</code>")
