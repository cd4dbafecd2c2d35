"""The extension in Notebook 7, which has one document in a page, no status bar and no panel of what runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("selenium")
pytest.importorskip("notebook")

from tests.browser.lab import Lab, running_lab
from tests.browser.page import MISSING, Page, open_browser
from tests.browser.sidebar import PLACE, Sidebar

pytestmark = [
    pytest.mark.browser,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

CELL = "x = 6\nprint('hello from', 'there')\nx * 7"
_PAGE = "document.querySelector('.jp-RayOffload-page')?.innerText ?? ''"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        lab.start_cluster()
        yield lab


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    with open_browser(lab, (1300, 1000)) as page:
        yield page


def test_a_cell_goes_out_and_comes_home(lab: Lab, page: Page) -> None:
    sidebar = Sidebar(page)
    name = lab.add("seven.ipynb", [CELL, "x + 1"])
    page.driver.get(f"http://127.0.0.1:{lab.port}/notebooks/{name}?token={lab.token}")
    page._ready()
    page.click('.jp-Notebook .jp-Cell[data-windowed-list-index="0"] .cm-content')
    page.click(".jp-Notebook .jp-Cell.jp-mod-active .jp-RayOffload-cellButton button")
    page.panel_shows("Running")
    page.until(lambda: len(sidebar.outputs(0)) == 2, "record and value")
    record, value = sidebar.outputs(0)
    assert record["metadata"]["rayoffload"]["phase"] == "succeeded"
    assert value["data"]["text/plain"] == "42"
    page.run_cell(1)
    page.until(lambda: sidebar.outputs(1), "what the next cell gives")
    assert sidebar.outputs(1)[0]["data"]["text/plain"] == "7"

    # Sidebar and page of a job have a place there, too: beside the notebook, and below it.
    page.menu("Ray", "Show Ray sidebar")
    page.find(f"{PLACE} .jp-RayOffload-jobs > li")
    [(job, said)] = sidebar.jobs()
    assert "Succeeded" in said
    page.click(f"{PLACE} .jp-RayOffload-jobs > li .jp-RayOffload-name")
    page.until(lambda: all(words in page.ask(_PAGE) for words in (job, "hello from there")), "its page")
    severe = [entry["message"] for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [message for message in severe if "rayoffload" in message.lower()]
