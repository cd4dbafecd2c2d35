"""The sidebar where clusters are made by profiles: a real JupyterLab, with clusters in memory behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("selenium")

from tests.browser.lab import Lab
from tests.browser.page import MISSING, Page, open_browser
from tests.browser.sidebar import PLACE, Sidebar
from tests.ray_fixture import short_folder
from tests.server.fake_service import Parts
from tests.server.running import BASE, TOKEN, running_server

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

FORM = f"{PLACE} .jp-RayOffload-newCluster"
NAME = f"{FORM} [data-do='field name']"
_NAMES = f"""
[...document.querySelectorAll('{PLACE} .jp-RayOffload-clusterItem')].map((item) => item.dataset.name)
"""


@contextmanager
def opened(parts: Parts, ours: bool) -> Iterator[Page]:
    """Open a JupyterLab, with or without our server extension."""
    extensions = {"jupyter_rayoffload": ours, "jupyterlab": True}
    with (
        short_folder() as root,
        running_server(root, parts.make_service, jpserver_extensions=extensions) as server,
        open_browser(Lab(root, TOKEN, server.port), (1300, 1000)) as page,
    ):
        page.driver.get(f"http://127.0.0.1:{server.port}{BASE}lab?token={TOKEN}&reset")
        page.find(".jp-SideBar [data-id='jupyter-rayoffload-sidebar']")
        yield page


def test_a_further_cluster_by_its_form() -> None:
    parts = Parts()
    with opened(parts, ours=True) as page:
        make_two(parts, page)


def make_two(parts: Parts, page: Page) -> None:
    sidebar = Sidebar(page)
    sidebar.show()
    sidebar.says("No cluster yet")

    # The first one: the form proposes its name.
    page.click(f"{PLACE} .jp-mod-primary")
    assert page.find(NAME).get_attribute("value") == "default"
    page.click(f"{FORM} .jp-mod-primary")
    page.until(lambda: page.ask(_NAMES) == ["default"], "the first cluster")

    # A further one: its name is needed, and looked at before anything is asked of the server.
    page.click(f"{PLACE} [aria-label='New cluster']")
    page.click(f"{FORM} input[value=large]")
    page.click(NAME)
    page.press("default")
    page.click(f"{FORM} .jp-mod-primary")
    sidebar.says("Cluster default is there already")
    assert [call for call in parts.backend.calls if call.startswith("ensure")] == ["ensure default"]
    page.click(NAME)
    page.press("-nightly")
    page.click(f"{FORM} .jp-mod-primary")
    page.until(lambda: page.ask(_NAMES) == ["default", "default-nightly"], "both")
    assert parts.backend.there["default-nightly"].profile == "large"
    assert not page.driver.find_elements("css selector", FORM)

    # What is done to it is done to it alone.
    page.click(f"{PLACE} [data-name='default-nightly'] [data-do=suspend]")
    sidebar.dialog("Suspend cluster default-nightly?", "No job runs on it")
    sidebar.accept()
    sidebar.says("Suspended")
    assert [info.phase.value for info in parts.backend.there.values()] == ["running", "suspended"]


def test_without_the_server_extension_it_is_said_once_with_what_to_do() -> None:
    with opened(Parts(), ours=False) as page:
        sidebar = Sidebar(page)
        sidebar.show()
        text = sidebar.says("The server extension is not there", "jupyter rayoffload doctor")
        assert text.count("not there") == 1
        assert "Clusters" not in text and "No jobs yet" not in text
        # JupyterLab may ask about its news.
        said = page.ask(
            "[...document.querySelectorAll('.jp-Dialog, .jp-toast-message')].map((note) => note.innerText)"
        )
        assert not [note for note in said if "Ray" in note or "extension" in note]
        # What is not there is said nowhere else, and cannot be asked for.
        assert not page.ask("document.querySelector('.jp-RayOffload-status')?.innerText")
        page.click(f"{PLACE} .jp-RayOffload-banner button:nth-of-type(2)")
        sidebar.says("The server extension is not there")
        severe = [entry["message"] for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]
        assert not [message for message in severe if "labextensions/jupyter-rayoffload" in message]
