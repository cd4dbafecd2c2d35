"""Payloads: named values in the store, as a signed header, one pickle graph, and its buffers as blobs.

``job:ID:SLOT`` is signed for exactly that job and slot: one line of JSON, the header, and then the graph.
A large graph is a blob itself. The key is written last, so where it is, the values were complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .blobs import BlobRef, Blobs, Progress
from .link import Link, Missing, milliseconds
from .signing import Signer
from .wire import CHUNK

if TYPE_CHECKING:
    from .codec import Frozen

__all__ = ["Payload", "Payloads"]

#: A larger graph travels as a blob: in chunks, without copies, and past Redis' 512 MB limit for one value.
INLINE = CHUNK // 2
#: A smaller graph without buffers is written with other things: it needs no round trip of its own, bytes.
SMALL = 16 << 10


class Payload(NamedTuple):
    """A payload that is fetched and checked, and not yet unpickled."""

    header: dict[str, Any]
    graph: Any  # bytes, or the memoryview of a large one
    buffers: list[memoryview]


class Payloads:
    """The payloads of one owner.

    Parameters
    ----------
    link : Link
    blobs : Blobs
    signer : Signer
    lifetime : float
        Seconds that a payload stays.
    refresh : float
        Seconds that it stays at least after it was read.
    """

    def __init__(self, link: Link, blobs: Blobs, signer: Signer, lifetime: float, refresh: float) -> None:
        self._link = link
        self._blobs = blobs
        self._signer = signer
        self._lifetime = lifetime
        self._refresh = refresh

    def put(self, job_id: str, slot: str, frozen: Frozen, on_progress: Progress | None = None) -> int:
        """Store frozen values under a slot of a job; buffers that are there are not sent again.

        Returns
        -------
        int
            Bytes sent.

        Raises
        ------
        StoreFault
        """
        blobs = [(buffer.digest, buffer.data) for buffer in frozen.buffers]
        header, inline = _header(frozen), frozen.graph
        if len(frozen.graph) > INLINE:
            digest = self._signer.digest(frozen.graph)
            header["graph"] = {"digest": digest, "size": len(frozen.graph)}
            blobs.append((digest, memoryview(frozen.graph)))
            inline = b""
        sent = self._blobs.put(blobs, self._lifetime, on_progress)
        self._write(job_id, slot, header, inline)
        return sent + len(inline)

    def copy(self, source: str, target: str, slot: str) -> None:
        """Give job `target` the payload of job `source`: the header is signed anew, the blobs are shared.

        Raises
        ------
        Missing, Tampered
        """
        header, graph = self._read(source, slot)
        refs = _refs(header)
        present = self._blobs.present([ref.digest for ref in refs], self._lifetime)
        if not all(ref.digest in present for ref in refs):
            raise Missing(f"the {slot} of job {source} are not, or no longer, whole in the store")
        self._write(target, slot, header, graph)

    def seal(self, job_id: str, slot: str, frozen: Frozen) -> bytes | None:
        """Give a payload as it will lie in the store, to be written with other things; None if large."""
        if frozen.buffers or len(frozen.graph) > SMALL:
            return None
        return self._sealed(job_id, slot, _header(frozen), frozen.graph)

    def commands(self, job_id: str, slot: str, data: bytes) -> list[tuple[Any, ...]]:
        """Give the commands that write what :meth:`seal` gave."""
        slots, expiry = self._link.key(f"job:{job_id}:slots"), milliseconds(self._lifetime)
        return [
            ("SADD", slots, slot),
            ("PEXPIRE", slots, expiry),
            ("SET", self._link.key(_name(job_id, slot)), data, "PX", expiry),
        ]

    def _sealed(self, job_id: str, slot: str, header: dict[str, Any], graph: bytes) -> bytes:
        return self._signer.sign(_context(_name(job_id, slot)), json.dumps(header).encode() + b"\n" + graph)

    def _write(self, job_id: str, slot: str, header: dict[str, Any], graph: bytes) -> None:
        self._link.many(self.commands(job_id, slot, self._sealed(job_id, slot, header, graph)))

    def get(
        self,
        job_id: str,
        slot: str,
        namespace: dict[str, Any],
        names: Sequence[str] | None = None,
        on_progress: Progress | None = None,
        known: Callable[[str], Any] | None = None,
    ) -> dict[str, Any]:
        """Fetch values.

        Parameters
        ----------
        job_id, slot : str
        namespace : dict
            The reader's own, for functions and classes of the notebook.
        names : sequence of str, optional
            Only these; all.
        on_progress : Progress, optional
        known : callable, optional
            As in :func:`.codec.thaw`.

        Raises
        ------
        Missing, Tampered, WrongFormat
            Nothing has been unpickled.
        """
        from .codec import thaw

        payload = self.fetch(job_id, slot, on_progress)
        return thaw(payload.graph, payload.buffers, namespace, names, known=known)

    def fetch(self, job_id: str, slot: str, on_progress: Progress | None = None) -> Payload:
        """Fetch a payload without unpickling it; graph and buffers are checked, and in memory of their own.

        Raises
        ------
        Missing, Tampered, WrongFormat
        """
        header, graph = _checked(*self._read(job_id, slot))
        refs = _refs(header)
        memory = self._blobs.get(refs, self._refresh, on_progress)
        self._blobs.retime([[_name(job_id, slot)]], self._refresh, "extend")
        if "graph" in header:
            return Payload(header, memory[-1], memory[:-1])
        return Payload(header, graph, memory)

    def open(self, job_id: str, slot: str, data: bytes) -> Payload:
        """Check and read what :meth:`seal` gave; nothing is unpickled, and nothing fetched.

        Raises
        ------
        Tampered, WrongFormat
        """
        header, graph = _checked(*self._opened(job_id, slot, data))
        return Payload(header, graph, [])

    def header(self, job_id: str, slot: str) -> dict[str, Any]:
        """Give what a payload holds, without its values."""
        return self._read(job_id, slot)[0]

    def slots(self, job_id: str) -> list[str]:
        """Give the slots of a job that have been written."""
        found = self._link.run(lambda: self._link.client.smembers(self._link.key(f"job:{job_id}:slots")))
        return sorted(raw.decode() for raw in found)

    def retime(
        self, places: Sequence[tuple[str, str]], lifetime: float, rule: Literal["extend", "shorten"]
    ) -> None:
        """Change how long the payloads at (job, slot) stay, with their blobs; skip those that are gone."""
        names = [_name(*place) for place in places]
        self._blobs.retime([names], lifetime, rule)
        digests = []
        for place in places:
            try:
                digests += [ref.digest for ref in _refs(self.header(*place))]
            except Missing:
                continue
        self._blobs.change(digests, lifetime, rule)

    def _read(self, job_id: str, slot: str) -> tuple[dict[str, Any], bytes]:
        name = _name(job_id, slot)
        raw = self._link.run(lambda: self._link.client.get(self._link.key(name)))
        if raw is None:
            raise Missing(f"{name} is not, or no longer, in the store")
        return self._opened(job_id, slot, raw)

    def _opened(self, job_id: str, slot: str, data: bytes) -> tuple[dict[str, Any], bytes]:
        line, _, graph = self._signer.check(_context(_name(job_id, slot)), data).partition(b"\n")
        return json.loads(line), graph


def _header(frozen: Frozen) -> dict[str, Any]:
    import cloudpickle  # here, as listing jobs needs neither it nor the codec

    from .codec import header

    return {
        **header(),
        "cloudpickle": cloudpickle.__version__,
        "libraries": frozen.libraries,
        "values": frozen.values,
        "buffers": [{"digest": buffer.digest, "size": buffer.size} for buffer in frozen.buffers],
    }


def _checked(header: dict[str, Any], graph: bytes) -> tuple[dict[str, Any], bytes]:
    """Refuse what another format or Python has written."""
    from .codec import check_header

    check_header(header)
    return header, graph


def _name(job_id: str, slot: str) -> str:
    if slot in ("events", "slots") or not slot.replace("-", "").replace("_", "").isalnum():
        raise ValueError(f"{slot!r} cannot be the slot of a payload")
    return f"job:{job_id}:{slot}"


def _context(name: str) -> str:
    # Not the name alone: fields of a record are signed under names of that form.
    return f"payload:{name}"


def _refs(header: dict[str, Any]) -> list[BlobRef]:
    graph = [header["graph"]] if "graph" in header else []
    return [BlobRef(entry["digest"], entry["size"]) for entry in header["buffers"] + graph]
