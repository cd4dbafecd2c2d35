"""What a cell does with the values of names: item assignment, method calls, handing them on."""

from __future__ import annotations

import ast
from collections.abc import Callable

#: Builtins that do not change what they are given.
_PURE = frozenset(
    "abs all any bool callable dir display float format hasattr hash id int isinstance issubclass len max "
    "min print range repr round sorted str sum type".split()
)


class Uses:
    """Collects the uses of names; `name_of` gives the global name of a node, or None where it has none."""

    def __init__(self, name_of: Callable[[ast.expr | None], str | None]) -> None:
        self._name_of = name_of
        self.items: set[str] = set()
        self.methods: dict[str, set[str]] = {}
        self.inplace: set[str] = set()
        self.passed: set[str] = set()
        self.parts: set[str] = set()

    def target(self, node: ast.expr) -> None:
        """Note the target of an item, attribute or augmented assignment or deletion."""
        self.items |= self._names(root(node))

    def call(self, node: ast.Call) -> None:
        """Note the method called, and what the call is given."""
        func = node.func
        if isinstance(func, ast.Attribute):
            for name in self._names(root(func.value)):
                self.methods.setdefault(name, set()).add(func.attr)
            if any(k.arg in ("inplace", "in_place") and not _is_false(k.value) for k in node.keywords):
                # What a call returned is another object: `df.head().fillna(0, inplace=True)` leaves df alone.
                self.inplace |= self._names(root(func.value, through_calls=False))
        elif isinstance(func, ast.Name) and func.id in _PURE:
            return
        self.hand_on(*node.args, *(k.value for k in node.keywords))

    def hand_on(self, *nodes: ast.expr | None) -> None:
        """Note whose value, or a part of it, goes to a call or another name, which may change it."""
        for node in nodes:
            if isinstance(node, ast.Name):
                self.passed |= self._names(node)
            elif isinstance(node, (ast.Starred, ast.Await, ast.NamedExpr)):
                self.hand_on(node.value)
            elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
                self.hand_on(*node.elts)
            elif isinstance(node, (ast.Dict, ast.BoolOp)):
                self.hand_on(*node.values)
            elif isinstance(node, ast.IfExp):
                self.hand_on(node.body, node.orelse)
            elif isinstance(node, (ast.Attribute, ast.Subscript)) or _is_method_call(node):
                self.parts |= self._names(root(node))

    def _names(self, node: ast.expr | None) -> set[str]:
        name = self._name_of(node)
        return set() if name is None else {name}


def root(node: ast.expr | None, through_calls: bool = True) -> ast.expr | None:
    """Give what a chain such as ``df.loc[0].x`` or ``d.get("k").items`` starts from."""
    while True:
        if isinstance(node, (ast.Attribute, ast.Subscript, ast.Starred, ast.Await)):
            node = node.value
        elif isinstance(node, ast.NamedExpr):
            node = node.target
        elif isinstance(node, ast.Call) and through_calls:
            node = node.func
        else:
            return node


def last_name(node: ast.expr) -> str:
    """Give the name by which a call or a decorator is known: ``remote`` for ``@ray.remote(num_cpus=2)``."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _is_method_call(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value
