"""A person in front of the Ray sidebar and of a job's own page."""

from __future__ import annotations

import time
from typing import Any

from selenium.webdriver.common.keys import Keys

from tests.browser.page import Page

PLACE = "#jupyter-rayoffload-sidebar"
ROW = f"{PLACE} .jp-RayOffload-jobs > li"
DIALOG = ".jp-Dialog"
CELL = '.jp-Notebook .jp-Cell[data-windowed-list-index="{}"]'

_TEXT = "[...document.querySelectorAll(arguments[0])].map((node) => node.innerText).join('\\n')"
_ROW = """
[...document.querySelectorAll('#jupyter-rayoffload-sidebar .jp-RayOffload-jobs > li')]
  .map((row) => [row.querySelector('.jp-RayOffload-name').textContent, row.ariaLabel])
"""

_TO_FRONT = """
(() => {
  const shell = window.jupyterapp?.shell;
  const panel = shell && [...shell.widgets('main')].find((widget) => widget.title.label === arguments[0]);
  if (panel) shell.activateById(panel.id);
  return Boolean(panel);
})()
"""


class Sidebar:
    """The sidebar of a page that shows all of JupyterLab.

    Parameters
    ----------
    page : Page
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def open(self, name: str, reset: bool = True) -> None:
        """Open a notebook in the whole of JupyterLab, and the sidebar by its icon."""
        lab = self.page.lab
        end = "&reset" if reset else ""
        self.page.driver.get(f"http://127.0.0.1:{lab.port}/lab/tree/{name}?token={lab.token}{end}")
        # In a second tab nothing has the focus, and so no widget is the current one.
        self.page.until(lambda: self.page.ask(_TO_FRONT, name), f"{name} in front")
        self.page._ready()
        self.show()

    def show(self) -> None:
        """Make the sidebar visible, as a click on its icon does."""
        if not self.page.ask("!!document.querySelector(arguments[0] + ':not(.lm-mod-hidden)')", PLACE):
            self.page.click(".jp-SideBar [data-id='jupyter-rayoffload-sidebar']")
        self.page.find(f"{PLACE} .jp-RayOffload-section")

    def text(self) -> str:
        """Give all that the sidebar says."""
        return str(self.page.ask(_TEXT, PLACE))

    def says(self, *words: str) -> str:
        """Wait until the sidebar says all `words`."""
        return self.page.until(lambda: _with(words, self.text()), f"{words!r} in the sidebar:\n{self.text()}")

    def jobs(self) -> list[tuple[str, str]]:
        """Give name and description of each row."""
        return [(name, said) for name, said in self.page.ask(_ROW)]

    def job_is(self, name: str, word: str) -> None:
        """Wait until the newest job of that name is in this state."""

        def look() -> bool:
            rows = [said for found, said in self.jobs() if found == name]
            return bool(rows) and f", {word}" in rows[0]

        self.page.until(look, f"{name}: {word} in {self.jobs()}")

    def tool(self, name: str, label: str) -> None:
        """Press a button of the first row of that name: it comes when the row is pointed at."""
        index = self.page.until(lambda: [n for n, _ in self.jobs()].index(name) + 1, f"{name} in the list")
        row = f"{ROW}:nth-child({index})"
        self.page.point_at(row)
        self.page.click(f"{row} button[aria-label='{label}']")

    def open_job(self, name: str) -> None:
        """Open a job by a click on its row."""
        index = [n for n, _ in self.jobs()].index(name) + 1
        self.page.click(f"{ROW}:nth-child({index}) .jp-RayOffload-name")
        self.page.find(".jp-RayOffload-page:not(.lm-mod-hidden) [role=tab]")

    def tab(self, label: str) -> None:
        """Choose a tab of the job's page."""
        front = ".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-RayOffload-page [role=tab]"
        script = f"[...document.querySelectorAll('{front}')].find((tab) => tab.textContent === arguments[0])"
        self.page.until(lambda: self.page.ask(script, label), label).click()

    def page_text(self) -> str:
        """Give what the job's page in front says."""
        return str(self.page.ask(_TEXT, ".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-RayOffload-page"))

    def page_says(self, *words: str) -> str:
        """Wait until the job's page says all `words`."""
        return self.page.until(
            lambda: _with(words, self.page_text()), f"{words!r} on the page:\n{self.page_text()}"
        )

    def cluster_verb(self, verb: str) -> None:
        """Press a button of the cluster."""
        self.page.click(f"{PLACE} .jp-RayOffload-cluster [data-do='{verb}']")

    def dialog(self, *words: str) -> str:
        """Wait for a dialog that says all `words`; the safe answer must have the focus."""
        self.page.find(DIALOG)
        self.page.until(
            lambda: self.page.ask("document.activeElement?.innerText") == "Cancel", "focus on Cancel"
        )
        return self.page.until(lambda: _with(words, str(self.page.ask(_TEXT, DIALOG))), f"{words!r}")

    def accept(self) -> None:
        """Say yes to the dialog."""
        self.page.click(f"{DIALOG} .jp-mod-warn, {DIALOG} .jp-mod-accept")
        self.page.until(
            lambda: not self.page.ask("document.querySelector('.jp-Dialog')"), "the dialog closed"
        )

    def refuse(self) -> None:
        """Leave the dialog by Escape."""
        self.page.press(Keys.ESCAPE)
        self.page.until(
            lambda: not self.page.ask("document.querySelector('.jp-Dialog')"), "the dialog closed"
        )

    def start_cluster(self, attempts: int = 4) -> None:
        """Press Start until the cluster runs: Ray gives up early on a busy machine."""
        for _ in range(attempts):
            self.page.click(f"{PLACE} .jp-mod-primary, {PLACE} .jp-RayOffload-cluster [data-do='start']")
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                text = self.text()
                if "Running" in text:
                    return
                if "Failed" in text or self.page.ask(
                    "!!document.querySelector(arguments[0])", f"{PLACE} [role=alert]"
                ):
                    break
                time.sleep(0.2)
        raise AssertionError(self.text())

    def outputs(self, cell: int) -> list[dict[str, Any]]:
        """Give the outputs of a cell of the open notebook, as its model has them."""
        script = (
            "[...Array(1)].map(() => { let found; jupyterapp.shell.currentWidget?.content.widgets && "
            "(found = jupyterapp.shell.currentWidget.content.widgets[arguments[0]].model.outputs.toJSON()); "
            "return found ?? []; })[0]"
        )
        return self.page.ask(script, cell) or []

    def run_on_ray(self, cell: int) -> None:
        """Press the button in the toolbar of a cell."""
        self.page.click(f"{CELL.format(cell)} .cm-content")
        self.page.click(f"{CELL.format(cell)} .jp-RayOffload-cellButton button[aria-label='Run cell on Ray']")


def _with(words: tuple[str, ...], text: str) -> str:
    return text if all(word in text for word in words) else ""
