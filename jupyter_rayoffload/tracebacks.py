"""Errors that read as if the cell had been run here: the cell's own lines, and no frame of ours."""

from __future__ import annotations

import ast
import re
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "Tracebacks",
    "as_here",
    "current_count",
    "current_shell",
    "remember",
    "rendering",
    "without_frames",
]

#: How many errors are remembered with their renderings; the newest ones, as an error is shown soon or never.
MOST_ERRORS = 32
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# Beside the errors and not in them: an attribute would be seen by who looks, and travel with them.
_renderings: deque[tuple[BaseException, list[str]]] = deque(maxlen=MOST_ERRORS)


def remember(error: BaseException, lines: Sequence[str]) -> None:
    """Let `error`, wherever it is raised in this notebook, be shown as `lines`.

    In a plain script, whose Python shows the frames of the script alone, they become a note below these.
    """
    known = any(there is error for there, _ in _renderings)
    _renderings.append((error, list(lines)))
    shell = current_shell()
    if shell is not None:
        Tracebacks(shell).install()
    elif lines and not known:
        _note(error, _COLOURS.sub("", "\n".join(lines)))


def _note(error: BaseException, text: str) -> None:
    """Let `error` say where in its job it arose."""
    told = f"\nIn the job:\n{text.rstrip()}"
    if sys.version_info >= (3, 11):
        error.add_note(told)
    elif error.__cause__ is None:  # notes came with Python 3.11
        error.__cause__ = _InTheJob(told)


class _InTheJob(Exception):
    """The traceback of a job, as the cause of its error."""


def current_shell() -> InteractiveShell | None:
    """Give the IPython that runs in this process; None in a plain script. Loads nothing."""
    shell: InteractiveShell | None = None
    if "IPython" in sys.modules:
        shell = sys.modules["IPython"].get_ipython()
    return shell


def rendering(error: BaseException | None) -> list[str] | None:
    """Give how `error` is shown; None where IPython's own way is right."""
    for known, lines in reversed(_renderings):
        if known is error:
            return lines
    # IPython asks most exceptions itself, but not a SyntaxError or an exception group.
    render = getattr(error, "_render_traceback_", None)
    return None if render is None else render()


class Tracebacks:
    """Shows errors that have a rendering by it.

    Parameters
    ----------
    shell : InteractiveShell
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell: Any = shell
        self._original: Any = None

    def install(self) -> None:
        """Stand in front of the shell's own way to show an error; once."""
        there = self._shell.showtraceback
        if not isinstance(getattr(there, "__self__", None), Tracebacks):
            self._original = there
            self._shell.showtraceback = self._show

    @staticmethod
    def uninstall(shell: InteractiveShell) -> None:
        """Go away again, unless somebody else has come in front meanwhile."""
        ours = getattr(shell.showtraceback, "__self__", None)
        if isinstance(ours, Tracebacks):
            cast("Any", shell).showtraceback = ours._original

    def _show(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        lines = rendering(error)
        if error is None or lines is None:
            self._original(exc_tuple, *args, **kwargs)
            return
        self._shell._get_exc_info(exc_tuple)  # also notes it as sys.last_value
        self._shell._showtraceback(type(error), error, lines)


def current_count(shell: InteractiveShell) -> int:
    """Give the number of the cell that is running.

    ``shell.execution_count`` is that number or the next one, depending on the version of IPython.
    """
    return max(1, len(shell.user_ns.get("In", ())) - 1)


def as_here(shell: InteractiveShell, magic: str, cell: str) -> SyntaxError | None:
    """Give the error that a cell which cannot be parsed would raise here; None if it can be parsed.

    Parameters
    ----------
    shell : InteractiveShell
    magic, cell : str
        The magic line, which counts as the first, and what is below it.
    """
    found = _found_here(shell, f"#{magic}\n{cell}")
    if found is not None:
        found.__context__ = None
        remember(found, shell.SyntaxTB.structured_traceback(type(found), found, cast("Any", [])))
    return found


def without_frames(error: SyntaxError) -> SyntaxError:
    """Give the error of code that cannot be parsed without the frames of who tried to."""
    error.__context__ = None
    shell = current_shell()
    if shell is not None:
        remember(error, cast("Any", shell).SyntaxTB.structured_traceback(type(error), error, []))
    return error.with_traceback(None)


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
