"""Running the command of a program job: no shell, bytes or JSON in and out."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from . import program
from .failures import Unready
from .processes import die_with_parent
from .store import Store

__all__ = ["exit_failure", "filled", "mark_of", "run_command", "run_program"]

#: Between Ray's own SIGTERM, which reaches the program too, and ours: two would run its handler twice.
GRACE_SECONDS = 0.3


def run_command(
    store: Store, signer: Any, job_id: str, source: str, home: Path, given: dict[str, Any] | None
) -> tuple[int, dict[str, Any] | None]:
    """Run a program to its end.

    Parameters
    ----------
    store : Store
    signer : Signer
    job_id : str
    source : str
        The command line.
    home : pathlib.Path
        An empty folder for what stands beside the program.
    given : dict, optional
        The record's field ``input``: ``{kind: "json"|"bytes", digest, size}``.

    Returns
    -------
    int
        Exit code; 128 + N for signal N.
    dict or None
        The same for what the program gave to ``write_output``.

    Raises
    ------
    Unready
        There is no such command.
    """
    data = (given["kind"], store.get_blob(given["digest"], given["size"])) if given else None
    code, result = run_program(job_id, source, home, data)
    if result is None:
        return code, None
    kind, came = result
    digest = signer.digest(came)
    store.put_blob(digest, memoryview(came))
    return code, {"kind": kind, "digest": digest, "size": len(came)}


def run_program(
    job_id: str, source: str, home: Path, given: tuple[str, bytes | memoryview] | None, *, bound: bool = False
) -> tuple[int, tuple[str, bytes] | None]:
    """Run a program to its end, with its input at hand.

    Parameters
    ----------
    job_id, source, home
        As for :func:`run_command`.
    given : (str, bytes), optional
        Its input: ``json`` or ``bytes``, and the data.
    bound : bool
        Let it die with this process: nobody else would end it.

    Returns
    -------
    int
        Exit code; 128 + N for signal N.
    (str, bytes) or None
        The same for what the program gave to ``write_output``.

    Raises
    ------
    Unready
        There is no such command.
    """
    environment = _environment(job_id, home)
    if given:
        path = home / ("input.json" if given[0] == "json" else "input.bin")
        path.write_bytes(given[1])
        environment["RAYOFFLOAD_INPUT"] = str(path)
    code = _run(source, environment, bound)
    for kind, name in (("json", "output.json"), ("bytes", "output.bin")):
        path = home / "output" / name
        if path.exists():
            return code, (kind, path.read_bytes())
    return code, None


def mark_of(name: str) -> str:
    """Give what stands for an input of this name in a command."""
    return f"{{{name}}}"


def filled(source: str, name: str, given: tuple[str, bytes]) -> str:
    """Put an input in its place in a command: text as it is, all else as JSON; it never makes more words.

    Parameters
    ----------
    source : str
        The command line.
    name : str
        The input's; empty if it has none.
    given : (str, bytes)
        As for :func:`run_program`.
    """
    mark = mark_of(name)
    if not name or mark not in source:
        return source
    value = json.loads(given[1])
    text = value if isinstance(value, str) else json.dumps(value)
    return shlex.join(word.replace(mark, text) for word in shlex.split(source))


def _environment(job_id: str, home: Path) -> dict[str, str]:
    (home / "output").mkdir()
    (home / "lib").mkdir()
    shutil.copyfile(program.__file__, home / "lib" / "rayoffload_job.py")
    paths = [str(home / "lib"), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "RAYOFFLOAD_JOB": job_id,
        "RAYOFFLOAD_OUTPUT": str(home / "output"),
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
    }


def exit_failure(code: int) -> dict[str, Any]:
    """Give the failure of a program that ended with a code other than zero."""
    return {
        "reason": "JobCrashed",
        "message": f"The program ended with exit code {code}",
        "hint": "The log has its last words",
    }


def _run(source: str, environment: dict[str, str], bound: bool) -> int:
    words = shlex.split(source)
    parent = os.getpid()
    try:
        process = subprocess.Popen(
            words,
            env=environment,
            start_new_session=True,
            preexec_fn=(lambda: die_with_parent(parent)) if bound else None,
        )
    except (OSError, ValueError, IndexError) as error:
        raise Unready(
            {
                "reason": "EnvironmentFailed",
                "message": f"The program {words[0] if words else source!r} cannot be started: {error}",
                "hint": "Give a command that the cluster has, or a path in the workspace",
            }
        ) from None
    try:
        code = process.wait()
    except KeyboardInterrupt:
        time.sleep(GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        code = process.wait()  # the guard ends it, should it ignore that
    sys.stdout.flush()
    return code if code >= 0 else 128 - code
