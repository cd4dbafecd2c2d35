"""Blobs: buffers and files in the store, named by their keyed digest, in chunks, sent once.

``blob:DIGEST`` is a signed header ``{size, chunk}``, written last: where it is, the blob was complete.
``blob:DIGEST:N`` are the chunks. The digest is keyed, so it is the signature of the content too.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blake3 import blake3
from redis.exceptions import RedisError

from .link import Link, Missing, Patience, milliseconds
from .signing import Signer, Tampered
from .wire import CHUNK, Wire, allocate

__all__ = ["BlobRef", "Blobs", "Progress", "file_view"]

#: Called with (bytes done, bytes in all).
Progress = Callable[[int, int], None]

#: Bytes between two calls of a :data:`Progress`: some twenty a second on a fast link.
STEP = 8 << 20
#: What is less in all goes with the other commands: a connection of its own would cost more than it saves.
SMALL = 512 << 10
#: How long a transfer that has begun bears a store that does not answer, seconds: one that comes back reads
#: its data first, and what has been sent or fetched shall not have been in vain.
BEGUN_SECONDS = 300.0
#: Keys of one script call, so that no call keeps the store from others for more than about a millisecond.
KEYS_AT_ONCE = 1000

# Set the time to live of KEYS to ARGV[1] ms where that is longer ("extend") or shorter ("shorten") than what
# is left; give how many of them exist. (EXPIRE knows GT and LT only since Redis 7.)
RETIME = """
local alive, wanted = 0, tonumber(ARGV[1])
for _, key in ipairs(KEYS) do
  local left = redis.call('PTTL', key)
  if left ~= -2 then
    alive = alive + 1
    if left == -1 or (ARGV[2] == 'extend' and left < wanted) or (ARGV[2] == 'shorten' and left > wanted) then
      redis.call('PEXPIRE', key, wanted)
    end
  end
