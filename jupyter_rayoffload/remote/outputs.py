"""What the cell assigned, changed and deleted, found by comparing the namespace before and after."""

from __future__ import annotations

import ast
import re
import sys
import types
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from .codec import fingerprint
from .memory import sharing
from .parts import has_identity, shared

__all__ = ["OWN_NAMES", "Before", "bound_by_definition", "imports_of"]

#: IPython's own names (prompts and their caches), and Python's own.
OWN_NAMES = (
    r"_+|_i+|_i?\d+|In|Out|_oh|_dh|_ih|_exit_code|exit|quit|get_ipython|"
    r"__(name|doc|file|package|loader|spec|path|cached|builtins?|annotations|conditional_annotations|"
    r"warningregistry|session)__"
)
_OWN = re.compile(OWN_NAMES)
#: Results of earlier cells: values like others, but names that IPython alone binds.
_RESULT = re.compile(r"_{1,3}|_\d+")


class Before:
    """The namespace as it was before the cell.

    Parameters
    ----------
    namespace : dict
        The runner's own.
    inputs : collection of str
        Names that were sent.
    maybe : collection of str
        Inputs that the cell may change in place: they count as changed if their pickle differs afterwards.
    tree : ast.Module, optional
        The cell; None if it has a syntax error.
    aliased : collection of str
        Inputs that the notebook knows by another name, too.
    deletes : collection of str
        Names that the notebook has, that did not travel, and that the cell may delete.
    """

    def __init__(
        self,
        namespace: dict[str, Any],
        inputs: Collection[str] = (),
        maybe: Collection[str] = (),
        tree: ast.Module | None = None,
        aliased: Collection[str] = (),
        deletes: Collection[str] = (),
    ) -> None:
        self._namespace, self._aliased = namespace, frozenset(aliased)
        self._absent = [name for name in deletes if name not in namespace]
        namespace.update(dict.fromkeys(self._absent, _ABSENT))
        self._values = {name: _hold(value) for name, value in namespace.items()}
        self._inputs = frozenset(inputs)
        self._certain = _surely_assigned(tree) if tree else frozenset[str]()
        # `import xml.etree` changes the module that `xml` is bound to.
        self._certain |= {name.partition(".")[0] for name in _dotted_imports(tree)}
        self._touched = _touched(tree) if tree else frozenset[str]()
        # What the cell surely assigns needs no fingerprint; one costs a pass over the whole value. What it
        # stores elsewhere does: an output that holds it shall hold the notebook's own, if that is unchanged.
        wanted = {n for n in maybe if n not in self._certain} | self._aliased
        wanted |= _stored(tree) if tree else set()
        # `row[0] = 7` changes `grid`, too, if `row` is a part of it.
        changing = (set(maybe) | self._certain | self._touched) & self._inputs
        if changing:
            sent = {name: namespace[name] for name in self._inputs if name in namespace}
            wanted |= sharing(sent, changing)
        self._prints = {
            name: self._print(namespace[name])
            for name in sorted(wanted)
            if name in namespace and name in self._inputs
        }

    def changed(self) -> list[str]:
        """Give the names that the cell bound, rebound or changed, in the order of the namespace."""
        return [n for n, v in list(self._namespace.items()) if not _OWN.fullmatch(n) and self._differs(n, v)]

    def in_place(self, names: Collection[str]) -> list[str]:
        """Give those of `names` that are still bound to the very object that was sent."""
        held = self._values
        return [
            n for n in names if n in self._inputs and n in held and held[n]() is self._namespace.get(n, self)
        ]

    def same_as(self, name: str) -> str | None:
        """Give the input whose unchanged object `name` is bound to now: it need not travel back."""
        value = self._namespace.get(name, self)
        for other in sorted(self._inputs & self._values.keys()):
            if self._values[other]() is value:
                if other in self._prints:
                    return other if self._prints[other] == self._print(value) else None
                return None if other in self._touched else other
        return None

    def unchanged(self) -> dict[str, Any]:
        """Give the inputs that another value may hold and that are surely as they were sent."""
        found: dict[str, Any] = {}
        for name, print_ in self._prints.items():
            value = self._values[name]()
            if print_ is not None and has_identity(value) and self._print(value) == print_:
                found[name] = value
        return found

    def parts_of(
        self, names: Collection[str], values: Collection[Any], as_sent: Callable[[str], Any]
    ) -> dict[str, Any]:
        """Give the objects inside unchanged inputs that `values` hold or are.

        Parameters
        ----------
        names : collection of str
            The inputs that count.
        values : collection of object
        as_sent : callable
            Gives a fresh copy of an input, to compare with where it was not known that this would matter.

        Returns
        -------
        dict of str to object
            By :attr:`.parts.Part.key`.
        """
        inputs = {n: value for n in names if n in self._values and (value := self._values[n]()) is not None}
        found = shared({n: v for n, v in inputs.items() if has_identity(v)}, values)
        prints: dict[str, bytes | None] = {}
        for name in {part.name for part in found}:
            now = self._print(inputs[name])
            before = self._prints[name] if name in self._prints else self._print(as_sent(name))
            prints[name] = now if now == before else None
        known = {replace(part, print=(prints[part.name] or b"").hex()): item for part, item in found.items()}
        return {part.key: item for part, item in known.items() if part.print}

    def replaced(self) -> dict[str, Any]:
        """Give the inputs that the cell changed in place before it bound their names anew.

        Results of earlier cells, such as ``_``, are among them: their names do not come back by themselves.
        """
        found: dict[str, Any] = {}
        results = {name for name in self._prints if _RESULT.fullmatch(name)}
        for name in sorted(self._aliased & self._prints.keys() | results):
            value = self._values[name]()
            if value is not None and (name in results or self._namespace.get(name) is not value):
                if self._print(value) != self._prints[name]:
                    found[name] = value
        return found

    def deleted(self) -> list[str]:
        """Give the names of the notebook that the cell deleted."""
        had = (self._inputs & self._values.keys()) | set(self._absent)
        return sorted(n for n in had if n not in self._namespace)

    def _differs(self, name: str, value: Any) -> bool:
        if name not in self._values or self._values[name]() is not value:
            return True
        # Same object: `xs += [1]` and `df = grow(df)` may have changed it in place.
        if name in self._inputs and name in self._certain:
            return True
        return name in self._prints and self._prints[name] != self._print(value)

    def _print(self, value: Any) -> bytes | None:
        try:
            return fingerprint(value, self._namespace)
        except Exception:  # what cannot be pickled cannot be compared; nor could it travel
            return None


