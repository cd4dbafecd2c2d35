"""The beginning of a runner: its credentials, its two processes, and the claim of the attempt."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from multiprocessing.connection import Connection as Pair
from pathlib import Path
from typing import Any, NoReturn

from . import processes
from .capture import Pipe
from .channel import Channel
from .connection import BadConnectionFile, Connection, read_connection
from .failures import NOT_THE_CELL
from .guard import Guard
from .interrupt import Interrupt
from .run import STORE_PATIENCE, CellProcess
from .store import Missing, Store, StoreFault, Tampered

__all__ = ["run_job"]


def run_job(job_id: str, attempt: int) -> int:
    """Run one attempt of a job from its claim to its end.

    Parameters
    ----------
    job_id : str
    attempt : int

    Returns
    -------
    int
        Exit code.
    """
    try:
        connection = read_connection()
    except BadConnectionFile as error:
        print(f"rayoffload: {error}", file=sys.stderr)
        return NOT_THE_CELL
    # Until the claim a stop simply ends this; the folder goes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    home = Path(tempfile.mkdtemp(prefix="rayoffload-job-"))  # mode 0700
    try:
        return _run(connection, job_id, attempt, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(connection: Connection, job_id: str, attempt: int, home: Path) -> int:
    processes.adopt_orphans()
    ours, theirs = multiprocessing.Pipe()
    pipes = [Pipe("stdout", 1), Pipe("stderr", 2)]
    # Forked before the first thread, and before it is known whether this attempt is ours: the cell's process
    # makes itself ready meanwhile.
    parent = os.getpid()
    cell = os.fork()
    if not cell:
        ours.close()
        _be_the_cell(connection, theirs, pipes, home, parent)
    theirs.close()
    store = connection.open_store(STORE_PATIENCE)
    try:
        record = _claim(store, job_id, attempt)
    except (StoreFault, Tampered) as error:
        print(f"rayoffload: job {job_id} cannot be run: {error}", file=sys.stderr)
        return NOT_THE_CELL
    if isinstance(record, str):
        print(f"rayoffload: attempt {attempt} of job {job_id} is not run here: {record}")
        return 0
    impatient = connection.open_store(0.0)
    return Guard(store, impatient, job_id, attempt, record, cell, ours, pipes).run()


def _be_the_cell(connection: Connection, pair: Pair, pipes: list[Pipe], home: Path, parent: int) -> NoReturn:
    """Become the process that executes the cell."""
    try:
        processes.die_with_parent(parent)
        for pipe in pipes:
            pipe.attach()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        interrupt = Interrupt()
        interrupt.install()
        process = CellProcess(connection, Channel(pair, interrupt.shield), interrupt, home)
        try:
            order = pair.recv_bytes()
        except EOFError:  # not ours to run
            os._exit(0)
        process.run(json.loads(order))
    except KeyboardInterrupt:  # stopped before it began; the guard says so
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(NOT_THE_CELL)


def _claim(store: Store, job_id: str, attempt: int) -> dict[str, Any] | str:
    """Take the attempt; give its record, or why it is not to be run."""
    record = store.read(job_id)
    if record is None or "spec" not in record:
        return "the store has no such job"
    state = record.get("state") or {}
    if (state.get("attempt") or 0) > attempt:
        return f"attempt {state['attempt']} has taken its place"
    if (record.get("end") or {}).get("attempt", 0) >= attempt:
        return "it has ended"
    if state.get("phase") == "cancelled":
        return "it was cancelled"
    try:
        taken = store.claim(job_id, attempt, f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}")
    except Missing:
        return "the store has no such job"
    return record if taken else "somebody else has it, or it was taken back"
