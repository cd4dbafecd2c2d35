"""The JupyterLab extension in a real browser: a person's whole way, and what may go wrong on it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("selenium")

from selenium.webdriver.common.keys import Keys

from tests.browser.lab import Lab, running_lab
from tests.browser.page import MISSING, Page, open_browser
from tests.browser.sidebar import Sidebar

pytestmark = [
    pytest.mark.browser,
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The JupyterLab of this module; no cluster runs."""
    with running_lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    with open_browser(lab, (1300, 1000)) as page:
        yield page


@pytest.fixture(scope="module")
def sidebar(page: Page) -> Sidebar:
    return Sidebar(page)


@pytest.fixture(autouse=True)
def complaints(page: Page) -> Iterator[None]:
    """No test may leave an error in the console of the browser that comes from our scripts."""
    page.driver.get_log("browser")
    yield
    severe = [entry["message"] for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]
    ours = [m for m in severe if "labextensions/jupyter-rayoffload" in m or "RayOffload" in m]
    assert not ours, "\n".join(ours)


def waiting(gate: Path, *before: str) -> str:
    """Give a cell that shows a table, and ends when `gate` is there."""
    lines = [
        "import os, time",
        "from IPython.display import HTML, display",
        *before,
        "print('begun')",
        "display(HTML('<b>a table</b>'))",
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.05)",
        "answer = 6 * 7",
        "answer",
    ]
    return "\n".join(lines)


def home(outputs: list[dict[str, Any]]) -> bool:
    """Whether a record, a table and a value stand there as ordinary outputs, in this order."""
    if len(outputs) != 3:
        return False
    record, table, value = outputs
    mark = record["metadata"].get("rayoffload", {})
    return (
        mark.get("phase") == "succeeded"
        and "a table" in "".join(table["data"]["text/html"])
        and value["data"]["text/plain"] in ("42", ["42"])
    )


# ---------------------------------------------------------------------- the whole way


