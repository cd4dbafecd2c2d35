"""Standbys in the store: which of them wait, and how a job is handed to one.

=====================  ==========  ==================================================================
key                    kind        holds
=====================  ==========  ==================================================================
``standby:KEY``        list        ids of the standbys that wait for a job of this key
``standby:ID:plan``    string      what the standby makes ready; it goes soon after the standby died
``standby:ID:job``     list        the job that it is handed, or that it may go
``standby:ID:taken``   list        its word that it has the job
``standbys``           sorted set  ids by time, for those who list them
=====================  ==========  ==================================================================

Who hands a job over takes the standby's id out of the list, so that exactly one does, and the standby claims
the job's attempt in its record, as every runner does: what was taken back cannot be claimed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .link import Link, Missing, milliseconds
from .records import Word, checked_id
from .signing import Signer

__all__ = ["Handovers"]

#: How long a standby may take from its order until it waits, seconds: Ray starts it when it has room.
ORDER_SECONDS = 300.0
#: How long a standby that gives no sign of life counts as one, seconds; it gives one each second.
LIFE_SECONDS = 8.0
#: How long what is handed over, and the answer, lie there, seconds.
LETTER_SECONDS = 60.0
#: Up to this size a spec goes with the letter, bytes: the standby gets ready while it claims the job.
SPEC_BYTES = 1 << 16

# Take the first standby of these keys that lives, and hand it the job. Those that died are struck off. The
# record, KEYS[1], keeps in the field ARGV[4] who has it: a call that is repeated after a lost answer gets the
# same one. With a token, only the record of that token is handed over.
HAND = """
if ARGV[5] ~= '' and redis.call('HGET', KEYS[1], '_token') ~= ARGV[5] then return false end
local before = redis.call('HGET', KEYS[1], ARGV[4])
if before then return before end
for i = 2, #KEYS do
  while true do
    local id = redis.call('LPOP', KEYS[i])
    if not id then break end
    local own = ARGV[1] .. id
    if redis.call('EXISTS', own .. ':plan') == 1 then
      redis.call('RPUSH', own .. ':job', ARGV[2])
      redis.call('PEXPIRE', own .. ':job', ARGV[3])
      if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[4], id) end
      return id
    end
  end
