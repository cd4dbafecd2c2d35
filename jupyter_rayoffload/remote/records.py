"""Records: what is known of each job, field by field, each signed for its job and its field."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .link import Link, Missing, Taken, milliseconds
from .signing import Signer

__all__ = ["NewRecord", "Records", "Word", "checked_id", "ended"]

#: Phases after which nothing changes; the names of ``models.Phase``, which this package cannot import.
ENDED = frozenset({"succeeded", "failed", "cancelled", "lost"})

#: Who has the claim of an attempt that was handed to a standby, and taken back.
TAKEN_BACK = "taken back"

# Enter a job, once. The token tells a call that is repeated after a lost answer from another caller's.
CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  return redis.call('HGET', KEYS[1], '_token') == ARGV[3] and 1 or 0
end
redis.call('HSET', KEYS[1], '_token', ARGV[3], unpack(ARGV, 6))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
if ARGV[5] ~= '' then
  redis.call('SADD', KEYS[3], 'inputs')
  redis.call('PEXPIRE', KEYS[3], ARGV[1])
  redis.call('SET', KEYS[4], ARGV[5], 'PX', ARGV[1])
end
return 1
"""

# Set a field of a record that exists; with ARGV[3], only if the field is that now ('' for none). The field
# ARGV[4] is dropped with it.
SET_FIELD = """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
if ARGV[3] and (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] then redis.call('HDEL', KEYS[1], ARGV[4]) end
return 1
"""


