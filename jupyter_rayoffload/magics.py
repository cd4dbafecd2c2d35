"""``%%ray_job`` and ``%ray``."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from . import options as option_table
from .errors import JobNotFound, OffloadError, UsageError
from .options import MagicLine, parse_line
from .tracebacks import Tracebacks, as_here

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from .job import Job
    from .landing import Landing
    from .models import Profile
    from .session import Session

__all__ = ["OffloadMagics", "load", "unload"]

#: How long a completion may wait, seconds.
COMPLETION_SECONDS = 2.0
_VERBS = (
    "jobs",
    "attach",
    "logs",
    "result",
    "cancel",
    "rerun",
    "retry",
    "delete",
    "cluster",
    "profiles",
    "config",
    "help",
)


@magics_class
class OffloadMagics(Magics):
    """The magics of this extension; what they need is imported at their first use.

    Parameters
    ----------
    shell : InteractiveShell
    """

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.shell: InteractiveShell = shell
        self.folder = os.getcwd()
        self.matcher: Any = None
        self._landing: Landing | None = None

    @property
    def landing(self) -> Landing:
        """What lands in this notebook."""
        if self._landing is None:
            from .config import RayOffload
            from .landing import Landing
            from .session import session

            here = session(RayOffload.load(self.shell), self.shell.user_ns)
            here.notebook = _notebook(self.shell)
            here.folder = self.folder
            self._landing = Landing(self.shell, here)
            self._landing.install()
        return self._landing

    @property
    def session(self) -> Session:
        """What links this process to its owner's jobs."""
        return self.landing.session

    def profiles(self) -> Sequence[Profile]:
        """Give the profiles for completion, which says nothing where there is something wrong."""
        with contextlib.suppress(OffloadError):
            return self.session.profiles(COMPLETION_SECONDS)
        return ()

    def arrive(self, names: tuple[str, ...]) -> None:
        """Wait for pending names; :mod:`.landing` puts this call in front of a cell."""
        self.landing.arrive(names)

    # ------------------------------------------------------------------ %%ray_job

    @cell_magic
    def ray_job(self, line: str, cell: str) -> Job | Any:
        """Run this cell as a Ray job: ``%%ray_job [NAME] [options]``."""
        given = parse_line(line)
        self._free_name(given.label)
        if not cell.strip():
            raise UsageError("%%ray_job: the cell is empty", "Write below the line what is to run")
        given = self._with_defaults(given)
        from .display import progress
        from .waiting import Messages, wait_here

        draft = self._draft(given, cell, line)
        if given.dry_run:
            from .packing import preflight

            print(preflight(draft.draft, self.session.config, self.session.origin().signer))
            return None
        wait = given.wait or not _can_come_back(self.shell)
        messages: Messages = queue.SimpleQueue()
        observer = (lambda *told: messages.put(told)) if wait else None
        with progress(self.shell, "Sending the inputs") as on_progress:
            job = self.session.launch(draft.draft, observer, on_progress)
        self.landing.claim(job, draft.pending, draft.possible, draft.aliases)
        if given.label:
            self.shell.user_ns[given.label] = job
        if wait:
            wait_here(job, self.landing, messages, quiet=given.quiet)
            return None
        job.quiet = given.quiet
        return job

    def _draft(self, given: MagicLine, cell: str, line: str) -> Any:
        from .drafting import draft_cell
        from .mapping import mapped

        asked = given.options
        items = mapped(asked.map, asked.max_parallel, self.shell, self.landing.arrive) if asked.map else None
        cell_line = f"%%ray_job {line}".rstrip()
        try:
            return draft_cell(
                self.session.origin(),
                cell,
                given.options,
                given.label,
                pending=self.landing.pending_spec,
                shell=self.shell,
                cell_line=cell_line,
                mapped=items,
            )
        except SyntaxError as error:
            unparsable = error
        # Outside the handler: a local cell's error has no other one as its context.
        raise as_here(self.shell, cell_line, cell) or unparsable

    def _free_name(self, label: str) -> None:
        from .job import Job

        there = self.shell.user_ns.get(label) if label else None
        if there is not None and not isinstance(there, Job):
            from .words import with_article

            kind = with_article(type(there).__name__)
            raise UsageError(
                f"%%ray_job {label}: {label} is {kind} of this notebook, not a job",
                "Choose another name: it labels the job and holds its handle",
            )

    def _with_defaults(self, given: MagicLine) -> MagicLine:
        filled = option_table.over(given.options, self.session.config.job_options())
        given.options = self.session.checked(filled)
        return given

    # ------------------------------------------------------------------ %ray

    @line_magic
    def ray(self, line: str) -> Any:
        """Show the cluster and the newest jobs; ``%ray help`` lists the verbs."""
        verb, *words = _split(line) or [""]
        method: Callable[[list[str]], Any] | None = getattr(self, f"_ray_{verb or 'status'}", None)
        if method is None:
            raise UsageError(f"%ray {verb}: there is no such verb", f"There are: {', '.join(_VERBS)}")
        return method(words)

    def _ray_status(self, words: list[str]) -> None:
        from .display import show_status

        _no_more("%ray", words)
        show_status(self.session)

    def _ray_help(self, words: list[str]) -> None:
        _no_more("%ray help", words)
        print(_HELP)

    def _ray_jobs(self, words: list[str]) -> None:
        from .display import show_jobs

        _no_more("%ray jobs", words)
        show_jobs(self.session)

    def _ray_attach(self, words: list[str]) -> Job:
        job = self._job("attach", words)
        if not job.done():
            return job
        from .display import publish_record

        publish_record(job, self.shell)
        job.quiet = True  # the record stands there already
        return job

    def _ray_logs(self, words: list[str]) -> None:
        sys.stdout.write(self._job("logs", words).logs() + "\n")

    def _ray_result(self, words: list[str]) -> Any:
        return self._job("result", words).result()

    def _ray_cancel(self, words: list[str]) -> None:
        job = self._job("cancel", words)
        print(f"Cancelling {job.id}" if job.cancel() else f"{job.id} had ended already: {job.phase.value}")

    def _ray_rerun(self, words: list[str]) -> Job:
        job = self._job("rerun", words).rerun()
        self.landing.claim(job, job.record.spec.expected, job.record.spec.watched)
        return job

    def _ray_retry(self, words: list[str]) -> Job:
        job = self._job("retry", words).retry_failed()
        self.landing.claim(job, job.record.spec.expected, ())
        return job

    def _ray_delete(self, words: list[str]) -> None:
        job = self._job("delete", words)
        job.delete()
        print(f"Deleted {job.id}: its record, log and values")

    def _ray_cluster(self, words: list[str]) -> Any:
        from .cluster_verbs import CLUSTER_VERBS, show_panel

        if not words:
            return show_panel(self.session, self.shell)
        verb, *rest = words
        if verb not in CLUSTER_VERBS:
            raise UsageError(
                f"%ray cluster {verb}: there is no such verb", f"There are: {', '.join(CLUSTER_VERBS)}"
            )
        return CLUSTER_VERBS[verb](self.session, rest)

    def _ray_profiles(self, words: list[str]) -> None:
        from .display import show_profiles

        _no_more("%ray profiles", words)
        show_profiles(self.session)

    def _ray_config(self, words: list[str]) -> None:
        config = self.session.config
        for word in words:
            key, equals, value = word.partition("=")
            if not equals:
                raise UsageError(
                    f"%ray config {word}: expected KEY=VALUE", "%ray config alone shows the settings"
                )
            config.set_from_text(key, value)
        if not words:
            for name, value in config.shown().items():
                print(f"{name} = {value}")

    def _job(self, verb: str, words: list[str]) -> Job:
        from .api import attach
        from .job import Job

        if len(words) != 1:
            raise UsageError(f"%ray {verb}: expected one job id", "%ray jobs lists them")
        there = self.shell.user_ns.get(words[0])
        if isinstance(there, Job):
            return there
        try:
            return attach(words[0])
        except JobNotFound:
            same = [j for j in self.session.jobs.values() if j.label == words[0]]
            if not same:
                raise
            return same[-1]