def test_a_person_goes_the_whole_way(lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    lab.add("sales.ipynb", ["one = 1", waiting(gate, "one += 1"), "answer + one"])
    lab.add("other.ipynb", ["second = 2"])
    sidebar.open("sales.ipynb")
    # Nothing runs: one call to action.
    sidebar.says("No cluster yet", "The first %%ray_job makes one")
    sidebar.start_cluster()
    sidebar.says("CPU", "Memory", "No jobs yet")

    # A cell goes out without a magic typed, and comes to the list within a second of what its panel says.
    page.run_cell(0)
    page.idle()
    sidebar.run_on_ray(1)
    page.panel_shows("Running")
    page.until(lambda: any("Running" in said for _, said in sidebar.jobs()), "the job in the list")
    [(name, _)] = sidebar.jobs()
    status = page.until(
        lambda: page.ask("document.querySelector('.jp-RayOffload-status')?.innerText"), "status"
    )
    assert status.strip() == "Ray: 1 running"
    button = ".jp-Cell.jp-mod-active .jp-RayOffload-cellButton button"
    page.until(lambda: "is running" in label(page, button) or ": running" in label(page, button), "its state")
    assert page.ask(
        "jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel.getSource()"
    ).startswith("import os")

    # Its own page, by the link of the panel: live, from the first line.
    page.click(".jp-OutputArea .jp-RayOffload-panel [data-do=open]")
    sidebar.page_says("Running", name, "begun")
    gate.touch()
    sidebar.page_says("Succeeded", name)
    sidebar.tab("Outputs")
    sidebar.page_says("a table", "answer", "Landed")
    sidebar.tab("Inputs")
    sidebar.page_says("one += 1", "int", "Sent")
    sidebar.tab("Environment")
    sidebar.page_says("Python", "Asked for")
    sidebar.tab("Timeline")
    sidebar.page_says("The cell began", "Succeeded")

    # Back to the cell, where the outputs have come home.
    page.click(".jp-RayOffload-facts .jp-mod-link")
    page.until(lambda: home(sidebar.outputs(1)), "the outputs at home")
    page.run_cell(2)
    page.shows("44")
    page.save()

    # Into another notebook, from the list.
    page.driver.execute_script("jupyterapp.commands.execute('docmanager:open', {path: 'other.ipynb'})")
    page.until(
        lambda: page.ask("jupyterapp.shell.currentWidget?.title.label") == "other.ipynb", "other.ipynb"
    )
    page.until(
        lambda: page.ask("jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status") == "idle",
        "its kernel",
    )
    sidebar.tool(name, "Attach to the notebook")
    page.until(
        lambda: (
            "attach"
            in str(
                page.ask("jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource()")
            )
        ),
        "a cell",
    )
    page.until(lambda: sidebar.outputs(1), "what it shows")

    # Again, and away.
    gate.unlink()
    sidebar.tool(name, "Rerun")
    page.until(lambda: len(sidebar.jobs()) == 2, "a second job")
    sidebar.page_says("Running")
    page.click(".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-RayOffload-page [data-do=cancel]")
    sidebar.page_says("Cancelled")
    sidebar.tool(name, "Delete")
    sidebar.dialog(f"Delete job {name}?")
    sidebar.refuse()
    assert len(sidebar.jobs()) == 2
    sidebar.tool(name, "Delete")
    sidebar.dialog("stands in notebooks stays")
    sidebar.accept()
    page.until(lambda: len(sidebar.jobs()) == 1, "one job")


def label(page: Page, selector: str) -> str:
    return str(page.ask("document.querySelector(arguments[0])?.ariaLabel ?? ''", selector))


def test_the_list_is_filtered_and_walked_by_keys(page: Page, sidebar: Sidebar) -> None:
    page.click("#jupyter-rayoffload-sidebar .jp-RayOffload-filter input")
    page.press("no such job")
    sidebar.says("No job matches “no such job”")
    page.click("#jupyter-rayoffload-sidebar .jp-RayOffload-note button")
    page.until(lambda: len(sidebar.jobs()) >= 1, "the jobs again")
    page.press(Keys.TAB, Keys.TAB)
    page.until(
        lambda: page.ask("document.activeElement?.closest('.jp-RayOffload-jobs > li') !== null"), "a row"
    )
    page.press(Keys.ENTER)
    page.find(".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-RayOffload-page")


# ---------------------------------------------------------------------- what may go wrong


def test_outputs_come_home_after_a_reload_and_with_the_kernel_restarted(
    lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    lab.add("restarted.ipynb", [waiting(gate)])
    sidebar.open("restarted.ipynb")
    sidebar.run_on_ray(0)
    page.panel_shows("Running")
    page.save()
    page.reload()
    page.restart_kernel()
    page.idle()
    gate.touch()
    page.until(lambda: home(sidebar.outputs(0)), "the outputs at home")
    page.save()
    assert home(lab.saved("restarted.ipynb").cells[0].outputs)


def test_outputs_come_home_when_the_kernel_was_killed(
    lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    lab.add("killed.ipynb", [waiting(gate), "import os; os.getpid()"])
    sidebar.open("killed.ipynb")
    page.run_cell(1)
    page.idle()
    pid = int(page.until(lambda: sidebar.outputs(1), "the process")[0]["data"]["text/plain"])
    sidebar.run_on_ray(0)
    page.panel_shows("Running")
    os.kill(pid, signal.SIGKILL)
    page.until(lambda: not psutil.pid_exists(pid), "its end")
    gate.touch()
    page.until(lambda: home(sidebar.outputs(0)), "the outputs at home")


def test_a_cell_that_was_changed_meanwhile_is_left_alone(
    lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    lab.add("changed.ipynb", [waiting(gate)])
    sidebar.open("changed.ipynb")
    sidebar.run_on_ray(0)
    page.panel_shows("Running")
    page.restart_kernel()
    page.idle()
    page.driver.execute_script(
        "jupyterapp.shell.currentWidget.content.widgets[0].model.sharedModel.setSource('something = else_')"
    )
    name = sidebar.jobs()[0][0]
    gate.touch()
    sidebar.job_is(name, "Succeeded")
    time.sleep(3)
    [output] = sidebar.outputs(0)
    assert output["metadata"]["rayoffload"]["phase"] == "live"
    sidebar.open_job(name)
    sidebar.tab("Outputs")
    sidebar.page_says("a table")


def test_the_server_is_started_anew(lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    lab.add("served.ipynb", [waiting(gate)])
    sidebar.open("served.ipynb")
    sidebar.run_on_ray(0)
    page.panel_shows("Running")
    page.save()
    name = sidebar.jobs()[0][0]
    sidebar.open_job(name)
    sidebar.page_says("begun")
    lab.end_server()
    sidebar.says("No answer from the server since", "Trying again in")
    sidebar.job_is(name, "Unknown")
    assert "Unknown" in sidebar.text()
    gate.touch()
    lab.serve()
    page.driver.execute_script(
        "document.querySelector('.jp-Dialog .jp-mod-reject, .jp-Dialog .jp-mod-accept')?.click()"
    )
    page.click("#jupyter-rayoffload-sidebar .jp-RayOffload-banner button")
    sidebar.job_is(name, "Succeeded")
    sidebar.page_says("Succeeded")
    page.driver.refresh()
    page.find(".jp-SideBar [data-id='jupyter-rayoffload-sidebar']")
    # The view of the job is there again, with the workspace.
    page.until(
        lambda: page.ask(
            "[...jupyterapp.shell.widgets('main')].some(w => w.id.includes(arguments[0]))", name
        ),
        "the job's page after the reload",
    )
    page.driver.execute_script("jupyterapp.commands.execute('docmanager:open', {path: 'served.ipynb'})")
    page.until(lambda: home(sidebar.outputs(0)), "the outputs at home")


def test_the_network_is_cut_for_a_while(lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    lab.add("cut.ipynb", [waiting(gate)])
    sidebar.open("cut.ipynb")
    sidebar.run_on_ray(0)
    page.panel_shows("Running")
    name = sidebar.jobs()[0][0]
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **offline})
    cut = time.monotonic()
    gate.touch()
    sidebar.says("No answer from the server since")
    time.sleep(max(0.0, cut + 20 - time.monotonic()))
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **offline})
    page.driver.execute_script("document.querySelector('.jp-RayOffload-banner button')?.click()")
    sidebar.job_is(name, "Succeeded")
    page.until(lambda: home(sidebar.outputs(0)), "the outputs at home")


def test_two_tabs_show_the_same(lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    lab.add("tabs.ipynb", [waiting(gate)])
    sidebar.open("tabs.ipynb")
    first = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    page.resize(1300, 1000)
    page.driver.execute_cdp_cmd("Page.bringToFront", {})
    page.driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    try:
        sidebar.open("tabs.ipynb")
        second = page.driver.current_window_handle
        sidebar.run_on_ray(0)
        page.panel_shows("Running")
        page.save()
        name = sidebar.jobs()[0][0]
        gate.touch()
        page.until(lambda: home(sidebar.outputs(0)), "the outputs at home in the second tab")
        page.save()
        page.driver.switch_to.window(first)
        page.driver.execute_cdp_cmd("Page.bringToFront", {})
        sidebar.job_is(name, "Succeeded")
        assert "RayOffload" not in str(page.ask("document.querySelector('.jp-Dialog')?.innerText ?? ''"))
        page.driver.switch_to.window(second)
        page.driver.close()
    finally:
        page.driver.switch_to.window(first)


# ---------------------------------------------------------------------- the end


def test_deleting_the_cluster_names_what_is_lost(
    lab: Lab, page: Page, sidebar: Sidebar, tmp_path: Path
) -> None:
    lab.add("lost.ipynb", [waiting(tmp_path / "never")])
    sidebar.open("lost.ipynb")
    sidebar.run_on_ray(0)
    page.panel_shows("Running")
    name = sidebar.jobs()[0][0]
    sidebar.job_is(name, "Running")
    sidebar.cluster_verb("delete")
    sidebar.dialog("Delete cluster default?", "1 running job will be lost", name)
    sidebar.refuse()
    assert "Running" in sidebar.text()
    sidebar.cluster_verb("delete")
    sidebar.dialog("results of jobs that have ended are kept")
    sidebar.accept()
    sidebar.says("No cluster yet")
