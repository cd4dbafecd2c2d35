"""The way to Redis: its address, its errors in plain words, and how long a lost connection is borne."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry

__all__ = [
    "TIMEOUT",
    "Link",
    "Missing",
    "Patience",
    "StoreAddress",
    "StoreDown",
    "StoreFault",
    "StoreNoAuth",
    "StoreOutOfMemory",
    "Taken",
    "client_options",
    "milliseconds",
    "prefix",
    "translate",
]

_T = TypeVar("_T")

#: Seconds that one answer of the store may take: a command takes milliseconds, a Redis that forks seconds.
TIMEOUT = 10.0
#: Pauses between two tries grow from the first to the second of these seconds.
BACKOFF = (0.05, 2.0)


class StoreFault(Exception):
    """The store cannot do what was asked; the text names the store or the key."""


class StoreDown(StoreFault):
    """Nothing answers at the store's address, or not in time."""


class StoreNoAuth(StoreFault):
    """The store refuses our password or user, or there is none."""


class StoreOutOfMemory(StoreFault):
    """The store has reached its ``maxmemory``; nothing was written."""


class Missing(StoreFault):
    """What was asked for is not, or no longer, in the store."""


class Taken(StoreFault):
    """There is a job of that id already."""


@dataclass(frozen=True)
class StoreAddress:
    """Where the store is, and how to be let in.

    Parameters
    ----------
    url : str
        ``redis://host:port/db``, ``rediss://host:port/db`` or ``unix:///path?db=0``, without a secret. TLS
        takes the query options of redis-py: ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``,
        ``ssl_cert_reqs``, ``ssl_check_hostname``.
    password, username : str, optional
    shown : str, optional
        What messages call it, where `url` says only how it is reached from here.
    """

    url: str
    password: str = field(default="", repr=False)
    username: str = ""
    shown: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("the store's address must begin with redis://, rediss:// or unix://")
        if parts.password or "password" in parse_qs(parts.query):
            raise ValueError(
                "the store's address has a password in it: give it as `password`, so that no log shows it"
            )

    def __str__(self) -> str:
        return self.shown or self.url.partition("?")[0]

    @classmethod
    def from_connection(cls, connection: Mapping[str, Any]) -> StoreAddress:
        """Read the ``store`` part of a connection file, or the whole of it."""
        store = connection.get("store", connection)
        return cls(store["url"], store.get("password") or "", store.get("username") or "")

    def to_connection(self) -> dict[str, str]:
        """Give the ``store`` part of a connection file; it holds the password."""
        return {"url": self.url, "username": self.username, "password": self.password}


def translate(address: StoreAddress, error: RedisError) -> Exception:
    """Give the error of this module that `error` of redis-py stands for, else `error` itself."""
    text = str(error).strip().rstrip(".")
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
        return StoreNoAuth(f"the store at {address} refuses our user or password: {text}")
    # By its text, which is the same in the error of a command and in that of a script around it.
    if "command not allowed when used memory" in text:
        return StoreOutOfMemory(f"the store at {address} has reached its memory limit: {text}")
    # A replica after a failover, or a server whose disk is full, refuses writes until that is mended.
    if isinstance(error, (ConnectionError, TimeoutError, ReadOnlyError)) or text.startswith("MISCONF"):
        return StoreDown(f"the store at {address} does not answer: {text or type(error).__name__}")
    return error


class Patience:
    """How long one call bears a store that does not answer.

    Parameters
    ----------
    address : StoreAddress
    seconds : float
        Limit since the first failure after the last success.
    """

    def __init__(self, address: StoreAddress, seconds: float) -> None:
        self.address = address
        self.seconds = seconds
        self.since: float | None = None
        self._pause = BACKOFF[0]

    def reset(self) -> None:
        """Note a success."""
        self.since, self._pause = None, BACKOFF[0]

    def failed(self, error: RedisError) -> float:
        """Give the seconds to pause before the next try.

        Raises
        ------
        StoreDown
            The limit is reached.
        StoreFault
            Another try would not help.
        """
        fault = translate(self.address, error)
        now = time.monotonic()
        self.since = self.since or now
        if not isinstance(fault, StoreDown) or now - self.since + self._pause > self.seconds:
            raise fault from error
        return self.pause()

    def pause(self) -> float:
        """Give the seconds to pause before the next try; longer each time."""
        # Half of it is random: the runners of a whole batch must not come back in one moment.
        pause = self._pause * (0.5 + random.random() / 2)  # noqa: S311
        self._pause = min(2 * self._pause, BACKOFF[1])
        return pause


def client_options(address: StoreAddress, timeout: float) -> dict[str, Any]:
    """Give the options for ``Redis.from_url`` that the sync and the async client share."""
    return {
        "username": address.username or None,
        "password": address.password or None,
        "socket_timeout": timeout,
        "socket_connect_timeout": min(timeout, 5.0),
        "protocol": 2,  # the answers of XREAD differ between the two protocols
    }


class Link:
    """One owner's corner of the store: a thread-safe client, key names, and retries.

    Parameters
    ----------
    address : StoreAddress
    owner : str
        Already made a slug: letters, digits, ``.``, ``_``, ``-``.
    patience : float
        Seconds during which a lost connection is tried again.
    timeout : float
        Seconds that one answer may take.
    """

    def __init__(self, address: StoreAddress, owner: str, patience: float, timeout: float = TIMEOUT) -> None:
        self.address = address
        self.timeout = timeout
        self._patience = patience
        self._prefix = prefix(owner)
        # Any: the types that redis-py ships and those of types-redis disagree on every answer.
        self.client: Any = redis.Redis.from_url(
            address.url, retry=Retry(NoBackoff(), 0), **client_options(address, timeout)
        )

    def key(self, name: str) -> str:
        """Give the full key of `name`."""
        return self._prefix + name

    def patience(self, least: float = 0.0) -> Patience:
        """Give the patience for one call: `least` seconds of it, whatever others have."""
        return Patience(self.address, max(self._patience, least))

    def run(self, action: Callable[[], _T], patience: Patience | None = None) -> _T:
        """Do `action`, again after a lost connection: it must bear being done twice.

        Raises
        ------
        StoreFault
        """
        patience = patience or self.patience()
        while True:
            try:
                return action()
            except RedisError as error:
                time.sleep(patience.failed(error))

    def many(self, commands: list[tuple[Any, ...]], patience: Patience | None = None) -> list[Any]:
        """Send `commands` in pipelines, in order but not as one step, and give their answers."""

        def send(part: list[tuple[Any, ...]]) -> list[Any]:
            with self.client.pipeline(transaction=False) as pipe:
                for command in part:
                    pipe.execute_command(*command)
                answers: list[Any] = pipe.execute(raise_on_error=False)
            for answer in answers:
                if isinstance(answer, RedisError):
                    raise answer  # as it is: redis-py's own would quote the command, values and all
            return answers

        step = 1000  # bounds what is held on both sides
        parts = [commands[i : i + step] for i in range(0, len(commands), step)]
        return [answer for part in parts for answer in self.run(lambda part=part: send(part), patience)]  # type: ignore[misc]


def milliseconds(seconds: float) -> int:
    """Give a time to live as Redis takes it: whole, and never 0."""
    return max(1, round(seconds * 1000))


def prefix(owner: str) -> str:
    """Give what all keys of `owner` begin with; the braces put them into one hash slot."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", owner):
        raise ValueError(f"{owner!r} cannot be the owner of keys: letters, digits, '.', '_' and '-' only")
    return f"rayoffload:{{{owner}}}:"
