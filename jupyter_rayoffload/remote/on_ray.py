"""The cell's own connection to Ray: made by the cell, or ahead of it; what Ray's workers print; its end."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .stream import CellStream

__all__ = ["await_workers", "bind_workspace", "connect_ahead", "lasting_connection"]

#: Ray's log monitor looks every 0.1 s (ray/_private/log_monitor.py); after such a silence nothing comes.
WORKER_LOG_PAUSE = 0.3
#: How long prints of workers are waited for at most, seconds.
WORKER_LOG_SECONDS = 3.0
#: What may be asked of a connection that is there already.
_INDIFFERENT = {"ignore_reinit_error", "logging_level"}
#: What Ray writes into a worker's log itself (LOG_PREFIX_* of ray/_private/ray_constants.py), and how much of
#: that is read at most, bytes.
_NOTES = (b":job_id:", b":task_name:", b":actor_name:")
_NOTED = 1 << 16
#: How long a first worker may take, seconds; on a cluster that is full there is none.
WORKER_SECONDS = 10.0


class _Ahead:
    """What was arranged before the cell began."""

    connected = False
    workspace = ""  # Ray's name of the workers' package, if the job was submitted without one


def bind_workspace(uri: str) -> None:
    """Let Ray's workers have this package (``gcs://…``) as their folder, once the cell connects."""
    _Ahead.workspace = uri


def connect_ahead() -> None:
    """Join Ray, and have one worker process ready."""
    import ray

    ray.init()
    _Ahead.connected = True
    # It takes no CPU, which a job may be waiting for.
    ready = ray.remote(num_cpus=0)(_nothing).remote()
    ray.wait([ready], timeout=WORKER_SECONDS)


def _nothing() -> None:
    """Do nothing, in a worker."""


def lasting_connection(ray: Any) -> None:
    """Let ``ray.init()`` find the connection that is there, and leave the signals to us."""
    init = ray.init

    @functools.wraps(init)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        asks = bool(args or kwargs.keys() - _INDIFFERENT)
        kwargs.setdefault("ignore_reinit_error", True)
        if _Ahead.connected and ray.is_initialized():
            _Ahead.connected = False  # from now on it is the cell's own
            if not asks:
                with _unremarked():
                    return init(**kwargs)
            ray.shutdown()  # the cell wants it otherwise
        if _Ahead.workspace:
            own = dict(kwargs.get("runtime_env") or {})
            kwargs["runtime_env"] = {"working_dir": _Ahead.workspace, **own}
        main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            return init(*args, **kwargs)
        finally:
            # Ray's own handler exits; ours interrupts the cell once, and lets its `finally` blocks end.
            if main:
                signal.signal(signal.SIGTERM, before)

    ray.init = wrapped


@contextlib.contextmanager
def _unremarked() -> Iterator[None]:
    """Keep Ray from remarking that it was joined before: the cell did not do that."""
    logger = logging.getLogger("ray._private.worker")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def await_workers() -> None:
    """Wait for what Ray's workers have printed: it comes by the log monitor of their node, a little later."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or _all_silent(ray):
        return
    deadline, seen = time.monotonic() + WORKER_LOG_SECONDS, -1
    while (now := CellStream.listen()) != seen and time.monotonic() < deadline:
        seen = now
        time.sleep(WORKER_LOG_PAUSE)


def _all_silent(ray: Any) -> bool:
    """Whether no worker of this job has printed anything, where that can be known at once: on one node."""
    with contextlib.suppress(Exception):
        worker = ray._private.worker.global_worker
        if sum(node["Alive"] for node in ray.nodes()) != 1:
            return False
        logs = Path(worker.node.get_logs_dir_path())
        job = worker.current_job_id.hex()
        # worker-WORKER-JOB-PID.out (ray/_private/services.py); one that has yet to begin has no file.
        return all(_silent(path) for path in logs.glob(f"worker-*-{job}-*.*"))
    return False


def _silent(path: Path) -> bool:
    """Whether a worker's log has nothing but what Ray notes there for its log monitor."""
    with open(path, "rb") as file:
        text = file.read(_NOTED + 1)
    return len(text) <= _NOTED and all(line.startswith(_NOTES) for line in text.splitlines())
