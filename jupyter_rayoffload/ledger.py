"""What store and Ray together know of jobs, whichever process follows them; one that nobody follows, too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .errors import ClusterError, JobNotFound, StoreError
from .link import Link, blocking
from .models import ClusterPhase, JobRecord, JobSpec
from .phase import SILENCE_SECONDS, Event, advance

if TYPE_CHECKING:
    from .jobclient import JobInfo

__all__ = ["ABANDONED_SECONDS", "find", "newest", "read_fields", "read_record", "recent", "request_stop"]

#: A job without a submission whose process has been silent for so long was never submitted, seconds.
ABANDONED_SECONDS = 60.0


def read_record(fields: Mapping[str, Any]) -> JobRecord:
    """Join what the store has of a job; the runner's last word counts more than a state nobody updated.

    Parameters
    ----------
    fields : Mapping
        Of :meth:`.remote.records.Records.read`.
    """
    spec = JobSpec.from_json(fields["spec"])
    state = fields.get("state") or {}
    record = JobRecord.from_json(
        {"inputs": fields["spec"].get("inputs", ()), **state, "spec": fields["spec"]}
    )
    end = fields.get("end")
    if end and not record.phase.ended and end.get("attempt", record.attempt) >= record.attempt:
        record = advance(record, Event("phase", end.get("t", time.time()), end))
    if settled := fields.get("settled"):  # in the words of the notebook that took outputs and files in
        record = JobRecord.from_json({**record.to_json(), **settled})
    abandoned = time.time() - (record.last_seen or spec.created) > ABANDONED_SECONDS
    if not record.phase.ended and not record.attempt and abandoned:
        never = {
            "message": "Never submitted: its kernel ended first",
            "hint": f"%ray rerun {spec.id} submits it",
        }
        record = advance(record, Event("gone", time.time(), never))
    return record


async def newest(link: Link, limit: int, before: float | None = None) -> list[JobRecord]:
    """Give the records of the newest jobs, newest first.

    Parameters
    ----------
    link : Link
    limit : int
    before : float, optional
        Only those created before this time.

    Raises
    ------
    StoreError
    """
    return await _checked_all(await recent(link, limit, before), link)


async def recent(link: Link, limit: int, before: float | None = None) -> list[JobRecord]:
    """Give what :func:`newest` gives as the store has it: cheaper, and a lost job may seem to live."""
    ids = await blocking(link.store.ids, limit, before)
    fields = await blocking(link.store.read_many, ids)
    return [read_record(fields[job_id]) for job_id in ids if fields.get(job_id)]


async def find(link: Link, job_id: str) -> JobRecord:
    """Give the record of one job.

    Raises
    ------
    JobNotFound, StoreError
    """
    fields = await read_fields(link, job_id)
    return (await _checked_all([read_record(fields)], link))[0]


async def read_fields(link: Link, job_id: str) -> dict[str, Any]:
    """Give what the store has of one job, field by field.

    Raises
    ------
    JobNotFound, StoreError
    """
    fields = None
    with suppress(ValueError):  # no job could have such an id
        fields = await blocking(link.store.read, job_id)
    if not fields:
        raise JobNotFound(f"there is no job {job_id!r}", "%ray jobs lists those that are kept")
    return fields


async def request_stop(link: Link, record: JobRecord, by: str = "you") -> None:
    """Stop a job: gracefully first, finally after Ray's grace; idempotent."""
    with suppress(StoreError):
        await blocking(link.store.request_stop, record.id, by, "cancel")
    # The process that is about to submit it looks for this request itself.
    if record.attempt and link.info.address:
        await link.ray.stop(record.submission_id)


async def _checked_all(records: list[JobRecord], link: Link) -> list[JobRecord]:
    # Ray answers slowly while it starts a process: it is asked only about those that have fallen silent.
    ours = [r for r in records if _seems_live(r) and _silent(r) and r.cluster in ("", link.info.name)]
    if not ours:
        return records
    if link.info.phase in (ClusterPhase.NONE, ClusterPhase.SUSPENDED):
        known: dict[str, JobInfo] = {}  # nothing runs there
    elif not await link.answers():
        return records
    else:
        try:
            known = {info.submission_id: info for info in await link.ray.list()}
        except ClusterError:
            return records
    checked = {r.id: await _checked(r, known.get(r.submission_id), link) for r in ours}
    return [checked.get(record.id, record) for record in records]


def _seems_live(record: JobRecord) -> bool:
    return bool(record.attempt) and not record.phase.ended


def _silent(record: JobRecord) -> bool:
    return time.time() - (record.last_seen or record.spec.created) > SILENCE_SECONDS


async def _checked(record: JobRecord, info: JobInfo | None, link: Link) -> JobRecord:
    """Give the record of a job as Ray knows it: if nobody follows it, nobody has said that it was lost."""
    if info is not None and info.live:
        return record
    fields = await blocking(link.store.read, record.id)
    record = read_record(fields) if fields else record
    if record.phase.ended:  # its runner has said so meanwhile
        return record
    event = Event("gone", time.time()) if info is None else Event("ray", time.time(), info.verdict())
    record = advance(record, event)
    state = record.to_json()
    del state["spec"]
    with suppress(StoreError):
        await blocking(link.store.write_state, record.id, state, force=True)
    return record