end
return false
"""

# Wait for a job, once: a call that is repeated after a lost answer must not list the standby twice.
ANNOUNCE = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('LREM', KEYS[1], 0, ARGV[1])
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""


class Handovers:
    """The standbys of one owner.

    Parameters
    ----------
    link : Link
    signer : Signer
    """

    def __init__(self, link: Link, signer: Signer) -> None:
        self._link, self._signer = link, signer

    # ------------------------------------------------------------------ who submits

    def order(self, standby: str, plan: Mapping[str, Any]) -> None:
        """Leave word for a standby that is about to be submitted.

        Parameters
        ----------
        standby : str
            Its id, which is that of its Ray submission.
        plan : Mapping
            ``key`` (which jobs it may have), ``cluster`` (its name), ``package`` and ``modules`` (the
            workspace to unpack ahead), ``libraries`` (to look for), ``imports``, ``connect`` (whether to
            join Ray ahead), ``idle`` (seconds after which it ends).
        """
        now = time.time()
        self._link.many(
            [
                ("SET", self._key(standby, "plan"), self._sealed(standby, plan), "PX", _ms(ORDER_SECONDS)),
                ("ZADD", self._link.key("standbys"), now, standby),
                ("ZREMRANGEBYSCORE", self._link.key("standbys"), "-inf", now - 86400),
                ("PEXPIRE", self._link.key("standbys"), _ms(86400)),
            ]
        )

    def hand(
        self, keys: Sequence[str], job_id: str, attempt: int, spec: Mapping[str, Any] | None = None
    ) -> str:
        """Hand a job to a standby that waits under the first of `keys` that has one; ``""`` if none has.

        With its `spec` the standby can get ready for it before it has read the record.
        """
        [found] = self._link.many([self.handing(keys, job_id, attempt, spec)])
        return found.decode() if found else ""

    def handing(
        self,
        keys: Sequence[str],
        job_id: str,
        attempt: int,
        spec: Mapping[str, Any] | None = None,
        token: str = "",
    ) -> tuple[Any, ...]:
        """Give the command behind :meth:`hand`; with the `token` of a new record it hands over that alone."""
        text = json.dumps({"job": job_id, "attempt": attempt, **({"spec": spec} if spec else {})})
        if len(text) > SPEC_BYTES:
            text = json.dumps({"job": job_id, "attempt": attempt})
        letter = self._signer.sign("handover", text.encode())
        places = [self._link.key(f"job:{checked_id(job_id)}")]
        places += [self._link.key(f"standby:{key}") for key in keys]
        args = [self._link.key("standby:"), letter, _ms(LETTER_SECONDS), f"_handed:{attempt}", token]
        return ("EVAL", HAND, len(places), *places, *args)

    def taken(self, standby: str, job_id: str, seconds: float) -> bool:
        """Wait for the standby's word that it has the job; whether it came."""
        key = self._key(standby, "taken")
        answer = self._link.run(lambda: self._link.client.blpop([key], timeout=seconds))
        return answer is not None and self._signer.check(f"taken:{standby}", answer[1]) == job_id.encode()

    def waiting(self) -> list[dict[str, Any]]:
        """Give the standbys that wait: their plans, with ``id``, ``since`` and ``memory`` (bytes)."""
        return [plan for plan in self.ordered() if "since" in plan]

    def ordered(self) -> list[dict[str, Any]]:
        """Give the plans of all standbys that wait or are on their way, with ``id``."""
        ids = [raw.decode() for raw in self._link.many([("ZRANGE", self._link.key("standbys"), 0, -1)])[0]]
        plans = self._link.many([("GET", self._key(standby, "plan")) for standby in ids])
        return [self._opened(i, raw) for i, raw in zip(ids, plans, strict=True) if raw]

    def dismiss(self, standby: str, key: str) -> None:
        """Let a standby end, unless it has a job already."""
        letter = self._signer.sign("handover", json.dumps({"end": True}).encode())
        [listed] = self._link.many([("LREM", self._link.key(f"standby:{key}"), 0, standby)])
        commands: list[tuple[Any, ...]] = [("UNLINK", self._key(standby, "plan"))]
        if listed:
            commands.append(("RPUSH", self._key(standby, "job"), letter))
            commands.append(("PEXPIRE", self._key(standby, "job"), _ms(LETTER_SECONDS)))
        self._link.many(commands)

    # ------------------------------------------------------------------ the standby

    def plan(self, standby: str) -> dict[str, Any]:
        """Give what a standby was ordered for.

        Raises
        ------
        Missing
            Nobody has ordered it, or it is not wanted any more.
        """
        raw = self._link.run(lambda: self._link.client.get(self._key(standby, "plan")))
        if raw is None:
            raise Missing(f"nobody waits for {standby}")
        return self._opened(standby, raw)

    def announce(self, standby: str, plan: Mapping[str, Any]) -> bool:
        """Wait for a job from now on; False if the standby is not wanted any more."""
        keys = [self._link.key(f"standby:{plan['key']}"), self._key(standby, "plan")]
        args = [standby, self._sealed(standby, plan), _ms(LIFE_SECONDS), _ms(86400)]
        return bool(self._link.run(lambda: self._link.client.eval(ANNOUNCE, 2, *keys, *args)))

    def beat(self, standby: str) -> bool:
        """Give a sign of life; False if the standby is not wanted any more."""
        return bool(self._link.many([("PEXPIRE", self._key(standby, "plan"), _ms(LIFE_SECONDS))])[0])

    def await_letter(self, standby: str, seconds: float) -> dict[str, Any] | None:
        """Wait for ``{"job", "attempt"}``, maybe with ``"spec"``, or ``{"end"}``; None if nothing came."""
        key = self._key(standby, "job")
        answer = self._link.run(lambda: self._link.client.blpop([key], timeout=seconds))
        return None if answer is None else dict(json.loads(self._signer.check("handover", answer[1])))

    def word(self, standby: str, job_id: str) -> Word:
        """Give the word that the job has been claimed, to who handed it over."""
        sealed = self._signer.sign(f"taken:{standby}", job_id.encode())
        keys = [self._key(standby, "taken"), self._link.key("standbys"), self._key(standby, "plan")]
        return Word(keys, [sealed, _ms(LETTER_SECONDS), standby])

    def leave(self, standby: str, key: str) -> bool:
        """Wait no longer; False if somebody has taken the standby out of the list, and a letter comes."""
        [listed, *_] = self._link.many(
            [
                ("LREM", self._link.key(f"standby:{key}"), 0, standby),
                ("ZREM", self._link.key("standbys"), standby),
                ("UNLINK", self._key(standby, "plan")),
            ]
        )
        return bool(listed)

    # ------------------------------------------------------------------ inner

    def _key(self, standby: str, what: str) -> str:
        return self._link.key(f"standby:{checked_id(standby)}:{what}")

    def _sealed(self, standby: str, plan: Mapping[str, Any]) -> bytes:
        return self._signer.sign(f"standby:{standby}", json.dumps(dict(plan)).encode())

    def _opened(self, standby: str, raw: bytes) -> dict[str, Any]:
        return {**json.loads(self._signer.check(f"standby:{standby}", raw)), "id": standby}


def _ms(seconds: float) -> int:
    return milliseconds(seconds)
