"""Modules that a job imported, bound here without loading them."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def _run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_module_and_its_submodule_are_loaded_at_their_first_use(tmp_path):
    (tmp_path / "heavy" / "inner").mkdir(parents=True)
    (tmp_path / "heavy" / "__init__.py").write_text("print('heavy')\nvalue = 1\n")
    (tmp_path / "heavy" / "inner" / "__init__.py").write_text("print('inner')\n")
    (tmp_path / "heavy" / "inner" / "deep.py").write_text("print('deep')\nvalue = 3\n")
    _run(f"""
        import contextlib, io, sys
        from jupyter_rayoffload.imports import bind

        sys.path.insert(0, {str(tmp_path)!r})
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            heavy = bind("heavy")
            bind("heavy.inner")
            bind("heavy.inner.deep")
            assert said.getvalue() == "", said.getvalue()
            assert heavy.inner.deep.value == 3
            assert heavy.value == 1
            import heavy.inner.deep as deep
            assert deep is heavy.inner.deep
        assert sorted(said.getvalue().split()) == ["deep", "heavy", "inner"]
    """)


def test_submodules_of_the_standard_library():
    _run("""
        from jupyter_rayoffload.imports import bind
        import xml

        wsgiref = bind("wsgiref")
        bind("wsgiref.simple_server")
        assert wsgiref.simple_server.WSGIServer
        bind("xml.etree")
        bind("xml.etree.ElementTree")
        assert xml.etree.ElementTree.fromstring("<a/>").tag == "a"
    """)


def test_what_is_not_installed_says_so_when_it_is_used():
    _run("""
        from jupyter_rayoffload.imports import Absent, bind

        for name in ("no_such_library", "no_such_library.part", "json.no_such_part", "os.no_such_part"):
            there = bind(name)
            assert isinstance(there, Absent), name
            try:
                there.thing
            except ImportError as error:
                assert "pip install" in str(error)
            else:
                raise AssertionError(name)
    """)