def _hold(value: Any) -> Callable[[], Any]:
    """Remember an object without keeping it alive where that is possible: the cell may drop a large one."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def _surely_assigned(tree: ast.Module) -> frozenset[str]:
    """Give the names that the cell's own statements assign, by name or by item, outside any branch."""
    names = set()
    for statement in tree.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = list(statement.targets)
        elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)) and statement.value is not None:
            targets = [statement.target]
        while targets:
            target = targets.pop()
            if isinstance(target, (ast.Tuple, ast.List)):
                targets += target.elts
            elif isinstance(target, ast.Starred):
                targets.append(target.value)
            elif isinstance(target, (ast.Subscript, ast.Attribute)):
                targets.append(target.value)
            elif isinstance(target, ast.Name):
                names.add(target.id)
    return frozenset(names)


def _stored(tree: ast.AST) -> set[str]:
    """Give the names whose values the cell puts under another name or into another value."""
    names = set()
    for node in ast.walk(tree):
        kept: list[ast.expr | None] = []
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.Return, ast.Yield, ast.Starred)):
            kept = [node.value]
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            kept = list(node.elts)
        elif isinstance(node, ast.Dict):
            kept = [*node.keys, *node.values]
        elif isinstance(node, ast.IfExp):
            kept = [node.body, node.orelse]
        elif isinstance(node, ast.BoolOp):
            kept = list(node.values)
        names |= {n.id for n in kept if isinstance(n, ast.Name)}
    return names


