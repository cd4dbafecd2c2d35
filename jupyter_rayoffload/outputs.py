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

    Attributes
    ----------
    outputs : list of dict
        As nbformat writes them: ``{output_type, data, metadata}``.
    version : int
        Counts the changes.
    """

    def __init__(self) -> None:
        self.outputs: list[dict[str, Any]] = []
        self.version = 0
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
        changed = self._take(kind, message["content"])
        self.version += changed
        return changed

    def _take(self, kind: str, content: Mapping[str, Any]) -> bool:
        if kind == "clear_output":
            self._clear_next = bool(content.get("wait"))
            return not self._clear_next and self._clear()
        if kind == "update_display_data":
            return self._update(content)
        if kind not in _SHOWN:
            return False
        if self._clear_next:
            self._clear()
        output = {"output_type": kind, **_body(content)}
        if kind == "execute_result":
            output["execution_count"] = content.get("execution_count")
        self.outputs = [*self.outputs, output]
        self._ids.append(_display_id(content))
        return True

    def _clear(self) -> bool:
        changed = bool(self.outputs)
        self.outputs, self._ids, self._clear_next = [], [], False
        return changed

    def _update(self, content: Mapping[str, Any]) -> bool:
        display_id, body = _display_id(content), _body(content)
        if not display_id or display_id not in self._ids:
            return False
        pairs = zip(self._ids, self.outputs, strict=True)
        # A new list each time: others may be reading the old one in another thread.
        self.outputs = [{**output, **body} if known == display_id else output for known, output in pairs]
        return True


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": dict(content["data"]), "metadata": dict(content.get("metadata") or {})}


def _display_id(content: Mapping[str, Any]) -> str:
    return str((content.get("transient") or {}).get("display_id") or "")
