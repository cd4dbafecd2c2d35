"""A cell that cannot be parsed: its error, as IPython shows that of a local cell."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["current_count", "shown_as_here"]


def current_count(shell: InteractiveShell) -> int:
    """Give the number of the cell that is running.

    ``shell.execution_count`` is that number or the next one, depending on the version of IPython.
    """
    return max(1, len(shell.user_ns.get("In", ())) - 1)


def shown_as_here(shell: InteractiveShell, magic: str, cell: str, error: SyntaxError) -> Exception:
    """Give an error that reads as if the cell had been run here.

    Of a SyntaxError that a magic raises, IPython lists all frames, its own and ours. So this is an exception
    of the same name that brings its rendering along.

    Parameters
    ----------
    shell : InteractiveShell
    magic, cell : str
        The magic line, which counts as the first, and what is below it.
    error : SyntaxError
        What parsing the cell has raised.
    """
    found = _found_here(shell, f"#{magic}\n{cell}") or error
    found.__cause__ = found.__context__ = None  # how we came to it is no matter
    lines = shell.SyntaxTB.structured_traceback(type(found), found, cast("Any", []))
    shown: Any = type(type(found).__name__, (Exception,), {})(str(found))
    shown._render_traceback_ = lambda: lines
    return cast("Exception", shown)


def _found_here(shell: InteractiveShell, source: str) -> SyntaxError | None:
    """Do with `source` what IPython does before it runs a cell, and give the error."""
    transform, compiler = cast("Any", shell).transform_cell, cast("Any", shell.compile)
    try:
        code = transform(source)
        name = compiler.cache(code, current_count(shell), raw_code=source)
        for statement in compiler.ast_parse(code, filename=name).body:
            compile(ast.Module([statement], []), name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        return error
    return None
