"""Stopping a cell gracefully: one KeyboardInterrupt, wherever it is."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

__all__ = ["Interrupt"]

_T = TypeVar("_T")

#: How long tasks that the cell left behind may take to end, seconds.
LEFTOVER_SECONDS = 1.0
#: After this an interrupt that Python ignored comes again; whatever ignored it has ended, seconds.
AGAIN_SECONDS = 0.1


class Interrupt:
    """Makes the first SIGINT or SIGTERM a KeyboardInterrupt of the cell, and runs its coroutine.

    Ray's stop sends SIGTERM to every process of the job, and the guard may send SIGINT as well: a second
    interrupt would end the ``finally`` blocks that the first one started, so only the first counts. It comes
    again only if Python ignored it, as it ignores every exception of a ``__del__`` or of a callback from C:
    then it has started nothing.
    """

    def __init__(self) -> None:
        self.came = False
        self._shields = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._report = sys.unraisablehook

    def install(self) -> None:
        """Take both signals, in this process alone: a forked child dies of them as it would anywhere."""
        signal.signal(signal.SIGINT, self.handle)
        signal.signal(signal.SIGTERM, self.handle)
        self._report, sys.unraisablehook = sys.unraisablehook, self._on_ignored
        os.register_at_fork(after_in_child=self._in_forked_child)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the cell; the handler of both signals."""
        if self.came:
            return
        self.came = True
        if self._shields:
            return
        self._raise()

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """Put an interrupt off until the end of the block; the main thread alone is interrupted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = self.came
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self.came and not before and not self._shields:
            self._raise()

    def _raise(self) -> None:
        loop, task = self._loop, self._task
        if loop is None or task is None or asyncio.current_task(loop) is not None:
            raise KeyboardInterrupt
        # The cell awaits: nothing of it is on the stack, so its task is cancelled where it waits.
        loop.call_soon_threadsafe(task.cancel)

    def _on_ignored(self, ignored: sys.UnraisableHookArgs) -> None:
        """Take an exception that Python ignores; all but our own are reported as ever."""
        if self.came and issubclass(ignored.exc_type, KeyboardInterrupt):
            # Later, and from another thread: raised here it would be ignored as well.
            _thread.start_new_thread(self._come_again, ())
        else:
            self._report(ignored)

    def _come_again(self) -> None:
        time.sleep(AGAIN_SECONDS)
        self.came = False
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run `coroutine` in an event loop of its own until it ends, interrupted or not.

        As in a kernel, the loop runs already when the cell starts: ``asyncio.create_task`` works in it.
        """
        loop = self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        task: asyncio.Task[_T] = loop.create_task(coroutine)
        self._task = task
        try:
            try:
                return loop.run_until_complete(task)
            except KeyboardInterrupt:  # in another task of the cell
                if task.done():
                    raise
                task.cancel()
                return loop.run_until_complete(task)
        finally:
            self._task = None
            _end_leftovers(loop)

    def close(self) -> None:
        """Close the loop of the last :meth:`run`: ten thousand of them would use up the process's files."""
        if self._loop is not None and not self._loop.is_running():
            asyncio.set_event_loop(None)
            self._loop.close()
            self._loop = None

    def _in_forked_child(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.came = False  # an interrupt that the child ignores is not the cell's


def _end_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what the cell started with ``create_task`` and did not wait for."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=LEFTOVER_SECONDS))
    loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), LEFTOVER_SECONDS))
