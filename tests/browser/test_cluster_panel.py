"""The cluster's panel in a real browser, on infos instead of a Ray: what it offers, asks, sends and says."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent / "panel_states"))
import clusters  # noqa: E402
import render  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromedriver is installed"),
]

_NODE = "window.models.find((entry) => entry.caption === arguments[0]).node"


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=800,1800"):
        options.add_argument(argument)
    options.binary_location = render.browser()
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def panels(driver, tmp_path):
    """The page with every state; panels are found by their captions."""
    path = tmp_path / "page.html"
    path.write_text(clusters.page(clusters.panels()), "utf-8")
    driver.get(f"file://{path}")
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.body.dataset.ready"))
    return Panels(driver)


class Panels:
    def __init__(self, driver):
        self.driver = driver

    def text(self, caption):
        return self.driver.execute_script(f"return {_NODE}.innerText", caption)

    def find(self, caption, do):
        found = self.all(caption, f'[data-do="{do}"]')
        assert found, f"{do} is not in {caption}"
        return found[0]

    def all(self, caption, selector):
        return self.driver.execute_script(
            f"return [...{_NODE}.querySelectorAll(arguments[1])]", caption, selector
        )

    def sent(self):
        return self.driver.execute_script("return window.sent.splice(0)")

    def change(self, caption, **changes):
        script = (
            "const { model } = window.models.find((entry) => entry.caption === arguments[0]);"
            "model.state.view = { ...model.state.view, ...arguments[1] }; model.emit('change:view')"
        )
        self.driver.execute_script(script, caption, changes)

    def focused(self):
        return self.driver.execute_script("return document.activeElement.dataset.do ?? ''")


def test_each_state_says_what_it_is_and_offers_what_makes_sense(panels):
    expected = {
        "None": (["The first cell starts it", "GPU", "Start cluster"], ["start"]),
        "Starting": (["Waiting for 1 GPU", "Asked to start 1 min 00 s ago"], ["delete"]),
        "Running": (["8 of 8", "21 of 32 GiB", "1 of 1", "1 worker"], ["dashboard", "suspend", "delete"]),
        "Suspended": (["Costs nothing"], ["resume", "delete"]),
        "Failed": (["Quota exceeded: requests.cpu 12 of 8", "larger quota"], ["start", "delete"]),
        "Error of a button": (["The Kubernetes API server does not answer.", "Try again"], ["start"]),
    }
    for caption, (words, verbs) in expected.items():
        text = panels.text(caption)
        assert all(word in text for word in words), (caption, text)
        there = [node.get_attribute("data-do") for node in panels.all(caption, "[data-do]")]
        offered = [do for do in there if do in ("start", "dashboard", "suspend", "resume", "delete")]
        assert offered == verbs, caption
    assert not panels.all("Starting", "[role=meter]")


def test_a_deletion_names_what_is_lost_and_the_safe_answer_comes_first(panels):
    panels.find("Running", "delete").click()
    assert panels.focused() == "keep" and "Looking for jobs" in panels.text("Running")
    assert panels.sent() == [{"do": "ask", "options": {"verb": "delete", "id": 1}}]
    panels.change("Running", asked={"id": 1, "text": "1 running job will be lost: `fit-1`"})
    assert "1 running job will be lost: fit-1" in panels.text("Running") and panels.focused() == "keep"
    panels.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert panels.focused() == "delete" and panels.sent() == []
    panels.find("Running", "delete").send_keys(Keys.ENTER)
    panels.find("Running", "delete!").click()
    assert panels.sent()[-1] == {"do": "delete", "options": {}}
    assert not panels.all("Running", "[role=alertdialog]")


def test_workers_are_asked_for_when_scale_is_pressed(panels):
    scale = panels.find("Running", "scale")
    assert not scale.is_enabled() and scale.get_attribute("title")
    panels.find("Running", "more").click()
    panels.find("Running", "more").click()
    assert panels.sent() == [] and scale.is_enabled()
    count = panels.find("Running", "count")
    panels.change("Running", lines=["news that have nothing to do with it"])
    assert count.get_attribute("value") == "3"
    count.send_keys(Keys.ENTER)
    assert panels.sent() == [{"do": "scale", "options": {"workers": 3}}]
    assert not scale.is_enabled()


def test_the_form_takes_only_what_the_profile_allows(panels):
    def field(name):
        return panels.find("None", f"field {name}")

    field("workers").clear()
    field("workers").send_keys("9")
    field("memory").clear()
    field("memory").send_keys("much")
    panels.find("None", "start").click()
    assert panels.sent() == [] and panels.focused() == "field workers"
    assert "A size such as 8GiB" in panels.text("None")
    assert field("workers").get_attribute("aria-invalid") == "true"
    field("workers").send_keys(Keys.BACKSPACE, "2")
    field("memory").clear()
    field("memory").send_keys("16 GiB", Keys.ENTER)
    options = {"workers": 2, "memory": "16 GiB", "gpu": "l4"}
    assert panels.sent() == [{"do": "start", "options": {"profile": "gpu", "options": options}}]
    panels.find("None", "profile 0").click()
    panels.find("None", "start").click()
    assert panels.sent() == [{"do": "start", "options": {"profile": "small", "options": {}}}]


def test_what_is_under_way_rests_and_nothing_is_without_a_name(panels):
    deleting = panels.all("Deleting", "button")
    assert deleting and not any(button.is_enabled() for button in deleting)
    assert panels.find("Starting", "delete").is_enabled()
    nameless = panels.driver.execute_script(
        "return [...document.querySelectorAll('.jp-RayOffload :is(button, a, input, select)')]"
        ".filter((c) => !(c.getAttribute('aria-label') || c.textContent.trim() || c.labels?.length)).length"
    )
    assert nameless == 0
    wide = panels.driver.execute_script(
        "document.querySelector('main').style.width = '340px';"
        "return [...document.querySelectorAll('.jp-RayOffload-panel')]"
        ".filter((panel) => panel.scrollWidth > panel.clientWidth + 1).length"
    )
    assert wide == 0
