"""The IPython shell that executes the cell; whatever it shows becomes a Jupyter message."""

from __future__ import annotations

import ast
import builtins
import contextlib
import getpass
import inspect
import linecache
import os
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets import Type
from traitlets.config import Config

from .interrupt import Interrupt

__all__ = ["CellError", "CellShell", "make_shell"]

Tell = Callable[[str, dict[str, Any]], None]

#: A widget lives in a kernel; the rest of its bundle is what can be shown of it.
_WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class CellError:
    """How the cell ended, if not well.

    Parameters
    ----------
    error : BaseException
    traceback : list of str
        As IPython renders it, with terminal colours.
    line : int, optional
        Line of the cell that raised, counted as the notebook shows them.
    """

    error: BaseException
    traceback: list[str]
    line: int | None

    @property
    def ename(self) -> str:
        """Name of the exception's class."""
        return type(self.error).__name__

    @property
    def evalue(self) -> str:
        """Text of the exception, whatever its ``__str__`` does."""
        return text_of(self.error)


def text_of(error: BaseException) -> str:
    """Give ``str(error)``, or what can be said of an exception that has no text."""
    try:
        return str(error)
    except Exception as problem:
        return f"<no text: its __str__ raised {type(problem).__name__}>"


class CellPublisher(DisplayPublisher):
    """``display()``: bundles become messages."""

    tell: Tell

    def publish(  # type: ignore[override]
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        """Publish a bundle, as the base class documents it."""
        self._validate_data(data, metadata)  # type: ignore[no-untyped-call,unused-ignore]
        _flush()
        content = {"data": shown(data), "metadata": metadata or {}, "transient": transient or {}}
        self.tell("update_display_data" if update else "display_data", content)

    def clear_output(self, wait: bool = False) -> None:
        """Clear what the cell has shown; with `wait` when the next output comes."""
        _flush()
        self.tell("clear_output", {"wait": bool(wait)})


class CellDisplayHook(DisplayHook):
    """The value of the last expression becomes an ``execute_result``."""

    tell: Tell
    count = 1

    def write_output_prompt(self) -> None:
        """Leave the prompt to the notebook."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Publish the bundle of the value."""
        _flush()
        content = {"data": shown(format_dict), "metadata": md_dict or {}, "execution_count": self.count}
        self.tell("execute_result", content)

    def finish_displayhook(self) -> None:
        """End the display; the base class would print a separator."""
        self._is_active = False


class CellCompiler(CachingCompiler):
    """Knows the cell's own code by its name, and shows the magic line where the notebook has it."""

    head = ""
    cell = ""

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        """Name a block of code as ipykernel does: what warnings show, and how IPython renders tracebacks."""
        name = zlib.crc32(transformed_code.encode("utf-8", "surrogatepass"))
        return os.path.join(tempfile.gettempdir(), f"ipykernel_{os.getpid()}", f"{name}.py")

    def cache(self, transformed_code: str, number: int = 0, raw_code: str | None = None) -> str:
        """Name a block of code; the first one is the cell."""
        name = super().cache(transformed_code, number, raw_code)
        if not self.cell:
            self.cell = name
            if self.head:  # as a comment: tracebacks are parsed in order to mark the failing expression
                linecache.getlines(name)[0] = f"# {self.head}\n"
        return name


class CellShell(InteractiveShell):
    """Runs one cell as a kernel would; made by :func:`make_shell`."""

    displayhook_class = Type(CellDisplayHook)
    display_pub_class = Type(CellPublisher)
    compiler_class = Type(CellCompiler)
    compile: CellCompiler
    displayhook: CellDisplayHook
    display_pub: CellPublisher
    tell: Tell
    _traceback: list[str]
    _shown: BaseException | None
    _python: tuple[str | None, str] = (None, "")
    _tree: tuple[str | None, ast.Module | None] = (None, None)

    def connect(self, tell: Tell) -> None:
        """Send messages by `tell`."""
        self.tell = self.displayhook.tell = self.display_pub.tell = tell

    def recall(self, cells: Mapping[str, Sequence[Any]]) -> None:
        """Know the notebook's earlier cells, so that tracebacks show their lines and their ``In[7]``.

        Parameters
        ----------
        cells : Mapping of str to (int, str)
            Name of the code's file to execution count and text.
        """
        for name, (count, text) in cells.items():
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            self.compile._filename_map[name] = count

    def transformed(self, source: str) -> str:
        """Give a cell as Python: without its magics; the last one is remembered."""
        if self._python[0] != source:
            self._python = source, str(self.transform_cell(source))  # type: ignore[no-untyped-call,unused-ignore]
        return self._python[1]

    def parsed(self, source: str) -> ast.Module | None:
        """Give the syntax tree of a cell, None if it has none; the last one is remembered.

        What the parser warns of it says again when the cell is executed.
        """
        if self._tree[0] != source:
            tree = None
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self.transformed(source))
            self._tree = source, tree
        return self._tree[1]

    def run_source(
        self, source: str, interrupt: Interrupt, head: str = "", count: int | None = None
    ) -> Outcome:
        """Execute a cell.

        Parameters
        ----------
        source : str
            The cell without its magic line.
        interrupt : Interrupt
            What stops it.
        head : str
            The magic line: line 1 of the cell as the notebook shows it.
        count : int, optional
            Execution count of the cell.

        Returns
        -------
        Outcome
        """
        self.execution_count = self.displayhook.count = count or 1
        self.compile.head, self._traceback, self._shown = head, [], None
        cell, problem = source, None
        offset = ("\n" if head else "") + "\n" * _leading_blank_lines(source)
        try:
            cell = offset + self.transformed(source)
        except Exception:  # as IPython does: the error is shown as the cell's
            problem = sys.exc_info()
        result = interrupt.run(self._run(source, cell, problem))
        error = result.error_before_exec or result.error_in_exec or self._shown
        if error is None:
            return Outcome(result.result, None)
        return Outcome(None, CellError(error, self._traceback_of(error), self._line_of(error, len(offset))))

    def rehearse(self, interrupt: Interrupt) -> None:
        """Do once what takes longer the first time; no cell will find a trace of it."""
        cell = self.transformed("pass")
        interrupt.run(self.run_cell_async("pass", store_history=False, transformed_cell=cell))
        interrupt.close()

    def run_call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        interrupt: Interrupt,
    ) -> Outcome:
        """Call a function as a cell would; a coroutine function is awaited."""
        self._traceback = []

        async def call() -> Any:
            value = function(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value

        async def run() -> Outcome:
            self.events.trigger("pre_execute")
            try:
                with self.builtin_trap:
                    return Outcome(await call(), None)
            except BaseException as error:
                # The first two frames are ours.
                for _ in range(2):
                    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                        error.__traceback__ = error.__traceback__.tb_next
                self.showtraceback((type(error), error, error.__traceback__), tb_offset=0)
                return Outcome(None, CellError(error, self._traceback_of(error), None))
            finally:
                self.events.trigger("post_execute")

        return interrupt.run(run())

    async def _run(self, source: str, cell: str, problem: Any) -> ExecutionResult:
        # As ipykernel's do_execute: the cell runs inside the loop, and its figures are flushed there.
        result = None
        try:
            result = await self.run_cell_async(
                source, store_history=True, transformed_cell=cell, preprocessing_exc_tuple=problem
            )
        finally:
            self.events.trigger("post_execute")
            self.events.trigger("post_run_cell", result)
        return result

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        _flush()
        # Also that of a value whose repr fails, which a kernel counts as the cell's own error.
        self._traceback, self._shown = list(stb), evalue
        self.tell("error", {"ename": etype.__name__, "evalue": text_of(evalue), "traceback": list(stb)})

    def _format_exception_for_storage(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Keep nothing: this history is short, and IPython's own way fails on an exception without text."""
        return {}

    def _traceback_of(self, error: BaseException) -> list[str]:
        """Give what was shown of the error, or a line where IPython shows it in another way."""
        return self._traceback or [f"{type(error).__name__}: {text_of(error)}"]

    def _line_of(self, error: BaseException, offset: int) -> int | None:
        if isinstance(error, SyntaxError) and error.__traceback__ is not None and error.lineno:
            if error.filename == self.compile.cell:
                return error.lineno
            if not self.compile.cell:  # found before the cell was compiled
                return error.lineno + offset
        line, tb = None, error.__traceback__
        while tb is not None:
            if tb.tb_frame.f_code.co_filename == self.compile.cell:
                line = tb.tb_lineno
            tb = tb.tb_next
        return line

    # What follows is as in a kernel.

    def init_environment(self) -> None:
        """Let child processes show colours, and never wait at a pager."""
        os.environ.update(
            TERM="xterm-color",
            CLICOLOR="1",
            FORCE_COLOR="1",
            CLICOLOR_FORCE="1",
            PAGER="cat",
            GIT_PAGER="cat",
        )

    def init_virtualenv(self) -> None:
        """Leave ``sys.path`` alone."""

    def enable_gui(self, gui: Any = None) -> None:
        """Do nothing: there is no screen, and figures are drawn inline."""

    def ask_exit(self) -> None:
        """Do nothing: after ``exit()`` the cell goes on, and its process ends with it anyhow."""


@dataclass(frozen=True)
class Outcome:
    """What a cell gave: the value of its last expression, or its error."""

    value: Any
    error: CellError | None


def _leading_blank_lines(source: str) -> int:
    """Count the lines that IPython's own transformation drops."""
    count = 0
    for line in source.splitlines():
        if line.strip():
            return count
        count += 1
    return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def shown(data: dict[str, Any]) -> dict[str, Any]:
    """Give a bundle without the view of a widget, where it says anything else."""
    rest = {mime: value for mime, value in data.items() if mime != _WIDGET}
    return rest or data


def _no_input(prompt: object = "", *args: object, **kwargs: object) -> str:
    raise StdinNotImplementedError(
        "nobody can type here: the cell runs on the cluster. "
        "Ask in a cell of the notebook, and use the answer as a variable of this one"
    )


def make_shell(folder: str, tell: Tell) -> CellShell:
    """Make the shell of this process.

    Parameters
    ----------
    folder : str
        For what IPython must write; nothing is read from or written to the home folder.
    tell : callable
        ``tell(type, content)`` publishes a message.

    Returns
    -------
    CellShell
    """
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    os.environ["IPYTHONDIR"] = folder
    shell = CellShell.instance(config=config, ipython_dir=folder)
    shell.connect(tell)
    # Whose `sys.exit()` ends the cell cannot leave this IPython; the notebook's own says how to leave that.
    warnings.filterwarnings("ignore", "To exit: use", module=r"IPython\.core\.interactiveshell")
    builtins.input = _no_input
    getpass.getpass = _no_input
    return shell


# Libraries ask for this name in order to learn whether they are in a notebook (pandas, rich): this is one.
CellShell.__name__ = CellShell.__qualname__ = "ZMQInteractiveShell"
