"""From the names that a cell reads to all that their values need.

A function of the notebook travels as code: the globals that it loads when it is called have to travel too. So
have those of the methods of a class, of an object's class, and of functions that an object holds.
"""

from __future__ import annotations

import builtins
import dis
import functools
import itertools
import re
import types
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: So many objects are looked at behind one name, and so many elements of one container. What a larger
#: structure hides has to be named with `-i`.
MOST_OBJECTS = 1_000
MOST_ELEMENTS = 200
#: How often a container that changes while it is read is read again.
TRIES = 5
_PACKAGE = __name__.partition(".")[0]

#: What IPython keeps in the notebook's namespace for itself. `_`, `__`, `___` and `_7` are values like
#: others.
_HISTORY = re.compile(r"_i+|_i\d+|_ih|_oh|_dh")
_SHELL_NAMES = {"exit", "quit", "get_ipython", "display", "open"}
_MODULE_NAMES = {
    "__name__",
    "__doc__",
    "__package__",
    "__loader__",
    "__spec__",
    "__builtin__",
    "__builtins__",
}

#: Nothing of the notebook is inside these.
_LEAVES = frozenset({str, bytes, bytearray, int, float, complex, bool, type(None), type(...), range, slice})
#: What names of their own lead to, or what is not changed by a call that is given it.
_NO_DATA = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinMethodType)
_CONTAINERS = (list, tuple, set, frozenset, deque)

_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_STORES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})


@dataclass(frozen=True)
class Reads:
    """What names need.

    Parameters
    ----------
    names : tuple of str
        Names of the namespace that must travel: first those asked for, then those reached through them.
    missing : frozenset of str
        Names asked for that are neither in the namespace nor builtins.
    modules : frozenset of str
        Dotted names of the modules that the values are or come from, or that functions of the notebook
        import.
    writes : frozenset of str
        Globals that functions of the notebook among the values may bind or delete when they are called.
    """

    names: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


def closure(names: Iterable[str], namespace: Mapping[str, Any], unbound: Container[str] = ()) -> Reads:
    """Follow `names` to all that their values need.

    Parameters
    ----------
    names : iterable of str
        Those that a cell reads.
    namespace : Mapping
        The notebook's `user_ns`.
    unbound : container of str
        Names that will be bound: they count as found, and nothing is known of their values.

    Returns
    -------
    Reads
    """
    asked = sorted(names) if isinstance(names, (set, frozenset)) else list(dict.fromkeys(names))
    search = _Search(namespace)
    found: dict[str, None] = {}
    missing = set()
    waiting, known = deque(asked), set(asked)
    while waiting:
        name = waiting.popleft()
        if _is_shells_own(name, namespace):
            continue
        if name in namespace:
            found[name] = None
            fresh = sorted(search.needs(namespace[name]) - known)
            known.update(fresh)
            waiting.extend(fresh)
        elif name in unbound:
            found[name] = None
        elif name in asked and not hasattr(builtins, name):
            missing.add(name)
    return Reads(tuple(found), frozenset(missing), frozenset(search.modules), frozenset(search.writes))


