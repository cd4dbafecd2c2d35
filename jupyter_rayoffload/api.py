"""What Python programs use: submit, attach, jobs, cluster; for those who dislike magics, too."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import keyword
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .drafting import draft_call, draft_code
from .errors import StoreError, UsageError
from .job import Job
from .mapping import Mapped, listed
from .models import JobOptions, JobRecord
from .options import from_keywords
from .programs import draft_program
from .session import session
from .tracebacks import without_frames
from .words import with_article

if TYPE_CHECKING:
    from .course import Course, Draft
    from .models import ClusterInfo
    from .session import Session
    from .submission import Offloader

__all__ = ["attach", "cluster", "jobs", "offload", "start_cluster", "submit", "submit_program"]

#: How long a handle of a running job may wait for the log so far, seconds.
CATCH_UP_SECONDS = 10.0

_F = TypeVar("_F", bound=Callable[..., Any])


def submit(
    work: str | Callable[..., Any],
    *args: Any,
    inputs: Mapping[str, Any] | None = None,
    map: Any = None,
    **options: Any,
) -> Job:
    """Offload a piece of code or a call, or a batch of them.

    Parameters
    ----------
    work : str or callable
        Code as in a cell, or a function to call with `args`.
    *args
        Arguments of the function.
    inputs : Mapping, optional
        Names for the code, or keyword arguments for the function.
    map : iterable, or Mapping of one name to an iterable, optional
        Run the work once for each item, as Ray tasks of one job: ``submit(score, map=stores)`` calls the
        function with the item as its first argument, ``submit(code, map={"store": stores})`` runs the code
        with the item under that name. The options count for each item then, and ``max_parallel`` says how
        many run at once at most; ``Job.items`` has each of them.
    **options
        Fields of :class:`~.models.JobOptions` and :class:`~.models.Resources`, and ``label``:
        ``cpus=2``, ``memory="8GiB"``.

    Returns
    -------
    Job
        At once; ``job.result()`` waits.

    Raises
    ------
    UsageError
        An option is unknown or not what it may be.
    SyntaxError
        The code cannot be parsed.
    NotPicklable
        An argument cannot travel; nothing has been sent.

    Examples
    --------
    >>> job = submit(sum, [1, 2, 3])   # doctest: +SKIP
    >>> job.result()                   # doctest: +SKIP
    6
    """
    here, label = session(), _label(options.pop("label", ""))
    chosen = here.checked(from_keywords(options, here.config.job_options()))
    items = _mapped(map, chosen.max_parallel, named=not callable(work))
    if callable(work):
        draft = draft_call(here.origin(), work, args, dict(inputs or {}), chosen, label, items)
    elif not isinstance(work, str):
        raise UsageError(
            f"submit: expected code or a function, not {with_article(type(work).__name__)}",
            "submit(function, argument)",
        )
    elif args:
        raise UsageError("code takes no arguments", "Give its names with inputs={'name': value}")
    else:
        draft = _drafted(here, work, chosen, label, inputs, items)
    return here.launch(draft)


def _mapped(given: Any, parallel: int | None, named: bool, said: str = "map") -> Mapped | None:
    """Read ``map=``; code needs a name for its items, a function takes them as its first argument."""
    if given is None:
        if parallel:
            raise UsageError("max_parallel is for batches", f"Add {said}=, or leave it out")
        return None
    if not named:
        return Mapped("", listed(given, said), parallel)
    if not isinstance(given, Mapping) or len(given) != 1:
        what = "code" if said == "map" else "a command"
        raise UsageError(f"{said}: {what} needs one name for its items", f"{said}={{'store': stores}}")
    ((name, items),) = given.items()
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"{said}: {name!r:.80} is not a name", f"{said}={{'store': stores}}")
    return Mapped(name, listed(items, f"{said}={{{name!r}: …}}"), parallel)


def _drafted(
    here: Session,
    code: str,
    options: JobOptions,
    label: str,
    inputs: Mapping[str, Any] | None,
    items: Mapped | None,
) -> Draft:
    try:
        return draft_code(here.origin(), code, options, label, values=inputs, mapped=items)
    except SyntaxError as error:
        unparsable = error
    # Outside the handler: the error is the code's own, and none of ours is its context.
    raise without_frames(unparsable)


def submit_program(
    entrypoint: str | Sequence[str],
    *,
    input: Any = None,
    inputs: Any = None,
    working_dir: str = "",
    py_modules: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    label: str = "",
    **options: Any,
) -> Job:
    """Offload a program with the folder it stands in.

    The program reads its input and leaves its output through two functions that are there in every job::

        from rayoffload_job import read_input, write_output

    Parameters
    ----------
    entrypoint : str or sequence of str
        The command: ``"python train.py"``.
    input : bytes or JSON-ready value, optional
        What ``read_input()`` returns there.
    inputs : iterable of such, or Mapping of one name to an iterable, optional
        Run the program once for each of them, as Ray tasks of one job; ``result()`` is the list of what they
        wrote. The options count for each item then. With a name, ``{name}`` in the command is the item:
        ``submit_program("python train.py --seed {seed}", inputs={"seed": range(10)})``.
    working_dir : str, optional
        The folder that travels; the current one by default.
    py_modules : sequence of str
        Local modules from outside that folder.
    env : Mapping of str to str, optional
    label : str
    **options
        As for :func:`submit`.

    Returns
    -------
    Job
        Its ``result()`` is what the program gave to ``write_output``.
    """
    here = session()
    given = {"workdir": working_dir, "py_modules": py_modules, "env": {} if env is None else env}
    chosen = here.checked(from_keywords({**given, **options}, here.config.job_options()))
    if inputs is not None and input is not None:
        raise UsageError("input and inputs: a program has one of them", "inputs=[...] runs it for each")
    items = _mapped(inputs, chosen.max_parallel, named=isinstance(inputs, Mapping), said="inputs")
    command = _command(entrypoint)
    return here.launch(draft_program(here.origin(), command, input, chosen, _label(label), items))


def _command(entrypoint: Any) -> str:
    if isinstance(entrypoint, str):
        return entrypoint
    if isinstance(entrypoint, Sequence) and all(isinstance(word, str) for word in entrypoint):
        return shlex.join(entrypoint)
    raise UsageError(f"entrypoint={entrypoint!r}: expected a command", "submit_program('python train.py')")


def _label(label: Any) -> str:
    if not isinstance(label, str):
        raise UsageError(f"label={label!r}: expected some text")
    return label


def offload(function: _F | None = None, **options: Any) -> Any:
    """Make a function whose calls are jobs: ``@offload`` or ``@offload(cpus=4)``.

    A call gives a :class:`Job`; ``function.local(...)`` still calls it here.

    Raises
    ------
    UsageError
        An option is unknown or not what it may be.
    """
    _label(options.get("label", ""))
    from_keywords({name: value for name, value in options.items() if name != "label"}, JobOptions())
    if function is None:
        return functools.partial(offload, **options)
    if not callable(function):
        raise UsageError(
            f"offload: expected a function, not {with_article(type(function).__name__)}",
            "Options have names: @offload(cpus=4)",
        )

    @functools.wraps(function)
    def remote(*args: Any, **kwargs: Any) -> Job:
        return submit(function, *args, inputs=kwargs, **{"label": function.__name__, **options})

    remote.local = function  # type: ignore[attr-defined]
    return remote


def attach(job_id: str) -> Job:
    """Give the handle of any job of yours, running or ended, with its whole output.

    Parameters
    ----------
    job_id : str
        As the panel, ``%ray jobs`` and ``Job.id`` say it.

    Raises
    ------
    UsageError
        That is no text.
    JobNotFound
    """
    if not isinstance(job_id, str):
        raise UsageError(
            f"attach: expected the id of a job, such as 'fit-3fbc0e', not {job_id!r:.80}", "jobs() lists them"
        )
    here = session()
    if job_id in here.jobs:
        return here.jobs[job_id]
    offloader = here.offloader
    course = here.call(offloader.course(job_id))
    job = here.remember(Job(here, course))
    ended = course.record.phase.ended
    replay = here.start(offloader.attach(course))
    if ended:
        here.wait(replay)
    else:
        here.call(_caught_up(offloader, course))
    return job


async def _caught_up(offloader: Offloader, course: Course, limit: float = CATCH_UP_SECONDS) -> None:
    """Wait until a live job's stream has been taken in as far as it goes now; so a handle has its log."""
    from .link import blocking

    deadline = time.monotonic() + limit
    with contextlib.suppress(StoreError):  # the follower says so, and goes on
        link = await offloader.links.connect(course.record.cluster)
        while not course.ended.is_set() and time.monotonic() < deadline:
            if not await blocking(link.store.read_events, course.record.id, course.read, count=1):
                return
            await asyncio.sleep(0.02)


def jobs(limit: int = 20) -> list[JobRecord]:
    """Give the records of your newest jobs, newest first, whichever process submitted them.

    Raises
    ------
    UsageError
        `limit` is no whole number, or less than one.
    """
    if not isinstance(limit, int) or limit < 1:
        raise UsageError(f"limit={limit!r:.80}: expected a whole number, one or more", "jobs(limit=20)")
    here = session()
    return here.call(here.offloader.records(limit))


def cluster(name: str = "default") -> ClusterInfo:
    """Give the state of your cluster; starts none."""
    here = session()
    return here.call(here.offloader.backend.get(name))


def start_cluster(name: str = "default", profile: str = "", **choices: Any) -> ClusterInfo:
    """Start your cluster, wait until it runs, and give its state.

    Parameters
    ----------
    name : str
    profile : str
        Its size, one of those that the site declares; without it the default one, or what is there.
    **choices
        Values of the profile's fields: ``workers=4, memory="8GiB"``.

    Raises
    ------
    UsageError
        There is no such profile, a choice is not what it may be, or the cluster has another size.
    ClusterError, StoreError
    """
    here = session()
    link = here.call(here.offloader.links.connect(name, profile, choices=choices))
    return here.call(here.offloader.backend.get(link.info.name))
