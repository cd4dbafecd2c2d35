"""Loaded into each kernel: ``%probe`` prints what the notebook's names are bound to, as comparable JSON.

It is a magic, and reads the shell's namespace, so that it leaves no name of its own in the notebook.
"""

from __future__ import annotations

import collections
import copy
import enum
import functools
import hashlib
import json
import re
import sys
import types
import weakref
from typing import Any

#: Libraries whose objects are compared by type alone: what they look like is compared as an output.
OPAQUE = frozenset({"IPython", "PIL", "matplotlib", "plotly"})
#: What scikit-learn measures.
TIMED = re.compile(r"(fit|score)_time_?$")
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
ATOMS = (
    type(None),
    bool,
    int,
    float,
    complex,
    type(Ellipsis),
    type(NotImplemented),
    range,
    slice,
    re.Pattern,
)
#: What the interpreter itself puts into a class body; differs between versions and says nothing.
CLASS_NOISE = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"}) | {
    "__static_attributes__",
    "__abstractmethods__",
    "_abc_impl",
    "__annotations_cache__",
    "__annotate_func__",
    "__slotnames__",  # copyreg remembers here what it found when an instance was copied or pickled
}


def load_ipython_extension(shell: Any) -> None:
    """Register ``%probe``."""

    def probe(line: str) -> None:
        print(json.dumps(Describer(shell.user_ns).names(line.split())))

    shell.register_magic_function(probe, "line", "probe")


