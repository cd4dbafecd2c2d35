"""What lands in a notebook, when, and who waits for it.

Outputs land between cells, on the main thread, never in the middle of a running one. A name has one owner:
the newest job that will assign it. A cell that reads an owned name waits for its job first: a syntax-tree
transformer puts that wait in front of the cell.
"""

from __future__ import annotations

import ast
import contextlib
import linecache
import logging
import warnings
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, cast

from .cell import analyze, closure
from .claims import MISSING, Claim, pair_up
from .display import METADATA
from .errors import DependencyFailed, OffloadError, StillRunning
from .imports import bind
from .models import JobSpec, Phase, Value, ValueState
from .reference import Reference
from .tracebacks import remember, rendering

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .job import Job
    from .session import Session

__all__ = ["Landing", "dependency_failed"]

log = logging.getLogger(__name__)
#: How long files may take to come home before a cell goes on without them, seconds.
HOME_SECONDS = 60.0
#: What a wait for them takes before it is said, seconds: mostly they are here at once.
_NOTICED = 0.3


class Landing:
    """Lands the outputs of this notebook's jobs.

    Parameters
    ----------
    shell : InteractiveShell
    session : Session
    """

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        self.shell, self.session = shell, session
        self.namespace: dict[str, Any] = shell.user_ns
        #: Of each name the jobs that may still assign it, oldest first; other cells wait for the newest.
        self.owners: dict[str, list[Job]] = {}
        self._claims: dict[str, Claim] = {}
        self._stale: dict[str, Job] = {}
        # Of each name, id and time of the job that has assigned it last; not the job, which holds values.
        self._landed: dict[str, tuple[str, float]] = {}
        # Of each name what lands if no newer owner assigns it after all.
        self._deferred: dict[str, Claim] = {}
        # Landed, and perhaps files of theirs are still on their way.
        self._homeward: list[Job] = []
        self._busy = 0
        self._transformer = _WaitInFront(self)

    def install(self) -> None:
        """Enter the shell's events and its syntax-tree transformers."""
        self.shell.events.register("pre_execute", self._before)
        self.shell.events.register("post_execute", self._after)
        self.shell.ast_transformers.append(self._transformer)

    def uninstall(self) -> None:
        """Take the hooks back."""
        with contextlib.suppress(ValueError):
            self.shell.events.unregister("pre_execute", self._before)
        with contextlib.suppress(ValueError):
            self.shell.events.unregister("post_execute", self._after)
        if self._transformer in self.shell.ast_transformers:
            self.shell.ast_transformers.remove(self._transformer)

    # ------------------------------------------------------------------ ownership

    def claim(
        self, job: Job, pending: Iterable[str], possible: Iterable[str], aliases: Collection[str] = ()
    ) -> None:
        """Make `job` the owner of the names that it will assign.

        Parameters
        ----------
        job : Job
        pending : iterable of str
            Names that other cells must wait for.
        possible : iterable of str
            Names that may come back changed, and that nobody waits for.
        aliases : collection of str
            Names that other cells must wait for, too, and that the job knows nothing of: their values change
            with those of others.
        """
        pending = {*pending, *aliases}
        names = pending | set(possible) | {v.name for v in job.record.spec.inputs}
        self._claims[job.id] = Claim(
            job,
            {name: self.namespace.get(name, MISSING) for name in names},
            {name: id(value) for name, value in self.namespace.items()},
            frozenset(aliases),
        )
        for name in pending:
            self.pending(name)  # owners whose value the notebook has replaced are none
            self.owners.setdefault(name, []).append(job)
            self._stale.pop(name, None)
        job.add_done_callback(lambda _: self._wake())

    def pending(self, name: str) -> Job | None:
        """Give the job that will still assign `name`, if there is one."""
        owners = self.owners.get(name)
        if not owners:
            return None
        job = owners[-1]
        claim = self._claims.get(job.id)
        if claim is None or not claim.untouched(name, self.namespace.get(name, MISSING)):
            del self.owners[name]  # the notebook has bound it anew: what the job assigns came before that
            self._deferred.pop(name, None)
            return None
        return job

    def pending_spec(self, name: str) -> JobSpec | None:
        """As :meth:`pending`, of the job what a draft must know.

        A name that the job does not know cannot be chained: it is waited for, as a cell does that reads it.
        """
        job = self.pending(name)
        if job is not None and name in self._claims[job.id].aliases:
            self.arrive([name])
            return None
        return job.record.spec if job is not None else None

    # ------------------------------------------------------------------ landing

    def _before(self) -> None:
        self._busy += 1
        if self._busy == 1:
            self.land_ready()

    def _after(self) -> None:
        self._busy = max(0, self._busy - 1)
        if not self._busy:
            self.land_ready()

    def _wake(self) -> None:
        """Land as soon as the main thread is idle; in a terminal the next cell does it."""
        kernel = getattr(self.shell, "kernel", None)
        loop = getattr(kernel, "io_loop", None)
        if loop is not None:
            loop.add_callback(self._when_idle)

    def _when_idle(self) -> None:
        if not self._busy:
            self.land_ready()

    def land_ready(self) -> None:
        """Land what has ended, oldest first; only between cells, on the main thread."""
        for claim in [c for c in self._claims.values() if c.job.done()]:
            self.land(claim.job)

    def land(self, job: Job, even_failed: bool = False) -> None:
        """Land one ended job's outputs.

        Parameters
        ----------
        job : Job
        even_failed : bool
            Also what it assigned before its error, as under ``--wait``.
        """
        claim = self._claims.pop(job.id, None)
        if claim is None:
            return
        owned = [name for name, owners in self.owners.items() if job in owners]
        landable = job.phase is Phase.SUCCEEDED or bool(even_failed and job.end)
        if landable:
            states = self._bind(job, claim)
        else:
            states = [
                v.replace(state=ValueState.NOT_LANDED, reason="the job failed")
                for v in job.record.outputs
                if v.state is not ValueState.CANNOT_TRAVEL
            ]
        if job.phase is not Phase.SUCCEEDED and not even_failed:  # a waiting cell has raised the error itself
            still = [n for n in owned if claim.untouched(n, self.namespace.get(n, MISSING))]
            self._stale.update(dict.fromkeys(still, job))
        assigned = (
            {v.name for v in job.record.outputs} | set(job.end.get("deleted", ())) if landable else set()
        )
        for name in owned:
            self._disown(name, job, assigned=name in assigned)
        job.settle(states)
        if job.end.get("files_package"):
            self._homeward.append(job)
        job.let_go()

    def _disown(self, name: str, job: Job, assigned: bool) -> None:
        """Take a job, and those it has outrun, from a name's owners; after the last, what waits lands."""
        owners = self.owners[name]
        place = owners.index(job)
        del owners[0 if assigned else place : place + 1]
        if owners:
            return
        del self.owners[name]
        late = self._deferred.pop(name, None)
        if late is not None and not assigned:
            late.job.settle(self._bind(late.job, late, [name]))
            late.job.let_go()

    def _bind(self, job: Job, claim: Claim, names: Collection[str] | None = None) -> list[Value]:
        """Bind what a job gave, or only `names` of it; give what has become of each output."""
        states: list[Value] = []
        self._recall(job)
        for name in job.end.get("deleted", ()):
            if names is None and not self._refusal(job, claim, name):
                self._set(job, name, MISSING)
        landing = []
        for value in job.record.outputs:
            if value.state is ValueState.CANNOT_TRAVEL or (names is not None and value.name not in names):
                continue
            refusal = self._refusal(job, claim, value.name)
            if refusal:
                states.append(value.replace(state=ValueState.NOT_LANDED, reason=refusal))
            else:
                landing.append(value)
        imports = job.end.get("imports", {})
        for value in [v for v in landing if v.name in imports]:
            self._set(job, value.name, bind(*imports[value.name]))
            states.append(value.replace(state=ValueState.LANDED))
        same = job.end.get("same", {})
        for value in [v for v in landing if v.name in same]:
            try:
                self._set(job, value.name, self._input(claim, same[value.name]))
            except OffloadError as error:
                states.append(value.replace(state=ValueState.NOT_LANDED, reason=str(error)))
            else:
                states.append(value.replace(state=ValueState.LANDED))
        rest = [v for v in landing if v.name not in imports and v.name not in same]
        states += self._bind_values(job, claim, rest, alone=names is not None)
        newest = (job.id, job.record.spec.created)
        self._landed.update({v.name: newest for v in states if v.state is not ValueState.NOT_LANDED})
        return states

    def _set(self, job: Job, name: str, value: Any) -> None:
        """Bind a name to what a job gave, or unbind it; for newer jobs that comes before them."""
        old = self.namespace.pop(name, MISSING) if value is MISSING else self.namespace.get(name, MISSING)
        if value is not MISSING:
            self.namespace[name] = value
        for claim in [*self._claims.values(), *self._deferred.values()]:
            newer = claim.job.record.spec.created > job.record.spec.created
            if newer and claim.untouched(name, old):
                claim.follow(name, value, job)

    def _input(self, claim: Claim, name: str) -> Any:
        """Give the object of this notebook that a job had as its input `name`."""
        there = claim.job.record.spec.after.get(name)
        if there is None:
            return claim.originals[name]
        return claim.expected[name] if claim.sources.get(name) == there else claim.job.input(name)

    def _recall(self, job: Job) -> None:
        """Know the cell by the name of its code, so that tracebacks of its functions show their lines."""
        spec, name = job.record.spec, job.end.get("file")
        if not name or spec.count is None:
            return
        text = f"# {spec.cell_line}\n{spec.source}"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        with contextlib.suppress(AttributeError):  # IPython's own map of such names to `Cell In[7]`
            cast("Any", self.shell.compile)._filename_map[name] = spec.count

    def _bind_values(self, job: Job, claim: Claim, landing: list[Value], alone: bool) -> list[Value]:
        replaced = {} if alone else job.end.get("replaced", {})
        if not landing and not replaced:
            return []
        size = sum(v.size or 0 for v in landing)
        if job.record.spec.options.lazy or size > self.session.config.lazy_above:
            for value in landing:
                self._set(job, value.name, Reference(job, value.name))
            return [
                v.replace(state=ValueState.KEPT, reason="a reference; .get() brings it here") for v in landing
            ]
        try:
            values, absent = job.values("outputs", claim.held()), job.absent("outputs")
        except OffloadError as error:
            return [v.replace(state=ValueState.NOT_LANDED, reason=str(error)) for v in landing]
        except Exception as error:
            reason = f"it cannot be rebuilt here: {type(error).__name__}: {error}"
            return [v.replace(state=ValueState.NOT_LANDED, reason=reason) for v in landing]
        here = [v for v in landing if v.name not in absent]
        changed: dict[int, tuple[Any, Any]] = {}
        for value in here:
            if value.name in job.end.get("in_place", ()):
                pair_up(claim.expected.get(value.name, MISSING), values[value.name], changed)
            self._set(job, value.name, values[value.name])
        for name, key in replaced.items():  # changed, and then bound to something else
            if key in values:
                pair_up(claim.expected.get(name, MISSING), values[key], changed)
        for name, held in list(self.namespace.items()):
            old, new = changed.get(id(held), (MISSING, None))
            if held is old:  # another name of what the cell changed in place
                self._set(job, name, new)
                self._keep_hidden(name, new)
        return [
            v.replace(state=ValueState.NOT_LANDED, reason=f"it cannot be rebuilt here: {absent[v.name]}")
            if v.name in absent
            else v.replace(state=ValueState.LANDED)
            for v in landing
        ]

    def _keep_hidden(self, name: str, value: Any) -> None:
        """Let ``_`` and ``_7`` go on being IPython's: it binds no next result to a name that others bound."""
        if name not in self.shell.user_ns_hidden:
            return
        self.shell.user_ns_hidden[name] = value
        if name in ("_", "__", "___"):
            setattr(self.shell.displayhook, name, value)
        elif name[1:].isdigit() and int(name[1:]) in self.namespace["_oh"]:
            self.namespace["_oh"][int(name[1:])] = value

    def _refusal(self, job: Job, claim: Claim, name: str) -> str:
        """Say why `name` must not land; empty where it may."""
        owners = self.owners.get(name)
        if owners and owners[-1].record.spec.created > job.record.spec.created:
            last = self._deferred.get(name)
            if last is None or last.job.record.spec.created < job.record.spec.created:
                self._deferred[name] = claim
            return f"a newer job, {owners[-1].id}, assigns it"
        if claim.untouched(name, self.namespace.get(name, MISSING)):
            return ""
        newest, created = self._landed.get(name, ("", 0.0))
        if created > job.record.spec.created:
            return f"a newer job, {newest}, has assigned it"
        return "the name was rebound in the notebook while the job ran"

    # ------------------------------------------------------------------ waiting

    def names_to_await(self, tree: ast.Module) -> tuple[str, ...]:
        """Give the owned or stale names that the cell `tree` reads."""
        if not self._claims and not self._stale:
            return ()
        analysis = analyze(tree, self.shell)
        # A function may read a name that no job has bound yet.
        reads = set(analysis.reads) | set(closure(analysis.reads, self.namespace, self.owners).names)
        names = {n for n in reads if self.pending(n) or n in self._stale}
        return tuple(sorted(names))

    def files_to_await(self) -> bool:
        """Say whether files of jobs that have landed are not here yet: any cell may open one of them."""
        self._homeward = [job for job in self._homeward if not _is_home(job)]
        return bool(self._homeward)

    def await_files(self, job: Job) -> str:
        """Wait until what a landed job left is here, files too.

        Returns
        -------
        str
            Why it is not, in a sentence; empty where it is.
        """
        if job in self._homeward:  # whatever comes of it, no other cell waits for it again
            self._homeward.remove(job)
        if job.settled is None:
            return ""
        try:
            with contextlib.suppress(StillRunning):
                self.session.wait(job.settled, _NOTICED)
                return ""
            with _notice(self.shell, job, f"Waits for the files of job {job.label or job.id}"):
                self.session.wait(job.settled, HOME_SECONDS)
        except StillRunning:
            return f"the files of job {job.id} are still on their way after {HOME_SECONDS:g} s"
        except Exception as error:
            return f"the files of job {job.id} have not come home: {error}"
        return ""

    def arrive(self, names: Iterable[str]) -> None:
        """Wait for the jobs that will assign `names`, and land them; called before a cell that reads them.

        Files of jobs that have landed are waited for, too: the cell may open them.

        Raises
        ------
        DependencyFailed
            A job failed while the cell waited for it.
        KeyboardInterrupt
            The wait was interrupted; the jobs go on.
        """
        for name in names:
            while (job := self.pending(name)) is not None:  # the newest may not assign it after all
                self._await(name, job)
            if name in self._stale:
                self._warn(name)
        while self.files_to_await():
            if problem := self.await_files(self._homeward[0]):
                warnings.warn(problem, UserWarning, stacklevel=3)  # the cell: it calls OffloadMagics.arrive

    def _await(self, name: str, job: Job) -> None:
        if not job.done():
            with _notice(self.shell, job, f"Waits for {name} from job {job.label or job.id}"):
                job.wait()
        self.land_ready()  # older ones first
        if job.phase is not Phase.SUCCEEDED:
            self._stale = {n: j for n, j in self._stale.items() if j is not job or n != name}
            raise dependency_failed(name, job)

    def _warn(self, name: str) -> None:
        job = self._stale.pop(name)
        there = "is what it was before" if name in self.namespace else "was to be assigned by"
        warnings.warn(
            f"{name!r} {there} job {job.id}, which ended as {job.phase.value}",
            UserWarning,
            stacklevel=4,  # the cell: it calls OffloadMagics.arrive, which calls arrive
        )


