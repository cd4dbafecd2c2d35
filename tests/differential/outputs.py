"""What a cell printed and showed, without what differs from run to run."""

from __future__ import annotations

import hashlib
import re
import struct
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Metadata key of the outputs that are our own: panel and record.
OURS = "rayoffload"


class Tidy:
    """Take out of a text what differs from run to run, each thing by a rule of its own."""

    def __init__(self, folder: Path, first: int) -> None:
        self.rules: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
            (re.compile(r"0x[0-9a-f]{6,}"), "0x"),
            # The magic line stands as a comment in the plain cell.
            (re.compile(r"# ?(?=%%ray_job)"), ""),
            # Execution counts, from that of the notebook's first cell.
            (re.compile(r"\bIn\[(\d+)\]"), lambda m: f"In[+{int(m[1]) - first}]"),
            # Where the text of a cell is kept: IPython invents a file name for it.
            (re.compile(r"/[^\s('\"]*ipykernel_\d+/\d+\.py"), "CELL"),
            (re.compile(r"(?<=\()\d+\.py(?=, line)"), "CELL"),
            (re.compile(r"<ipython-input-\d+-[0-9a-f]+>"), "CELL"),
            (re.compile(re.escape(str(folder)) + "/"), ""),
            # What %time and %timeit measure.
            (re.compile(r"^(CPU times|Wall time): .*$", re.M), r"\1"),
            (re.compile(r"^.* per loop \(mean .*$", re.M), "per loop"),
        ]

    def __call__(self, text: str) -> str:
        """Give `text` without them."""
        for pattern, replacement in self.rules:
            text = pattern.sub(replacement, text)
        return text


def printed(outputs: list[Any], name: str, tidy: Tidy) -> str:
    """Give all text of one stream, as a viewer shows it."""
    return overwrite(tidy("".join(o.text for o in outputs if o.get("name") == name)))


def shown(outputs: list[Any], tidy: Tidy) -> list[Any]:
    """Give what stands below a cell, in order: pieces of text, and bundles.

    Text to stderr is left out: it has no order with the rest in a local kernel either, because its stream
    has a buffer of its own.
    """
    out: list[Any] = []
    for output in outputs:
        if output.get("name") == "stderr" or output.output_type == "error":
            continue
        if OURS in output.get("metadata", {}):
            continue
        if output.output_type != "stream":
            data = {mime: _bundle(mime, value, tidy) for mime, value in output.data.items()}
            out.append({"kind": output.output_type, "data": data, "metadata": output.metadata})
        elif out and isinstance(out[-1], str):
            out[-1] += output.text
        else:
            out.append(output.text)
    return [overwrite(tidy(one)) if isinstance(one, str) else one for one in out]


def overwrite(text: str) -> str:
    """Apply carriage returns, as every viewer of notebooks does."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for piece in line.split("\r"):
            shown = piece + shown[len(piece) :]
        lines.append(shown)
    return "\n".join(lines)


def _bundle(mime: str, value: Any, tidy: Tidy) -> Any:
    if mime == "image/png":
        raw = b64decode(value)
        width, height = struct.unpack(">II", raw[16:24])
        return {"width": width, "height": height, "sha256": hashlib.sha256(raw).hexdigest()}
    return tidy(value) if isinstance(value, str) else value
