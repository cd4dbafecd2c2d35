"""The store: records, events, values and packages of one owner's jobs, in Redis.

All keys begin with ``rayoffload:{OWNER}:``, so that one access rule suffices, and lie in one hash slot.
Whatever a reader acts upon is signed and bound to its place.

=====================  ==========  =============================================================
key                    kind        holds
=====================  ==========  =============================================================
``jobs``               sorted set  ids by time
``job:ID``             hash        the record; each field signed
``job:ID:events``      stream      signed batches of messages (:mod:`.events`)
``job:ID:SLOT``        string      a signed manifest, and its pickle graph (:mod:`.payloads`)
``job:ID:slots``       set         names of those slots
``blob:DIGEST``, …     string      buffers, large graphs and packages (:mod:`.blobs`)
``pkg:NAME``           string      signed: which blob is the package of that name
``standby:…``          various     standbys, and jobs on their way to them (:mod:`.handover`)
=====================  ==========  =============================================================
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .blobs import BlobRef, Blobs, Progress, file_view
from .events import Entry, events_key, follow, open_entry, open_reader, seal_entry
from .handover import Handovers
from .link import (
    TIMEOUT,
    Link,
    Missing,
    StoreAddress,
    StoreDown,
    StoreFault,
    StoreNoAuth,
    StoreOutOfMemory,
    Taken,
    milliseconds,
)
from .payloads import Payload, Payloads
from .records import NewRecord, Records, checked_id, ended
from .signing import Signer, Tampered

if TYPE_CHECKING:
    from .codec import Frozen

__all__ = [
    "Entry",
    "Lifetimes",
    "Missing",
    "NewRecord",
    "Payload",
    "Store",
    "StoreAddress",
    "StoreDown",
    "StoreFault",
    "StoreNoAuth",
    "StoreOutOfMemory",
    "Taken",
    "Tampered",
    "follow",
    "open_reader",
]


@dataclass(frozen=True)
class Lifetimes:
    """How long things stay, in seconds.

    Parameters
    ----------
    record : float
        Records, events, and all that a job needs or made, since its last use.
    input : float
        Inputs and packages, after the job's end.
    landed : float
        Outputs, after they have landed in a notebook.
    """

    record: float = 7 * 86400
    input: float = 86400
    landed: float = 3600


class Store(Records):
    """One owner's part of a Redis; for any number of threads.

    Parameters
    ----------
    address : StoreAddress
    owner : str
        A slug: letters, digits, ``.``, ``_``, ``-``.
    signer : Signer
    lifetimes : Lifetimes, optional
    patience : float
        Seconds for which each call bears a store that does not answer, before it raises :class:`StoreDown`.
        A notebook should hear soon; a runner has nobody else to go to.
    timeout : float
        Seconds that one answer may take.
    """

    def __init__(
        self,
        address: StoreAddress,
        owner: str,
        signer: Signer,
        lifetimes: Lifetimes | None = None,
        *,
        patience: float = 5.0,
        timeout: float = TIMEOUT,
    ) -> None:
        self.address = address
        self.owner = owner
        self.lifetimes = lifetimes or Lifetimes()
        self._timeout = timeout
        super().__init__(Link(address, owner, patience, timeout), signer, self.lifetimes.record)
        self.handovers = Handovers(self._link, signer)
        self._blobs = Blobs(self._link, signer)
        self._payloads = Payloads(
            self._link, self._blobs, signer, self.lifetimes.record, self.lifetimes.landed
        )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({str(self.address)!r}, {self.owner!r})"

    def close(self) -> None:
        """Close the connections."""
        self._link.client.close()

    def ping(self) -> None:
        """Ask for a sign of life.

        Raises
        ------
        StoreDown, StoreNoAuth
        """
        self._link.run(self._link.client.ping)

    def room(self) -> int | None:
        """Give the bytes that the store still takes, or None if it has no limit or does not tell."""
        try:
            memory = self._link.run(lambda: self._link.client.info("memory"))
        except StoreNoAuth:  # some sites allow INFO to administrators only
            return None
        return max(0, memory["maxmemory"] - memory["used_memory"]) if memory.get("maxmemory") else None

    # ------------------------------------------------------------------ how long things stay

    def write_state(self, job_id: str, state: Mapping[str, Any], *, force: bool = False) -> bool:
        """As :meth:`.records.Records.write_state`; with an ended state, inputs count their last day."""
        written = super().write_state(job_id, state, force=force)
        if written and ended(state):
            # That something lives longer than it must is no reason to fail: the state itself is written.
            with contextlib.suppress(StoreFault, Tampered):
                self._let_inputs_go(job_id)
        return written

    def touch(self, job_id: str) -> None:
        """Note that a job is in use: its record, events, values and packages live on.

        Cheap enough for a heartbeat: the keys are visited once in a quarter of the shortest lifetime.
        """
        life = self.lifetimes
        left = self._link.run(lambda: self._link.client.pttl(self._record(job_id)))
        if left > milliseconds(life.record) - milliseconds(min(life.record, life.input, life.landed)) // 4:
            return
        record = self.read(job_id)
        if record is None:
            raise Missing(f"job {job_id} is not, or no longer, in the store")
        spec = record.get("spec") or {}
        stay = life.input if ended(record.get("state") or {}) else life.record
        slots = [(job_id, slot) for slot in self._payloads.slots(job_id)]
        sources = {place.partition("#")[0] for place in (spec.get("after") or {}).values()}
        slots += [(source, "outputs") for source in sources]
        self._payloads.retime(slots, stay, "extend")
        self._retime_packages(spec, stay, "extend")
        # The record comes last: its own time to live says that the rest has been done.
        names = [[events_key(job_id), f"job:{job_id}:slots", "jobs", f"job:{job_id}"]]
        self._blobs.retime(names, life.record, "extend")

    def landed(self, job_id: str, slot: str = "outputs") -> None:
        """Note that the values of `slot` are in a notebook: the store need not keep them long."""
        self._payloads.retime([(job_id, slot)], self.lifetimes.landed, "shorten")

    def delete(self, job_id: str) -> None:
        """Remove a job; its blobs, which others may share, go with their time."""
        names = [f"job:{job_id}:{slot}" for slot in self._payloads.slots(job_id)]
        keys = [self._link.key(name) for name in (*names, events_key(job_id), f"job:{job_id}:slots")]
        self._link.many([("ZREM", self._link.key("jobs"), job_id), ("UNLINK", self._record(job_id), *keys)])

    # ------------------------------------------------------------------ standbys

    def create_handed(self, new: NewRecord, keys: Sequence[str], attempt: int) -> str:
        """Enter a job and hand it to a standby, as :meth:`.handover.Handovers.hand` does, in one round trip.

        Raises
        ------
        Taken
            There is a job of that id; nothing was changed, nor handed over.
        """
        token = secrets.token_hex(8)
        handing = self.handovers.handing(keys, new.job_id, attempt, new.fields["spec"], token)
        created, found = self._link.many([self.creating(new, token), handing])
        if not created:
            raise Taken(f"there is a job {new.job_id} already")
        return found.decode() if found else ""

    def accept_handed(
        self, standby: str, job_id: str, attempt: int, by: str
    ) -> tuple[dict[str, Any] | None, bool]:
        """As :meth:`.records.Records.accept`, for a standby: who handed the job to it hears of that."""
        return self.accept(job_id, attempt, by, self.handovers.word(standby, job_id))

    def rehearse(self) -> None:
        """Do once, to no effect, what :meth:`accept_handed` and :meth:`conclude` do.

        The first time takes a process several times as long as the next.
        """
        self.accept_handed("rehearsal", "rehearsal", 0, "")
        seal_entry(self._signer, "rehearsal", "", 0, [], {})
        self._link.many([self.setting("rehearsal", "end", {})])

    # ------------------------------------------------------------------ events

    def append(self, job_id: str, writer: str, number: int, messages: list[dict[str, Any]]) -> None:
        """Add one entry to a job's stream.

        Parameters
        ----------
        job_id : str
        writer : str
            Names the process that writes.
        number : int
            Counts this writer's entries, from 1; readers drop a repeated one and report a gap.
        messages : list of dict
            ``{"t", "type", "content"}``.
        """
        fields = seal_entry(self._signer, job_id, writer, number, messages)
        key = self._link.key(events_key(job_id))
        flat = [x for pair in fields.items() for x in pair]
        self._link.many([("XADD", key, "*", *flat), ("PEXPIRE", key, milliseconds(self.lifetimes.record))])

    def conclude(
        self,
        job_id: str,
        writer: str,
        number: int,
        messages: list[dict[str, Any]],
        end: Mapping[str, Any],
        values: Mapping[str, bytes],
    ) -> None:
        """Write how a job ended in one round trip: its small values, the field ``end``, its last entry.

        Parameters
        ----------
        job_id, writer, number, messages
            As for :meth:`append`; a reader finds the `values` with that entry, too.
        end : Mapping
        values : Mapping of str to bytes
            By slot, as :meth:`seal_payload` gave them.

        Raises
        ------
        Missing
            There is no such job.
        """
        fields = seal_entry(self._signer, job_id, writer, number, messages, values)
        key = self._link.key(events_key(job_id))
        stored = [c for slot, raw in values.items() for c in self._payloads.commands(job_id, slot, raw)]
        answers = self._link.many(
            [
                *stored,
                self.setting(job_id, "end", end),
                ("XADD", key, "*", *(x for pair in fields.items() for x in pair)),
                ("PEXPIRE", key, milliseconds(self.lifetimes.record)),
            ]
        )
        if answers[len(stored)] < 0:
            raise Missing(f"job {job_id} is not, or no longer, in the store")

    def read_events(
        self, job_id: str, after: str = "0", block_ms: int = 0, count: int | None = None
    ) -> list[Entry]:
        """Give the entries after the stream id `after`, as they lie there.

        Parameters
        ----------
        job_id, after : str
        block_ms : int
            Milliseconds to wait for one if there is none; at most half of `timeout` is waited at once.
        count : int, optional
            At most so many.

        Raises
        ------
        Tampered
        """
        key = self._link.key(events_key(job_id))
        block = min(block_ms, int(self._timeout * 500)) or None
        answer = self._link.run(lambda: self._link.client.xread({key: after}, count=count, block=block))
        return [open_entry(self._signer, job_id, i, fields) for i, fields in (answer[0][1] if answer else ())]

    def follow(
        self, job_id: str, after: str = "0", on_trouble: Callable[[str | None], object] | None = None
    ) -> AsyncGenerator[Entry, None]:
        """Yield entries as they are written; see :func:`.events.follow`."""
        return follow(self.address, self.owner, self._signer, job_id, after, on_trouble, self._timeout)

    # ------------------------------------------------------------------ values

    def put_payload(self, job_id: str, slot: str, frozen: Frozen, on_progress: Progress | None = None) -> int:
        """Store frozen values; see :meth:`.payloads.Payloads.put`."""
        return self._payloads.put(checked_id(job_id), slot, frozen, on_progress)

    def seal_payload(self, job_id: str, slot: str, frozen: Frozen) -> bytes | None:
        """Give frozen values as they will lie in the store, for :meth:`conclude`; None if they are large."""
        return self._payloads.seal(checked_id(job_id), slot, frozen)

    def open_payload(self, job_id: str, slot: str, data: bytes) -> Payload:
        """Check what :meth:`seal_payload` gave; not yet unpickled."""
        return self._payloads.open(checked_id(job_id), slot, data)

    def get_payload(
        self,
        job_id: str,
        slot: str,
        namespace: dict[str, Any],
        names: Sequence[str] | None = None,
        on_progress: Progress | None = None,
        known: Callable[[str], Any] | None = None,
    ) -> dict[str, Any]:
        """Fetch values; see :meth:`.payloads.Payloads.get`."""
        return self._payloads.get(checked_id(job_id), slot, namespace, names, on_progress, known)

    def peek_payload(self, job_id: str, slot: str) -> dict[str, Any]:
        """Give the header of a payload: ``{format, python, cloudpickle, libraries, values, buffers}``."""
        return self._payloads.header(checked_id(job_id), slot)

    def fetch_payload(self, job_id: str, slot: str, on_progress: Progress | None = None) -> Payload:
        """Fetch (header, graph, buffers), checked and not yet unpickled."""
        return self._payloads.fetch(checked_id(job_id), slot, on_progress)

    def copy_payload(self, source: str, target: str, slot: str) -> None:
        """Give job `target` the payload of job `source`, without sending a buffer."""
        self._payloads.copy(checked_id(source), checked_id(target), slot)

    def has_blob(self, digest: str) -> bool:
        """Tell whether a buffer is there, whole; it then stays for as long as a record."""
        return bool(self._blobs.present([digest], self.lifetimes.record))

    def put_blob(self, digest: str, data: memoryview, on_progress: Progress | None = None) -> int:
        """Send a buffer unless it is there, and give the bytes sent; the digest is believed."""
        return self._blobs.put([(digest, data)], self.lifetimes.record, on_progress)

    def get_blob(self, digest: str, size: int, on_progress: Progress | None = None) -> memoryview:
        """Fetch a buffer into new, writable memory, checked against its digest."""
        return self._blobs.get([BlobRef(digest, size)], self.lifetimes.landed, on_progress)[0]

    # ------------------------------------------------------------------ packages

    def has_package(self, name: str) -> bool:
        """Tell whether a package is there, whole; it then stays for as long as a record."""
        ref = self._package(name)
        if ref is None or not self.has_blob(ref.digest):
            return False
        return self._blobs.retime([[f"pkg:{name}"]], self.lifetimes.record, "extend") == [1]

    def put_package(self, name: str, path: Path, on_progress: Progress | None = None) -> int:
        """Send a file unless it is there.

        Parameters
        ----------
        name : str
            Digest by which the workspace is known; the zip itself has its own, which is signed for this name.
        path : Path
        on_progress : Progress, optional

        Returns
        -------
        int
            Bytes sent.
        """
        with file_view(path) as data:
            ref = BlobRef(self._signer.digest(data), data.nbytes)
            sent = self.put_blob(ref.digest, data, on_progress)
        fields = json.dumps({"digest": ref.digest, "size": ref.size}).encode()
        signed = self._signer.sign(f"pkg:{name}", fields)
        self._link.many(
            [("SET", self._link.key(f"pkg:{name}"), signed, "PX", milliseconds(self.lifetimes.record))]
        )
        return sent

    def get_package(self, name: str, path: Path, on_progress: Progress | None = None) -> None:
        """Fetch a package into the file `path`, which appears only once its content is checked.

        Raises
        ------
        Missing, Tampered, OSError
        """
        ref = self._package(name)
        if ref is None:
            raise Missing(f"package {name[:12]}… is not, or no longer, in the store")
        self._blobs.get_file(ref, path, self.lifetimes.input, on_progress)

    # ------------------------------------------------------------------ inner

    def _let_inputs_go(self, job_id: str) -> None:
        spec = self._get(job_id, "spec")[1] or {}
        self._payloads.retime([(job_id, "inputs")], self.lifetimes.input, "shorten")
        self._retime_packages(spec, self.lifetimes.input, "shorten")

    def _retime_packages(
        self, spec: Mapping[str, Any], lifetime: float, rule: Literal["extend", "shorten"]
    ) -> None:
        several = [*(spec.get("modules") or ()), *(spec.get("overlays") or ())]
        names = [spec.get("package"), spec.get("bundle"), *several]
        wanted = [name for name in names if name]
        refs = [ref for ref in map(self._package, wanted) if ref]
        self._blobs.retime([[f"pkg:{name}" for name in wanted]], lifetime, rule)
        self._blobs.change([ref.digest for ref in refs], lifetime, rule)

    def _package(self, name: str) -> BlobRef | None:
        raw = self._link.run(lambda: self._link.client.get(self._link.key(f"pkg:{name}")))
        return None if raw is None else BlobRef(**json.loads(self._signer.check(f"pkg:{name}", raw)))
