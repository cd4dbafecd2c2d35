"""Rich outputs of a cell: Jupyter's messages folded into the outputs that a notebook would show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Outputs"]

_SHOWN = ("display_data", "execute_result")


class Outputs:
    """The outputs that are shown now, in order, as display messages change them.

    ``update_display_data`` changes every output of its display id in place; ``clear_output`` takes all
    away, with ``wait`` not before the next output is there. Streams and errors are not kept here: the log
    and the record's failure have them.
    """

    def __init__(self) -> None:
        self._outputs: list[dict[str, Any]] = []
        self._ids: list[str] = []
        self._clear_next = False

    def add(self, message: Mapping[str, Any]) -> bool:
        """Take in one message.

        Parameters
        ----------
        message : Mapping
            ``{"type": ..., "content": ...}`` of the event stream; a whole Jupyter message does too.

        Returns
        -------
        bool
            Whether the outputs have changed.
        """
        kind = message.get("type") or message.get("msg_type") or message.get("header", {}).get("msg_type")
        content = message["content"]
        if kind == "clear_output":
            self._clear_next = bool(content.get("wait"))
            return not self._clear_next and self._clear()
        if kind == "update_display_data":
            return self._update(content)
        if kind not in _SHOWN:
            return False
        if self._clear_next:
            self._clear()
        output = {
            "output_type": kind,
            "data": dict(content["data"]),
            "metadata": dict(content.get("metadata", {})),
        }
        if kind == "execute_result":
            output["execution_count"] = content.get("execution_count")
        self._outputs.append(output)
        self._ids.append(content.get("transient", {}).get("display_id", ""))
        return True

    def __len__(self) -> int:
        return len(self._outputs)

    def to_json(self) -> list[dict[str, Any]]:
        """Give the outputs as nbformat writes them: ``{output_type, data, metadata}``."""
        return [dict(output) for output in self._outputs]

    def _clear(self) -> bool:
        changed = bool(self._outputs)
        self._outputs, self._ids, self._clear_next = [], [], False
        return changed

    def _update(self, content: Mapping[str, Any]) -> bool:
        display_id = content.get("transient", {}).get("display_id", "")
        changed = False
        for i, known in enumerate(self._ids):
            if display_id and known == display_id:
                new = {"data": dict(content["data"]), "metadata": dict(content.get("metadata", {}))}
                self._outputs[i] = {**self._outputs[i], **new}
                changed = True
        return changed
