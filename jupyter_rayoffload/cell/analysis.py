"""What a notebook cell reads and writes, told from its text alone."""

from __future__ import annotations
import __future__

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .magics import parse
from .walk import Walk

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@dataclass(frozen=True)
class Analysis:
    """What a cell does with the names of the notebook.

    Parameters
    ----------
    reads : frozenset of str
        Global names whose value from before the cell may be used, also by the functions that the cell
        defines. Names of builtins are among them: a notebook may have its own `print`.
    writes : frozenset of str
        Names that the cell may bind at its top level or by `global`.
    imports : frozenset of str
        Those of `writes` that an import statement binds.
    deletes : frozenset of str
        Names that it may delete.
    items : frozenset of str
        Base names of item, attribute and augmented targets: ``xs[0] = 1``, ``model.alpha = 2``, ``del
        d["k"]``.
    methods : Mapping of str to frozenset of str
        Methods called on the value of a name or on what it leads to: ``df.columns.sort()`` is `sort` of
        ``df``.
    inplace : frozenset of str
        Names on which a method is called with ``inplace=True``.
    passed : frozenset of str
        Names whose value goes, whole, to a call, a loop or another name.
    parts : frozenset of str
        Names of which a part goes there: ``f(d["k"])``, ``m = models[0]``, ``for v in d.values()``.
    modules : frozenset of str
        Dotted modules imported anywhere in the cell.
    needs : frozenset of str
        Those that it imports before it does anything else: without them it cannot begin.
    stars : frozenset of str
        Modules of star imports.
    opaque : bool
        More may be read or written: `exec`, `eval`, `locals`, ``%run``, a magic that nobody knows.
    """

    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    deletes: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    methods: Mapping[str, frozenset[str]] = field(default_factory=dict)
    inplace: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()
    stars: frozenset[str] = frozenset()
    opaque: bool = False


def analyze(source: str | ast.Module, shell: InteractiveShell | None = None) -> Analysis:
    """Say what a cell reads and writes; nothing of it is executed.

    A name that the cell certainly binds before every use is not read. A name that may stay unbound (in an
    `if`, a loop, a `try`) is, and so is what a function of the cell reads, unless it is bound before the
    function can be called.

    Parameters
    ----------
    source : str or ast.Module
        The cell, with IPython's syntax; or its tree, as an AST transformer of IPython gets it.
    shell : InteractiveShell, optional
        Knows its own syntax and magics, and whether an earlier cell has ``from __future__ import
        annotations``.

    Returns
    -------
    Analysis

    Raises
    ------
    SyntaxError
        As Python raises it for the transformed cell.
    """
    with warnings.catch_warnings():
        # They are shown when the cell is run, and once is enough.
        warnings.simplefilter("ignore")
        tree = _checked(parse(source, shell)) if isinstance(source, str) else source
        flags = shell.compile.flags if shell is not None else 0
        walk = Walk(shell, bool(flags & __future__.annotations.compiler_flag))
        walk.visit(*tree.body)
    flow, uses = walk.flow, walk.uses
    return Analysis(
        reads=flow.reads(),
        writes=frozenset(flow.writes),
        imports=frozenset(flow.imports),
        deletes=frozenset(flow.deletes),
        items=frozenset(uses.items),
        methods={name: frozenset(called) for name, called in uses.methods.items()},
        inplace=frozenset(uses.inplace),
        passed=frozenset(uses.passed),
        parts=frozenset(uses.parts),
        modules=frozenset(walk.modules),
        needs=frozenset(_first_imports(tree.body)),
        stars=frozenset(walk.stars),
        opaque=walk.opaque,
    )


def _first_imports(body: list[ast.stmt]) -> Iterator[str]:
    """Give the modules that are imported at the top; what comes later may have been installed by the cell."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield statement.module or ""
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            return


def _checked(tree: ast.Module) -> ast.Module:
    """Compile `tree` for what the parser leaves to the compiler: a `return` outside a function."""
    for statement in tree.body:  # one by one, as IPython does
        compile(
            ast.Module([statement], []), "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
    return tree
