"""Bulk transfer: chunks go straight from memory into Redis, and straight from Redis into memory.

redis-py copies a value several times on its way, which for a large array costs more than the transfer itself.
Two commands are needed, so this speaks just enough of RESP
(https://redis.io/docs/latest/develop/reference/protocol-spec/). After any error the connection is closed:
what its pipeline still holds is unknown.
"""

from __future__ import annotations

import mmap
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from redis.connection import parse_url
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from .link import TIMEOUT, Missing, StoreAddress, milliseconds
from .signing import Tampered

__all__ = ["CHUNK", "Wire", "allocate"]

#: Bytes of one chunk. Value, Redis' own header and line end then fit one size class of jemalloc: a value of
#: exactly a power of two costs a quarter more memory there.
CHUNK = (1 << 20) - 4096
#: Commands in flight; more gained nothing, fewer leave the store waiting.
WINDOW = 8
#: What is told of as one piece while a chunk comes in: about what a socket holds (``net.core.rmem_default``,
#: 208 KiB on Linux), so that the store fills it again while the reader looks at the piece.
PIECE = 192 << 10
#: From here on fresh memory is taken in huge pages: page faults of 4 KiB would cost more than the transfer.
HUGE = 1 << 20

_ERRORS: dict[bytes, type[RedisError]] = {
    b"LOADING": BusyLoadingError,
    b"NOAUTH": AuthenticationError,
    b"NOPERM": NoPermissionError,
    b"READONLY": ReadOnlyError,
    b"WRONGPASS": AuthenticationError,
}


def allocate(size: int) -> memoryview:
    """Give `size` writable bytes that nobody else holds; numpy arrays made from them are writable."""
    if size < HUGE:
        return memoryview(bytearray(size))
    # Python's default, MAP_SHARED, gets no huge pages and would be shared with forked children.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel built without huge pages: slower, not wrong
            pass
    return memoryview(memory)


