"""The part of docs/performance.md about what a browser loads."""

from __future__ import annotations

import pytest

from benchmarks import bundle


@pytest.fixture
def built(tmp_path):
    texts = {"a.js": "x" * 2000, "b.js": "Filter jobs" + "x" * 3000, "c.js": "Reading the job"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_are_counted_by_when_they_are_loaded(built):
    first, sidebar, page = bundle.parts(built)
    assert (first.when, first.size) == ("JupyterLab starts", 2000)
    assert (sidebar.when, sidebar.size) == ("the sidebar is first shown", 3011)
    assert page.size == len("Reading the job") and first.sent < 100
    assert "| all of it | 5 kB |" in bundle.section([first, sidebar, page])


def test_what_is_not_built_is_not_measured(tmp_path):
    with pytest.raises(FileNotFoundError, match="npm run build"):
        bundle.parts(tmp_path)


def test_the_page_has_it_once(built, tmp_path):
    page = tmp_path / "performance.md"
    page.write_text("# Performance\n\nmeasured\n")
    for _ in range(2):
        bundle.write(bundle.section(bundle.parts(built)), page)
    text = page.read_text()
    assert text.startswith("# Performance\n\nmeasured\n\n<!-- bundle") and text.endswith("bundle -->\n")
    assert text.count("## The JupyterLab extension") == 1


@pytest.mark.skipif(not list(bundle.STATIC.glob("*.js")), reason="the extension is not built here")
def test_each_moment_has_files_of_its_own():
    assert [part.when for part in bundle.parts()] == [bundle.FIRST, *bundle.WHEN.values()]
