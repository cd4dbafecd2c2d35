"""The options of a job, declared once for magic line, keywords, terminal, help and completion."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import keyword
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from .errors import UsageError
from .models import ClusterSpec, JobOptions, Resources

__all__ = [
    "MagicLine",
    "completions",
    "duration",
    "from_keywords",
    "memory",
    "over",
    "parse_line",
    "parse_up",
    "split_map",
    "up_completions",
    "usage",
]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def memory(text: str | float) -> int:
    """Read an amount of memory: ``8GiB``, ``500MB``, or bytes.

    Raises
    ------
    ValueError
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
    if not match or match[2].lower() not in _UNITS or not float(match[1]):
        raise ValueError("an amount of memory such as 8GiB or 500MB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def duration(text: str | float) -> float:
    """Read a time: ``90``, ``90s``, ``10min``, ``2h``, ``1h30m``; seconds.

    Raises
    ------
    ValueError
    """
    text = str(text).strip()
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    whole = "".join(f"{n}{u}" for n, u in parts) == text.replace(" ", "")
    if not parts or not whole or any(u.lower() not in _SECONDS for _, u in parts):
        raise ValueError("a time such as 90s, 10min or 2h")
    seconds = sum(float(n) * _SECONDS[u.lower()] for n, u in parts)
    if not seconds:
        raise ValueError("a time above zero")
    return seconds


def _amount(text: str | float) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value < 1e6:
        raise ValueError("a number, zero or more (0.5 is half of one)")
    return value


def _count(text: str | int) -> int:
    if not re.fullmatch(r"\d{1,3}", str(text)):
        raise ValueError("a whole number from 0 to 999")
    return int(text)


def _parallel(text: str | int) -> int:
    if not re.fullmatch(r"[1-9]\d{0,5}", str(text)):
        raise ValueError("a whole number, one or more")
    return int(text)


def split_map(text: str) -> tuple[str, str]:
    """Read what ``--map`` is given: ``NAME=EXPR``; name and expression.

    Raises
    ------
    ValueError
    """
    name, equals, expression = (part.strip() for part in text.partition("="))
    if not equals or not expression or expression.startswith("="):
        raise ValueError("NAME=EXPR, such as --map store=stores")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"NAME=EXPR; {name!r} is not a name")
    return name, expression


def _map(text: str) -> str:
    return "=".join(split_map(text))


def _names(text: str | Sequence[str]) -> tuple[str, ...]:
    parts = text.split(",") if isinstance(text, str) else text
    if not isinstance(parts, (list, tuple, set, frozenset)) or not all(isinstance(p, str) for p in parts):
        raise ValueError("names separated by commas, or a list of names")
    names = [part.strip() for part in parts if part.strip()]
    for name in names:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError(f"names separated by commas; {name!r} is not a name")
    return tuple(dict.fromkeys(names))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("NAME=VALUE")
    if name.startswith(("RAYOFFLOAD_", "RAY_JOB_CONFIG")):
        raise ValueError(f"NAME=VALUE; {name} belongs to the runner")
    return name, value


