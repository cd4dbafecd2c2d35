"""Errors that read as if the cell had been run here: the cell's own lines, and no frame of ours."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["Tracebacks", "as_here", "current_count"]


class Tracebacks:
    """Lets an exception that brings its rendering along show itself, whatever its kind.

    IPython asks most exceptions for ``_render_traceback_``, but lists all frames of a SyntaxError and of an
    exception group without asking.

    Parameters
    ----------
    shell : InteractiveShell
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell: Any = shell
        self._original: Any = None

    def install(self) -> None:
        """Stand in front of the shell's own way to show an error."""
        self._original = self._shell.showtraceback
        self._shell.showtraceback = self._show

    def uninstall(self) -> None:
        """Go away again, unless somebody else has come in front meanwhile."""
        if self._shell.__dict__.get("showtraceback") == self._show:
            self._shell.showtraceback = self._original

    def _show(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        render = getattr(error, "_render_traceback_", None)
        if error is None or render is None:
            self._original(exc_tuple, *args, **kwargs)
            return
        self._shell._get_exc_info(exc_tuple)  # also notes it as sys.last_value
        self._shell._showtraceback(type(error), error, render())


def current_count(shell: InteractiveShell) -> int:
    """Give the number of the cell that is running.

    ``shell.execution_count`` is that number or the next one, depending on the version of IPython.
    """
    return max(1, len(shell.user_ns.get("In", ())) - 1)


def as_here(shell: InteractiveShell, magic: str, cell: str, error: SyntaxError) -> SyntaxError:
    """Give the error that a cell which cannot be parsed would raise here.

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
    found._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
    return found


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
