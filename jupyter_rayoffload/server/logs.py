"""The logs that pages are reading: lines in a file each, no further than the stream has been read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ..link import blocking
from ..loglines import LogLines
from ..remote.events import Numbers
from ..spool import Spool
from . import bodies

if TYPE_CHECKING:
    from ..remote.store import Store

__all__ = ["Logs"]

#: Logs that are held at once; the one that was asked for least lately goes first.
MOST_LOGS = 6
#: Entries of a stream that are read at once.
BATCH = 20
#: So long an answer reads on before it is given, seconds; the page asks again for the rest.
READ_SECONDS = 0.5


class _Log:
    """One log, and how far its stream has been read."""

    def __init__(self) -> None:
        self.spool = Spool()
        self.shown = LogLines(self.spool.lines)
        self.numbers = Numbers(whole=True)
        self.after = "0"
        self.lock = asyncio.Lock()

    def take(self, store: Store, job_id: str) -> bool:
        """Read the next entries; give whether more may be there at once."""
        entries = store.read_events(job_id, self.after, 0, BATCH)
        if entries:
            self.after = entries[-1].id
            text = bodies.log_text(filter(None, map(self.numbers.admit, entries)))
            self.spool.write(text)
            self.shown.write(text)
        return len(entries) == BATCH


class Logs:
    """The logs of jobs as far as pages have asked for them."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, _Log] = OrderedDict()

    def forget(self, job_id: str) -> None:
        """Drop a log."""
        self._logs.pop(job_id, None)

    async def window(self, store: Store, job_id: str, first: int, last: int | None) -> dict[str, Any]:
        """Give lines of a log.

        Parameters
        ----------
        store : Store
        job_id : str
        first : int
            Counted from 0.
        last : int, optional
            The first one that is not wanted any more; without it the newest lines are given, and the stream
            is read on for at most :data:`READ_SECONDS`.

        Returns
        -------
        dict
            ``{first, lines, total, more}``; `more` says that the stream goes on at once.
        """
        log = self._log(job_id)
        if last is None:
            more = await self._read(log, store, job_id)
            return {**log.shown.window(first), "more": more}
        while log.shown.total < last and await self._read(log, store, job_id):
            pass  # this server may have been started anew since the page has seen them
        lines = await asyncio.to_thread(log.shown.lines, first, last)
        return {"first": first, "lines": lines, "total": log.shown.total, "more": False}

    async def find(self, store: Store, job_id: str, text: str, exact: bool) -> dict[str, Any]:
        """Give the numbers of the lines that contain a text."""
        log = self._log(job_id)
        while await self._read(log, store, job_id):
            pass
        return await asyncio.to_thread(log.shown.find, text, exact)

    def _log(self, job_id: str) -> _Log:
        log = self._logs[job_id] = self._logs.get(job_id) or _Log()
        self._logs.move_to_end(job_id)
        while len(self._logs) > MOST_LOGS:
            self._logs.popitem(last=False)
        return log

    async def _read(self, log: _Log, store: Store, job_id: str) -> bool:
        loop = asyncio.get_running_loop()
        end = loop.time() + READ_SECONDS
        async with log.lock:
            while await blocking(log.take, store, job_id):
                if loop.time() > end:
                    return True
        return False
