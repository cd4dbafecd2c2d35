"""Where the embedded cluster keeps its files, and the lock that says whether its keeper lives.

There is one embedded cluster for each user, machine and ``sys.prefix``:

``RUNTIME/rayoffload-KEY.json``
    The connection file, there as long as the cluster can be used. Whoever adopts it touches the file.
``RUNTIME/rayoffload-KEY.lock``
    Locked by the keeper as long as it lives, so that no process id is believed; holds its :class:`State`.
``DATA/rayoffload/KEY/``
    What outlives the cluster: the store's files, the owner's signing key, the keeper's log.
``TMP/rayoffload-XXXXXXXX/``
    What goes with the cluster: token, sockets, Ray's session.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

__all__ = [
    "BUSY",
    "Places",
    "Settings",
    "State",
    "alive",
    "keeper_state",
    "last_state",
    "sweep",
    "take_lock",
    "write_state",
]

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
#: Exit code of a keeper that finds the lock taken.
BUSY = 3
#: Every process of a cluster has this variable; it names a file in the cluster's own directory.
MARK = "RAY_AUTH_TOKEN_PATH"


@dataclass(frozen=True)
class Places:
    """The files of one embedded cluster."""

    connection: Path
    lock: Path
    data: Path

    @classmethod
    def here(cls) -> Places:
        """Give those of this user, machine and environment, as Jupyter's directories say."""
        from jupyter_core.paths import jupyter_data_dir, jupyter_runtime_dir

        # Home directories are often shared between machines, and one has several environments.
        key = hashlib.sha256(f"{platform.node()}\0{sys.prefix}".encode()).hexdigest()[:10]
        runtime = Path(jupyter_runtime_dir())
        return cls(
            connection=runtime / f"rayoffload-{key}.json",
            lock=runtime / f"rayoffload-{key}.lock",
            data=Path(jupyter_data_dir()) / "rayoffload" / key,
        )

    @property
    def log(self) -> Path:
        """What keeper, Redis and ``ray start`` have printed."""
        return self.data / "keeper.log"

    def log_tail(self, lines: int = 5) -> str:
        """Give the end of the log for a message, without colours and without what went well."""
        try:
            text = _ANSI.sub("", self.log.read_text(errors="replace"))
        except OSError:
            return "it has left no log"
        told = [line.strip() for line in text.splitlines() if line.strip() and "\tINFO " not in line]
        return "\n".join(told[-lines:]) or "its log is empty"

    @property
    def key(self) -> Path:
        """The owner's signing key, unless the configuration names another file."""
        return self.data / "key"

    def make(self) -> None:
        """Make the directories, for us alone."""
        self.lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.data.parent, self.data):
            folder.mkdir(mode=0o700, exist_ok=True)


@dataclass(frozen=True)
class Settings:
    """What a keeper needs to know; holds no secret.

    Parameters
    ----------
    owner : str
    num_cpus : int
    memory, object_store_memory, store_limit : int
        Bytes.
    idle_timeout, start_timeout : float
        Seconds; no idle time-out if 0.
    key_file : str
    store_url, store_username, store_password_file : str
        A Redis that is there; if `store_url` is empty, one is started.
    connection, lock, data : str
        The fields of :class:`Places`.
    """

    owner: str
    num_cpus: int
    memory: int
    object_store_memory: int
    store_limit: int
    idle_timeout: float
    start_timeout: float
    key_file: str
    store_url: str
    store_username: str
    store_password_file: str
    connection: str
    lock: str
    data: str

    @property
    def places(self) -> Places:
        """Where the files are."""
        return Places(Path(self.connection), Path(self.lock), Path(self.data))


@dataclass(frozen=True)
class State:
    """What a keeper says of itself in its lock file.

    Parameters
    ----------
    pid : int
    run : str
        The directory that goes with the cluster.
    reason : str
        What it is doing, in words.
    since : float
        When it began that.
    error : Mapping of str to str
        Why it gave up (``OffloadError.to_json``); empty otherwise.
    """

    pid: int = 0
    run: str = ""
    reason: str = ""
    since: float = 0.0
    error: Mapping[str, str] = field(default_factory=dict)


def take_lock(file: Path) -> int | None:
    """Take the keeper's lock for as long as this process lives; None if another one holds it."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        # The last keeper may have removed the file between our open and our lock.
        if file.exists() and os.path.samestat(os.fstat(handle), os.stat(file)):
            return handle
        os.close(handle)


def write_state(handle: int, state: State) -> None:
    """Write `state` into the locked file.

    The file must stay the one that is locked, so nothing can be renamed into its place. Blanks cover what a
    longer state has left: whoever reads meanwhile finds the old one or the new one, and never half of one.
    """
    data = json.dumps(dataclasses.asdict(state)).encode()
    os.pwrite(handle, data.ljust(os.fstat(handle).st_size), 0)


def keeper_state(file: Path) -> State | None:
    """Give the state of the keeper that lives; None if there is none."""
    try:
        handle = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return last_state(file)
    finally:
        os.close(handle)
    return None


def last_state(file: Path) -> State:
    """Give what the last keeper wrote, alive or not."""
    try:
        return State(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):  # none, or just being written
        return State()


def sweep(run: str) -> None:
    """Kill what is left of the cluster whose directory was `run`, and remove the directory.

    For a keeper that was killed with SIGKILL: its children die with it, and Ray's with their raylet,
    but a process that a job has made a daemon stays.
    """
    if not run:
        return
    left = [p for p in psutil.process_iter() if p.pid != os.getpid() and _belongs(p, run)]
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(left, timeout=5)
    shutil.rmtree(run, ignore_errors=True)


def alive(process: psutil.Process) -> bool:
    """Tell whether it runs: a zombie does not, nor does another process of the same number."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _belongs(process: psutil.Process, run: str) -> bool:
    try:
        return Path(process.environ().get(MARK, "")).parent == Path(run)
    except (psutil.Error, OSError):  # gone, or another user's
        return False