def _is_home(job: Job) -> bool:
    coming = job.settled
    return coming is None or (coming.done() and (coming.cancelled() or coming.exception() is None))


def dependency_failed(name: str, job: Job) -> DependencyFailed:
    """Make the error of a cell that waits for a job that failed; it shows the job's own error."""
    cause = job.exception()
    error = DependencyFailed(
        f"{name!r} comes from job {job.id}, which ended as {job.phase.value}",
        "Mend that cell and run it again; this cell, run again, sees the old value",
    )
    error.__cause__ = cause
    if lines := rendering(cause):
        remember(error, [*lines, "", *error._render_traceback_()])
    return error


@contextlib.contextmanager
def _notice(shell: InteractiveShell, job: Job, text: str) -> Any:
    """Show a line, marked as ours, while a job is waited for, and take its text away afterwards."""
    from uuid import uuid4

    transient, metadata = {"display_id": uuid4().hex}, {METADATA: {"awaits": job.id}}
    shell.display_pub.publish({"text/plain": text}, metadata, transient=transient)
    try:
        yield
    finally:
        shell.display_pub.publish({"text/plain": ""}, metadata, transient=transient, update=True)


class _WaitInFront(ast.NodeTransformer):
    """Puts the wait for pending names, and for files on their way, in front of a cell; line numbers stay."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing

    def visit_Module(self, node: ast.Module) -> ast.Module:
        try:
            names = self._landing.names_to_await(node)
            files = self._landing.files_to_await()
        except SyntaxError:
            return node
        except Exception:  # IPython would drop this transformer for good, and no later cell would wait
            log.exception("what the cell reads could not be found out; it does not wait for any job")
            return node
        if not (names or files) or not node.body:
            return node
        call = f"get_ipython().rayoffload.arrive({names!r})"
        wait = ast.parse(call).body[0]
        for part in ast.walk(wait):
            ast.copy_location(part, node.body[0])
        body = [wait, *node.body]
        if _is_docstring(node.body[0]):
            body = [node.body[0], wait, *node.body[1:]]
        return ast.Module(body=body, type_ignores=node.type_ignores)


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
