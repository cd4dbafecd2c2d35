"""A person in front of JupyterLab: opens notebooks, types, presses buttons, and sees what the page shows."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.browser.lab import Lab

_T = TypeVar("_T")

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
#: Why there are no tests in a browser here; empty where there are.
MISSING = "" if BROWSER and DRIVER else "chromium and chromedriver are not installed"
#: Seconds within which anything must have happened: the machine may be busy.
PATIENCE = 120.0

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Notes each change of each panel from now on: what passes between two looks of a slow test is not missed.
_WATCH = """
window.seenPanels = [];
const text = (node, selector) => node.querySelector(selector)?.textContent ?? '';
const note = () => {
  for (const panel of document.querySelectorAll('.jp-RayOffload-panel')) {
    const lines = panel.querySelectorAll('.jp-RayOffload-line');
    const now = {
      word: text(panel, '.jp-RayOffload-state'),
      time: text(panel, '.jp-RayOffload-meta time'),
      line: lines.length ? lines[lines.length - 1].textContent : '',
      count: text(panel, '.jp-RayOffload-logbar .jp-RayOffload-quiet'),
    };
    const key = JSON.stringify(now);
    if (panel.noted !== key) window.seenPanels.push(now);
    panel.noted = key;
  }
};
new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
"""

_IN_SIGHT = """
(() => {
  const log = [...document.querySelectorAll('.jp-RayOffload-log [role=log]')].at(-1);
  const { top, bottom } = log?.getBoundingClientRect() ?? {};
  const seen = (row) => {
    const place = row.getBoundingClientRect();
    return place.bottom > top + 1 && place.top < bottom - 1;
  };
  return [...(log?.querySelectorAll('.jp-RayOffload-line') ?? [])].filter(seen).map((row) => row.textContent);
})()
"""

_BRING = """
const cells = [...document.querySelectorAll('.jp-Notebook .jp-Cell')];
cells.find((cell) => cell.innerText.includes(arguments[0]))?.scrollIntoView({block: 'start'});
"""

# The last one under a cell: the sidebar has panels, too.
_PANEL = """
[...document.querySelectorAll('.jp-RayOffload-panel')]
  .filter((panel) => !panel.closest('.jp-RayOffload-place, .jp-RayOffload-page')).at(-1)?.innerText
