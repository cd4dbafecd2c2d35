"""From a cell, a call or a command to a draft: what it reads is found and frozen, on the caller's thread."""

from __future__ import annotations

import linecache
import platform
import re
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .cell import Analysis, analyze, changed_in_place, closure, pending_writes, watched
from .course import Draft, new_id
from .errors import InputError, NotPicklable, UsageError
from .imports import Absent
from .mapping import Mapped, becomes_lists
from .models import JobOptions, JobSpec, Value, ValueState
from .reference import Reference
from .remote import codec
from .remote.chunks import ITEMS
from .remote.libraries import roots
from .remote.parts import has_identity, parts
from .tracebacks import current_count, current_shell

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .remote.signing import Signer

__all__ = ["CellDraft", "Origin", "draft_call", "draft_cell", "draft_code", "draft_values"]


#: What IPython hides and cells read all the same: the results of earlier ones.
_RESULT = re.compile(r"_{1,3}|_\d+")
#: Gives the job that will still assign a name, if there is one.
Pending = Callable[[str], "JobSpec | None"]


@dataclass(frozen=True)
class Origin:
    """Where a draft comes from.

    Parameters
    ----------
    owner, notebook, folder : str
        Whose it is, the notebook's name, and the folder it stands in.
    namespace : dict
        The notebook's own.
    signer : Signer
    freeze_limit : int
        Buffers of more bytes than this in all are not copied: they are sent before the notebook goes on.
    """

    owner: str
    notebook: str
    folder: str
    namespace: dict[str, Any]
    signer: Signer
    freeze_limit: int


class CellDraft:
    """A draft of a cell, with what its notebook must know of it.

    Parameters
    ----------
    draft : Draft
    pending : frozenset of str
        Names that other cells must wait for.
    possible : frozenset of str
        Names that may come back changed, and that nobody waits for.
    aliases : frozenset of str
        Names of the same objects, or of parts of them, that the cell does not mention: other cells must wait
        for them too.
    """

    def __init__(
        self,
        draft: Draft,
        pending: frozenset[str],
        possible: frozenset[str],
        aliases: frozenset[str] = frozenset(),
    ) -> None:
        self.draft, self.pending, self.possible, self.aliases = draft, pending, possible, aliases


def draft_cell(
    origin: Origin,
    source: str,
    options: JobOptions,
    label: str,
    *,
    pending: Pending,
    shell: InteractiveShell,
    cell_line: str = "",
    mapped: Mapped | None = None,
) -> CellDraft:
    """Draft a cell of a notebook; with `mapped` it is run once for each of those items.

    Raises
    ------
    SyntaxError
        As Python raises it.
    UsageError
        A name that ``-i`` gives does not exist.
    NotPicklable
        An input cannot travel; by name, with the path to the culprit.
    """
    namespace = origin.namespace
    analysis = analyze(source, shell)
    bound = {mapped.name} if mapped else set[str]()  # the items are called so there, whatever is here
    wanted = (set(analysis.reads) if options.inputs is None else set(options.inputs)) - bound
    after = _chained(wanted, pending)
    # A function may read a name that no job has bound yet.
    reads = closure(wanted - set(after), namespace, _Pending(pending))
    for name in set(reads.names) - bound:  # what a function of the notebook reads may be pending too
        after.update(_chained({name}, pending))
    hidden = shell.user_ns_hidden  # IPython's own: In, Out, open, ...
    names = [
        n
        for n in reads.names
        if n not in after
        and n not in bound
        and (_RESULT.fullmatch(n) or namespace[n] is not hidden.get(n, after))
    ]
    _require(options.inputs, names, after, namespace)
    references = {n: namespace[n] for n in names if isinstance(namespace[n], Reference)}
    after.update({n: f"{r.job}#{r.name}" for n, r in references.items()})
    values = {n: namespace[n] for n in names if n not in references}
    owned = pending_writes(analysis, namespace, after) | reads.writes
    touched = changed_in_place(analysis, namespace, after) & set(values)
    if mapped:
        owned = becomes_lists(analysis, source, shell)
    if options.outputs is not None:
        owned = frozenset(options.outputs)
    owned = frozenset(n for n in owned if not _imported_already(n, analysis, namespace))
    maybe = watched(analysis, namespace, set(reads.names) - wanted, after) & (set(values) | set(after))
    expected = owned if options.outputs is not None or mapped else analysis.writes | (owned & set(names))
    draft = draft_values(
        origin,
        source,
        options,
        label,
        values,
        namespace,
        modules=analysis.modules | reads.modules,
        needs=analysis.needs,
        after=after,
        expected=_in_order(expected, source),
        watched=tuple(sorted(maybe)) if options.outputs is None or mapped else (),
        cell_line=cell_line,
        count=current_count(shell),
        mapped=mapped,
        copies=bool(touched),
    )
    draft.spec = draft.spec.replace(
        cells=_cells_of(draft, shell),
        aliased=_aliased(draft.spec.watched, namespace, hidden),
        deletes=tuple(sorted((analysis.deletes - analysis.reads) & namespace.keys())),
    )
    if mapped:  # what an item does to an input stays in that item
        return CellDraft(draft, owned, frozenset())
    shown = {n: v for n, v in namespace.items() if n not in hidden and not n.startswith("_")}
    return CellDraft(draft, owned, maybe | analysis.items, _other_names(touched, shown) - owned)


