"""Errors are shown as those of a local cell, whatever their kind, and carry nothing of ours."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from IPython.core.interactiveshell import InteractiveShell
from jupyter_rayoffload.tracebacks import Tracebacks, as_here, current_count, remember

shell = InteractiveShell.instance(colors="nocolor")
shown = []
shell._showtraceback = lambda kind, error, lines: shown.append((kind.__name__, str(error), list(lines)))
Tracebacks(shell).install()
Tracebacks(shell).install()  # a second time changes nothing

def fail(error):
    remember(error, ["as it was there"])
    raise error

shell.push({"fail": fail})
for source in SOURCES:
    shell.run_cell(source, store_history=True)
counts = []
shell.push({"count": lambda: counts.append(current_count(shell))})
shell.run_cell("count()", store_history=True)
error = as_here(shell, "%%ray_job fit", "x = 1\\ny = = 2")
fine = as_here(shell, "%%ray_job", "x = 1")
Tracebacks.uninstall(shell)
"""


def test_errors_with_a_rendering_are_shown_by_it() -> None:
    sources = ["fail(ValueError(1))", "fail(SyntaxError('two'))", "1 / 0"]
    checks = """
assert shown[0] == ("ValueError", "1", ["as it was there"]), shown[0]
assert shown[1] == ("SyntaxError", "two", ["as it was there"]), shown[1]
assert shown[2][0] == "ZeroDivisionError" and "1 / 0" in "".join(shown[2][2]), shown[2]
assert vars(sys.last_value) == {}
assert counts == [4], counts
assert (type(error), error.lineno, error.__context__) == (SyntaxError, 3, None)
shown.clear()
Tracebacks(shell).install()
shell.push({"error": error})
shell.run_cell("raise error")
[(name, text, lines)] = shown
assert name == "SyntaxError" and "line 3" in lines[0] and "y = = 2" in "".join(lines), shown
assert "tracebacks.py" not in "".join(lines)
assert fine is None
"""
    _run(sources, checks)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_a_group_of_exceptions_too() -> None:
    _run(["fail(ExceptionGroup('all', [ValueError(1)]))"], "assert shown[0][2] == ['as it was there'], shown")


def test_in_a_plain_script_the_error_says_where_in_the_job_it_arose() -> None:
    code = """
import sys, traceback
from jupyter_rayoffload.tracebacks import remember
assert "IPython" not in sys.modules
error = KeyError("q")
for _ in range(2):  # a handle may be asked twice
    remember(error, ["\\x1b[31mCell In[1], line 1\\x1b[39m", "KeyError: 'q'"])
raise error
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.count("In the job:\nCell In[1], line 1\nKeyError: 'q'\n") == 1
    assert "\x1b" not in done.stderr


def test_a_call_carries_the_cells_of_its_functions() -> None:
    """Or else its traceback says that it could not get the source."""
    code = """
from IPython.core.interactiveshell import InteractiveShell
from jupyter_rayoffload.drafting import Origin, draft_call, draft_code
from jupyter_rayoffload.models import JobOptions
from jupyter_rayoffload.remote.signing import Signer

shell = InteractiveShell.instance()
shell.run_cell("def deep(v):\\n    return 1 / v\\n", store_history=True)
origin = Origin("me", "n.ipynb", ".", shell.user_ns, Signer(bytes(32)), 1 << 20)
deep = shell.user_ns["deep"]
for draft in (
    draft_call(origin, deep, (0,), {}, JobOptions(), ""),
    draft_code(origin, "deep(0)", JobOptions(), "", values={"deep": deep}),
):
    [(name, (count, text))] = draft.spec.cells.items()
    assert (name, count) == (deep.__code__.co_filename, 1)
    assert "return 1 / v" in text
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr


def _run(sources: list[str], checks: str) -> None:
    code = f"SOURCES = {sources!r}\n{PROGRAM}\n{checks}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stdout + done.stderr