def _resource(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not equals or not name or name in ("CPU", "GPU", "memory"):
        raise ValueError("NAME=NUMBER of a custom resource (CPUs, GPUs and memory have options of their own)")
    return name, _amount(value)


def _folder(text: str | Path) -> str:
    if not isinstance(text, (str, Path)):
        raise ValueError("the path of a folder")
    path = Path(text).expanduser()
    if not path.is_dir():
        raise ValueError(f"a folder; {str(text)!r} is none")
    return str(path.resolve())


def _label(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise ValueError(f"a Python name for the job's handle; {text!r} is none")
    return text


def _text(text: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError("some text")
    return text.strip()


def _texts(what: str) -> Callable[[Any], tuple[str, ...]]:
    """Give a reader of one text or several."""

    def read(value: Any) -> tuple[str, ...]:
        texts = (value,) if isinstance(value, (str, Path)) else value
        if not isinstance(texts, (list, tuple, set, frozenset)):
            raise ValueError(what)
        if not all(isinstance(text, (str, Path)) and str(text).strip() for text in texts):
            raise ValueError(what)
        return tuple(map(str, texts))

    return read


def _pattern(text: str) -> str:
    text = _text(text)
    parts = PurePosixPath(text).parts
    if parts[:1] in (("/",), ("//",), ("~",)) or ".." in parts:
        raise ValueError("a pattern of files in the workspace, such as out/*.csv; nothing else comes back")
    return text


# What pip reads in a file of requirements beside requirements: its own options, and places of archives.
_OF_PIP = re.compile(
    r"-[a-zA-Z]\b.*|--[a-z][a-z-]+\b.*|(?:\w+\+)?\w+://\S+.*|file:\S+|\S+\.(?:whl|zip|tar\.\w+|tgz)"
)
_FOLDER = re.compile(r"(?:\.{1,2}|~|/).*")


def _requirement(text: str) -> str:
    """Read one thing that pip can install; a wrong one would fail on the cluster after minutes of retries."""
    from packaging.requirements import InvalidRequirement, Requirement

    text = _text(text)
    bare = re.sub(r"\s+--(hash|config-settings|global-option)\b.*", "", text)
    if "\n" not in text and (_OF_PIP.fullmatch(text) or _FOLDER.fullmatch(text)):
        return text
    try:
        Requirement(bare)
    except InvalidRequirement:
        raise ValueError("a requirement such as 'polars>=1', a URL, a wheel's path or '-r FILE'") from None
    return text


def _requirements(value: Any) -> tuple[str, ...]:
    return tuple(map(_requirement, _texts("requirements, such as ['polars>=1']")(value)))


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(what)
    return dict(value)


class _Parser(argparse.ArgumentParser):
    """argparse that raises our one-line error instead of leaving the process."""

    hint = "%%ray_job? shows the options"

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", self.hint)


def _typed(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {problem}") from None

    return convert


def _build() -> _Parser:
    p = _Parser(prog="%%ray_job", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)

    def option(*flags: str, read: Callable[[str], Any] | None = None, **kwargs: Any) -> None:
        if read is not None:
            kwargs["type"] = _typed(read)
        p.add_argument(*flags, **kwargs)

    option("label", nargs="?", read=_label, metavar="NAME", help="label of the job, and name of its handle")
    option(
        "-i",
        "--inputs",
        read=_names,
        metavar="A,B",
        help="names that travel; found from the cell if left out",
    )
    option("-o", "--outputs", read=_names, metavar="C,D", help="names that come back; found if left out")
    option(
        "--wait",
        action="store_true",
        help="follow the job; its exception is raised here, an interrupt cancels it",
    )
    option(
        "--profile",
        read=_text,
        metavar="P",
        help="size of the cluster, as the site declares it",
    )
    option("--cluster", read=_text, metavar="C", help="name of the cluster")
    option("--cpus", read=_amount, metavar="N", help="CPUs that the job reserves")
    option("--gpus", read=_amount, metavar="N", help="GPUs that the job reserves")
    option("--memory", read=memory, metavar="8GiB", help="memory that the job may use")
    option(
        "--resource",
        read=_resource,
        action="append",
        default=[],
        metavar="K=V",
        help="custom resource of the cluster",
    )
    option(
        "--pip",
        read=_requirement,
        nargs="+",
        action="extend",
        default=[],
        metavar="REQ",
        help="requirements to install for the job",
    )
    option(
        "--py-module",
        read=_text,
        nargs="+",
        action="extend",
        default=[],
        dest="py_modules",
        metavar="MOD",
        help="local module or folder from outside the workspace",
    )
    option(
        "--env",
        read=_pair,
        nargs="+",
        action="extend",
        default=[],
        metavar="K=V",
        help="environment variables; visible to all who can list the cluster's jobs, so no secrets",
    )
    option(
        "--workdir",
        read=_folder,
        metavar="DIR",
        help="folder that travels; the notebook's own if left out",
    )
    option(
        "--exclude",
        read=_text,
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="files that stay here, in the syntax of .gitignore",
    )
    option(
        "--fetch",
        read=_pattern,
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="files that come back whatever their size",
    )
    option(
        "--map",
        read=_map,
        metavar="NAME=EXPR",
        help="run the cell once for each element of EXPR, called NAME there; outputs become lists",
    )
    option(
        "--max-parallel",
        read=_parallel,
        metavar="N",
        help="with --map: so many at once at most; as many as the cluster has room for if left out",
    )
    option("--timeout", read=duration, metavar="2h", help="end the job after this time")
    option(
        "--retries",
        read=_count,
        metavar="N",
        help="run it again so often where it fails; with --map each item",
    )
    option("--lazy", action="store_true", help="leave the outputs in the store, as references with get()")
    option("--dry-run", action="store_true", help="say what would travel, and submit nothing")
    option("--quiet", action="store_true", help="show no panel")
    return p


_PARSER = _build()


class MagicLine:
    """A parsed magic line.

    Parameters
    ----------
    label : str
    options : JobOptions
    wait, dry_run, quiet : bool
    """

    def __init__(self, label: str, options: JobOptions, wait: bool, dry_run: bool, quiet: bool) -> None:
        self.label, self.options = label, options
        self.wait, self.dry_run, self.quiet = wait, dry_run, quiet


def parse_line(line: str) -> MagicLine:
    """Read the line of ``%%ray_job``.

    Raises
    ------
    UsageError
        One line that says what is allowed.
    """
    try:
        words = _words(line)
    except ValueError as problem:
        raise UsageError(f"%%ray_job: {problem}".lower(), "Close the quotation mark") from None
    _known_flags(words)
    try:
        given = _PARSER.parse_args(words)
    except UsageError as error:
        if "--map" not in words or "argument --" in error.message:
            raise
        # Most likely a word of the expression was taken for the job's name.
        hint = "An expression of --map with blanks outside of brackets needs quotation marks around it"
        raise UsageError(error.message, hint) from None
    if given.max_parallel and not given.map:
        raise UsageError("%%ray_job: --max-parallel is for batches", "Add --map NAME=EXPR, or leave it out")
    resources = Resources(given.cpus, given.gpus, given.memory, dict(given.resource))
    options = JobOptions(
        inputs=given.inputs,
        outputs=given.outputs,
        profile=given.profile or "",
        cluster=given.cluster or "",
        resources=resources,
        pip=tuple(given.pip),
        py_modules=tuple(given.py_modules),
        env=dict(given.env),
        workdir=given.workdir or "",
        exclude=tuple(given.exclude),
        fetch=tuple(given.fetch),
        timeout=given.timeout,
        retries=given.retries or 0,
        lazy=given.lazy,
        map=given.map or "",
        max_parallel=given.max_parallel,
    )
    return MagicLine(given.label or "", options, given.wait, given.dry_run, given.quiet)


def _words(line: str) -> list[str]:
    """Split a line as a shell does, but leave the expression of ``--map`` as Python has it."""
    words: list[str] = []
    while found := re.search(r"(?:^|(?<=\s))--map(?:\s+|=)", line):
        words += [*shlex.split(line[: found.start()]), "--map"]
        line = line[found.end() :]
        end = _expression_end(line)
        # What stands in quotes as a whole is meant as in a shell.
        words += shlex.split(line[:end]) if line[:1] in ("'", '"') else [line[:end]] if end else []
        line = line[end:]
    return words + shlex.split(line)


def _expression_end(text: str) -> int:
    """Give where a Python expression ends: at a blank that is in no bracket and in no string."""
    depth, quote, skip = 0, "", False
    for place, letter in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter.isspace() and depth <= 0:
            return place
    if quote:
        raise ValueError("No closing quotation")
    return len(text)


#: Options of what the user guide calls planned.
_PLANNED = ("--standby",)


def _known_flags(words: Sequence[str]) -> None:
    """Refuse an unknown option before its value is taken for the job's name."""
    flags = [f for a in _PARSER._actions for f in a.option_strings]
    for word in words:
        flag = word.partition("=")[0]
        if flag in _PLANNED:
            raise UsageError(
                f"%%ray_job: {flag} is planned, and not there yet", "%%ray_job? shows the options"
            )
        if flag.startswith("--") and len(flag) > 2 and flag not in flags:
            close = difflib.get_close_matches(flag, flags, n=1)
            hint = f"Did you mean {close[0]}? " if close else ""
            raise UsageError(
                f"%%ray_job: unrecognized arguments: {flag}", f"{hint}%%ray_job? shows the options"
            )


def _choice(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise ValueError("FIELD=VALUE of the profile, such as workers=4")
    return name, value


def _build_up() -> _Parser:
    p = _Parser(prog="%ray cluster up", add_help=False, allow_abbrev=False)
    p.hint = "%ray cluster up [--cluster C] [--profile P] [FIELD=VALUE ...]; %ray profiles lists them"
    p.add_argument("--cluster", type=_typed(_text))
    p.add_argument("--profile", type=_typed(_text))
    p.add_argument("choices", type=_typed(_choice), nargs="*", metavar="FIELD=VALUE")
    return p


_UP = _build_up()


def parse_up(words: Sequence[str]) -> ClusterSpec:
    """Read what follows ``%ray cluster up``: name, profile and choices of the cluster that is asked for.

    Raises
    ------
    UsageError
        One line that says what is allowed.
    """
    given = _UP.parse_intermixed_args(words)
    return ClusterSpec(given.cluster or "default", given.profile or "", dict(given.choices))


_READERS: dict[str, Callable[[Any], Any]] = {
    "inputs": _names,
    "outputs": _names,
    "profile": _text,
    "cluster": _text,
    "cpus": _amount,
    "gpus": _amount,
    "memory": memory,
    "pip": _requirements,
    "py_modules": _texts("local modules or folders, such as ['../src/tools']"),
    "env": lambda v: dict(_pair(f"{k}={x}") for k, x in _mapping(v, "{'NAME': 'VALUE'}").items()),
    "workdir": lambda v: _folder(v) if v else "",
    "exclude": _texts("patterns of files, such as ['*.csv']"),
    "fetch": lambda v: tuple(map(_pattern, _texts("patterns of files, such as ['out/*.csv']")(v))),
    "timeout": duration,
    "retries": _count,
    "lazy": bool,
    "max_parallel": _parallel,
    "resources": lambda v: {
        k: _amount(x) for k, x in _mapping(v, "a mapping such as {'special': 1}").items()
    },
}
_OF_RESOURCES = ("cpus", "gpus", "memory")


def from_keywords(given: Mapping[str, Any], base: JobOptions) -> JobOptions:
    """Give `base` with the options that a Python call names.

    Raises
    ------
    UsageError
        One line that says what is allowed.
    """
    fields: dict[str, Any] = {}
    resources = base.resources
    for name, value in given.items():
        if name not in _READERS:
            raise UsageError(f"there is no option {name!r}", f"There are: {', '.join(sorted(_READERS))}")
        try:
            read = None if value is None else _READERS[name](value)
        except (TypeError, ValueError) as problem:
            raise UsageError(f"{name}={value!r}: expected {problem}") from None
        if name in _OF_RESOURCES:
            resources = resources.replace(**{name: read})
        elif name == "resources":
            resources = resources.replace(custom=read or {})
        else:
            fields[name] = read
    return base.replace(resources=resources, **fields)


def over(given: JobOptions, filled: JobOptions) -> JobOptions:
    """Fill what `given` leaves open from the defaults `filled`."""
    plain = JobOptions()
    open_fields = {
        f.name: getattr(filled, f.name)
        for f in dataclasses.fields(JobOptions)
        if f.name != "resources" and getattr(given, f.name) == getattr(plain, f.name)
    }
    asked = {k: v for k, v in vars(given.resources).items() if v}
    return given.replace(resources=filled.resources.replace(**asked), **open_fields)


def usage() -> str:
    """Give the help text of the options, one a line."""
    return _PARSER.format_help().strip()


def completions(line: str) -> list[str]:
    """Give the options that can follow on the magic line `line`."""
    used = set(line.split())
    flags = [f for a in _PARSER._actions for f in a.option_strings if f.startswith("--")]
    repeatable = {"--resource", "--pip", "--py-module", "--env", "--exclude", "--fetch"}
    return [f for f in flags if f not in used or f in repeatable]


def up_completions(words: Sequence[str]) -> list[str]:
    """Give the options that can follow on the line ``%ray cluster up``."""
    flags = [f for a in _UP._actions for f in a.option_strings]
    return [f for f in flags if f not in words]