_HELP = """%ray                      state of the cluster, and the newest jobs
%ray jobs                 jobs, newest first
%ray attach ID            the panel of any job, running or ended
%ray logs ID              all that it printed
%ray result ID            the value of its last expression
%ray cancel ID            stop it
%ray rerun ID             start it again, from the same inputs
%ray retry ID             of a batch run the items again that have failed
%ray delete ID            forget it
%ray cluster [up|down]    the cluster's panel, or the verb
%ray profiles             sizes of clusters, for --profile and %ray cluster up
%ray config [KEY=VALUE]   settings for this notebook
%%ray_job?                the options of %%ray_job"""


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as problem:
        raise UsageError(f"%ray: {str(problem).lower()}", "Close the quotation mark") from None


def _no_more(verb: str, words: list[str]) -> None:
    if words:
        raise UsageError(f"{verb}: {words[0]!r} is one word too many", "%ray help shows the verbs")


def _notebook(shell: InteractiveShell) -> str:
    """Give the notebook's path as Jupyter's session manager says it; editors without it leave it empty."""
    name = os.environ.get("JPY_SESSION_NAME") or shell.user_ns.get("__vsc_ipynb_file__") or ""
    return Path(str(name)).name


def _can_come_back(shell: InteractiveShell) -> bool:
    """Whether someone sits there: headless runs (nbclient, nbconvert, papermill) forbid questions."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return True
    with contextlib.suppress(Exception):
        return bool(kernel.get_parent("shell")["content"].get("allow_stdin", True))
    return True


def _show(job: Job) -> None:
    from .display import show

    show(job)


def _can_follow(line: str, number: int, profiles: Callable[[], Sequence[Profile]]) -> Sequence[str]:
    """Give the words that can end `line`, the text before the cursor."""
    words = line.split()[: None if line[-1:].isspace() else -1]
    if words[-1:] == ["--profile"] and words[0] in ("%%ray_job", "%ray"):
        return [profile.name for profile in profiles()]
    if words[:3] == ["%ray", "cluster", "up"]:
        return [*_choices_that_follow(words, profiles()), *option_table.up_completions(words)]
    if number == 0 and words[:1] == ["%%ray_job"] and re.search(r"\s-\S*$", line):
        return option_table.completions(line)
    if words == ["%ray"]:
        return _VERBS
    if words == ["%ray", "cluster"]:
        from .cluster_verbs import CLUSTER_VERBS

        return list(CLUSTER_VERBS)
    return ()


def _choices_that_follow(words: Sequence[str], profiles: Sequence[Profile]) -> list[str]:
    """Give what can be chosen of the profile that is named in `words`, or of the default one."""
    from .profiles import pick, plain

    named = dict(pairwise(words)).get("--profile", "")
    with contextlib.suppress(UsageError):
        chosen = {word.partition("=")[0] for word in words}
        fields = [f for f in pick(profiles, named).fields if f.name not in chosen]
        return [
            f"{field.name}={value}"
            for field in fields
            for value in ([plain(choice.value) for choice in field.choices] or [""])
        ]
    return []


def _matcher(magics: OffloadMagics) -> Any:
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher()  # type: ignore[untyped-decorator,unused-ignore]
    def rayoffload_matcher(context: Any) -> Any:
        # Not IPython's own token: where it is given a text alone, that is all of the text.
        line = context.text_until_cursor.lstrip()
        word = re.split(r"\s", line)[-1]
        found = [f for f in _can_follow(line, context.cursor_line, magics.profiles) if f.startswith(word)]
        return {
            "completions": [SimpleCompletion(text=f, type="option") for f in found],
            "matched_fragment": word,
            "suppress": bool(found),
        }

    return rayoffload_matcher


def load(shell: InteractiveShell) -> None:
    """Register the magics and their completion."""
    magics = OffloadMagics(shell)
    shell.register_magics(magics)
    Tracebacks(shell).install()
    OffloadMagics.ray_job.__doc__ = f"{OffloadMagics.ray_job.__doc__}\n\n{option_table.usage()}"
    shell.rayoffload = magics  # type: ignore[attr-defined]
    formatter: Any = shell.display_formatter
    formatter.ipython_display_formatter.for_type_by_name(f"{__package__}.job", "Job", _show)
    completer = getattr(shell, "Completer", None)
    if completer is not None and hasattr(completer, "custom_matchers"):
        magics.matcher = _matcher(magics)
        completer.custom_matchers.append(magics.matcher)


def unload(shell: InteractiveShell) -> None:
    """Take back what :func:`load` registered."""
    magics: OffloadMagics | None = getattr(shell, "rayoffload", None)
    if magics is None:
        return
    if magics._landing is not None:
        magics._landing.uninstall()
    Tracebacks.uninstall(shell)
    for kind, name in (("cell", "ray_job"), ("line", "ray")):
        shell.magics_manager.magics[kind].pop(name, None)
    with contextlib.suppress(Exception):
        shell.Completer.custom_matchers.remove(magics.matcher)
    del shell.rayoffload  # type: ignore[attr-defined]
