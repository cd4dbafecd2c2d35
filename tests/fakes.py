"""Fakes of the seams. Each passes the contract test that the real thing passes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.events import Numbers
from jupyter_rayoffload.remote.payloads import SMALL
from jupyter_rayoffload.remote.records import TAKEN_BACK, checked_id, ended
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Entry, Missing, NewRecord, Payload, Taken


class MemoryHandovers:
    """A :class:`~jupyter_rayoffload.remote.handover.Handovers` in this process; no standby dies."""

    def __init__(self, has_record: Callable[[str], bool] = lambda _: False) -> None:
        self._has_record = has_record
        self._changed = threading.Condition()
        self._plans: dict[str, dict[str, Any]] = {}
        self._lists: dict[str, list[str]] = {}
        self._letters: dict[str, list[dict[str, Any]]] = {}
        self._words: dict[str, list[str]] = {}
        self._handed: dict[tuple[str, int], str] = {}

    def order(self, standby: str, plan: Mapping[str, Any]) -> None:
        with self._changed:
            self._plans[standby] = dict(plan)

    def hand(
        self, keys: Sequence[str], job_id: str, attempt: int, spec: Mapping[str, Any] | None = None
    ) -> str:
        letter = {"job": job_id, "attempt": attempt, **({"spec": dict(spec)} if spec else {})}
        with self._changed:
            if (job_id, attempt) in self._handed:
                return self._handed[job_id, attempt]
            for key in keys:
                while self._lists.get(key):
                    standby = self._lists[key].pop(0)
                    if standby in self._plans:
                        self._letters.setdefault(standby, []).append(letter)
                        self._changed.notify_all()
                        if self._has_record(job_id):
                            self._handed[job_id, attempt] = standby
                        return standby
        return ""

    def forget(self, job_id: str) -> None:
        with self._changed:
            self._handed = {key: standby for key, standby in self._handed.items() if key[0] != job_id}

    def taken(self, standby: str, job_id: str, seconds: float) -> bool:
        return self._next(self._words, standby, seconds) == job_id

    def waiting(self) -> list[dict[str, Any]]:
        with self._changed:
            return [{**plan, "id": i} for i, plan in self._plans.items() if "since" in plan]

    def ordered(self) -> list[dict[str, Any]]:
        with self._changed:
            return [{**plan, "id": i} for i, plan in self._plans.items()]

    def dismiss(self, standby: str, key: str) -> None:
        with self._changed:
            self._plans.pop(standby, None)
            if standby in self._lists.get(key, ()):
                self._lists[key].remove(standby)
                self._letters.setdefault(standby, []).append({"end": True})
                self._changed.notify_all()

    def plan(self, standby: str) -> dict[str, Any]:
        with self._changed:
            if standby not in self._plans:
                raise Missing(f"nobody waits for {standby}")
            return {**self._plans[standby], "id": standby}

    def announce(self, standby: str, plan: Mapping[str, Any]) -> bool:
        with self._changed:
            if standby not in self._plans:
                return False
            self._plans[standby] = dict(plan)
            listed = self._lists.setdefault(plan["key"], [])
            if standby not in listed:
                listed.append(standby)
            return True

    def beat(self, standby: str) -> bool:
        with self._changed:
            return standby in self._plans

    def await_letter(self, standby: str, seconds: float) -> dict[str, Any] | None:
        return self._next(self._letters, standby, seconds)

    def take(self, standby: str, job_id: str) -> None:
        with self._changed:
            self._plans.pop(standby, None)
            self._words.setdefault(standby, []).append(job_id)
            self._changed.notify_all()

    def leave(self, standby: str, key: str) -> bool:
        with self._changed:
            self._plans.pop(standby, None)
            listed = standby in self._lists.get(key, ())
            if listed:
                self._lists[key].remove(standby)
            return listed

    def _next(self, queues: dict[str, list[Any]], standby: str, seconds: float) -> Any:
        with self._changed:
            there = self._changed.wait_for(lambda: queues.get(standby), seconds)
            return queues[standby].pop(0) if there else None


class MemoryStore:
    """A :class:`~jupyter_rayoffload.remote.store.Store` in this process: nothing expires, nothing is refused.

    Values go through JSON, so that what a test gets back is what Redis would give.
    """

    def __init__(self, signer: Signer | None = None) -> None:
        self._signer = signer or Signer(bytes(32))
        self._lock = threading.RLock()
        self._created: dict[str, float] = {}
        self._records: dict[str, dict[str, str]] = {}
        self._events: dict[str, list[Entry]] = {}
        self._payloads: dict[tuple[str, str], tuple[dict[str, Any], bytes]] = {}
        self._blobs: dict[str, bytes] = {}
        self._packages: dict[str, bytes] = {}
        self.handovers = MemoryHandovers(lambda job_id: job_id in self._records)

    def ping(self) -> None:
        pass

    def close(self) -> None:
        pass

    def room(self) -> int | None:
        return None

    # ------------------------------------------------------------------ records

    def create(
        self, job_id: str, fields: Mapping[str, Any], created: float | None = None, inputs: bytes = b""
    ) -> None:
        with self._lock:
            if checked_id(job_id) in self._records:
                raise Taken(job_id)
            self._records[job_id] = {name: json.dumps(value) for name, value in fields.items()}
            if inputs:
                self._payloads[job_id, "inputs"] = self._opened(job_id, "inputs", inputs)
            self._created[job_id] = time.time() if created is None else created

    def read(self, job_id: str) -> dict[str, Any] | None:
        return self.read_many([job_id]).get(job_id)

    def read_many(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._lock:
            found = {job_id: self._records.get(checked_id(job_id)) for job_id in ids}
            return {i: {k: json.loads(v) for k, v in record.items()} for i, record in found.items() if record}

    def write(self, job_id: str, field: str, value: Any) -> None:
        with self._lock:
            self._record(job_id)[field] = json.dumps(value)

    def write_state(self, job_id: str, state: Mapping[str, Any], *, force: bool = False) -> bool:
        with self._lock:
            record = self._record(job_id)
            old = json.loads(record.get("state", "{}"))
            before, after = old.get("attempt", 0), state.get("attempt", 0)
            again = ended(old)
            if not (force and after > before if again else after >= before):
                return False
            record["state"] = json.dumps(state)
            if again:
                record.pop("stop", None)
            return True

    def claim(self, job_id: str, attempt: int, by: str, *, standby: bool = False) -> bool:
        with self._lock:
            taken = self._taken(job_id, f"claim:{attempt}", by)
            if taken == TAKEN_BACK and not standby:
                taken = self._taken(job_id, f"claim:{attempt}:own", by)
            return taken == by

    def _taken(self, job_id: str, field: str, by: str) -> str:
        value = json.dumps({"by": by, "time": time.time()})
        return str(json.loads(self._record(job_id).setdefault(field, value))["by"])

    def accept(self, job_id: str, attempt: int, by: str) -> tuple[dict[str, Any] | None, bool]:
        with self._lock:
            record = self.read(job_id)
            return record, record is not None and self.claim(job_id, attempt, by)

    def create_handed(self, new: NewRecord, keys: Sequence[str], attempt: int) -> str:
        self.create(*new)
        return self.handovers.hand(keys, new.job_id, attempt, new.fields["spec"])

    def accept_handed(
        self, standby: str, job_id: str, attempt: int, by: str
    ) -> tuple[dict[str, Any] | None, bool]:
        with self._lock:
            record = self.read(job_id)
            mine = record is not None and self.claim(job_id, attempt, by, standby=True)
        if mine:
            self.handovers.take(standby, job_id)
        return record, mine

    def take_back(self, job_id: str, attempt: int) -> bool:
        return self.claim(job_id, attempt, TAKEN_BACK, standby=True)

    def void(self, job_id: str, attempt: int) -> bool:
        return self.claim(job_id, attempt, "nobody")

    def request_stop(self, job_id: str, by: str = "", how: str = "") -> None:
        self.write(job_id, "stop", {"by": by, "how": how, "time": time.time()})

    def stop_requested(self, job_id: str) -> dict[str, Any] | None:
        return (self.read(job_id) or {}).get("stop")

    def ids(self, limit: int = 100, before: float | None = None) -> list[str]:
        with self._lock:
            newest = sorted(self._created.items(), key=lambda item: (item[1], item[0]), reverse=True)
            return [i for i, created in newest if before is None or created < before][:limit]

    def touch(self, job_id: str) -> None:
        with self._lock:
            self._record(job_id)

    def landed(self, job_id: str, slot: str = "outputs") -> None:
        pass

    def delete(self, job_id: str) -> None:
        with self._lock:
            for store in (self._records, self._created, self._events):
                store.pop(checked_id(job_id), None)  # type: ignore[attr-defined]
            for place in [p for p in self._payloads if p[0] == job_id]:
                del self._payloads[place]
        self.handovers.forget(job_id)

    def _record(self, job_id: str) -> dict[str, str]:
        if checked_id(job_id) not in self._records:
            raise Missing(f"job {job_id}")
        return self._records[job_id]

    # ------------------------------------------------------------------ events

    def append(
        self,
        job_id: str,
        writer: str,
        number: int,
        messages: list[dict[str, Any]],
        values: Mapping[str, bytes] | None = None,
    ) -> None:
        with self._lock:
            stream = self._events.setdefault(checked_id(job_id), [])
            copied = json.loads(json.dumps(messages))
            stream.append(Entry(f"{len(stream) + 1}-0", writer, number, copied, values=dict(values or {})))

    def conclude(
        self,
        job_id: str,
        writer: str,
        number: int,
        messages: list[dict[str, Any]],
        end: Mapping[str, Any],
        values: Mapping[str, bytes],
    ) -> None:
        with self._lock:
            self.write(job_id, "end", end)
            for slot, raw in values.items():
                self._payloads[job_id, slot] = self._opened(job_id, slot, raw)
            self.append(job_id, writer, number, messages, values)

    def read_events(
        self, job_id: str, after: str = "0", block_ms: int = 0, count: int | None = None
    ) -> list[Entry]:
        deadline = time.monotonic() + block_ms / 1000
        while True:
            with self._lock:
                found = self._events.get(checked_id(job_id), [])[int(after.partition("-")[0]) :][:count]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.005)

    async def follow(
        self, job_id: str, after: str = "0", on_trouble: object = None
    ) -> AsyncGenerator[Entry, None]:
        numbers = Numbers(after == "0")
        while True:
            for entry in self.read_events(job_id, after):
                after = entry.id
                if admitted := numbers.admit(entry):
                    yield admitted
            await asyncio.sleep(0.005)

    # ------------------------------------------------------------------ values

    def put_payload(self, job_id: str, slot: str, frozen: codec.Frozen, on_progress: Any = None) -> int:
        sent = sum(self.put_blob(buffer.digest, buffer.data, on_progress) for buffer in frozen.buffers)
        with self._lock:
            self._payloads[checked_id(job_id), slot] = (_header(frozen), frozen.graph)
        return sent + len(frozen.graph)

    def seal_payload(self, job_id: str, slot: str, frozen: codec.Frozen) -> bytes | None:
        if frozen.buffers or len(frozen.graph) > SMALL:
            return None
        data = json.dumps(_header(frozen)).encode() + b"\n" + frozen.graph
        return self._signer.sign(f"{checked_id(job_id)}:{slot}", data)

    def open_payload(self, job_id: str, slot: str, data: bytes) -> Payload:
        return Payload(*self._opened(job_id, slot, data), [])

    def _opened(self, job_id: str, slot: str, data: bytes) -> tuple[dict[str, Any], bytes]:
        line, _, graph = self._signer.check(f"{job_id}:{slot}", data).partition(b"\n")
        return json.loads(line), graph

    def peek_payload(self, job_id: str, slot: str) -> dict[str, Any]:
        with self._lock:
            if (checked_id(job_id), slot) not in self._payloads:
                raise Missing(f"{slot} of {job_id}")
            return self._payloads[job_id, slot][0]

    def fetch_payload(self, job_id: str, slot: str, on_progress: Any = None) -> Payload:
        header = self.peek_payload(job_id, slot)
        buffers = [self.get_blob(b["digest"], b["size"], on_progress) for b in header["buffers"]]
        return Payload(header, self._payloads[job_id, slot][1], buffers)

    def get_payload(
        self,
        job_id: str,
        slot: str,
        namespace: dict[str, Any],
        names: Sequence[str] | None = None,
        on_progress: Any = None,
        known: Any = None,
    ) -> dict[str, Any]:
        _, graph, buffers = self.fetch_payload(job_id, slot, on_progress)
        return codec.thaw(graph, buffers, namespace, names, known=known)

    def copy_payload(self, source: str, target: str, slot: str) -> None:
        self.peek_payload(source, slot)
        with self._lock:
            self._payloads[checked_id(target), slot] = self._payloads[source, slot]

    def has_blob(self, digest: str) -> bool:
        return digest in self._blobs

    def put_blob(self, digest: str, data: memoryview, on_progress: Any = None) -> int:
        if self.has_blob(digest):
            return 0
        self._blobs[digest] = bytes(data)
        if on_progress and len(data):
            on_progress(len(self._blobs[digest]), len(self._blobs[digest]))
        return len(self._blobs[digest])

    def get_blob(self, digest: str, size: int, on_progress: Any = None) -> memoryview:
        if digest not in self._blobs:
            raise Missing(f"blob {digest}")
        return memoryview(bytearray(self._blobs[digest]))

    # ------------------------------------------------------------------ packages

    def has_package(self, name: str) -> bool:
        return name in self._packages

    def put_package(self, name: str, path: Path, on_progress: Any = None) -> int:
        if name in self._packages:
            return 0
        self._packages[name] = path.read_bytes()
        return len(self._packages[name])

    def get_package(self, name: str, path: Path, on_progress: Any = None) -> None:
        if name not in self._packages:
            raise Missing(f"package {name}")
        path.write_bytes(self._packages[name])


def _header(frozen: codec.Frozen) -> dict[str, Any]:
    return {
        **codec.header(),
        "cloudpickle": "",
        "libraries": frozen.libraries,
        "values": frozen.values,
        "buffers": [{"digest": b.digest, "size": b.size} for b in frozen.buffers],
    }
