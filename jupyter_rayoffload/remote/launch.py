"""The beginning of a runner: its credentials, and its two processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
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
from .standby import CellHandle, Job, Waiting, claim
from .store import StoreFault, Tampered

__all__ = ["run_job", "stand_by"]


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
    return _at_home(lambda connection, home: _run(connection, job_id, attempt, home))


def stand_by(standby: str) -> int:
    """Make a runner ready, wait for a job, and run it.

    Parameters
    ----------
    standby : str
        Id of the standby, by which the store has its plan.

    Returns
    -------
    int
        Exit code: that of the job, or 0 where none came.
    """
    return _at_home(lambda connection, home: _stand_by(connection, standby, home))


def _at_home(run: Callable[[Connection, Path], int]) -> int:
    """Run something with the cluster's credentials and a folder of its own."""
    try:
        connection = read_connection()
    except BadConnectionFile as error:
        print(f"rayoffload: {error}", file=sys.stderr)
        return NOT_THE_CELL
    # Until the claim a stop simply ends this; the folder goes.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    home = Path(tempfile.mkdtemp(prefix="rayoffload-job-"))  # mode 0700
    try:
        return run(connection, home)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(connection: Connection, job_id: str, attempt: int, home: Path) -> int:
    # Forked before it is known whether this attempt is ours: the cell's process makes itself ready meanwhile.
    cell = _fork(connection, home)
    store, impatient = connection.open_store(STORE_PATIENCE), connection.open_store(0.0)
    try:
        record = claim(store, job_id, attempt)
    except (StoreFault, Tampered) as error:
        print(f"rayoffload: job {job_id} cannot be run: {error}", file=sys.stderr)
        return NOT_THE_CELL
    if isinstance(record, str):
        print(f"rayoffload: attempt {attempt} of job {job_id} is not run here: {record}")
        return 0
    return Guard(store, impatient, cell).run(Job(job_id, attempt, record))


def _stand_by(connection: Connection, standby: str, home: Path) -> int:
    with connection.open_store(STORE_PATIENCE) as store:
        try:
            plan = store.handovers.plan(standby)
        except (StoreFault, Tampered) as error:
            print(f"rayoffload: {standby} is not needed: {error}")
            return 0
    cell = _fork(connection, home, plan)
    store, impatient = connection.open_store(STORE_PATIENCE), connection.open_store(0.0)
    guard = Guard(store, impatient, cell)
    try:
        guard.rehearse()
        job = Waiting(store, standby, plan, cell).job()
    except (StoreFault, Tampered) as error:
        print(f"rayoffload: {standby} waits no longer: {error}", file=sys.stderr)
        return NOT_THE_CELL
    if job is None:
        return 0
    return guard.run(job)


def _fork(connection: Connection, home: Path, plan: dict[str, Any] | None = None) -> CellHandle:
    """Start the process that executes the cell, before this one has its first thread."""
    processes.adopt_orphans()
    ours, theirs = multiprocessing.Pipe()
    pipes = [Pipe("stdout", 1), Pipe("stderr", 2)]
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        ours.close()
        _be_the_cell(connection, theirs, pipes, home, parent, plan)
    theirs.close()
    return CellHandle(pid, ours, pipes)


def _be_the_cell(
    connection: Connection,
    pair: Pair,
    pipes: list[Pipe],
    home: Path,
    parent: int,
    plan: dict[str, Any] | None,
) -> NoReturn:
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
        if plan is not None:
            process.prepare(plan)
        try:
            while spec := pair.recv_bytes():
                process.expect(json.loads(spec))
        except EOFError:  # not ours to run
            os._exit(0)
        process.run()
    except KeyboardInterrupt:  # stopped before it began; the guard says so
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(NOT_THE_CELL)
