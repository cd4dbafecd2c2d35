"""Signatures: whatever a reader acts upon was written by the owner, for exactly that place."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined,unused-ignore]

__all__ = ["KEY_BYTES", "MAC_BYTES", "Signer", "Tampered"]

#: blake3's key and output length (BLAKE3 specification, section 2).
KEY_BYTES = 32
MAC_BYTES = 32
#: From this size on, hashing on all cores pays for its threads (blake3's own advice for ``max_threads``).
PARALLEL_BYTES = 1 << 20
#: Copied and digested in pieces, which are still in the processor's cache for the second of the two: large
#: enough for several cores, and small enough that other threads get their turn.
PIECE_BYTES = 4 << 20


class Tampered(Exception):
    """A signature does not match: the bytes are not what the owner wrote for this place."""


class Signer:
    """Digests and signatures with one owner's key (keyed blake3).

    Parameters
    ----------
    key : bytes
        32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a signing key has {KEY_BYTES} bytes, this one {len(key)}")
        self._key = key

    def __repr__(self) -> str:
        return "Signer(…)"

    def digest(self, data: Buffer) -> str:
        """Give the keyed digest of `data`, 64 hex digits: content address and signature in one."""
        size = memoryview(data).nbytes
        hasher = blake3(key=self._key, max_threads=blake3.AUTO if size >= PARALLEL_BYTES else 1)
        hasher.update(data)
        return hasher.hexdigest()

    def hasher(self) -> blake3:
        """Give what makes that digest of bytes that come bit by bit, with ``update`` and ``hexdigest``."""
        return blake3(key=self._key)

    def copy(self, source: memoryview, target: memoryview) -> str:
        """Copy `source` into `target`, as large and both plain bytes, and give the digest of the copy.

        In one pass: of what another thread may change meanwhile, the digest is that of what was copied.
        """
        hasher = blake3(key=self._key, max_threads=blake3.AUTO if source.nbytes >= PARALLEL_BYTES else 1)
        for begin in range(0, source.nbytes, PIECE_BYTES):
            piece = target[begin : begin + PIECE_BYTES]
            piece[:] = source[begin : begin + PIECE_BYTES]
            hasher.update(piece)
        return hasher.hexdigest()

    def sign(self, context: str, data: bytes) -> bytes:
        """Give `data` with a signature behind it that holds for `context` (``job:ID:inputs``) alone."""
        return data + self._mac(context, data)

    def check(self, context: str, signed: Buffer) -> bytes:
        """Give back what was signed for `context`.

        Raises
        ------
        Tampered
            Nobody with the owner's key signed these bytes for `context`.
        """
        view = memoryview(signed)
        data, mac = bytes(view[:-MAC_BYTES]), bytes(view[-MAC_BYTES:])
        if not hmac.compare_digest(self._mac(context, data), mac):
            raise Tampered(f"the signature of {context} does not match")
        return data

    def _mac(self, context: str, data: bytes) -> bytes:
        name = context.encode()
        hasher = blake3(key=self._key)
        # The length in front keeps ("ab", "c") and ("a", "bc") apart.
        hasher.update(b"rayoffload-mac" + len(name).to_bytes(4, "little") + name)
        hasher.update(data)
        return hasher.digest()
