"""Where else in JupyterLab jobs and clusters are: the panel of what runs, menus, the palette; and Undo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.browser.lab import Lab, running_lab
from tests.browser.page import MISSING, Page, open_browser
from tests.browser.sidebar import PLACE, ROW, Sidebar
from tests.browser.test_sidebar import home, waiting

pytestmark = [
    pytest.mark.browser,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

RUNNING = "#jp-running-sessions"
#: Label and whether it can be chosen, of each entry of the menu that is open.
_ENTRIES = """
[...document.querySelectorAll('.lm-Menu:last-of-type .lm-Menu-item[data-type=command]')]
  .map((entry) => [entry.querySelector('.lm-Menu-itemLabel').textContent,
    !entry.classList.contains('lm-mod-disabled')])
"""
_SOURCE = "jupyterapp.shell.currentWidget.content.widgets[arguments[0]].model.sharedModel.getSource()"
_DIRTY = "jupyterapp.shell.currentWidget.context.model.dirty"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        lab.start_cluster()
        yield lab


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    with open_browser(lab, (1300, 1000)) as page:
        yield page


@pytest.fixture(scope="module")
def sidebar(page: Page) -> Sidebar:
    return Sidebar(page)


def begin(lab: Lab, page: Page, sidebar: Sidebar, name: str, gate: Path) -> str:
    """Run a cell that waits for `gate`; give the job's name."""
    sidebar.open(lab.add(name, [waiting(gate), "other = 1"]))
    known = {job for job, _ in sidebar.jobs()}
    sidebar.run_on_ray(0)
    page.panel_shows("Running")
    [new] = page.until(lambda: {job for job, _ in sidebar.jobs()} - known, "the job in the list")
    sidebar.job_is(new, "Running")
    return new


def menu(page: Page, selector: str) -> dict[str, bool]:
    """Open the context menu of an element; give its entries, and whether each can be chosen."""
    ActionChains(page.driver).context_click(page.find(selector)).perform()
    page.find(".lm-Menu .lm-Menu-itemLabel")
    return {label: enabled for label, enabled in page.ask(_ENTRIES)}


def choose(page: Page, entry: str) -> None:
    """Choose an entry of the menu that is open, by its whole label."""
    item = f"//div[contains(@class, 'lm-Menu-itemLabel') and .='{entry}']"
    page.until(lambda: page._last("xpath", item), entry).click()


def row_of(sidebar: Sidebar, name: str) -> str:
    return f"{ROW}:nth-child({[job for job, _ in sidebar.jobs()].index(name) + 1})"


def test_menus_of_a_job_of_a_cluster_and_of_a_cell(
    lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path
) -> None:
    name = begin(lab, page, sidebar, "menus.ipynb", tmp_path / "gate")
    offered = menu(page, row_of(sidebar, name))
    can = {
        "Open job",
        "Go to the cell of the job",
        "Attach job to this notebook",
        "Cancel job",
        "Copy job id",
    }
    assert {label for label, enabled in offered.items() if enabled and label in can} == can
    assert not offered["Rerun job"] and not offered["Delete job…"]
    choose(page, "Open job")
    sidebar.page_says("begun")
    menu(page, row_of(sidebar, name))
    choose(page, "Cancel job")
    sidebar.job_is(name, "Cancelled")
    offered = menu(page, row_of(sidebar, name))
    assert offered["Rerun job"] and offered["Delete job…"] and not offered["Cancel job"]
    choose(page, "Delete job…")
    sidebar.dialog(f"Delete job {name}?")
    sidebar.refuse()

    offered = menu(page, f"{PLACE} .jp-RayOffload-clusterItem .jp-RayOffload-name")
    assert offered["Delete cluster…"] and offered["Open Ray dashboard"]
    assert not offered["Resume cluster"] and not offered["Suspend cluster…"]
    choose(page, "Delete cluster…")
    sidebar.dialog("Delete cluster default?")
    sidebar.refuse()

    page.driver.execute_script("jupyterapp.commands.execute('docmanager:open', {path: 'menus.ipynb'})")
    # Without the gate it would wait again: what is run is another cell than the one that has the focus.
    page.click('.jp-Notebook .jp-Cell[data-windowed-list-index="0"] .cm-content')
    offered = menu(page, '.jp-Notebook .jp-Cell[data-windowed-list-index="1"] .cm-content')
    assert offered["Run cell on Ray"]
    choose(page, "Run cell on Ray")
    page.until(lambda: sidebar.outputs(1), "the panel under that cell")
    page.until(lambda: "Succeeded" in sidebar.jobs()[0][1], "its job")