"""

_CONNECTED = """
(() => {
  const kernel = window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel;
  return kernel?.connectionStatus === 'connected' && ['idle', 'busy'].includes(kernel.status);
})()
"""


class Page:
    """The one tab of the browser.

    Parameters
    ----------
    driver : webdriver.Chrome
    lab : Lab
    """

    def __init__(self, driver: webdriver.Chrome, lab: Lab) -> None:
        self.driver, self.lab = driver, lab

    # ------------------------------------------------------------------ looking

    def ask(self, script: str, *arguments: Any) -> Any:
        """Give what an expression of the page gives."""
        return self.driver.execute_script(f"return ({script})", *arguments)

    def until(self, look: Callable[[], _T | None], what: str) -> _T:
        """Look until there is something; give it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {PATIENCE:g} s: {what}; {self._evidence()}")
            time.sleep(0.05)

    def _evidence(self) -> str:
        """Give what tells why something has not come: the page, its console, the end of the server's log."""
        console = "\n".join(entry["message"][:300] for entry in self.driver.get_log("browser")[-20:])
        log = "\n".join((self.lab.root / "lab.log").read_text("utf-8", "replace").splitlines()[-20:])
        shown = f"the page shows:\n{self.text()[:2000]}"
        return f"{shown}\nits console:\n{console}\nthe server's log:\n{log}"

    def text(self) -> str:
        """Give the text of the notebook, as it is on the screen."""
        return str(self.ask("(document.querySelector('.jp-Notebook') ?? document.body).innerText") or "")

    def shows(self, *words: str) -> str:
        """Wait until the notebook shows all `words`; give its text."""
        return self.until(lambda: _with(words, self.text()), repr(words))

    def panel(self) -> str:
        """Give the text of the last panel; empty while there is none."""
        return str(self.ask(_PANEL) or "")

    def panel_shows(self, *words: str) -> str:
        """Wait until the last panel shows all `words`; give its text."""
        return self.until(lambda: _with(words, self.panel()), f"{words!r} in the panel")

    def find(self, selector: str) -> WebElement:
        """Wait for the last element of a selector."""
        return self.until(lambda: self._last("css selector", selector), selector)

    def _last(self, by: str, selector: str) -> WebElement | None:
        found = self.driver.find_elements(by, selector)
        return found[-1] if found else None

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.find(".jp-Notebook-ExecutionIndicator[data-status=idle]")

    # ------------------------------------------------------------------ doing

    def open(self, name: str) -> None:
        """Open a notebook, and wait for its kernel."""
        self.driver.get(self.lab.address(name))
        self._ready()

    def reload(self) -> None:
        """Load the page again."""
        self.driver.refresh()
        self._ready()

    def _ready(self) -> None:
        # The indicator says "idle" before there is a kernel at all: who runs a cell then is asked for one.
        self.until(lambda: self.ask(_CONNECTED), "a kernel")
        self.find(".jp-Notebook .jp-Cell")

    def watch(self) -> None:
        """Note from now on how the panels change."""
        self.driver.execute_script(_WATCH)

    def seen(self, what: str) -> list[str]:
        """Give what was noted, in order, without repetitions: ``word``, ``time``, ``line`` or ``count``."""
        noted = [note[what] for note in self.ask("window.seenPanels")]
        return [value for i, value in enumerate(noted) if value and (i == 0 or noted[i - 1] != value)]

    def click(self, selector: str) -> None:
        """Click on the last element of a selector, once it can be pressed."""
        self.until(lambda: self._clicked(selector), f"{selector} to click on")

    def _clicked(self, selector: str) -> bool:
        element = self.find(selector)
        try:
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'nearest'})", element)
            if not element.is_enabled():  # a click would be lost, and say nothing
                return False
            element.click()
        except (StaleElementReferenceException, ElementClickInterceptedException):
            return False  # it was drawn anew, or something still stands over it
        return True

    def point_at(self, selector: str) -> None:
        """Move the pointer over an element."""
        self.until(lambda: self._pointed_at(selector), f"{selector} to point at")

    def _pointed_at(self, selector: str) -> bool:
        try:
            ActionChains(self.driver).move_to_element(self.find(selector)).perform()
        except StaleElementReferenceException:
            return False  # it was drawn anew
        return True

    def press(self, *keys: str, held: str = "") -> None:
        """Press keys one after the other, with a modifier held where one is given."""
        chain = ActionChains(self.driver)
        if held:
            chain.key_down(held)
        for key in keys:
            chain.send_keys(key)
        if held:
            chain.key_up(held)
        chain.perform()

    def menu(self, title: str, entry: str) -> None:
        """Choose an entry of a menu of the menu bar."""
        bar = f"//div[contains(@class, 'lm-MenuBar-itemLabel') and .='{title}']"
        self.driver.find_element("xpath", bar).click()
        item = f"//div[contains(@class, 'lm-Menu-itemLabel') and starts-with(., '{entry}')]"
        self.until(lambda: self._last("xpath", item), f"{title} / {entry}").click()

    def run_all(self) -> None:
        """Run all cells, from the menu."""
        self.menu("Run", "Run All Cells")

    def run_cell(self, number: int) -> None:
        """Run one cell by the keyboard."""
        self.click(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{number}"] .cm-content')
        self.press(Keys.ENTER, held=Keys.CONTROL)

    def run_new(self, source: str) -> None:
        """Type a cell below the last one, and run it."""
        self.click(".jp-Notebook-footer")
        self.press(Keys.ENTER)
        self.find(".jp-Notebook.jp-mod-editMode .jp-Cell.jp-mod-active .cm-content")
        self.press(source)
        self.press(Keys.ENTER, held=Keys.CONTROL)

    def log_key(self, key: str) -> None:
        """Press a key in the log of the last panel."""
        self.click(".jp-RayOffload-log [role=log]")
        self.press(key)

    def log_lines(self) -> list[str]:
        """Give the lines of the last panel that are in sight."""
        return self.ask(_IN_SIGHT) or []

    def search(self, text: str) -> None:
        """Search the log of the last panel."""
        self.click(".jp-RayOffload-log [role=log]")
        self.press("f", held=Keys.CONTROL)
        self.find(".jp-RayOffload-find input:focus")
        self.press(text)

    def save(self) -> None:
        """Save by the keyboard until it is on disk: outputs may still come in after the first time."""

        def saved() -> bool:
            nonlocal pressed
            if not self.ask("!!document.querySelector('.jp-mod-dirty')"):
                return True
            if time.monotonic() - pressed > 2:
                self.press("s", held=Keys.CONTROL)
                pressed = time.monotonic()
            return False

        self.press("s", held=Keys.CONTROL)
        pressed = time.monotonic()
        self.until(saved, "saved")

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Give the page a size; that of a window counts a frame which is not there."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, name: str) -> None:
        """Choose a theme."""
        self.ask("jupyterapp.commands.execute('apputils:change-theme', {theme: arguments[0]})", name)
        self.find(f"body[data-jp-theme-name='{name}']")

    def bring(self, words: str) -> None:
        """Scroll so that the cell that shows `words` stands at the top."""
        self.driver.execute_script(_BRING, words)

    def restart_kernel(self) -> None:
        """Restart the kernel, from the menu."""
        self.menu("Kernel", "Restart Kernel…")
        self.click(".jp-Dialog .jp-mod-accept")


def _with(words: Sequence[str], text: str) -> str:
    return text if all(word in text for word in words) else ""


@contextmanager
def open_browser(lab: Lab, size: tuple[int, int] = (1200, 800)) -> Iterator[Page]:
    """Start a browser with a profile of its own, and end it afterwards."""
    options = webdriver.ChromeOptions()
    with tempfile.TemporaryDirectory(prefix="ro-browser-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={Path(profile)}"):
            options.add_argument(flag)
        options.binary_location = str(BROWSER)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            page = Page(driver, lab)
            page.resize(*size)
            yield page
        finally:
            driver.quit()
