"""Signs of life to the store, and requests to stop from it, on a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .publisher import Publisher
from .store import Store, StoreFault, Tampered

__all__ = ["BEAT_SECONDS", "Pulse"]

#: Between two signs of life, seconds.
BEAT_SECONDS = 5.0
#: Between two looks for a request to stop, seconds.
LOOK_SECONDS = 1.0


class Pulse:
    """Beats while the job runs.

    Parameters
    ----------
    store : Store
        One with little patience: a beat that comes late is no beat.
    job_id : str
    publisher : Publisher
    on_stop : callable
        Called once, with the request, when somebody asks for the job to be stopped.
    """

    def __init__(
        self, store: Store, job_id: str, publisher: Publisher, on_stop: Callable[[dict[str, Any]], None]
    ) -> None:
        self._store, self._job_id = store, job_id
        self._publisher, self._on_stop = publisher, on_stop
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rayoffload-pulse", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; does not wait for a look that is under way."""
        self._over.set()

    def _run(self) -> None:
        beat = time.monotonic() + BEAT_SECONDS
        asked = False
        while not self._over.wait(LOOK_SECONDS):
            try:
                request = None if asked else self._store.stop_requested(self._job_id)
                if request is not None:
                    asked = True
                    self._on_stop(request)
                if time.monotonic() >= beat:
                    beat = time.monotonic() + BEAT_SECONDS
                    self._publisher.beat()
                    self._store.touch(self._job_id)
            except (StoreFault, Tampered):
                continue  # away, or deleted under us: the cell goes on, and a stop that nobody signed is none