# Take an attempt, unless somebody has it, and say so to who handed it over: the word ARGV[3] stays for
# ARGV[4] ms, and the standby ARGV[5] waits no longer.
ACCEPT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
if KEYS[2] then
  redis.call('RPUSH', KEYS[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
  redis.call('ZREM', KEYS[3], ARGV[5])
  redis.call('UNLINK', KEYS[4])
end
return 1
"""


class NewRecord(NamedTuple):
    """A job that is to be entered; what the fields are :meth:`Records.create` says."""

    job_id: str
    fields: Mapping[str, Any]
    created: float | None = None
    inputs: bytes = b""


class Word(NamedTuple):
    """A standby's word that it has a job, as :data:`ACCEPT` leaves it."""

    keys: list[str]
    args: list[Any]


class Records:
    """The records of one owner.

    Parameters
    ----------
    link : Link
    signer : Signer
    lifetime : float
        Seconds that a record stays after its last use.
    """

    def __init__(self, link: Link, signer: Signer, lifetime: float) -> None:
        self._link = link
        self._signer = signer
        self._lifetime = lifetime

    def create(
        self, job_id: str, fields: Mapping[str, Any], created: float | None = None, inputs: bytes = b""
    ) -> None:
        """Enter a new job.

        Parameters
        ----------
        job_id : str
            ``[A-Za-z0-9_-]{1,64}``.
        fields : Mapping of str to JSON
            The first fields of the record (``spec``, ``state``).
        created : float, optional
            Time by which the job is listed; now.
        inputs : bytes
            Its inputs, if they are small: as :meth:`.payloads.Payloads.seal` gives them.

        Raises
        ------
        Taken
            There is a job of that id; nothing was changed.
        """
        token = secrets.token_hex(8)
        [done] = self._link.many([self.creating(NewRecord(job_id, fields, created, inputs), token)])
        if not done:
            raise Taken(f"there is a job {job_id} already")

    def creating(self, new: NewRecord, token: str) -> tuple[Any, ...]:
        """Give the command that enters a job; it answers 0 where there is one, of another `token`."""
        job_id, fields, created, inputs = new
        pairs = [x for name, value in fields.items() for x in (name, self._seal(job_id, name, value))]
        names = [f"job:{job_id}:slots", f"job:{job_id}:inputs"]
        keys = [self._record(job_id), *map(self._link.key, ("jobs", *names))]
        when = repr(time.time() if created is None else created)
        args = [milliseconds(self._lifetime), when, token, job_id, inputs, *pairs]
        return ("EVAL", CREATE, len(keys), *keys, *args)

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Give the fields of a record, or None if there is none.

        Raises
        ------
        Tampered
        """
        return self.read_many([job_id]).get(job_id)

    def read_many(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Give the records of those of `ids` that exist, in that order, in one round trip."""
        answers = self._link.many([("HGETALL", self._record(job_id)) for job_id in ids])
        return {
            job_id: self._fields(job_id, answer)
            for job_id, answer in zip(ids, answers, strict=True)
            if answer
        }

    def write(self, job_id: str, field: str, value: Any) -> None:
        """Set one field of a record.

        Raises
        ------
        Missing
            There is no such job.
        """
        self._set(job_id, field, value)

    def write_state(self, job_id: str, state: Mapping[str, Any], *, force: bool = False) -> bool:
        """Set the field ``state``, unless what is there must stay.

        An ended state stays, except that with `force` one of a higher ``attempt`` replaces it (and takes back
        a request to stop, which was for the attempt before). The state of an older attempt never replaces
        that of a newer one.

        Parameters
        ----------
        job_id : str
        state : Mapping
            JSON of a record without its spec, with ``phase`` and ``attempt``.
        force : bool

        Returns
        -------
        bool
            Whether it was written.
        """
        while True:
            raw, old = self._get(job_id, "state")
            if old is not None and not _may_follow(old, state, force):
                return False
            again = old is not None and ended(old)
            if self._set(job_id, "state", state, expected=raw, drop="stop" if again else None):
                break
            # Ours is there: the answer was lost, and the repeated call refused.
            if self._get(job_id, "state")[0] == self._seal(job_id, "state", state):
                break
        return True

    def claim(self, job_id: str, attempt: int, by: str, *, standby: bool = False) -> bool:
        """Take an attempt of a job: exactly one `by` gets True, however often it asks.

        Parameters
        ----------
        job_id : str
        attempt : int
        by : str
            Names the process, uniquely.
        standby : bool
            Whether it is one that the attempt was handed to: then it may have been taken back.
        """
        taken = self._taken(job_id, f"claim:{attempt}", by)
        if taken == TAKEN_BACK and not standby:  # from a standby, for a submission of its own
            taken = self._taken(job_id, f"claim:{attempt}:own", by)
        return taken == by

    def accept(
        self, job_id: str, attempt: int, by: str, word: Word | None = None
    ) -> tuple[dict[str, Any] | None, bool]:
        """Read the record of a job, and take an attempt of it as :meth:`claim` does, in one round trip.

        Parameters
        ----------
        job_id, attempt, by
            As for :meth:`claim`.
        word : Word, optional
            A standby's, that it has the job: it is left in the same step.

        Returns
        -------
        dict or None
            The record as it was before; None if there is no such job.
        bool
            Whether the attempt is ours.
        """
        field, key = f"claim:{attempt}", self._record(job_id)
        keys, args = word or Word([], [])
        sealed = self._seal(job_id, field, {"by": by, "time": time.time()})
        script = ("EVAL", ACCEPT, 1 + len(keys), key, *keys, field, sealed, *args)
        raw, taken = self._link.many([("HGETALL", key), script])
        record = self._fields(job_id, raw) if raw else None
        # It may be ours all the same: if the answer was lost, and the call repeated.
        mine = record is not None and (taken == 1 or self.claim(job_id, attempt, by, standby=bool(word)))
        return record, mine

    def take_back(self, job_id: str, attempt: int) -> bool:
        """Take back an attempt that was handed to a standby: only a submission of its own may claim it now.

        Returns
        -------
        bool
            False if the standby has claimed it: then it runs there.
        """
        return self.claim(job_id, attempt, TAKEN_BACK, standby=True)

    def _taken(self, job_id: str, field: str, by: str) -> str:
        """Give who has a claim: `by`, unless it was another one's."""
        if self._set(job_id, field, {"by": by, "time": time.time()}, expected=b""):
            return by
        # It may be ours, too: if an answer was lost, and the call repeated.
        taken = self._get(job_id, field)[1]
        return str(taken["by"]) if taken else ""

    def void(self, job_id: str, attempt: int) -> bool:
        """Take back an attempt: no later claim succeeds. False if it is claimed already."""
        return self.claim(job_id, attempt, "nobody")

    def request_stop(self, job_id: str, by: str = "", how: str = "") -> None:
        """Ask the runner to stop.

        Parameters
        ----------
        job_id : str
        by : str
            Who asks, in words.
        how : str
            In what way; the runner's word.
        """
        self._set(job_id, "stop", {"by": by, "how": how, "time": time.time()})

    def stop_requested(self, job_id: str) -> dict[str, Any] | None:
        """Give the request ``{by, how, time}``, if there is one."""
        request: dict[str, Any] | None = self._get(job_id, "stop")[1]
        return request

    def ids(self, limit: int = 100, before: float | None = None) -> list[str]:
        """Give job ids, newest first; those whose record has expired are struck off.

        Parameters
        ----------
        limit : int
        before : float, optional
            Only those created before this time.
        """
        key, top = self._link.key("jobs"), "+inf" if before is None else f"({before!r}"
        while True:
            found = self._link.many([("ZREVRANGEBYSCORE", key, top, "-inf", "LIMIT", 0, limit)])[0]
            ids = [raw.decode() for raw in found]
            alive = self._link.many([("EXISTS", self._record(job_id)) for job_id in ids])
            gone = [job_id for job_id, there in zip(ids, alive, strict=True) if not there]
            if not gone:
                return ids
            self._link.many([("ZREM", key, *gone)])

    def _record(self, job_id: str) -> str:
        return self._link.key(f"job:{checked_id(job_id)}")

    def _seal(self, job_id: str, field: str, value: Any) -> bytes:
        return self._signer.sign(f"job:{job_id}:{field}", json.dumps(value).encode())

    def _open(self, job_id: str, field: str, raw: bytes) -> Any:
        return json.loads(self._signer.check(f"job:{job_id}:{field}", raw))

    def _fields(self, job_id: str, raw: Mapping[bytes, bytes]) -> dict[str, Any]:
        fields = {name.decode(): value for name, value in raw.items()}
        return {name: self._open(job_id, name, raw) for name, raw in fields.items() if name[:1] != "_"}

    def _get(self, job_id: str, field: str) -> tuple[bytes, Any]:
        """Give a field as it lies in the store (``b""`` for none), and its value."""
        raw = self._link.run(lambda: self._link.client.hget(self._record(job_id), field))
        return (b"", None) if raw is None else (raw, self._open(job_id, field, raw))

    def setting(self, job_id: str, field: str, value: Any) -> tuple[Any, ...]:
        """Give the command that sets a field of a record; it answers -1 where there is none."""
        return ("EVAL", SET_FIELD, 1, self._record(job_id), field, self._seal(job_id, field, value))

    def _set(
        self, job_id: str, field: str, value: Any, *, expected: bytes | None = None, drop: str | None = None
    ) -> bool:
        args = [field, self._seal(job_id, field, value)]
        args += [] if expected is None else [expected]
        args += [] if drop is None else [drop]
        done = self._link.run(lambda: self._link.client.eval(SET_FIELD, 1, self._record(job_id), *args))
        if done < 0:
            raise Missing(f"job {job_id} is not, or no longer, in the store")
        return bool(done)


def checked_id(job_id: str) -> str:
    """Give `job_id`, which is about to become part of a key."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", job_id):
        raise ValueError(f"{job_id!r} is no id of a job: up to 64 letters, digits, '_' and '-'")
    return job_id


def ended(state: Mapping[str, Any]) -> bool:
    """Tell whether `state` is one that nothing follows."""
    return state.get("phase") in ENDED


def _may_follow(old: Mapping[str, Any], new: Mapping[str, Any], force: bool) -> bool:
    before, after = old.get("attempt") or 0, new.get("attempt") or 0
    if ended(old):
        return force and bool(after > before)
    return bool(after >= before)
