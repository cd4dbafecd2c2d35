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
assert texts("%ray cluster up --") == ["--cluster", "--profile"]
assert "attach" not in shell.complete("%ray logs at")[1]
"""

PROFILES = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

fields = [
    {"name": "workers", "path": "groups.workers.replicas", "maximum": 1},
    {"name": "image", "path": "image", "kind": "choice", "choices": ["stable", "nightly"]},
]
site = {"backend": "kubernetes", "profiles": [{"name": "small"}, {"name": "large", "fields": fields}]}
shell = InteractiveShell.instance(config=Config({"RayOffload": site}))
shell.run_line_magic("load_ext", "jupyter_rayoffload")

def texts(text):
    return shell.complete(text)[1]

assert texts("%%ray_job fit --profile ") == ["large", "small"], texts("%%ray_job fit --profile ")
assert texts("%ray cluster up --profile l") == ["large"]
assert texts("%ray cluster up --profile large w") == ["workers="]
assert texts("%ray cluster up --profile large workers=1 image=") == ["image=nightly", "image=stable"]
assert texts("%ray cluster up --profile small w") == []
assert texts("%ray cluster up --profile lrage ") == ["--cluster"]
assert texts("x --profile s") == []
shell.run_line_magic("ray", "profiles")
try:
    shell.run_cell_magic("ray_job", "--profile lage", "x = 1")
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_profiles_are_listed_completed_and_checked() -> None:
    done = subprocess.run([sys.executable, "-c", PROFILES], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stdout + done.stderr
    assert done.stdout.split("\n") == [
        "small (default)",
        "large",
        "    workers=1     0 to 1",
        "    image=stable  stable or nightly",
        "UsageError: there is no profile 'lage'. Did you mean large?",
        "",
    ]


def test_verbs_and_options_are_completed_however_one_asks() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stdout + done.stderr