def code_reads(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Give the globals that `code` loads and those that it stores or deletes, nested functions included."""
    reads, writes, _ = _code_names(code)
    return reads, writes


@functools.lru_cache(maxsize=4096)
def _code_names(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Give what `code` reads, writes and imports."""
    reads, writes, modules = set(), set(), set()
    stores = _STORES | {"STORE_NAME", "DELETE_NAME"} if code.co_name == "<module>" else _STORES
    for instruction in dis.get_instructions(code) if code.co_names else ():
        name = instruction.argval
        if instruction.opname in _LOADS:
            reads.add(name)
        elif instruction.opname in stores:
            writes.add(name)
        elif instruction.opname == "IMPORT_NAME" and name:
            modules.add(name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner = _code_names(constant)
            reads |= inner[0]
            writes |= inner[1]
            modules |= inner[2]
    return frozenset(reads), frozenset(writes), frozenset(modules)


def _is_shells_own(name: str, namespace: Mapping[str, Any]) -> bool:
    """Whether `name` is bound by IPython or by Python itself, and not by the notebook."""
    if name in _MODULE_NAMES or _HISTORY.fullmatch(name):
        return True
    if name in ("In", "Out"):
        return namespace.get(name) is namespace.get("_ih" if name == "In" else "_oh")
    return name in _SHELL_NAMES and _home(namespace.get(name)).startswith(("IPython.", "ipykernel."))


def _home(value: Any) -> str:
    """Give the module that a function or an object's class was written in, which `functools.wraps` hides."""
    function = value.__func__ if type(value) is types.MethodType else value
    if type(function) is types.FunctionType:
        return str(function.__globals__.get("__name__"))
    return _module(type(value))


class _Search:
    """Looks through values; `modules` and `writes` are those of :class:`Reads`.

    Attributes are read past properties and `__getattr__`: no code of the values runs.
    """

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self.modules: set[str] = set()
        self.writes: set[str] = set()
        self._namespace = namespace
        self._seen: dict[int, object] = {}  # the objects too: the id of one that is gone may be given again
        self._members: dict[type, list[types.MemberDescriptorType]] = {}

    def needs(self, value: Any) -> set[str]:
        """Give the globals that `value` needs, except those that an object seen before has told."""
        needs = self._names_behind(value)
        waiting, room = deque([value]), MOST_OBJECTS
        while waiting:
            value = waiting.popleft()
            if type(value) in _LEAVES or id(value) in self._seen or _is_ours(value):
                continue
            room -= not self._is_own(value)
            if room < 0:
                break
            self._seen[id(value)] = value
            if issubclass(type(value), types.FunctionType):
                waiting.extend(self._in_function(value, needs))
            elif issubclass(type(value), type):
                waiting.extend(self._in_class(value))
            elif issubclass(type(value), types.ModuleType):
                self._come_from(value.__name__)
            else:
                waiting.extend(self._in_object(value))
        return needs

    def _names_behind(self, value: Any) -> set[str]:
        """Give the names of what a call of `value` may change: ``xs`` for ``add = xs.append``."""
        if type(value) is types.MethodType:  # what it is bound to comes back with it, under all its names
            return set()
        behind = {
            id(v) for v in _behind(value) if type(v) not in _LEAVES and not issubclass(type(v), _NO_DATA)
        }
        if not behind:
            return set()
        return {n for n, v in list(self._namespace.items()) if id(v) in behind and not n.startswith("_")}

    def _is_own(self, value: Any) -> bool:
        """Whether `value` is a function or class of the notebook: it travels as code."""
        if issubclass(type(value), types.FunctionType):
            return value.__globals__ is self._namespace or value.__module__ == "__main__"
        return issubclass(type(value), type) and _module(value) == "__main__"

    def _in_function(self, function: types.FunctionType, needs: set[str]) -> Iterator[object]:
        self._come_from(function.__module__)
        yield from _values(function.__dict__)  # __wrapped__ among them
        for cell in function.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:
                continue  # not bound yet
        if self._is_own(function):
            reads, writes, modules = _code_names(function.__code__)
            needs |= reads
            self.writes |= writes
            self.modules |= modules
            yield from function.__defaults__ or ()
            yield from (function.__kwdefaults__ or {}).values()

    def _in_class(self, cls: type) -> Iterator[object]:
        self._come_from(_module(cls))
        if self._is_own(cls):
            yield type(cls)
            yield from cls.__bases__
            yield from list(vars(cls).values())

    def _in_object(self, value: Any) -> Iterator[object]:
        kind = type(value)
        yield kind
        if kind is types.BuiltinMethodType and type(value.__self__) is not types.ModuleType:
            yield value.__self__
        for base in _CONTAINERS:
            if issubclass(kind, base):
                yield from _some(functools.partial(base.__iter__, value))
        if issubclass(kind, dict):
            yield from _some(lambda: dict.keys(value))
            yield from _values(value)
        try:
            yield from _values(object.__getattribute__(value, "__dict__"))
        except Exception:  # it has none, or a property of that name
            pass
        # Slots, and what the types of C hold: the function of a method, partial or property, a default
        # factory.
        for member in self._members_of(kind):
            try:
                yield member.__get__(value)
            except AttributeError:
                continue  # not set

    def _members_of(self, kind: type) -> list[types.MemberDescriptorType]:
        if kind not in self._members:
            self._members[kind] = [
                member
                for cls in kind.__mro__
                for member in list(vars(cls).values())
                if isinstance(member, types.MemberDescriptorType)
            ]
        return self._members[kind]

    def _come_from(self, module: object) -> None:
        if isinstance(module, str) and module not in ("", "builtins", "__main__"):
            self.modules.add(module)


def _behind(value: Any) -> Iterator[Any]:
    """Give the objects that a bound method or a partial passes to what it calls."""
    if issubclass(type(value), functools.partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield part
            yield from _behind(part)
    elif type(value) in (types.MethodType, types.BuiltinMethodType):
        yield value.__self__


def _values(attributes: dict[Any, Any]) -> list[Any]:
    return _some(lambda: dict.values(attributes))


def _some(elements: Callable[[], Iterable[Any]]) -> list[Any]:
    """Give the first elements of a container that another thread may be changing."""
    for _ in range(TRIES):
        try:
            return list(itertools.islice(elements(), MOST_ELEMENTS))
        except RuntimeError:  # changed during iteration
            continue
    return []


def _is_ours(value: Any) -> bool:
    """Whether `value` is a handle of a job or the like: nothing of the notebook is behind it."""
    return _module(type(value)).partition(".")[0] == _PACKAGE


def _module(cls: type) -> str:
    module = vars(cls).get("__module__", cls.__module__)
    return module if isinstance(module, str) else ""
