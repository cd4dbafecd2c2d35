"""What a program that was offloaded with ``submit_program`` uses: its input, and its output.

In the job this file is importable as ``rayoffload_job``::

    from rayoffload_job import read_input, write_output

Programs in other languages read the file that ``RAYOFFLOAD_INPUT`` names, and leave ``output.json`` or
``output.bin`` in the folder that ``RAYOFFLOAD_OUTPUT`` names. Values are bytes or JSON; nothing is ever
unpickled.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["read_input", "write_output"]


def read_input() -> Any:
    """Give what ``submit_program(..., input=...)`` was given.

    Returns
    -------
    bytes, a JSON value, or None
        None if there was none.
    """
    name = os.environ.get("RAYOFFLOAD_INPUT", "")
    if not name:
        return None
    data = Path(name).read_bytes()
    return json.loads(data) if name.endswith(".json") else data


def write_output(value: Any) -> None:
    """Leave `value` as the job's result; a later call replaces it.

    Parameters
    ----------
    value : bytes or what JSON can say

    Raises
    ------
    TypeError
        It is neither.
    """
    folder = Path(os.environ.get("RAYOFFLOAD_OUTPUT", "."))
    is_bytes = isinstance(value, (bytes, bytearray, memoryview))
    data = bytes(value) if is_bytes else json.dumps(value).encode()
    names = ["output.bin", "output.json"]
    name, other = names if is_bytes else reversed(names)
    draft = folder / f".{name}"
    draft.write_bytes(data)
    os.replace(draft, folder / name)  # whole or not at all, should the program be killed
    (folder / other).unlink(missing_ok=True)
