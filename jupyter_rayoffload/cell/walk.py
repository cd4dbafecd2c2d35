"""One walk over the syntax tree of a cell, in the order in which Python executes it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import magics
from .flow import Flow, join
from .scope import Bindings, Scope, annotations_of, bindings, bound_by_alias, outer_parts
from .uses import Uses, last_name

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
    Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp

#: Decorators, by their last name, that wrap a function or a class and do not call it.
_WRAPPERS = frozenset(
    "abstractmethod asynccontextmanager cache cached_property classmethod contextmanager dataclass deleter "
    "final getter jit lru_cache njit overload override property remote runtime_checkable setter "
    "singledispatch staticmethod total_ordering wraps".split()
)
#: Context managers, by the beginning of their name, that may end their block early without an exception: what
#: is assigned in it may stay unbound. Any other is taken not to: that a name of a `with` block is used after
#: the block is common, that a library's own manager swallows exceptions is not.
_SWALLOWERS = ("suppress", "raises", "assertRaises", "ignor", "move_on_", "ExitStack", "AsyncExitStack")
#: Builtins that reach names which the cell's text does not tell; `vars` only without an argument.
_OPAQUE = frozenset({"exec", "eval", "globals", "locals", "vars"})

_LAZY_ANNOTATIONS = sys.version_info >= (3, 14)


class Walk:
    """The walk, and what it finds.

    Parameters
    ----------
    shell : InteractiveShell, optional
        Knows its own magics.
    future_annotations : bool
        An earlier cell has ``from __future__ import annotations``.

    Attributes
    ----------
    flow : Flow
    uses : Uses
    modules, stars : set of str
    opaque : bool
        As in :class:`.cell.Analysis`.
    """

    def __init__(self, shell: InteractiveShell | None = None, future_annotations: bool = False) -> None:
        self.flow = Flow()
        self.uses = Uses(self.flow.global_name)
        self.modules: set[str] = set()
        self.stars: set[str] = set()
        self.opaque = False
        self._shell = shell
        self._future = future_annotations
        self._hooked: set[str] = set()  # classes of the cell that run code when another is derived from them
        self._visitors: dict[type, Callable[[Any], None]] = {}

    def visit(self, *nodes: ast.AST | None) -> None:
        """Walk over `nodes` in turn."""
        for node in nodes:
            if node is not None:
                kind = type(node)
                visitor = self._visitors.get(kind)
                if visitor is None:
                    visitor = self._visitors[kind] = getattr(
                        self, f"_visit_{kind.__name__}", self._visit_children
                    )
                visitor(node)

    def _visit_children(self, node: ast.AST) -> None:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                self.visit(*(v for v in value if isinstance(v, ast.AST)))
            elif isinstance(value, ast.AST) and name not in ("ctx", "op"):
                self.visit(value)

    def _visit_perhaps(self, *nodes: ast.AST | None) -> None:
        """Walk over what may not be executed, or not to its end."""
        before = self.flow.certain
        self.visit(*nodes)
        self.flow.certain = before

    def _visit_later(self, nodes: Iterable[ast.AST], scope: Scope) -> set[str]:
        """Walk over the body of a function; give the globals that it reads."""
        with self.flow.inside_function(scope) as reads:
            self.visit(*nodes)
        return reads

    # Simple statements, and expressions that bind

    def _visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.flow.load(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.flow.bind(node.id)
        else:
            self.flow.delete(node.id)

    def _visit_Attribute(self, node: ast.Attribute | ast.Subscript) -> None:
        self._visit_children(node)
        if not isinstance(node.ctx, ast.Load):
            self.uses.target(node)

    def _visit_Subscript(self, node: ast.Subscript) -> None:
        if isinstance(node.value, ast.Name) and node.value.id in ("Out", "_oh"):
            if isinstance(node.slice, ast.Constant) and type(node.slice.value) is int:
                self.flow.load(f"_{node.slice.value}")  # the same value, and one that can travel by itself
        self._visit_Attribute(node)

    def _visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        if isinstance(node.value, ast.Lambda) and isinstance(target, ast.Name) and len(node.targets) == 1:
            self._function(node.value, target.id)
        else:
            self.visit(node.value)
            self.uses.hand_on(node.value)
        self.visit(*node.targets)

    def _visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.flow.load(node.target.id)
            self.uses.target(node.target)
        self.visit(node.value, node.target)

    def _visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
            self.uses.hand_on(node.value)
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.visit(node.target)
        lazy = self._future or _LAZY_ANNOTATIONS
        if self.flow.scope.kind == "class" and lazy:
            # Data classes and models look up even those that are only text.
            scope = self.flow.scope.inner("annotation", Bindings())
            self.flow.define("", self._visit_later([node.annotation], scope), may_be_called=False)
        elif self.flow.scope.kind in ("module", "class") and not lazy:
            self.visit(node.annotation)

    def _visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.uses.hand_on(node.value)
        self.visit(node.target)

    def _visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.modules.add(alias.name)
            self.flow.bind(bound_by_alias(alias), imported=True)

    def _visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        self.modules.add(module)
        for alias in node.names:
            if alias.name == "*":
                self.stars.add(module)
            else:
                self.flow.bind(bound_by_alias(alias), imported=True)
            self._future |= module == "__future__" and alias.name == "annotations"

    def _visit_Call(self, node: ast.Call) -> None:
        known = magics.embedded(node, self._shell)
        if known is not None:
            self._embedded(known)
            return
        self._visit_children(node)
        self.uses.call(node)
        name = last_name(node.func)
        if isinstance(node.func, ast.Name) and name in _OPAQUE and (name != "vars" or not node.args):
            self.opaque = True
        if name in ("import_module", "__import__") and node.args:
            module = node.args[0]
            if isinstance(module, ast.Constant) and isinstance(module.value, str):
                self.modules.add(module.value)

    def _embedded(self, known: magics.Embedded) -> None:
        self.opaque |= known.opaque
        self.visit(*known.reads)
        scope = self.flow.scope
        if known.own_block or scope.kind != "module":
            self.flow.read(
                self._visit_later(known.code, scope.inner("function", bindings(known.code, scope)))
            )
        elif known.certain:
            self.visit(*known.code)
        else:
            self._visit_perhaps(*known.code)
        for name in known.binds:
            self.flow.bind(name)
        for name in known.deletes:
            self.flow.delete(name)

    def _visit_Yield(self, node: ast.Yield | ast.Return) -> None:
        self._visit_children(node)
        self.uses.hand_on(node.value)

    def _visit_Return(self, node: ast.Return) -> None:
        self._visit_Yield(node)
        self.flow.certain = None

    def _visit_Raise(self, node: ast.Raise) -> None:
        self._visit_children(node)
        self.flow.certain = None

    def _visit_Assert(self, node: ast.Assert) -> None:
        self.visit(node.test)
        self._visit_perhaps(node.msg)

    # Expressions of which a part may not be evaluated

    def _visit_BinOp(self, node: ast.BinOp) -> None:
        # Long sums lean to the left; without recursion they may be as long as the compiler allows.
        rights: list[ast.expr] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp):
            rights.append(left.right)
            left = left.left
        self.visit(left, *reversed(rights))

    def _visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        self._visit_perhaps(*node.values[1:])

    def _visit_Compare(self, node: ast.Compare) -> None:
        self.visit(node.left, node.comparators[0])
        self._visit_perhaps(*node.comparators[1:])

    def _visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        before = self.flow.certain
        self.visit(node.body)
        after, self.flow.certain = self.flow.certain, before
        self.visit(node.orelse)
        self.flow.certain = join(after, self.flow.certain)

    def _visit_Dict(self, node: ast.Dict) -> None:
        self.visit(*(part for pair in zip(node.keys, node.values, strict=True) for part in pair))

    def _visit_GeneratorExp(self, node: Comprehension) -> None:
        self.uses.hand_on(*(g.iter for g in node.generators))
        self.visit(node.generators[0].iter)
        names = bindings([g.target for g in node.generators], self.flow.scope)
        before = self.flow.certain
        with self.flow.inside(self.flow.scope.inner("comprehension", names)):
            for number, generator in enumerate(node.generators):
                self.visit(generator.iter if number else None, generator.target, *generator.ifs)
            self.visit(*([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]))
        self.flow.certain = before

    _visit_ListComp = _visit_SetComp = _visit_DictComp = _visit_GeneratorExp

    # Compound statements

    def _visit_If(self, node: ast.If) -> None:
        ends = []
        while True:  # not by recursion: a chain of `elif` may be long
            self.visit(node.test)
            before = self.flow.certain
            self.visit(*node.body)
            ends.append(self.flow.certain)
            self.flow.certain = before
            if len(node.orelse) != 1 or not isinstance(node.orelse[0], ast.If):
                break
            node = node.orelse[0]
        self.visit(*node.orelse)
        self.flow.certain = join(*ends, self.flow.certain)

    def _visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.uses.hand_on(node.iter)
        with self.flow.loop(is_entered=_has_elements(node.iter), ends=True) as breaks:
            self.visit(node.target, *node.body)
        self.visit(*node.orelse)
        self.flow.certain = join(self.flow.certain, *breaks)

    _visit_AsyncFor = _visit_For

    def _visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        with self.flow.loop(is_entered=endless, ends=not endless) as breaks:
            self.visit(*node.body)
        self.visit(*node.orelse)
        self.flow.certain = join(self.flow.certain, *breaks)

    def _visit_Break(self, node: ast.Break) -> None:
        self.flow.break_()

    def _visit_Continue(self, node: ast.Continue) -> None:
        self.flow.continue_()

    def _visit_Try(self, node: ast.Try) -> None:
        before = self.flow.certain
        self.visit(*node.body, *node.orelse)
        ends = [self.flow.certain]
        for handler in node.handlers:
            self.flow.certain = before  # the exception may come from the first statement
            self.visit(handler)
            ends.append(self.flow.certain)
        self.flow.certain = before
        self.visit(*node.finalbody)
        finally_, end = self.flow.certain, join(*ends)
        self.flow.certain = None if finally_ is None or end is None else end | finally_

    _visit_TryStar = _visit_Try

    def _visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.visit(node.type)
        if node.name:
            self.flow.bind(node.name)
            self.flow.unbind(node.name)
        self.visit(*node.body)

    def _visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        left_early = []
        for item in node.items:
            self.visit(item.context_expr)
            self.uses.hand_on(item.context_expr)
            if last_name(item.context_expr).startswith(_SWALLOWERS):
                left_early.append(self.flow.certain)
            self.visit(item.optional_vars)
        before = self.flow.certain
        self.visit(*node.body)
        # A block that ends by an exception may be one whose exception is meant to be swallowed.
        end = before if self.flow.certain is None else self.flow.certain
        self.flow.certain = join(end, *left_early)

    _visit_AsyncWith = _visit_With

    def _visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        self.uses.hand_on(node.subject)
        before = self.flow.certain
        ends = []
        for case in node.cases:
            self.flow.certain = before
            self.visit(case.pattern, case.guard, *case.body)
            ends.append(self.flow.certain)
        last = node.cases[-1]
        if last.guard is not None or not _matches_all(last.pattern):
            ends.append(before)
        self.flow.certain = join(*ends)

    def _visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self._visit_children(node)
        if node.name:
            self.flow.bind(node.name)

    _visit_MatchStar = _visit_MatchAs

    def _visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._visit_children(node)
        if node.rest:
            self.flow.bind(node.rest)

    # Functions and classes

    def _visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._function(node, node.name)
        self.flow.bind(node.name)

    _visit_AsyncFunctionDef = _visit_FunctionDef

    def _visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, "")

    def _function(self, node: Function, name: str) -> None:
        """Walk over a function that will be called `name`; one without a name may be called at once."""
        self.visit(*outer_parts(node))
        outer, needs = self._type_parameters(node)
        body: list[ast.AST]
        if isinstance(node, ast.Lambda):
            body, wrapped = [node.body], bool(name)
        else:
            body, wrapped = [*node.body], _only_wrapped(node.decorator_list)
            if _LAZY_ANNOTATIONS and not self._future:
                needs |= self._visit_later(annotations_of(node), outer.inner("annotation", Bindings()))
            elif not self._future:
                with self.flow.inside(outer):
                    self.visit(*annotations_of(node))
        needs |= self._visit_later(body, outer.inner("function", bindings(body, outer, node.args)))
        self.flow.define(name, needs, may_be_called=not wrapped)

    def _visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit(*node.decorator_list)
        outer, needs = self._type_parameters(node)
        names = bindings(node.body, Scope("class", owner=node.name))
        hooked = "__init_subclass__" in names.local
        with self.flow.inside(outer):
            for base in node.bases:
                name = self.flow.global_name(base)
                if name is None or name in self._hooked:
                    self.visit(base)
                    hooked |= name is not None
                else:
                    self.flow.inherit(name)
                    needs.add(name)
            self.visit(*node.keywords)
        if hooked:
            self._hooked.add(node.name)
        with self.flow.inside_class(outer.inner("class", names, owner=node.name), needs):
            self.visit(*node.body)
        # A keyword goes to the metaclass or to __init_subclass__.
        wrapped = _only_wrapped(node.decorator_list) and not node.keywords
        self.flow.define(node.name, needs, may_be_called=not wrapped)
        self.flow.bind(node.name)

    def _visit_TypeAlias(self, node: Any) -> None:
        scope, needs = self._type_parameters(node)
        needs |= self._visit_later([node.value], scope.inner("annotation", Bindings()))
        self.flow.define(node.name.id, needs, may_be_called=False)
        self.flow.bind(node.name.id)

    def _type_parameters(self, node: ast.AST) -> tuple[Scope, set[str]]:
        """Give the block of ``[T: bound]`` behind a name, and the globals that its parts read."""
        parameters = getattr(node, "type_params", [])
        if not parameters:
            return self.flow.scope, set()
        scope = self.flow.scope.inner("annotation", Bindings(local={p.name for p in parameters}))
        return scope, self._visit_later(parameters, scope)


def _only_wrapped(decorators: list[ast.expr]) -> bool:
    return all(last_name(d) in _WRAPPERS for d in decorators)


def _has_elements(node: ast.expr) -> bool:
    """Whether a loop over `node` certainly has a first round: ``[1, 2]``, ``range(10)``."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return any(not isinstance(e, ast.Starred) for e in node.elts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        count = node.args[0] if len(node.args) == 1 else None
        return isinstance(count, ast.Constant) and isinstance(count.value, int) and count.value > 0
    return isinstance(node, ast.Constant) and bool(node.value)


def _matches_all(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchOr):
        return any(_matches_all(p) for p in pattern.patterns)
    return isinstance(pattern, ast.MatchAs) and (pattern.pattern is None or _matches_all(pattern.pattern))
