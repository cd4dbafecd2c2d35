"""An output that stays in the store until someone asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .models import JobRecord, Value
from .words import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Reference"]


class _HasOutputs(Protocol):
    """What a :class:`Reference` needs of a job."""

    @property
    def id(self) -> str: ...

    @property
    def record(self) -> JobRecord: ...

    @property
    def outputs(self) -> Mapping[str, Any]: ...


class Reference:
    """An output that stays in the store: :meth:`get` brings it here.

    As an input of the next job it goes from the store to the cluster and does not pass through the notebook.

    Parameters
    ----------
    job : Job
    name : str
        Name of the output in that job.
    """

    def __init__(self, job: _HasOutputs, name: str) -> None:
        self._job, self.name = job, name

    @property
    def job(self) -> str:
        """Id of the job whose output this is."""
        return self._job.id

    def get(self) -> Any:
        """Fetch the value.

        Raises
        ------
        Expired, StoreUnreachable
        """
        return self._job.outputs[self.name]

    def __repr__(self) -> str:
        value = next((v for v in self._job.record.outputs if v.name == self.name), Value(self.name))
        size = f", {size_text(value.size)}" if value.size else ""
        return f"<{value.type or 'value'}{size} in the store: .get() brings it here>"

    def __reduce__(self) -> Any:
        raise TypeError("a Reference travels on its own, as an input by name, not inside another value")