class Wire:
    """One connection for bulk transfer; a context manager, not for two threads at once.

    Parameters
    ----------
    address : StoreAddress
    timeout : float
        Seconds without any progress after which the connection is given up.

    Raises
    ------
    redis.exceptions.RedisError
        Here and in the methods: the connection cannot be made or was lost, or the store refuses.
    """

    def __init__(self, address: StoreAddress, timeout: float = TIMEOUT) -> None:
        options = parse_url(address.url)  # type: ignore[no-untyped-call,unused-ignore]
        try:
            self._socket = _connect(address.url, options, timeout)
        except OSError as error:
            raise ConnectionError(str(error)) from error
        # Small, because what it reads ahead of a chunk is copied; the rest of the chunk goes past it.
        self._reader: Any = self._socket.makefile("rb", buffering=4096)
        try:
            self._enter(address, options.get("db", 0))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop the connection."""
        self._reader.close()
        self._socket.close()

    def put(self, chunks: Iterable[tuple[str, memoryview]], lifetime: float) -> Iterator[int]:
        """Write chunks, yielding the size of each as the store confirms it, in order.

        Parameters
        ----------
        chunks : iterable of (str, memoryview)
            Full key, and bytes (format ``B``).
        lifetime : float
            Seconds.
        """
        expiry = str(milliseconds(lifetime)).encode()
        end = b"\r\n$2\r\nPX\r\n$%d\r\n%b\r\n" % (len(expiry), expiry)
        waiting: deque[int] = deque()
        for key, data in chunks:
            name = key.encode()
            self._send(b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(name), name, data.nbytes), data, end)
            waiting.append(data.nbytes)
            if len(waiting) >= WINDOW:
                self._answer()
                yield waiting.popleft()
        while waiting:
            self._answer()
            yield waiting.popleft()

    def get(
        self, chunks: Iterable[tuple[str, memoryview]], look: Callable[[memoryview], object] | None = None
    ) -> Iterator[int]:
        """Read chunks into the memory given with each, yielding the size of each as it is there, in order.

        Parameters
        ----------
        chunks : iterable of (str, memoryview)
            Full key, and the place for its bytes (format ``B``).
        look : callable, optional
            Is given each piece of each chunk as soon as it is in its place, in order.

        Raises
        ------
        Missing
            There is no such key.
        Tampered
            The value has another length than its place.
        """
        waiting: deque[tuple[str, memoryview]] = deque()
        for key, place in chunks:
            name = key.encode()
            self._send(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(name), name))
            waiting.append((key, place))
            if len(waiting) >= WINDOW:
                yield self._receive(*waiting.popleft(), look)
        while waiting:
            yield self._receive(*waiting.popleft(), look)

    def _enter(self, address: StoreAddress, db: int) -> None:
        if address.password:
            user = [address.username] if address.username else []
            self._command("AUTH", *user, address.password)
        if db:
            self._command("SELECT", str(db))

    def _command(self, *words: str) -> None:
        encoded = [word.encode() for word in words]
        self._send(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in encoded))
        self._answer()

    def _send(self, *parts: bytes | memoryview) -> None:
        views = [memoryview(part) for part in parts if len(part)]
        try:
            if isinstance(self._socket, ssl.SSLSocket):  # knows no sendmsg
                for view in views:
                    self._socket.sendall(view)
                return
            while views:
                sent = self._socket.sendmsg(views)
                while views and sent >= views[0].nbytes:
                    sent -= views.pop(0).nbytes
                if sent:
                    views[0] = views[0][sent:]
        except OSError as error:
            raise ConnectionError(f"the connection was lost while sending: {error}") from error

    def _answer(self) -> bytes:
        """Give the next line of answer, which is not an error."""
        try:
            line: bytes = self._reader.readline(4096)
        except OSError as error:
            raise ConnectionError(f"the connection was lost while receiving: {error}") from error
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the store closed the connection")
        if line[:1] == b"-":
            code, _, text = line[1:-2].partition(b" ")
            known = _ERRORS.get(code)
            raise known(text.decode()) if known else ResponseError(line[1:-2].decode())
        return line[:-2]

    def _receive(self, key: str, place: memoryview, look: Callable[[memoryview], object] | None) -> int:
        line = self._answer()
        if line == b"$-1":
            raise Missing(f"{key} is not, or no longer, in the store")
        if line != b"$%d" % place.nbytes:
            raise Tampered(f"{key} is not {place.nbytes} bytes long: the store answers {line[:32]!r}")
        step = PIECE if look else place.nbytes or 1
        for begin in range(0, place.nbytes, step):
            with place[begin : begin + step] as piece:
                self._read(piece)
                if look:
                    look(piece)
        self._read(memoryview(bytearray(2)))  # the line end
        return place.nbytes

    def _read(self, place: memoryview) -> None:
        try:
            count = self._reader.readinto(place)
        except OSError as error:
            raise ConnectionError(f"the connection was lost while receiving: {error}") from error
        if count != place.nbytes:
            raise ConnectionError("the store closed the connection in the middle of a chunk")


def _connect(url: str, options: dict[str, Any], timeout: float) -> socket.socket:
    if "path" in options:
        plain = socket.socket(socket.AF_UNIX)
        try:
            plain.settimeout(timeout)
            plain.connect(options["path"])
        except BaseException:
            plain.close()
            raise
        return plain
    host = options.get("host", "localhost")
    plain = socket.create_connection((host, options.get("port", 6379)), min(timeout, 5.0))
    try:
        plain.settimeout(timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not url.startswith("rediss:"):
            return plain
        return _tls(options).wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    """Give the TLS settings that redis-py takes from the same URL."""
    context = ssl.create_default_context(
        cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path")
    )
    demand = options.get("ssl_cert_reqs", "required")
    context.check_hostname = options.get("ssl_check_hostname", True) and demand != "none"
    context.verify_mode = {
        "none": ssl.CERT_NONE,
        "optional": ssl.CERT_OPTIONAL,
        "required": ssl.CERT_REQUIRED,
    }[demand]
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context
