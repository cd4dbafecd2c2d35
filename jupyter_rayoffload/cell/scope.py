"""Which block of a cell a name belongs to, by the rules of Python's compiler.

:mod:`symtable` knows the same, but it refuses a top-level ``await``, its tables cannot be matched to the
nodes of the tree without guessing, and it differs between Python versions in what it calls a block; the tests
compare the two.
"""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Place(enum.Enum):
    """Where a name of a block lives."""

    GLOBAL = enum.auto()
    CLASS = enum.auto()  # in a class body: looked up there first, then among the globals
    LOCAL = enum.auto()  # in a function, a comprehension or a type parameter list: never a global


@dataclass
class Bindings:
    """What a block itself binds and declares, the blocks inside it left out."""

    local: set[str] = field(default_factory=set)
    declared_global: set[str] = field(default_factory=set)
    nonlocal_: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Scope:
    """One block.

    Parameters
    ----------
    kind : str
        ``module``, ``class``, ``function``, ``comprehension`` (a walrus in it binds outside) or
        ``annotation`` (type parameters and what is evaluated among them).
    parent : Scope, optional
    names : Bindings
    owner : str
        Name of the class in or around this block, for private names.
    """

    kind: str
    parent: Scope | None = None
    names: Bindings = field(default_factory=Bindings)
    owner: str = ""

    def inner(self, kind: str, names: Bindings, owner: str = "") -> Scope:
        """Give the block of `kind` inside this one."""
        return Scope(kind, self, names, owner or self.owner)

    def mangled(self, name: str) -> str:
        """Give `name` as the compiler stores it: ``__x`` in class ``A`` is ``_A__x``."""
        owner = self.owner.lstrip("_")
        private = name.startswith("__") and not name.endswith("__") and "." not in name
        return f"_{owner}{name}" if private and owner else name

    def place(self, name: str) -> Place:
        """Say where `name`, already mangled, lives for code of this block."""
        scope: Scope | None = self
        sees_class = (
            True  # of the blocks inside a class body, only type parameters and annotations see its names
        )
        while scope is not None and scope.kind != "module":
            names = scope.names
            if name in names.declared_global:
                return Place.GLOBAL
            if scope.kind != "class":
                if name in names.local:
                    return Place.LOCAL
            elif sees_class and name in names.local:
                return Place.CLASS if scope is self else Place.LOCAL
            elif scope is not self and name == "__class__":
                return Place.LOCAL
            sees_class = sees_class and scope.kind == "annotation"
            scope = scope.parent
        return Place.GLOBAL


def bindings(roots: Iterable[ast.AST], mangled: Scope, arguments: ast.arguments | None = None) -> Bindings:
    """Collect what the block with the statements or expressions `roots` binds.

    Parameters
    ----------
    roots : iterable of ast.AST
        The block's body.
    mangled : Scope
        Any block of the same class, for private names.
    arguments : ast.arguments, optional
        Those of a function.

    Returns
    -------
    Bindings
    """
    found = Bindings()
    if arguments is not None:
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        found.local |= {a.arg for a in named}
    stack = list(roots)
    while stack:
        stack += _bound_by(stack.pop(), found)
    for names in (found.local, found.declared_global, found.nonlocal_, found.deleted):
        changed = {mangled.mangled(n) for n in names}
        names.clear()
        names |= changed
    found.local -= found.nonlocal_
    return found


def _bound_by(node: ast.AST, found: Bindings) -> list[ast.AST]:
    """Note what `node` binds; give what else of the same block to look at."""
    if isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Load):
            found.local.add(node.id)
        if isinstance(node.ctx, ast.Del):
            found.deleted.add(node.id)
        return []
    if isinstance(node, FUNCTIONS):
        if not isinstance(node, ast.Lambda):
            found.local.add(node.name)
        return outer_parts(node)
    if isinstance(node, ast.ClassDef):
        found.local.add(node.name)
        return [*node.decorator_list, *node.bases, *node.keywords]
    if isinstance(node, COMPREHENSIONS):
        # Its targets are its own, while a walrus in it binds here.
        values: list[ast.AST] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        return values + [part for g in node.generators for part in (g.iter, *g.ifs)]
    if isinstance(node, ast.alias):
        if node.name != "*":
            found.local.add(bound_by_alias(node))
    elif isinstance(node, ast.Global):
        found.declared_global.update(node.names)
    elif isinstance(node, ast.Nonlocal):
        found.nonlocal_.update(node.names)
    elif isinstance(node, ast.ExceptHandler):
        if node.name:
            found.local.add(node.name)
            found.deleted.add(node.name)
    elif isinstance(node, (ast.MatchAs, ast.MatchStar)):
        found.local.update({node.name} if node.name else ())
    elif isinstance(node, ast.MatchMapping):
        found.local.update({node.rest} if node.rest else ())
    return list(ast.iter_child_nodes(node))


def outer_parts(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.AST]:
    """Give the parts of a function that the block around it evaluates: decorators and defaults, in order."""
    defaults: list[ast.AST] = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
    return defaults if isinstance(node, ast.Lambda) else [*node.decorator_list, *defaults]


def annotations_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.AST]:
    """Give the annotations of a function's parameters and of what it returns."""
    args = node.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    found: list[ast.AST] = [a.annotation for a in named if a is not None and a.annotation is not None]
    return found if node.returns is None else [*found, node.returns]


def bound_by_alias(alias: ast.alias) -> str:
    """Give the name that an import binds: ``a`` for ``import a.b``, ``c`` for ``import a.b as c``."""
    return alias.asname or alias.name.partition(".")[0]
