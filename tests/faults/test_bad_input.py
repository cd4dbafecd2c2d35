"""Whatever is written wrongly gets one line that says what is allowed, and never a traceback of ours."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from jupyter_rayoffload import submit, submit_program
from jupyter_rayoffload.errors import JobNotFound, UsageError

from .ground import ANSI, LIMIT, Ground, Notebook


@pytest.fixture(scope="module")
def kernel(ground: Ground) -> Iterator[Notebook]:
    """Start one kernel for all of them: a refused line changes nothing."""
    with ground.kernel("bad-input") as kernel:
        kernel.sit("number = 5\nlock = __import__('threading').Lock()").check()
        yield kernel


def _refused(kernel: Notebook, source: str, error: str) -> str:
    """Run a cell that must be refused, and give the one line that says why."""
    run = kernel.run(source, timeout=LIMIT, headless=False)
    assert not run.ok, f"not refused: {source}"
    [content] = run.contents("error")
    assert content["ename"] == error, content
    [line] = content["traceback"]
    text = ANSI.sub("", line)
    assert "\n" not in text, text
    assert text.startswith(f"{error}: "), text
    assert kernel.value("number") == "5"
    return text


LINES = {
    "--cpus many": "'many': expected a number, zero or more",
    "--cpus -1": "expected",
    "--cpus nan": "expected a number, zero or more",
    "--gpus inf": "expected a number, zero or more",
    "--gpus x": "expected a number, zero or more",
    "--memory lots": "expected an amount of memory such as 8GiB or 500MB",
    "--memory 8XB": "expected an amount of memory such as 8GiB or 500MB",
    "--memory 0": "expected an amount of memory such as 8GiB or 500MB",
    "--memory": "expected one argument",
    "--resource special": "expected NAME=NUMBER of a custom resource",
    "--resource CPU=3": "CPUs, GPUs and memory have options of their own",
    "--resource special=x": "expected a number, zero or more",
    "--env NOVALUE": "expected NAME=VALUE",
    "--env 1X=2": "expected NAME=VALUE",
    "--env RAYOFFLOAD_X=1": "belongs to the runner",
    "--workdir /there/is/none": "expected a folder",
    "--timeout soon": "expected a time such as 90s, 10min or 2h",
    "--timeout 0": "expected a time above zero",
    "--timeout -5": "expected",
    "--retries many": "expected a whole number from 0 to 999",
    "--retries -1": "expected",
    "--retries 1.5": "expected a whole number from 0 to 999",
    "--retries 1000": "expected a whole number from 0 to 999",
    "-i 2x": "expected names separated by commas; '2x' is not a name",
    "-i a,class": "'class' is not a name",
    "-i there_is_none": "the notebook has no such name",
    "-o 2x": "expected names separated by commas",
    "--profile ''": "expected some text",
    "--profile big": "there is no profile 'big': the embedded cluster has no profiles",
    "--cluster ''": "expected some text",
    "--pip 'not a req!!'": "expected a requirement such as 'polars>=1'",
    "--map xs": "expected NAME=EXPR, such as --map store=stores",
    "--pip": "expected at least one argument",
    "--py-module": "expected at least one argument",
    "--exclude": "expected at least one argument",
    "--fetch": "expected at least one argument",
    "2nd": "expected a Python name for the job's handle; '2nd' is none",
    "class": "expected a Python name for the job's handle",
    "number": "number is an int of this notebook, not a job",
    "one two": "unrecognized arguments: two",
    "--nonsense": "unrecognized arguments: --nonsense",
    "--gpu 1": "unrecognized arguments: --gpu. Did you mean --gpus?",
    "--wait=yes": "ignored explicit argument 'yes'",
    "--pip 'numpy": "no closing quotation",
}


@pytest.mark.parametrize("line", LINES)
def test_a_bad_line_is_refused_in_one_line(kernel: Notebook, line: str) -> None:
    text = _refused(kernel, f"%%ray_job {line}\nnumber = 6", "UsageError")
    assert LINES[line] in text
    assert "%%ray_job" in text or line.startswith(("-i", "--profile big"))


def test_what_cannot_be_run_is_refused_before_it_is_sent(kernel: Notebook) -> None:
    assert "the cell is empty" in _refused(kernel, "%%ray_job\n   \n", "UsageError")
    text = _refused(kernel, "%%ray_job\nprint(lock)", "NotPicklable")
    assert "input lock cannot travel" in text
    run = kernel.sit("%%ray_job\nprint('never closed'")
    assert [c["ename"] for c in run.contents("error")] == ["SyntaxError"]
    assert "jupyter_rayoffload" not in str(run.contents("error"))


JOB_VERBS = ("attach", "logs", "result", "cancel", "rerun", "delete")
VERBS = {
    "nonsense": "there is no such verb. There are: jobs, attach, logs, result, cancel, rerun",
    "_job": "there is no such verb",
    "jobs now": "'now' is one word too many",
    "help me": "'me' is one word too many",
    "cluster nonsense": "there is no such verb. There are: up, down, scale, suspend, resume",
    "cluster up now": "'now': expected FIELD=VALUE of the profile",
    "cluster up workers=2": "the embedded cluster has no profiles",
    "cluster up --profile big": "the embedded cluster has no profiles",
    "cluster scale 3 --cluster": "expected the name of a cluster",
    "cluster down now": "expected nothing or --force",
    "cluster scale": "expected a number of workers",
    "cluster scale x": "expected a number of workers",
    "cluster scale 3": "the embedded cluster cannot be scaled",
    "cluster suspend": "cannot be suspended",
    "cluster resume": "cannot be resumed",
    "config nonsense": "expected KEY=VALUE",
    "config nonsense=1": "there is no setting 'nonsense'",
    "config num_cpus=x": "num_cpus cannot be 'x'",
    "config num_cpus=0": "at least 1",
    "config idle_timeout=soon": "a duration such as 90s, 15m or 2h",
    "config store_limit=lots": "a size such as 8GiB or 500MB",
    "config 'owner=a b'": "letters, digits, '.', '_' and '-'",
    "config backend=moon": "one of auto, embedded, address",
    "config cpus=x": "expected a number, zero or more",
    "config retries=x": "expected a whole number from 0 to 999",
    "logs 'x": "no closing quotation",
    **{verb: "expected one job id" for verb in JOB_VERBS},
    **{f"{verb} one two": "expected one job id" for verb in JOB_VERBS},
}


@pytest.mark.parametrize("words", VERBS)
def test_a_bad_verb_is_refused_in_one_line(kernel: Notebook, words: str) -> None:
    assert VERBS[words] in _refused(kernel, f"%ray {words}", "UsageError")


@pytest.mark.parametrize("verb", JOB_VERBS)
def test_an_id_that_nobody_has_is_not_found(kernel: Notebook, verb: str) -> None:
    for job_id in ("there-is-none-123456", "a/b", "x" * 300, "*"):
        text = _refused(kernel, f"%ray {verb} {job_id}", "JobNotFound")
        assert "there is no job" in text
        assert "%ray jobs lists" in text


KEYWORDS: list[tuple[dict[str, Any], str]] = [
    ({"nonsense": 1}, "there is no option 'nonsense'. There are: cluster, cpus"),
    ({"cpus": "many"}, "cpus='many': expected a number, zero or more"),
    ({"cpus": []}, "expected a number, zero or more"),
    ({"cpus": float("nan")}, "expected a number, zero or more"),
    ({"gpus": -1}, "expected a number, zero or more"),
    ({"memory": "lots"}, "expected an amount of memory"),
    ({"memory": -1}, "expected an amount of memory"),
    ({"timeout": "soon"}, "expected a time such as"),
    ({"retries": -1}, "expected a whole number"),
    ({"retries": "x"}, "expected a whole number"),
    ({"workdir": "/there/is/none"}, "expected a folder"),
    ({"outputs": "2x"}, "expected names separated by commas"),
    ({"outputs": 5}, "outputs=5: expected names separated by commas"),
    ({"env": {"RAYOFFLOAD_X": "1"}}, "belongs to the runner"),
    ({"env": "A=1"}, "env='A=1': expected {'NAME': 'VALUE'}"),
    ({"resources": {"special": "x"}}, "expected a number, zero or more"),
    ({"resources": 3}, "resources=3: expected a mapping such as"),
    ({"pip": 5}, "pip=5: expected requirements"),
    ({"py_modules": 5}, "py_modules=5: expected local modules"),
    ({"fetch": 5}, "fetch=5: expected patterns"),
    ({"exclude": 5}, "exclude=5: expected patterns"),
]


OF_A_PROGRAM = [k for k in KEYWORDS if "outputs" not in k[0] and "workdir" not in k[0]]


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize(("options", "text"), KEYWORDS, ids=lambda v: str(v)[:30])
def test_a_bad_keyword_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)) as caught:
        submit("1 + 1", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize(("options", "text"), OF_A_PROGRAM, ids=lambda v: str(v)[:30])
def test_a_bad_keyword_of_a_program_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        submit_program("true", **options)


@pytest.mark.usefixtures("ground")
def test_a_bad_argument_of_a_program_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a folder"):
        submit_program("true", working_dir="/there/is/none")
    with pytest.raises(UsageError, match="expected a command"):
        submit_program(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected some text"):
        submit_program("true", label=5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("ground")
def test_what_is_no_program_and_no_code_is_refused() -> None:
    with pytest.raises(UsageError, match="the entrypoint is empty"):
        submit_program("  ")
    with pytest.raises(UsageError, match=r"input: .*Give bytes, or what JSON can say"):
        submit_program("true", input={1, 2})
    with pytest.raises(UsageError, match="code takes no arguments"):
        submit("1 + 1", 5)
    with pytest.raises(SyntaxError):
        submit("1 +")


@pytest.mark.usefixtures("ground")
def test_what_is_neither_code_nor_a_function_is_refused() -> None:
    with pytest.raises(UsageError, match="expected code or a function, not an int"):
        submit(5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected some text"):
        submit("1 + 1", label=5)


COMMANDS = {
    "nonsense": "choose from",
    "run": "expected a command",
    "run --cpus many true": "expected a number, zero or more",
    "run --memory lots true": "expected an amount of memory",
    "run --timeout soon true": "expected a time such as",
    "jobs -n many": "expected a whole number, one or more",
    "jobs -n -1": "expected a whole number, one or more",
    "attach": "required: id",
    "cluster sideways": "choose from",
}


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize("words", COMMANDS)
def test_a_bad_command_is_refused_by_the_terminal(words: str) -> None:
    done = _terminal(*words.split())
    assert done.returncode == 2
    assert COMMANDS[words] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("ground")
@pytest.mark.parametrize("verb", ["attach", "logs", "cancel"])
def test_the_terminal_says_that_there_is_no_such_job(verb: str) -> None:
    done = _terminal(verb, "there-is-none-123456")
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{JobNotFound.__name__}: there is no job 'there-is-none-123456'")


def _terminal(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jupyter_rayoffload.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
