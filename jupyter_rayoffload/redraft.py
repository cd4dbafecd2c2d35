"""A job once more: the same source, the same frozen inputs, the same packages."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .course import Draft, new_id
from .errors import StoreError
from .ledger import read_fields
from .link import Link, blocking
from .models import Batch, JobOptions, JobRecord
from .remote.chunks import Done, dump, slot_of

__all__ = ["redraft"]


async def redraft(
    record: JobRecord, options: JobOptions, link: Link, kept: Sequence[Done] | None = None
) -> Draft:
    """Enter a copy of a job into the store, and give its draft.

    Parameters
    ----------
    record : JobRecord
        Of the job that is run again.
    options : JobOptions
    link : Link
        The way to the store that has it.
    kept : sequence of Done, optional
        Items of a batch that are not run again: their values are taken over.

    Raises
    ------
    StoreError
        Nothing is left of the copy.
    """
    spec = record.spec.replace(
        id=new_id(record.spec.label), created=time.time(), options=options, inputs=record.inputs
    )
    if spec.batch:
        batch = spec.batch.replace(parallel=options.max_parallel)
        spec = spec.replace(batch=await _batch_again(batch, kept, link))
    await blocking(link.store.create, spec.id, {"spec": spec.to_json()}, spec.created)
    try:
        given = (await read_fields(link, record.id)).get("input")
        if given:  # of a program
            await blocking(link.store.write, spec.id, "input", given)
        for slot in ("inputs", *{slot_of(done.slot): None for done in kept or ()}):
            await blocking(link.store.copy_payload, record.id, spec.id, slot)
    except StoreError:  # nobody must find a job that can never run
        await blocking(link.store.delete, spec.id)
        raise
    return Draft(spec, copy_from=record.id)


async def _batch_again(batch: Batch, kept: Sequence[Done] | None, link: Link) -> Batch:
    """Give a batch that is run again, with the list of the items that are taken over in the store."""
    if not kept:
        return batch.replace(only=None, kept="", kept_size=0, first_slot=0)
    data = dump(kept)
    digest = link.signer.digest(data)
    await blocking(link.store.put_blob, digest, memoryview(data))
    done = {one.item for one in kept}
    only = tuple(i for i in range(batch.total) if i not in done)
    return batch.replace(
        only=only, kept=digest, kept_size=len(data), first_slot=max(one.slot for one in kept) + 1
    )