def draft_code(
    origin: Origin,
    source: str,
    options: JobOptions,
    label: str,
    *,
    values: Mapping[str, Any] | None,
    mapped: Mapped | None = None,
) -> Draft:
    """Draft a piece of code with names given by hand; with `mapped` it is run once for each of these."""
    namespace = dict(values or {})
    analysis = analyze(source)
    expected = becomes_lists(analysis, source) if mapped else analysis.writes
    draft = draft_values(
        origin,
        source,
        options,
        label,
        namespace,
        origin.namespace,
        modules=analysis.modules | closure(namespace, namespace).modules,
        needs=analysis.needs,
        expected=_in_order(expected, source),
        watched=tuple(sorted(watched(analysis, namespace))),
        mapped=mapped,
        copies=bool(changed_in_place(analysis, namespace) & namespace.keys()),
    )
    return _with_cells(draft)


def draft_call(
    origin: Origin,
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: JobOptions,
    label: str,
    mapped: Mapped | None = None,
) -> Draft:
    """Draft the call of a function; what it reads of its own namespace travels with it.

    With `mapped` it is called once for each of those items, which is its first argument.
    """
    call = {"function": function, "args": tuple(args), "kwargs": dict(kwargs)}
    namespace = origin.namespace
    needs = closure(["function"], {**namespace, "function": function})
    reads = [n for n in needs.names if n != "function"]
    clash = set(reads) & set(call)
    if clash:
        raise InputError(
            f"the function reads a global called {sorted(clash)[0]!r}, a name that a call's own parts have",
            "Rename that global",
        )
    draft = draft_values(
        origin,
        f"{getattr(function, '__qualname__', function)}(…)",
        options,
        label or _slug(getattr(function, "__name__", "call")),
        {**call, **{n: namespace[n] for n in reads}},
        namespace,
        modules=needs.modules,
        kind="callable",
        mapped=mapped,
    )
    return _with_cells(draft)


def draft_values(
    origin: Origin,
    source: str,
    options: JobOptions,
    label: str,
    values: Mapping[str, Any],
    namespace: dict[str, Any],
    *,
    modules: frozenset[str],
    needs: frozenset[str] = frozenset(),
    kind: str = "cell",
    after: Mapping[str, str] | None = None,
    expected: Sequence[str] = (),
    watched: Sequence[str] = (),
    cell_line: str = "",
    count: int | None = None,
    mapped: Mapped | None = None,
    copies: bool = False,
) -> Draft:
    """Draft a job whose parts are known: `values` are frozen; the others are those of its ``JobSpec``."""
    if mapped:
        values = {**values, ITEMS: mapped.items}
    mentioned = set(
        re.findall(r"\.\s*(\w+)", source)
    )  # `import xml.etree` binds xml: say which parts are meant
    _importable(values)
    try:
        limit = origin.freeze_limit
        frozen = codec.freeze(values, namespace, origin.signer, copy=True, most=limit, mentioned=mentioned)
    except codec.Unpicklable as error:
        if mapped and error.name == ITEMS:
            raise mapped.refused(error) from None
        raise NotPicklable(
            f"input {error.path} cannot travel: {error.reason}",
            "Make it in the cell instead, or leave it out with -i",
        ) from None
    inputs = [Value(v["name"], v["type"], v["size"], ValueState.TO_SEND) for v in frozen.values]
    if mapped:
        inputs = [mapped.value(v) for v in inputs]
    waits = [Value(n, state=ValueState.WAITS, job=j.partition("#")[0]) for n, j in (after or {}).items()]
    spec = JobSpec(
        id=new_id(label),
        kind=kind,
        source=source,
        cell_line=cell_line,
        label=label,
        owner=origin.owner,
        notebook=origin.notebook,
        count=count,
        created=time.time(),
        options=options,
        inputs=(*inputs, *waits),
        expected=tuple(expected),
        watched=tuple(watched),
        after=dict(after or {}),
        versions={"python": ".".join(platform.python_version_tuple()[:2]), **frozen.libraries},
        batch=mapped.batch.replace(copies=copies) if mapped else None,
    )
    absent = {v.__name__ for v in values.values() if isinstance(v, Absent)}
    return Draft(
        spec,
        frozen,
        tuple(sorted(modules - absent)),
        cwd=origin.folder,
        held=frozen.held,
        needs=roots(needs) - {"ray"} | frozen.needs,
    )


