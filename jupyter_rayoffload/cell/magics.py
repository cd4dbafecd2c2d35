"""IPython's own syntax in a cell: what ``%time x = f(y)`` or ``!ls {path}`` run, read and bind."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from IPython.core.alias import Alias
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.magic import MagicAlias
from IPython.utils.text import DollarFormatter

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Magics whose text is code for the notebook's namespace, with their options as :mod:`getopt` writes them.
#: The last three are those of memory_profiler and line_profiler.
_RUN = {
    "time": "",
    "prun": "D:l:rs:T:q",
    "debug": "b:",
    "capture": "",
    "memit": "r:t:i:co",
    "mprun": "f:T:rc",
    "lprun": "f:m:D:T:u:rsz",
}
#: As above, but the code runs as the body of a function: what it assigns is gone afterwards.
_TIMEIT = "n:r:tcp:qov:"
#: They show help for the object that is named.
_HELP = frozenset({"pinfo", "pinfo2", "pdef", "pdoc", "psource", "pfile"})
#: Their text, and in cell form the whole cell, is a shell command.
_SHELL = frozenset({"sx", "system", "!"})
#: Each runs its cell as a script, in a process of its own.
_SCRIPTS = frozenset({"script", "sh", "bash", "perl", "ruby", "python", "python2", "python3", "pypy", "cmd"})
#: They neither run code nor bind names: IPython's, its commands of the system, ipykernel's, and ours, which
#: decide for themselves. Any other (`run`, `load`, `store`, `reset`, one of the notebook) may do anything.
_HARMLESS = frozenset(
    "! HTML SVG alias alias_magic aimport autoawait autocall automagic autoreload bookmark cat cd clear "
    "code_wrap colors conda config connect_info cp dhist dirs doctest_mode env file gui hist history html "
    "javascript js killbgscripts latex ldir less lf lk ll load_ext logoff logon logstart logstate logstop "
    "ls lsmagic lx magic mamba man markdown matplotlib micromamba mkdir more mv notebook page pastebin "
    "pdb pip popd pprint precision psearch pushd pwd pycat qtconsole quickref ray ray_job rehashx "
    "reload_ext rm rmdir save set_env subshell svg sx system tb unalias unload_ext uv who who_ls whos "
    "writefile xmode".split()
)
#: Methods of the shell that run text or change the namespace.
_SHELL_METHODS = frozenset(
    "run_cell run_cell_async run_code ex ev push safe_execfile del_var drop_by_id reset".split()
)


@dataclass(frozen=True)
class Embedded:
    """What one call of IPython's own does.

    Parameters
    ----------
    code : tuple of ast.stmt
        Statements that it runs.
    own_block : bool
        They run as the body of a function.
    certain : bool
        They run, and an exception among them ends the cell.
    reads : tuple of ast.expr
        Expressions evaluated in the text: ``$x`` and ``{x + 1}``.
    binds, deletes : tuple of str
    opaque : bool
        It may do more than is said here.
    """

    code: tuple[ast.stmt, ...] = ()
    own_block: bool = False
    certain: bool = True
    reads: tuple[ast.expr, ...] = ()
    binds: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    opaque: bool = False


def parse(source: str, shell: InteractiveShell | None) -> ast.Module:
    """Parse a cell, IPython's syntax included.

    Raises
    ------
    SyntaxError
        As Python raises it for the transformed cell.
    """
    manager = shell.input_transformer_manager if shell is not None else TransformerManager()  # type: ignore[no-untyped-call]
    code: str = manager.transform_cell(source)
    try:
        return ast.parse(code, "<cell>")
    except SyntaxError:
        # `pip install x` without a percent sign: IPython allows that where it is the only line of a cell.
        if shell is None or len(code.splitlines()) != 1:
            raise
        code = cast("Any", shell.prefilter_manager).prefilter_lines(code)
        return ast.parse(code, "<cell>")


def embedded(call: ast.Call, shell: InteractiveShell | None) -> Embedded | None:
    """Say what `call` does, if it is one that IPython writes in place of its syntax; None for any other."""
    if not (isinstance(call.func, ast.Attribute) and _is_get_ipython(call.func.value)):
        return None
    method = call.func.attr
    values = [a.value if isinstance(a, ast.Constant) else None for a in call.args]
    texts = [v for v in values if isinstance(v, str)]
    if len(texts) == len(values):
        if method in ("system", "getoutput"):
            return Embedded(reads=_expanded(*texts))
        if method == "run_line_magic" and len(texts) == 2:
            return _line_magic(texts[0], texts[1], shell)
        if method == "run_cell_magic" and len(texts) == 3:
            return _cell_magic(texts[0], texts[1], texts[2], shell)
    if method in _SHELL_METHODS or method in (
        "run_line_magic",
        "run_cell_magic",
        "magic",
        "system",
        "getoutput",
    ):
        return Embedded(opaque=True, reads=tuple(call.args))
    return None


def _is_get_ipython(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"


def _line_magic(name: str, line: str, shell: InteractiveShell | None) -> Embedded:
    name = _real_name(name, "line", shell)
    if name in _RUN or name == "timeit":
        return _code_magic(name, line, "", shell)
    if name in _HELP:
        return Embedded(reads=_expressions(re.split(r"[?\s]", line.strip())[0]))
    if name == "xdel":
        deleted = tuple(re.findall(r"\b[^\W\d]\w*\b", line.replace("-n", "")))
        return Embedded(reads=_expressions(*deleted), deletes=deleted)
    if name == "sc":
        target, _, command = re.sub(r"^(\s*-[lv]+)+", "", line).partition("=")
        return Embedded(reads=_expanded(command), binds=_identifiers(target))
    return Embedded(reads=_expanded(line), opaque=not _is_harmless(name, "line", shell))


def _cell_magic(name: str, line: str, body: str, shell: InteractiveShell | None) -> Embedded:
    name = _real_name(name, "cell", shell)
    if name in _RUN or name == "timeit":
        return _code_magic(name, line, body, shell)
    if name in _SHELL:
        return Embedded(reads=_expanded(line, body))
    if name in _SCRIPTS:
        return Embedded(reads=_expanded(line), binds=tuple(re.findall(r"--(?:out|err|proc)[ =]+(\w+)", line)))
    if _is_harmless(name, "cell", shell):
        return Embedded(reads=_expanded(line))
    # Nobody knows what it makes of its text; most that take Python run it.
    try:
        code = tuple(parse(body, shell).body)
    except SyntaxError:
        code = ()
    return Embedded(code=code, certain=False, reads=_expanded(line), opaque=True)


def _code_magic(name: str, line: str, body: str, shell: InteractiveShell | None) -> Embedded:
    """Say what a magic does whose text is code; those expand no ``$x``."""
    if name == "capture":
        bound = _identifiers(re.sub(r"--\S+", "", line))
        return Embedded(code=tuple(parse(body, shell).body), certain=False, binds=bound)
    options, code = _options(line, _RUN.get(name, _TIMEIT))
    # In cell form the line of %%timeit and %%prun is code too, and runs first.
    statements = [s for text in (code, body) for s in parse(text, shell).body]
    return Embedded(
        code=tuple(statements),
        own_block=name == "timeit",
        reads=_expressions(*options.get("f", ())) if name in ("lprun", "mprun") else (),
        binds=tuple(options.get("v", ())) if name == "timeit" else (),
    )


def _options(line: str, spec: str) -> tuple[dict[str, list[str]], str]:
    """Take the leading options off `line`; give those with a value, and the rest."""
    found: dict[str, list[str]] = {}
    line = re.sub(r"^\s*--no-raise-error\b", "", line)
    while match := re.match(r"\s*-([A-Za-z])", line):
        at, rest = spec.find(match[1]), line[match.end() :]
        if at < 0:
            break  # `%time -x` is an expression
        if spec[at + 1 : at + 2] == ":":
            value, _, line = rest.lstrip().partition(" ")
            found.setdefault(match[1], []).append(value)
        else:
            line = "-" + rest if rest[:1].isalnum() else rest
    return found, line.strip()


def _registered(name: str, kind: str, shell: InteractiveShell | None) -> object:
    # Not `find_magic`, which would import what is registered by name only.
    return cast("Any", shell).magics_manager.magics[kind].get(name) if shell is not None else None


def _real_name(name: str, kind: str, shell: InteractiveShell | None) -> str:
    """Follow ``%alias_magic``."""
    magic = _registered(name, kind, shell)
    return magic.magic_name if isinstance(magic, MagicAlias) else name


def _is_harmless(name: str, kind: str, shell: InteractiveShell | None) -> bool:
    """Whether a magic neither runs code nor binds names; what ``%alias`` made is a command of the system."""
    return name in _HARMLESS or isinstance(_registered(name, kind, shell), Alias)


def _expanded(*texts: str) -> tuple[ast.expr, ...]:
    """Give the expressions that IPython evaluates when it puts variables into `texts`."""
    return tuple(e for text in texts for e in _fields(text))


def _fields(text: str) -> Iterator[ast.expr]:
    try:
        for _, name, spec, _ in DollarFormatter().parse(text):
            if name is not None:
                yield ast.parse((f"{name}:{spec}" if spec else name).strip(), mode="eval").body
    except (ValueError, SyntaxError):
        return  # IPython leaves such a text as it is: the braces of awk, `${HOME}` in quotes


def _expressions(*texts: str) -> tuple[ast.expr, ...]:
    found = []
    for text in texts:
        try:
            found.append(ast.parse(text, mode="eval").body)
        except SyntaxError:
            continue
    return tuple(found)


def _identifiers(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split()[:1] if word.isidentifier())