def test_the_panel_of_what_runs(lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path) -> None:
    names = [begin(lab, page, sidebar, f"run{n}.ipynb", tmp_path / "gate") for n in range(2)]
    page.click(".jp-SideBar [data-id='jp-running-sessions']")
    title = f"[...document.querySelectorAll('{RUNNING} .jp-AccordionPanel-title')]"
    ours = f"{title}.find((part) => part.textContent.toLowerCase().includes('ray jobs'))"
    labels = f"[...{ours}.nextElementSibling.querySelectorAll('.jp-RunningSessions-itemLabel')]"
    texts = f"{labels}.map((label) => label.innerText.trim())"
    page.until(lambda: set(names) <= set(page.ask(texts)), f"{names} in it")
    page.ask(f"{labels}.find((label) => label.innerText.trim() === arguments[0])", names[0]).click()
    sidebar.page_says("Running", names[0])

    def cancel_all() -> None:
        page.ask(
            f"{ours}.querySelector('.jp-RunningSessions-shutdownAll button, .jp-RunningSessions-shutdownAll')"
        ).click()
        # JupyterLab's own dialog, with the focus where it puts it.
        asked = "document.querySelector('.jp-Dialog')?.innerText.includes(arguments[0])"
        page.until(lambda: page.ask(asked, "Cancel all jobs that have not ended?"), "the question")

    cancel_all()
    sidebar.refuse()
    assert all(", Running" in said for name, said in sidebar.jobs() if name in names)
    cancel_all()
    sidebar.accept()
    sidebar.show()
    for name in names:
        sidebar.job_is(name, "Cancelled")


def palette(page: Page, words: str) -> list[str]:
    """Give the commands that the palette offers for `words`."""
    page.driver.execute_script("jupyterapp.commands.execute('apputils:activate-command-palette')")
    page.find(".lm-CommandPalette-input:focus")
    page.press(words)
    script = "[...document.querySelectorAll('.lm-CommandPalette-itemLabel')].map((item) => item.innerText)"
    return page.until(lambda: page.ask(script), f"{words} in the palette")


def test_commands_of_the_palette(lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path) -> None:
    name = begin(lab, page, sidebar, "palette.ipynb", tmp_path / "gate")
    offered = palette(page, "ray")
    page.press(Keys.ESCAPE)
    assert {"Run cell on Ray", "Run selected cells on Ray", "Show Ray sidebar"} <= set(offered)
    palette(page, "cancel job")
    page.press(Keys.ENTER)
    sidebar.job_is(name, "Cancelled")
    # What somebody has pointed at once and left is not what the palette is about.
    menu(page, row_of(sidebar, name))
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.ask("!!document.querySelector('.lm-Menu')"), "no menu")
    page.click(f"{PLACE} .jp-RayOffload-filter input")
    assert page.ask("jupyterapp.commands.isEnabled('jupyter-rayoffload:attach-job')")
    assert not page.ask("jupyterapp.commands.isEnabled('jupyter-rayoffload:cancel-job')")


def test_undo_takes_back_what_was_typed_and_leaves_outputs_at_home(
    lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path
) -> None:
    """As JupyterLab does with outputs of its own: they are no step of its history."""
    gate = tmp_path / "gate"
    begin(lab, page, sidebar, "undo.ipynb", gate)
    page.restart_kernel()  # so that not the kernel, but the extension brings them
    page.idle()
    page.click('.jp-Notebook .jp-Cell[data-windowed-list-index="1"] .cm-content')
    page.press(Keys.END, "23")
    page.until(lambda: page.ask(_SOURCE, 1) == "other = 123", "what was typed")
    page.save()
    gate.touch()
    page.until(lambda: home(sidebar.outputs(0)), "the outputs at home")
    assert page.ask(_DIRTY)
    page.click('.jp-Notebook .jp-Cell[data-windowed-list-index="1"] .cm-content')
    page.press("z", held=Keys.CONTROL)
    page.until(lambda: page.ask(_SOURCE, 1) == "other = 1", "what stood there before")
    page.menu("Edit", "Undo Cell Operation")  # there is none of that any more
    assert page.ask(_SOURCE, 0) == waiting(gate)
    assert home(sidebar.outputs(0))