def _importable(values: Mapping[str, Any]) -> None:
    """Refuse a module that this process alone has registered: the cluster would look for its file in vain."""
    for name, value in values.items():
        if type(value) is not types.ModuleType or value.__spec__ is not None:
            continue
        module = value.__name__
        if module == "__main__" or "." in module or sys.modules.get(module) is not value:
            continue
        finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
        if not any(finder.find_spec(module, None) for finder in finders):
            raise InputError(
                f"input {name} cannot travel: the module {module} was made in this process, and has no file",
                "Write it to a file beside the notebook, or make it in the cell",
            )


class _Pending:
    """Holds the names that jobs will assign."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._pending(name) is not None


def _chained(names: set[str], pending: Pending) -> dict[str, str]:
    """Give the jobs that will assign `names`; one that defines functions brings all it assigns."""
    after: dict[str, str] = {}
    for name in names:
        job = pending(name)
        if job is None:
            continue
        after[name] = job.id
        if re.search(r"\b(def|class|lambda)\b", job.source):
            others = [n for n in job.expected if (owner := pending(n)) is not None and owner.id == job.id]
            after.update(dict.fromkeys(others, job.id))
    return after


def _cells_of(draft: Draft, shell: InteractiveShell) -> dict[str, list[Any]]:
    """Give the text of the cells whose functions travel, so that tracebacks there show their lines."""
    counts: Mapping[str, int] = getattr(shell.compile, "_filename_map", {})
    files = draft.frozen.files if draft.frozen is not None else ()
    return {n: [counts[n], "".join(linecache.getlines(n))] for n in sorted(files) if n in counts}


def _with_cells(draft: Draft) -> Draft:
    """Give `draft` with the text of the cells that its functions were defined in; a script has none."""
    shell = current_shell()
    if shell is not None:
        draft.spec = draft.spec.replace(cells=_cells_of(draft, shell))
    return draft


def _imported_already(name: str, analysis: Analysis, namespace: Mapping[str, Any]) -> bool:
    """Whether the cell only imports what `name` is bound to anyway: nobody need wait for that."""
    if name not in analysis.imports or name not in namespace:
        return False
    value = namespace[name]
    return isinstance(value, types.ModuleType) or getattr(value, "__name__", None) == name


def _aliased(
    names: Iterable[str], namespace: Mapping[str, Any], hidden: Mapping[str, Any]
) -> tuple[str, ...]:
    """Give those of `names` whose value the notebook has under another name, too; IPython's do not count."""
    counts = Counter(id(v) for n, v in namespace.items() if n not in hidden and not n.startswith("_"))
    return tuple(n for n in names if counts[id(namespace.get(n))] > 1)


def _other_names(names: Iterable[str], namespace: Mapping[str, Any]) -> frozenset[str]:
    """Give the names that are bound to the values of `names`, or to what is inside of these."""
    inside = {id(part) for n in names for _, part in parts(namespace.get(n)) if has_identity(part)}
    return frozenset(n for n, value in namespace.items() if id(value) in inside).difference(names)


def _require(
    given: Sequence[str] | None, names: Sequence[str], after: Mapping[str, str], namespace: Mapping[str, Any]
) -> None:
    for name in given or ():
        if name not in namespace and name not in after:
            raise UsageError(f"-i {name}: the notebook has no such name", "Assign it first, or leave -i out")


def _in_order(names: frozenset[str], source: str) -> list[str]:
    """Sort names as they stand in the source."""

    def place(name: str) -> tuple[int, str]:
        match = re.search(rf"\b{re.escape(name)}\b", source)
        return (match.start() if match else len(source), name)

    return sorted(names, key=place)


def _slug(name: str) -> str:
    return re.sub(r"\W", "_", name) or "call"