end
return alive
"""


@dataclass(frozen=True)
class BlobRef:
    """What a signed manifest says of a blob."""

    digest: str
    size: int


@dataclass(frozen=True)
class _Layout:
    """Where the bytes of one blob are."""

    digest: str
    size: int
    chunk: int = CHUNK

    @property
    def header(self) -> str:
        return f"blob:{self.digest}"

    def spans(self) -> Iterator[tuple[str, int, int]]:
        """Give (key name, begin, end) of each chunk."""
        for number, begin in enumerate(range(0, self.size, self.chunk)):
            yield f"{self.header}:{number}", begin, min(begin + self.chunk, self.size)

    def names(self) -> list[str]:
        return [self.header, *(name for name, _, _ in self.spans())]


class Blobs:
    """The blobs of one owner.

    Parameters
    ----------
    link : Link
    signer : Signer
    """

    def __init__(self, link: Link, signer: Signer) -> None:
        self._link = link
        self._signer = signer

    def present(self, digests: Sequence[str], lifetime: float) -> set[str]:
        """Give those of `digests` that are complete; they now live for at least `lifetime` seconds."""
        found = [layout for layout in self._layouts(digests) if layout]
        return {layout.digest for layout in self._whole(found, lifetime)}

    def change(self, digests: Sequence[str], lifetime: float, rule: Literal["extend", "shorten"]) -> None:
        """Change how long those of `digests` that are there stay."""
        found = [layout for layout in self._layouts(digests) if layout]
        self.retime([layout.names() for layout in found], lifetime, rule)

    def put(
        self, blobs: Iterable[tuple[str, memoryview]], lifetime: float, on_progress: Progress | None = None
    ) -> int:
        """Send what the store lacks, and refresh the rest; what a broken call has sent is not sent again.

        Parameters
        ----------
        blobs : iterable of (str, memoryview)
            Digest, and contiguous bytes; the digest is believed.
        lifetime : float
            Seconds.
        on_progress : Progress, optional

        Returns
        -------
        int
            Bytes that the store lacked, and has now.

        Raises
        ------
        StoreFault
        """
        views = {digest: _flat(data) for digest, data in blobs}
        present = self.present(list(views), lifetime)
        layouts = [_Layout(digest, view.nbytes) for digest, view in views.items() if digest not in present]
        if not layouts:
            return 0
        chunks = [
            (self._link.key(name), views[layout.digest][begin:end])
            for layout in layouts
            for name, begin, end in layout.spans()
        ]
        headers = [(self._link.key(layout.header), self._sign(layout)) for layout in layouts]
        size, expiry = sum(view.nbytes for _, view in chunks), milliseconds(lifetime)
        small = chunks if size <= SMALL else []
        sent = size if small else self._send(chunks, lifetime, on_progress)
        self._link.many([("SET", key, value, "PX", expiry) for key, value in (*small, *headers)])
        if small and on_progress:
            on_progress(size, size)
        return sent

    def get(
        self, refs: Sequence[BlobRef], lifetime: float, on_progress: Progress | None = None
    ) -> list[memoryview]:
        """Fetch blobs into memory of their own, writable, each checked against its digest.

        Parameters
        ----------
        refs : sequence of BlobRef
            Out of something signed. One that is named twice is fetched once, and is the same memory twice.
        lifetime : float
            Seconds for which they stay at least, from now.
        on_progress : Progress, optional

        Raises
        ------
        Missing, Tampered, StoreFault
        """
        layouts = self._expect(list(dict.fromkeys(refs)), lifetime)
        places = {layout.digest: allocate(layout.size) for layout in layouts}
        self._fetch(layouts, list(places.values()), on_progress)
        return [places[ref.digest] for ref in refs]

    def get_file(
        self, ref: BlobRef, path: Path, lifetime: float, on_progress: Progress | None = None
    ) -> None:
        """Fetch a blob into a file, which has its name only once the content is checked.

        Raises
        ------
        Missing, Tampered, StoreFault, OSError
        """
        layouts = self._expect([ref], lifetime)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "r+b") as file:
                if ref.size:
                    # A full disk is an OSError here, and would be a SIGBUS in mapped memory.
                    os.posix_fallocate(file.fileno(), 0, ref.size)
                    with mmap.mmap(file.fileno(), ref.size) as mapped, memoryview(mapped) as place:
                        self._fetch(layouts, [place], on_progress)
                else:
                    self._fetch(layouts, [memoryview(b"")], on_progress)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise

    def retime(
        self, groups: Sequence[Sequence[str]], lifetime: float, rule: Literal["extend", "shorten"]
    ) -> list[int]:
        """Change the time to live of the keys of each group by `rule`, and give how many of each exist."""
        expiry = milliseconds(lifetime)
        commands, owners = [], []
        for number, names in enumerate(groups):
            for i in range(0, len(names), KEYS_AT_ONCE):
                keys = [self._link.key(name) for name in names[i : i + KEYS_AT_ONCE]]
                commands.append(("EVAL", RETIME, len(keys), *keys, expiry, rule))
                owners.append(number)
        alive = [0] * len(groups)
        for number, count in zip(owners, self._link.many(commands), strict=True):
            alive[number] += count
        return alive

    def _layouts(self, digests: Sequence[str]) -> list[_Layout | None]:
        headers = self._link.many([("GET", self._link.key(f"blob:{digest}")) for digest in digests])
        return [
            None if h is None else self._layout(digest, h) for digest, h in zip(digests, headers, strict=True)
        ]

    def _layout(self, digest: str, header: bytes) -> _Layout:
        fields = json.loads(self._signer.check(f"blob:{digest}", header))
        return _Layout(digest, fields["size"], fields["chunk"])

    def _sign(self, layout: _Layout) -> bytes:
        fields = {"size": layout.size, "chunk": layout.chunk}
        return self._signer.sign(layout.header, json.dumps(fields).encode())

    def _whole(self, layouts: Sequence[_Layout], lifetime: float) -> list[_Layout]:
        """Refresh `layouts`, and give those of which every chunk is there (none expired, none evicted)."""
        groups = [layout.names() for layout in layouts]
        alive = self.retime(groups, lifetime, "extend")
        return [layout for layout, names, n in zip(layouts, groups, alive, strict=True) if n == len(names)]

    def _expect(self, refs: Sequence[BlobRef], lifetime: float) -> list[_Layout]:
        """Give where `refs` are, and see to it that they stay while they are read."""
        found = self._layouts([ref.digest for ref in refs])
        layouts = [layout for layout in found if layout]
        whole = {layout.digest for layout in self._whole(layouts, lifetime)}
        for ref in refs:
            if ref.digest not in whole:
                raise Missing(
                    f"blob {ref.digest[:12]}… of {ref.size} bytes is not, or no longer, in the store"
                )
        for ref, layout in zip(refs, layouts, strict=True):
            if layout.size != ref.size:
                raise Tampered(
                    f"blob {ref.digest[:12]}… has {layout.size} bytes, and not the {ref.size} of its manifest"
                )
        return layouts

    def _send(
        self, chunks: list[tuple[str, memoryview]], lifetime: float, on_progress: Progress | None
    ) -> int:
        total = sum(view.nbytes for _, view in chunks)
        patience = self._link.patience(BEGUN_SECONDS)
        todo = self._absent(chunks)
        lacked = sum(view.nbytes for _, view in todo)
        while todo:
            report = _Report(total, total - sum(view.nbytes for _, view in todo), on_progress)
            try:
                with Wire(self._link.address, self._link.timeout) as wire:
                    for size in wire.put(todo, lifetime):
                        patience.reset()
                        report.add(size)
                break
            except RedisError as error:
                time.sleep(patience.failed(error))
                # A store that came back may have lost what it had confirmed: ask, do not remember.
                todo = self._absent(chunks, patience)
        return lacked

    def _absent(
        self, chunks: list[tuple[str, memoryview]], patience: Patience | None = None
    ) -> list[tuple[str, memoryview]]:
        lengths = self._link.many([("STRLEN", key) for key, _ in chunks], patience)
        return [chunk for chunk, length in zip(chunks, lengths, strict=True) if chunk[1].nbytes != length]

    def _fetch(
        self, layouts: Sequence[_Layout], places: Sequence[memoryview], on_progress: Progress | None
    ) -> None:
        fetch = _Fetch(self._signer)
        for layout, place in zip(layouts, places, strict=True):
            fetch.add((self._link.key(name), place[begin:end]) for name, begin, end in layout.spans())
        try:
            if sum(layout.size for layout in layouts) <= SMALL:
                self._take(fetch, on_progress)
            else:
                self._receive(fetch, on_progress)
        finally:
            for _, place in fetch.todo:
                place.release()  # a mapped file cannot be closed while parts of it are lent
        for layout, digest in zip(layouts, fetch.digests(), strict=True):
            if digest != layout.digest:
                raise Tampered(f"the content of blob {layout.digest[:12]}… does not match its digest")

    def _take(self, fetch: _Fetch, on_progress: Progress | None) -> None:
        """Fetch little: with commands as any other."""
        report = _Report(sum(place.nbytes for _, place in fetch.todo), 0, on_progress)
        answers = self._link.many([("GET", key) for key, _ in fetch.todo])
        for (key, place), data in zip(fetch.todo, answers, strict=True):
            if data is None:
                raise Missing(f"{key} is not, or no longer, in the store")
            if len(data) != place.nbytes:
                raise Tampered(f"{key} is not {place.nbytes} bytes long, but {len(data)}")
            place[:] = data
            fetch.look(place)
            fetch.keep()
            report.add(place.nbytes)

    def _receive(self, fetch: _Fetch, on_progress: Progress | None) -> None:
        report = _Report(sum(place.nbytes for _, place in fetch.todo), 0, on_progress)
        patience = self._link.patience(BEGUN_SECONDS)
        while fetch.done < len(fetch.todo):
            try:
                with Wire(self._link.address, self._link.timeout) as wire:
                    for size in wire.get(fetch.todo[fetch.done :], fetch.look):
                        patience.reset()
                        fetch.keep()
                        report.add(size)
            except RedisError as error:
                fetch.forget()
                time.sleep(patience.failed(error))


class _Fetch:
    """Chunks of blobs that are fetched in order, digested as they come; a broken one begins anew.

    A piece is digested when it has just come: more is on its way, and it is in the processor's cache.
    """

    def __init__(self, signer: Signer) -> None:
        self.todo: list[tuple[str, memoryview]] = []
        self.done = 0
        self._signer = signer
        self._blobs: list[int] = []  # of each chunk: to which blob it belongs
        self._kept: list[blake3] = []  # of each blob: the digest of its whole chunks
        self._now: blake3 = signer.hasher()

    def add(self, chunks: Iterable[tuple[str, memoryview]]) -> None:
        """Add a blob."""
        self.todo += chunks
        self._blobs += [len(self._kept)] * (len(self.todo) - len(self._blobs))
        self._kept.append(self._signer.hasher())
        self._now = self._kept[0].copy()

    def look(self, piece: memoryview) -> None:
        """Take in a piece of the chunk that is fetched now."""
        self._now.update(piece)

    def keep(self) -> None:
        """Note that this chunk is whole."""
        self._kept[self._blobs[self.done]] = self._now
        self.done += 1
        self.forget()

    def forget(self) -> None:
        """Begin a chunk: the next, or again the one whose connection was lost."""
        if self.done < len(self.todo):
            self._now = self._kept[self._blobs[self.done]].copy()

    def digests(self) -> list[str]:
        """Give the digest of each blob."""
        return [kept.hexdigest() for kept in self._kept]


class _Report:
    """Calls a :data:`Progress` once per :data:`STEP` and at the end."""

    def __init__(self, total: int, done: int, on_progress: Progress | None) -> None:
        self._total, self._done, self._told = total, done, done
        self._on_progress = on_progress

    def add(self, size: int) -> None:
        self._done += size
        if self._on_progress and (self._done - self._told >= STEP or self._done == self._total):
            self._told = self._done
            self._on_progress(self._done, self._total)


def _flat(data: memoryview) -> memoryview:
    """Give the same memory as plain bytes; ``cast`` cannot do that to an empty view of many dimensions."""
    return memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")


def file_view(path: Path) -> memoryview:
    """Give the content of a file as memory that is read when it is used."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return (
            memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)) if size else memoryview(b"")
        )
