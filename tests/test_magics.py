"""The magics in an IPython, without a cluster."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "jupyter_rayoffload")

def texts(text):
    # As a text alone, as a line with its cursor, and as a front end asks.
    whole, line = shell.complete(text)[1], shell.complete("", text, len(text))[1]
    with provisionalcompleter():
        asked = [text[: c.start] + c.text for c in shell.Completer.completions(text, len(text))]
    head = text[: len(text) - len(text.split(" ")[-1])]
    assert sorted(head + f for f in line) == sorted(asked), (line, asked)
    assert whole == line, (whole, line)
    return line

assert texts("%ray at") == ["attach"]
assert texts("%ray c") == ["cancel", "cluster", "config"]
assert texts("%ray cluster d") == ["down"]
assert texts("%%ray_job --wa") == ["--wait"]
assert texts("%%ray_job fit --wait --me") == ["--memory"]
assert "attach" in texts("%ray ")
assert "attach" not in shell.complete("%ray logs at")[1]
"""


def test_verbs_and_options_are_completed_however_one_asks() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stdout + done.stderr
