"""Events of a job: signed batches of messages in a Redis stream, numbered by whoever wrote them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, TimeoutError

from .link import TIMEOUT, Patience, StoreAddress, StoreDown, StoreNoAuth, client_options, prefix, translate
from .signing import Signer, Tampered

__all__ = ["Entry", "Numbers", "events_key", "follow", "open_entry", "open_reader", "seal_entry"]

#: Milliseconds that one read blocks: below the time-out, which tells a silent job from a dead connection.
BLOCK_MS = 4000
#: What the name of a field begins with that has a payload.
_VALUES = "values:"
#: How long a call that is cancelled may take to end, seconds: none shall keep its follower for ever.
_CANCEL_SECONDS = 5.0
#: Jobs that are followed at once may be many, and each holds a connection; redis-py would stop at 100.
_CONNECTIONS = 100_000
#: Entries of one read; a writer's batch has at most some 100 KB.
COUNT = 100


@dataclass(frozen=True)
class Entry:
    """One entry of a job's stream.

    Parameters
    ----------
    id : str
        Of the stream, to read on from.
    writer : str
    number : int
        Counted by the writer.
    messages : list of dict
        ``{"t", "type", "content"}``.
    lost : int
        How many entries of this writer are missing before this one; :class:`Numbers` sets it.
    values : dict of str to bytes
        Small payloads that came with it, by slot, as they lie in the store: signed, and not yet checked.
    """

    id: str
    writer: str
    number: int
    messages: list[dict[str, Any]]
    lost: int = 0
    values: dict[str, bytes] = field(default_factory=dict)


class Numbers:
    """Puts one reader's entries in order: a repeated one is dropped, a gap is reported.

    A writer whose connection broke sends its last entry again, as it cannot know whether that had arrived.

    Parameters
    ----------
    whole : bool
        Whether the reader began at the beginning, so that each writer's first number is 0 or 1.
    """

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self._last: dict[str, int] = {}

    def admit(self, entry: Entry) -> Entry | None:
        """Give `entry` with what is lost before it, or None if its number was here before."""
        last = self._last.get(entry.writer)
        if last is not None and entry.number <= last:
            return None
        if last is None:
            last = min(entry.number, 1) - 1 if self._whole else entry.number - 1
        self._last[entry.writer] = entry.number
        return replace(entry, lost=max(0, entry.number - last - 1))


def events_key(job_id: str) -> str:
    """Give the name of the stream of a job."""
    return f"job:{job_id}:events"


def _context(job_id: str, writer: str, number: int) -> str:
    return f"{events_key(job_id)}:{writer}:{number}"


def seal_entry(
    signer: Signer,
    job_id: str,
    writer: str,
    number: int,
    messages: list[dict[str, Any]],
    values: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:
    """Give the fields of one stream entry; the signature binds them to job, writer and number.

    Payloads among them have a signature of their own, for their own place.
    """
    data = json.dumps(messages).encode()
    fields = {"w": writer, "n": number, "d": signer.sign(_context(job_id, writer, number), data)}
    return fields | {f"{_VALUES}{slot}": raw for slot, raw in (values or {}).items()}


def open_entry(signer: Signer, job_id: str, entry_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    """Check and read what :func:`seal_entry` gave.

    Raises
    ------
    Tampered
    """
    try:
        writer, number, data = fields[b"w"].decode(), int(fields[b"n"]), fields[b"d"]
    except (KeyError, ValueError):
        raise Tampered(f"entry {entry_id.decode()} of {events_key(job_id)} is none of ours") from None
    messages = json.loads(signer.check(_context(job_id, writer, number), data))
    given = {name.decode(): raw for name, raw in fields.items()}
    values = {name[len(_VALUES) :]: raw for name, raw in given.items() if name.startswith(_VALUES)}
    return Entry(entry_id.decode(), writer, number, messages, values=values)


def open_reader(address: StoreAddress, timeout: float = TIMEOUT) -> Any:
    """Give a client for :func:`follow`, of the running loop; ``await reader.aclose()`` ends it.

    Its connections serve one follower after the other: to make one takes longer than a short job.
    """
    # No time-out of redis-py's own: it is made with wait_for (see `_limited`).
    options = {**client_options(address, timeout), "socket_timeout": None, "max_connections": _CONNECTIONS}
    return Redis.from_url(address.url, retry=Retry(NoBackoff(), 0), **options)


async def follow(
    address: StoreAddress,
    owner: str,
    signer: Signer,
    job_id: str,
    after: str = "0",
    on_trouble: Callable[[str | None], object] | None = None,
    timeout: float = TIMEOUT,
    reader: Any = None,
) -> AsyncGenerator[Entry, None]:
    """Yield the entries of a job as they are written, each once and in the order of its writer, for ever.

    A lost connection is made again, from the last entry on. The caller ends this: ``aclose()``, or a task
    that is cancelled.

    Parameters
    ----------
    address, owner, signer
        As for :class:`.store.Store`.
    job_id : str
        The stream need not exist yet.
    after : str
        Stream id of the last entry that is known; ``"0"`` for all.
    on_trouble : callable, optional
        Called with a sentence when the store stops answering, and with None when it answers again.
    timeout : float
        Seconds without an answer after which a connection is given up.
    reader : redis.asyncio.Redis, optional
        Of :func:`open_reader`, where many jobs are followed; one of its own, otherwise.

    Raises
    ------
    Tampered
        An entry is not what the owner wrote for this place; none of it was read.
    """
    key = prefix(owner) + events_key(job_id)
    numbers, trouble = Numbers(after == "0"), _Trouble(address, on_trouble)
    block = min(BLOCK_MS, int(timeout * 500))
    client = reader or open_reader(address, timeout)
    try:
        while True:
            try:
                # After trouble the first answer must not wait for an entry: that it is over is news too.
                wait = 1 if trouble.since else block
                answer = await _limited(client.xread({key: after}, count=COUNT, block=wait), timeout)
            except RedisError as error:
                await asyncio.sleep(trouble.pause(error))
                continue
            trouble.over()
            for entry_id, fields in answer[0][1] if answer else ():
                entry = numbers.admit(open_entry(signer, job_id, entry_id, fields))
                after = entry_id.decode()
                if entry:
                    yield entry
    finally:
        if reader is None:
            await client.aclose()


async def _limited(call: Awaitable[Any], seconds: float) -> Any:
    """Do as ``asyncio.wait_for``, which before Python 3.12 may swallow a cancellation.

    That happens when the cancellation comes as the call ends (https://github.com/python/cpython/issues/86296),
    and a follower that cannot be cancelled keeps its whole process from ending.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer in {seconds:g} s")
        return task.result()
    finally:
        task.cancel()  # nothing, if it is done
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()  # seen


class _Trouble:
    """Tells, once, that the store does not answer, and once that it does again."""

    def __init__(self, address: StoreAddress, on_trouble: Callable[[str | None], object] | None) -> None:
        self.since = ""
        self._address = address
        self._tell = on_trouble
        self._patience = Patience(address, float("inf"))
        self._told: str | None = None

    def pause(self, error: RedisError) -> float:
        """Tell of `error` and give the seconds to pause, unless waiting would not help."""
        fault = translate(self._address, error)
        # A refused password too may be mended meanwhile, by whoever is changing it.
        if not isinstance(fault, (StoreDown, StoreNoAuth)):
            raise fault from error
        self.since = self.since or time.strftime("%H:%M:%S")
        verb = "does not answer" if isinstance(fault, StoreDown) else "refuses our user or password"
        self._say(f"the store at {self._address} {verb} since {self.since}")
        return self._patience.pause()

    def over(self) -> None:
        """Tell that the store answers."""
        self._patience.reset()
        self.since = ""
        self._say(None)

    def _say(self, text: str | None) -> None:
        if self._tell and text != self._told:
            self._told = text
            self._tell(text)
