"""What stands in front of slow modules in Ray's processes behaves as they do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jupyter_rayoffload.clusters.embedded import head

pytest.importorskip("rfc3987_syntax")
CHECKS = """
import sys, jsonschema
from jsonschema import Draft7Validator
assert "rfc3987_syntax.syntax_helpers" not in sys.modules, "loaded before it was used"
validator = Draft7Validator({"format": "iri"}, format_checker=Draft7Validator.FORMAT_CHECKER)
print(validator.is_valid("http://example.org/ä"), validator.is_valid("no iri"))
import rfc3987_syntax, rfc3987_syntax.syntax_helpers
print(rfc3987_syntax.is_valid_syntax("iri", "http://example.org/"), rfc3987_syntax.__file__)
print(hasattr(rfc3987_syntax, "is_valid_syntax_iri"), hasattr(rfc3987_syntax, "nonsense"))
"""


def _run(code: str, env: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return done.stdout


def test_jsonschema_says_the_same_with_it(tmp_path: Path) -> None:
    env = head.environment(os.environ, tmp_path)
    plain = _run(CHECKS.replace("assert", "#"), dict(os.environ))
    assert _run(CHECKS, env) == plain
    assert "True False" in plain


def test_where_it_is_not_installed_it_cannot_be_imported(tmp_path: Path) -> None:
    env = head.environment({"PYTHONPATH": "/there/is/none"}, tmp_path)
    startup, _, rest = env["PYTHONPATH"].partition(os.pathsep)
    assert rest == "/there/is/none"
    code = f"""
import sys
sys.path[:] = [p for p in sys.path if "site-packages" not in p]
assert {startup!r} in sys.path
try:
    import rfc3987_syntax
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert _run(code, env) == "rfc3987_syntax\n"
