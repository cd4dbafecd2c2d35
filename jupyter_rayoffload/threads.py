"""Threads for the store's calls, so that those of the loop stay free for what such a call may wait for.

Where the store is reached by port-forward, the loop makes the connection, and needs a thread for that: to
look up a host, to read a file. Calls that wait for the connection must not hold all of them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["in_store_thread"]

_T = TypeVar("_T")
_THREADS = 16
#: By loop: a forked process has a new one, and none of the threads of the old one.
_pools: WeakKeyDictionary[asyncio.AbstractEventLoop, ThreadPoolExecutor] = WeakKeyDictionary()


async def in_store_thread(call: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Run a call of the store in a thread, as ``asyncio.to_thread`` would.

    Parameters
    ----------
    call : callable
    *args, **kwargs
        What it is called with.
    """
    loop = asyncio.get_running_loop()
    pool = _pools.get(loop)
    if pool is None:
        pool = _pools[loop] = ThreadPoolExecutor(_THREADS, "rayoffload-store")
    return await loop.run_in_executor(pool, partial(contextvars.copy_context().run, call, *args, **kwargs))