def _touched(tree: ast.AST) -> frozenset[str]:
    """Give the names whose values the cell's own statements may change in place."""
    names = set()
    for node in ast.walk(tree):
        target: ast.AST | None = None
        if isinstance(node, ast.AugAssign):
            target = node.target
        elif isinstance(node, (ast.Subscript, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
            target = node
        while isinstance(target, (ast.Subscript, ast.Attribute)):
            target = target.value
        if isinstance(target, ast.Name):
            names.add(target.id)
    return frozenset(names)


def imports_of(tree: ast.Module | None, values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Give those of `values` that an import binds: they are imported again where they land, not pickled.

    Parameters
    ----------
    tree : ast.Module, optional
        The cell.
    values : Mapping
        Names that the cell bound.

    Returns
    -------
    dict
        Name to ``[module, attribute or None]``, and then the dotted names of the submodules that ``import
        module.submodule`` loaded, if any.
    """
    found: dict[str, list[Any]] = {}
    for name, value in values.items():
        if isinstance(value, types.ModuleType) and sys.modules.get(value.__name__) is value:
            found[name] = [value.__name__, None]
    for name in _dotted_imports(tree):
        top, *rest = name.split(".")
        levels = [".".join([top, *rest[:n]]) for n in range(1, len(rest) + 1)]
        # Not `os.path`, which is there with `os`, and has another name.
        loaded = [n for n in levels if getattr(sys.modules.get(n), "__name__", "") == n]
        if found.get(top, [""])[0] == top and loaded:
            known = found[top][2] if len(found[top]) > 2 else []
            found[top][2:] = [list(dict.fromkeys([*known, *loaded]))]
    for module, attribute, bound in _from_imports(tree):
        names = [bound] if bound else list(values)  # a star may have bound any of them
        for name in names:
            if (
                name not in found
                and name in values
                and _is_attribute(module, attribute or name, values[name])
            ):
                found[name] = [module, attribute or name]
    return found


def _dotted_imports(tree: ast.Module | None) -> list[str]:
    """Give what statements such as ``import xml.etree`` outside functions name: they bind ``xml``."""
    nodes = [node for node in _outside_functions(tree) if isinstance(node, ast.Import)]
    return [a.name for node in nodes for a in node.names if "." in a.name and not a.asname]


def _from_imports(tree: ast.Module | None) -> Iterator[tuple[str, str, str]]:
    """Give (module, attribute, name) of each ``from`` import outside functions; of a star the first alone."""
    for node in _outside_functions(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                star = alias.name == "*"
                yield node.module, "" if star else alias.name, "" if star else alias.asname or alias.name


def _outside_functions(tree: ast.Module | None) -> Iterator[ast.AST]:
    queue: list[ast.AST] = [tree] if tree else []
    while queue:
        node = queue.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield node
            queue += ast.iter_child_nodes(node)


def _is_attribute(module: str, attribute: str, value: Any) -> bool:
    loaded = sys.modules.get(module)
    return loaded is not None and getattr(loaded, attribute, _NOTHING) is value


_NOTHING = object()


class _Absent:
    """Stands for a value that did not travel, so that it shows whether its name was deleted."""


_ABSENT = _Absent()


def bound_by_definition(tree: ast.Module | None) -> frozenset[str]:
    """Give the names that a cell's imports and definitions bind: every item would bring the same."""
    names: set[str] = set()
    todo: list[ast.AST] = [tree] if tree else []
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {a.asname or a.name.partition(".")[0] for a in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif not isinstance(node, ast.expr):  # other statements may hold some, in their blocks
            todo += ast.iter_child_nodes(node)
    return frozenset(names)
