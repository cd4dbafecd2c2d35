"""The open way to one cluster: its connection, its store and its Jobs API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from . import errors
from .remote import codec, store
from .remote.signing import Signer, Tampered
from .threads import in_store_thread

if TYPE_CHECKING:
    from .clusters import Connection
    from .config import RayOffload
    from .models import ClusterInfo
    from .rayapi import RayClient
    from .remote.store import Entry

__all__ = ["Link", "Opener", "blocking", "open_link", "translated"]

_T = TypeVar("_T")


@dataclass
class Link:
    """An open way to one cluster and its store.

    Parameters
    ----------
    connection : Connection
    store : Store
    ray : RayClient
    libraries : dict of str to str
        What jobs of this session have found there, by module: a version, or empty text.
    provided : dict of str to float
        By digest, when Ray was last seen to have a package (``time.monotonic()``).
    stored : dict of str to float
        And when the store was.
    """

    connection: Connection
    store: store.Store
    ray: RayClient
    libraries: dict[str, str] = field(default_factory=dict)
    provided: dict[str, float] = field(default_factory=dict)
    stored: dict[str, float] = field(default_factory=dict)
    _proof: tuple[int, int] | None = field(default=None, init=False)
    _reader: Any = field(default=None, init=False)

    @property
    def info(self) -> ClusterInfo:
        """The cluster, without secrets."""
        return self.connection.info

    @property
    def signer(self) -> Signer:
        """The owner's signer."""
        return Signer(self.connection.key)

    async def answers(self) -> bool:
        """Whether the head that was found when this was opened still answers."""
        self._proof = None
        if not self.info.address:  # this is the way to a store alone
            return False
        try:
            version = await self.ray.version()
        except errors.ClusterError:
            return False
        same = not self.info.session or version.get("session_name") == self.info.session
        if same:
            self._proof = self._file()
        return same

    def answered(self) -> bool:
        """Whether it did when it was asked last, and nothing since says that it has gone; asks nobody.

        Only of the embedded cluster that is known: its keeper takes the file away when the head has gone.
        """
        return self.info.kind == "embedded" and self._proof is not None and self._proof == self._file()

    def follow(
        self, job_id: str, after: str, on_trouble: Callable[[str | None], object]
    ) -> AsyncGenerator[Entry, None]:
        """Yield the entries of a job's stream as they are written; see :func:`.remote.events.follow`."""
        address = self.connection.store
        self._reader = self._reader or store.open_reader(address)
        owner = self.connection.owner
        return store.follow(address, owner, self.signer, job_id, after, on_trouble, reader=self._reader)

    def _file(self) -> tuple[int, int] | None:
        try:
            info = self.connection.file.stat()
        except OSError:
            return None
        return info.st_ino, info.st_mtime_ns

    async def aclose(self) -> None:
        """Close both ways; what runs goes on."""
        with suppress(Exception):
            await self.ray.aclose()
        with suppress(Exception):
            if self._reader is not None:
                await self._reader.aclose()
        with suppress(Exception):
            await in_store_thread(self.store.close)


#: Opens the way to a cluster, as :func:`open_link` does.
Opener = Callable[["Connection", "RayOffload"], Awaitable[Link]]


async def open_link(connection: Connection, config: RayOffload) -> Link:
    """Open the store and the Jobs API of `connection`.

    Raises
    ------
    StoreUnreachable, StoreRefused
    """
    opened = store.Store(connection.store, connection.owner, Signer(connection.key), config.lifetimes())
    await blocking(opened.ping)
    return Link(connection, opened, connection.client())


async def blocking(call: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Run a blocking call of the store in a thread; its errors become ours."""
    with translated():
        return await in_store_thread(call, *args, **kwargs)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the errors of ``remote``, which travels without this package, into those of :mod:`.errors`."""
    try:
        yield
    except store.StoreDown as error:
        raise errors.StoreUnreachable(str(error), "Look at %ray cluster; the job itself goes on") from error
    except store.StoreNoAuth as error:
        raise errors.StoreRefused(str(error), "Check the store's password in the connection file") from error
    except store.StoreOutOfMemory as error:
        hint = "Delete jobs that are done with (%ray delete ID), or raise store_limit"
        raise errors.StoreFull(str(error), hint) from error
    except store.Taken as error:
        raise errors.StoreError(str(error), "Submit it again: it gets another id") from error
    except store.Missing as error:
        raise errors.Expired(
            str(error), "Run the cell again; lifetimes are settings of RayOffload"
        ) from error
    except Tampered as error:
        hint = "Nothing was unpickled. Someone else writes to this store, or the key has changed"
        raise errors.Forged(str(error), hint) from error
    except codec.WrongFormat as error:
        raise errors.FormatMismatch(
            str(error), "Run the cell again with the versions of this notebook"
        ) from error
