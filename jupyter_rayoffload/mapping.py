"""The items of a batch: evaluated in the notebook, at the moment when its cell is run."""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .cell import analyze
from .errors import NotPicklable, UsageError
from .models import Batch, Value
from .options import split_map
from .reference import Reference
from .remote.chunks import ITEMS
from .remote.outputs import bound_by_definition
from .words import number_text, with_article

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .cell import Analysis
    from .remote.codec import Unpicklable

__all__ = ["Mapped", "becomes_lists", "listed", "mapped", "mapped_by_itself"]

#: More items than this are most likely an iterator without an end.
MOST_ITEMS = 1_000_000


@dataclass(frozen=True)
class Mapped:
    """What a job is run for, one by one.

    Parameters
    ----------
    name : str
        What an item is called in the cell; empty for the argument of a call.
    items : list
    parallel : int, optional
    """

    name: str
    items: list[Any]
    parallel: int | None = None

    @property
    def batch(self) -> Batch:
        """The batch as the job's specification has it."""
        return Batch(self.name, len(self.items), self.parallel)

    def value(self, value: Value) -> Value:
        """Give an input as people see it: the items by their name in the cell."""
        return value.replace(name=self.name or "items") if value.name == ITEMS else value

    def refused(self, error: Unpicklable) -> NotPicklable:
        """Give the error of an item that cannot travel: by its number."""
        found = re.match(rf"{ITEMS}\[(\d+)\](.*)", error.path, re.S)
        number, rest = (found[1], found[2]) if found else ("", "")
        name = f"{self.name}{rest}" if self.name else f"it{rest}" if rest else ""
        which = f"item {number}" if number else "an item"
        inside = f": {name}" if name and rest else ""
        return NotPicklable(
            f"{which} of the batch cannot travel{inside}: {error.reason}",
            "Map over what can, such as paths and numbers, and make the rest in the cell",
        )


def expression_of(text: str) -> tuple[str, ast.Expression]:
    """Read ``NAME=EXPR``; the expression is parsed, and not evaluated.

    Raises
    ------
    UsageError
    """
    name, _, expression = text.partition("=")
    try:
        return name, ast.parse(expression.strip(), "--map", "eval")
    except (SyntaxError, ValueError) as problem:
        what = getattr(problem, "msg", None) or problem
        raise UsageError(
            f"--map {text}: this is no expression of Python: {what}",
            "An expression with blanks outside of brackets needs quotation marks around it",
        ) from None


def mapped(
    text: str, parallel: int | None, shell: InteractiveShell, arrive: Callable[[tuple[str, ...]], object]
) -> Mapped:
    """Evaluate the items that a magic line names.

    Parameters
    ----------
    text : str
        ``NAME=EXPR``.
    parallel : int, optional
    shell : InteractiveShell
        EXPR is evaluated in its namespace.
    arrive : callable
        ``arrive(names)`` waits for names that jobs will assign.

    Raises
    ------
    UsageError
        It is no expression, it raises, or what it gives cannot be iterated; nothing has been sent.
    """
    name, tree = expression_of(text)
    arrive(tuple(sorted(analyze(ast.unparse(tree)).reads)))
    return Mapped(name, _evaluated(tree, shell.user_ns, f"--map {text}"), parallel)


def mapped_by_itself(text: str, parallel: int | None) -> Mapped:
    """Evaluate the items that a command line names: with Python's own names, and with modules by theirs.

    Parameters
    ----------
    text : str
        ``NAME=EXPR``: ``seed=range(10)``, ``path=glob.glob('data/*.csv')``.
    parallel : int, optional

    Raises
    ------
    UsageError
        As for :func:`mapped`.
    """
    try:
        text = "=".join(split_map(text))
    except ValueError as problem:
        raise UsageError(f"--map {text}: expected {problem}", "--map 'seed=range(10)'") from None
    name, tree = expression_of(text)
    namespace: dict[str, Any] = {}
    for read in analyze(ast.unparse(tree)).reads - set(dir(builtins)):
        with contextlib.suppress(ImportError):  # then its name is not defined, and that is said
            namespace[read] = importlib.import_module(read)
    return Mapped(name, _evaluated(tree, namespace, f"--map {text}"), parallel)


def _evaluated(tree: ast.Expression, namespace: dict[str, Any], said: str) -> list[Any]:
    try:
        # As any cell of the notebook: the person who types it runs it.
        value = eval(compile(tree, "--map", "eval"), namespace)  # noqa: S307
        if isinstance(value, Reference):
            value = value.get()
    except Exception as problem:
        raise _raised(said, problem) from problem
    return listed(value, said)


def listed(value: Iterable[Any], said: str) -> list[Any]:
    """Give all items of an iterable.

    Parameters
    ----------
    value : iterable
    said : str
        Where it stands, for errors.

    Raises
    ------
    UsageError
        It cannot be iterated, raises, or has no end that could be seen.
    """
    if not hasattr(type(value), "__iter__") and not hasattr(type(value), "__getitem__"):
        kind = with_article(type(value).__name__)
        raise UsageError(f"{said}: {kind} has no items", "Give a list, or anything else that can be iterated")
    items: list[Any] = []
    try:
        for item in _iterated(value):
            items.append(item)
            if len(items) > MOST_ITEMS:
                break
    except Exception as problem:
        raise _raised(f"{said}: item {len(items)}", problem) from problem
    if len(items) > MOST_ITEMS:
        raise UsageError(
            f"{said}: there are more than {number_text(MOST_ITEMS)} items, perhaps without an end",
            "Map over parts of them, several in each",
        )
    return items


def _iterated(value: Iterable[Any]) -> Iterator[Any]:
    return iter(value)


def _raised(said: str, problem: Exception) -> UsageError:
    text = f"{type(problem).__name__}: {problem}".rstrip(": ")
    return UsageError(f"{said}: {text}", "Nothing was sent; try the expression in a cell of its own")


def becomes_lists(analysis: Analysis, source: str, shell: InteractiveShell | None = None) -> frozenset[str]:
    """Give the names of a batch's cell that become lists: what it assigns, and not what it merely defines."""
    text = shell.transform_cell(source) if shell is not None else source  # type: ignore[no-untyped-call]
    return frozenset(analysis.writes) - bound_by_definition(ast.parse(text)) - analysis.imports