class Describer:
    """Describe objects; one that is met again is ``same as #n``, so that identity is compared too."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.seen: dict[int, int] = {}
        self.kept: list[Any] = []  # an id is only an identity while its object lives

    def names(self, asked: list[str]) -> dict[str, Any]:
        """Describe the public names of the notebook and those `asked` for, in the order of the alphabet."""
        out: dict[str, Any] = {}
        public = {
            name
            for name, value in self.namespace.items()
            if not name.startswith("_") and name not in ("In", "Out", "exit", "quit", "get_ipython", "open")
        }
        for name in sorted(public | set(asked) - {"!error"}):
            out[name] = self.of(self.namespace[name]) if name in self.namespace else "unbound"
        if "!error" in asked:
            out["!error"] = self.error(getattr(sys, "last_value", None))
        return out

    def of(self, value: Any) -> Any:
        """Describe one object."""
        if isinstance(value, ATOMS) and type(value) in ATOMS:
            return [type(value).__name__, repr(value)]
        if type(value) in (str, bytes):
            return [type(value).__name__, repr(value) if len(value) < 500 else _digest(repr(value).encode())]
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if isinstance(value, types.GenericAlias) or type(value).__module__ == "typing":
            return ["type", repr(value)]
        if isinstance(value, type) and value.__module__ != "__main__":
            return ["class", value.__module__, value.__qualname__]
        if type(value) is tuple and all(type(item) in (*ATOMS, str, bytes) for item in value):
            return ["tuple", [self.of(item) for item in value]]  # a constant, perhaps: it has no identity
        if id(value) in self.seen:
            return f"same as #{self.seen[id(value)]}"
        self.seen[id(value)] = number = len(self.seen)
        self.kept.append(value)
        return {"#": number, "type": self.kind(type(value)), **self.inside(value)}

    def kind(self, cls: type) -> Any:
        """Name a class; one of the notebook by what it is bound to there."""
        name = f"{cls.__module__}.{cls.__qualname__}"
        if cls.__module__ != "__main__":
            return name
        bound = sorted(n for n, v in self.namespace.items() if v is cls and not n.startswith("_"))
        return [name, "bound to", bound]

    def inside(self, value: Any) -> dict[str, Any]:
        """Describe the parts of an object that is met for the first time."""
        if type(value).__module__.partition(".")[0] in OPAQUE:
            return {}
        for types_, how in INSIDE:
            if isinstance(value, types_):
                return dict(how(self, value))
        by_library = _numpy(self, value) or _pandas(value)
        if by_library is not None:
            return by_library
        return self.instance(value)

    def mapping(self, value: Any) -> dict[str, Any]:
        pairs = [[self.of(k), "a time" if TIMED.search(str(k)) else self.of(v)] for k, v in value.items()]
        return {"items": pairs, **self.attributes(value)}

    def sequence(self, value: Any) -> dict[str, Any]:
        return {"items": [self.of(v) for v in value], **self.attributes(value)}

    def unordered(self, value: Any) -> dict[str, Any]:
        return {"items": [self.of(v) for v in sorted(value, key=repr)], **self.attributes(value)}

    def function(self, value: Any) -> dict[str, Any]:
        cells = [c.cell_contents if _filled(c) else Ellipsis for c in value.__closure__ or ()]
        return {
            "name": value.__qualname__,
            "module": value.__module__,
            "code": _code(value.__code__),
            "defaults": self.of([value.__defaults__, value.__kwdefaults__]),
            "closure": [self.of(c) for c in cells],
            "globals are the notebook's": value.__globals__ is self.namespace,
            "annotations": {k: ADDRESS.sub("0x", repr(v)) for k, v in value.__annotations__.items()},
            **self.attributes(value),
        }

    def method(self, value: Any) -> dict[str, Any]:
        return {"function": value.__func__.__qualname__, "self": self.of(value.__self__)}

    def partial(self, value: Any) -> dict[str, Any]:
        return {"call": [self.of(value.func), self.of(value.args), self.of(value.keywords)]}

    def member(self, value: Any) -> dict[str, Any]:
        return {
            "name": value.name,
            "value": self.of(value.value),
            "the class's own": type(value)(value.value) is value,
        }

    def cls(self, value: Any) -> dict[str, Any]:
        shown = {k: v for k, v in vars(value).items() if k not in CLASS_NOISE}
        if isinstance(value, enum.EnumMeta):  # the rest is bookkeeping of the enum module
            shown = {k: v for k, v in shown.items() if not k.startswith("_")}
            shown.update(value.__members__)
        body = {k: self.of(v) for k, v in sorted(shown.items())}
        return {"name": self.kind(value), "bases": [self.of(b) for b in value.__bases__], "body": body}

    def wrapper(self, value: Any) -> dict[str, Any]:
        parts = ("__func__", "fget", "fset", "fdel", "__wrapped__")
        return {part: self.of(getattr(value, part)) for part in parts if getattr(value, part, None)}

    def error(self, value: Any) -> Any:
        """Describe an exception with all that hangs on it, but without its traceback."""
        if not isinstance(value, BaseException):
            return self.of(value)
        return {
            "type": self.kind(type(value)),
            "text": ADDRESS.sub("0x", str(value)),
            "args": [self.of(a) for a in value.args],
            "attributes": self.attributes(value),
            "notes": getattr(value, "__notes__", []),
            "cause": value.__cause__ and self.error(value.__cause__),
            "context": value.__context__ and self.error(value.__context__),
            "suppressed": value.__suppress_context__,
        }

    def instance(self, value: Any) -> dict[str, Any]:
        state = self.attributes(value)
        if state:
            return state
        if type(value).__module__ == "builtins" and type(value).__name__.endswith("_iterator"):
            return {"yields": [self.of(item) for item in copy.copy(value)]}
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:
            return {"repr": ADDRESS.sub("0x", repr(value))}
        parts = reduced if isinstance(reduced, tuple) else (reduced,)
        return {"made by": [self.of(list(p) if _is_iterator(p) else p) for p in parts if not callable(p)]}

    def attributes(self, value: Any) -> dict[str, Any]:
        found = dict(getattr(value, "__dict__", {}))
        for cls in type(value).__mro__:
            slots = vars(cls).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                if cls.__module__ == "__main__" and hasattr(value, slot):
                    found[slot] = getattr(value, slot)
        hidden: tuple[str, ...] = ("__wrapped__",) if isinstance(value, types.FunctionType) else ()
        hidden += tuple(name for name in found if TIMED.search(name))
        shown = {k: self.of(v) for k, v in sorted(found.items()) if k not in hidden}
        return {"attributes": shown} if shown else {}


INSIDE: list[tuple[Any, Any]] = [
    # A cache: what is in it says who has asked before.
    (weakref.WeakKeyDictionary, lambda describer, value: {}),
    (enum.Enum, Describer.member),
    (BaseException, Describer.error),
    ((dict, types.MappingProxyType), Describer.mapping),
    ((list, tuple, collections.deque), Describer.sequence),
    ((set, frozenset), Describer.unordered),
    (types.FunctionType, Describer.function),
    (types.MethodType, Describer.method),
    (functools.partial, Describer.partial),
    (type, Describer.cls),
    ((classmethod, staticmethod, property, functools._lru_cache_wrapper), Describer.wrapper),
]


def _numpy(describer: Describer, value: Any) -> dict[str, Any] | None:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, (numpy.random.Generator, numpy.random.RandomState)):
        source = getattr(value, "bit_generator", value)
        state = source.state if hasattr(source, "state") else value.get_state()
        return {"state": _digest(repr(state).encode())}
    if isinstance(value, numpy.ndarray):
        if value.dtype == object:
            return {"shape": list(value.shape), "items": [describer.of(v) for v in value.ravel()]}
        # Records may have gaps between their fields, and what is in those is anything.
        data = repr(value.tolist()).encode() if value.dtype.names else value.tobytes()
        return {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            # Of one dimension it is no order but whether there are gaps, and those do not travel.
            "order": [bool(value.flags.c_contiguous), bool(value.flags.f_contiguous)][: value.ndim - 1],
            "writeable": bool(value.flags.writeable),
            "data": repr(value.tolist()) if value.size <= 20 else _digest(data),
        }
    return {"value": repr(value)} if isinstance(value, numpy.generic) else None


def _pandas(value: Any) -> dict[str, Any] | None:
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return None
    if isinstance(value, (pandas.DataFrame, pandas.Series)):
        frame = value.to_frame() if isinstance(value, pandas.Series) else value
        return {
            "dtypes": [str(d) for d in frame.dtypes],
            "index": [repr(value.index), str(value.index.name)],
            "columns": repr(list(frame.columns)),
            "values": _digest(frame.to_csv().encode()),
            "attrs": repr(value.attrs),
        }
    if isinstance(value, (pandas.Index, pandas.api.extensions.ExtensionArray, pandas.Timestamp)):
        return {"repr": repr(value)}
    return None


def _code(code: types.CodeType) -> str:
    inner = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return _digest(repr([code.co_code, code.co_names, code.co_varnames, code.co_freevars, inner]).encode())


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _is_iterator(value: Any) -> bool:
    return hasattr(value, "__next__")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
