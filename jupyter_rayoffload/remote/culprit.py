"""Where in a value the part is that cannot travel, and what it is, in a user's words."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import functools
import io
import json
import pickle
import socket
import subprocess
import threading
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from .libraries import package_of
from .pickling import Refused, Writer
from .rebuild import class_dict

__all__ = ["explain"]

#: Objects that are looked at for a path, at most.
LIMIT = 200_000
#: Beyond this a path is no help to a reader.
DEPTH = 60

_WORDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((io.IOBase,), "an open file"),
    ((type(threading.Lock()), type(threading.RLock())), "a thread lock"),
    ((types.GeneratorType, types.AsyncGeneratorType), "a generator"),
    ((types.CoroutineType,), "a coroutine"),
    ((types.FrameType, types.TracebackType), "a traceback or frame"),
    ((threading.Thread,), "a thread"),
    ((subprocess.Popen,), "a running process"),
    ((socket.socket,), "a network socket"),
    ((asyncio.Future,), "an asyncio task or future"),
    ((asyncio.AbstractEventLoop,), "an event loop"),
    ((concurrent.futures.Future,), "a future"),
    ((concurrent.futures.Executor,), "a pool of workers"),
    ((weakref.ReferenceType,), "a weak reference"),
)
_DATABASES = frozenset(
    "sqlite3 psycopg psycopg2 psycopg_binary pymysql MySQLdb mysql duckdb _duckdb sqlalchemy redis pymongo "
    "snowflake oracledb pyodbc clickhouse_connect clickhouse_driver trino asyncpg cassandra".split()
)
_CONNECTIONS = ("Connection", "Cursor", "Session", "Engine", "Client", "Redis", "Pool")


class _Tracker(Writer):
    """Pickles again, remembering the object that it was at."""

    last: Any = None

    def reducer_override(self, obj: Any) -> Any:
        self.last = obj
        return super().reducer_override(obj)


class _Sink:
    def write(self, data: Any) -> int:
        return len(data)


def explain(name: str, value: Any, namespace: dict[str, Any], error: BaseException) -> tuple[str, str]:
    """Find what in `value` cannot be pickled.

    Parameters
    ----------
    name : str
        What the notebook calls the value; the path begins with it.
    value : object
    namespace : dict
    error : BaseException
        What pickling raised.

    Returns
    -------
    tuple of str
        Path (``config["sources"][2].handle``) and reason (``an open file``).
    """
    if isinstance(error, RecursionError) or isinstance(error.__context__, RecursionError):
        return name, "it is nested too deeply"
    tracker = _Tracker(_Sink(), namespace, lambda _: False)
    with contextlib.suppress(Exception):
        tracker.dump(value)
        return name, _text(error)
    culprit = tracker.last
    path = _path(name, value, culprit, namespace) if culprit is not None else None
    return path or name, _words(culprit) or _text(error)


def _words(value: Any) -> str:
    for kinds, words in _WORDS:
        if isinstance(value, kinds):
            return words
    kind = type(value)
    if package_of(kind) in _DATABASES and kind.__name__.endswith(_CONNECTIONS):
        return "a database connection"
    return ""


def _text(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, (Refused, pickle.PicklingError, TypeError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _path(name: str, value: Any, culprit: Any, namespace: dict[str, Any]) -> str | None:
    """Search breadth first, so that the path is the shortest one."""
    queue: collections.deque[tuple[str, Any, int]] = collections.deque([(name, value, 0)])
    seen: dict[int, Any] = {}
    while queue and len(seen) < LIMIT:
        path, value, depth = queue.popleft()
        if value is culprit:
            return path
        if id(value) in seen or depth > DEPTH:
            continue
        seen[id(value)] = value  # holds it, so that the id stays its own
        with contextlib.suppress(Exception):  # a property or __reduce__ of the user's may raise anything
            parts = ((step, part) for step, part in _parts(value, namespace) if not _is_plain(part))
            queue.extend((path + step, part, depth + 1) for step, part in parts)
    return None


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float, complex))


def _parts(value: Any, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"[{_key(key)}]", item
            yield " (a key)", key
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((f".{field}", item) for field, item in zip(value._fields, value, strict=False))
    elif isinstance(value, (list, tuple, collections.deque)):
        yield from ((f"[{n}]", item) for n, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((" (an element)", item) for item in value)
    elif isinstance(value, types.FunctionType):
        yield from _function_parts(value, namespace)
    elif isinstance(value, type):
        yield from ((f".{name}", item) for name, item in class_dict(value).items())
    elif isinstance(value, (classmethod, staticmethod, types.MethodType)):
        yield "", value.__func__
        if isinstance(value, types.MethodType):
            yield ".__self__", value.__self__
    elif isinstance(value, property):
        yield from ((f".{name}", getattr(value, name)) for name in ("fget", "fset", "fdel"))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    if isinstance(value, BaseException):
        yield from (
            (".args", value.args),
            (".__cause__", value.__cause__),
            (".__context__", value.__context__),
        )
    if not isinstance(value, (type, types.ModuleType)):
        yield from _attributes(value)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f".{name}", item) for name, item in getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{kind.__name__.lstrip('_')}{slot}" if slot.startswith("__") else slot
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)
    if type(value).__module__ != "builtins" and not isinstance(value, type):
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, tuple):
            yield from (("", part) for part in reduced[1:3])
            yield from (
                (f"[{n}]", part) for n, part in enumerate(reduced[3] or () if len(reduced) > 3 else ())
            )


def _function_parts(function: types.FunctionType, namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        with contextlib.suppress(ValueError):
            yield f" (its variable {name})", cell.cell_contents
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield " (a default)", default
    scope = {} if function.__globals__ is namespace else function.__globals__
    yield from ((f" (its global {name})", scope[name]) for name in code.co_names if name in scope)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return (
            json.dumps(key, ensure_ascii=False)
            if len(key) <= 60
            else json.dumps(key[:60] + "…", ensure_ascii=False)
        )
    text = repr(key) if isinstance(key, (int, float, bytes, tuple)) else type(key).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"
