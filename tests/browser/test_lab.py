"""The whole way in a real JupyterLab: cells are run by mouse and keyboard, and the page is looked at."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium")

from nbconvert import HTMLExporter
from selenium.webdriver.common.keys import Keys

from tests.browser.lab import Lab, running_lab
from tests.browser.page import MISSING, Page, open_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]

WIDGET = "application/vnd.jupyter.widget-view+json"
PHASES = ["Packaging", "Starting cluster", "Uploading", "Pending", "Running", "Succeeded"]
LINES = 200_000


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The JupyterLab of this module, and its cluster."""
    with running_lab() as lab:
        lab.start_cluster()
        yield lab


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    """The one tab, tall enough for a panel and what stands around it."""
    with open_browser(lab, (1200, 1400)) as page:
        yield page


@pytest.fixture(autouse=True)
def complaints(page: Page) -> Iterator[None]:
    """No test may leave an error in the console of the browser that comes from our scripts."""
    page.driver.get_log("browser")
    yield
    severe = [entry["message"] for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"]
    ours = [message for message in severe if "blob:" in message or "RayOffload" in message]
    assert not ours, "\n".join(ours)


def job_cell(gate: Path, name: str, *before: str) -> str:
    """Give a cell that runs until `gate` is there: a job must not end before the test has looked."""
    lines = [f"%%ray_job {name}", "import os, time", *before]
    wait = [f"while not os.path.exists({str(gate)!r}):", "    time.sleep(0.05)", "print('the end')"]
    return "\n".join([*lines, *wait])


def records(notebook: Any) -> list[Any]:
    """Give the outputs of a saved notebook that show a job."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output for output in outputs if "job" in output.get("metadata", {}).get("rayoffload", {})]


def in_order(words: list[str]) -> bool:
    """Whether phases follow each other as they must."""
    places = [PHASES.index(word) for word in words]
    return places == sorted(places)


# ---------------------------------------------------------------------- the quickstart


# Whether what the job displayed stands as ordinary outputs below its record.
_HOME = """
jupyterapp.shell.currentWidget.content.widgets.some((cell) =>
  (cell.model.outputs?.toJSON() ?? []).some((output) => output.metadata?.rayoffload?.home))
"""


@pytest.fixture(scope="module")
def quickstart(page: Page) -> list[dict[str, str]]:
    """Run the quickstart to its end; what was seen of its panel."""
    page.open("quickstart.ipynb")
    page.watch()
    page.run_all()
    page.shows("dtype: int64")  # the cell below the job has its result
    free = page.panel()
    assert "forecasts" in free and "Succeeded" not in page.text(), free
    page.shows("Best outlook: north")
    page.idle()
    page.until(lambda: page.ask(_HOME), "the outputs at home")
    seen = page.ask("window.seenPanels")
    page.save()
    return seen


def test_the_panel_is_live(quickstart: list[dict[str, str]], page: Page) -> None:
    words = page.seen("word")
    assert in_order(words) and len(words) > 2 and "Running" in words, words
    assert len(page.seen("time")) > 3  # it ticks
    assert any("branches" in line for line in page.seen("line")), page.seen("line")


def test_what_came_back_is_in_the_page(quickstart: list[dict[str, str]], page: Page) -> None:
    figures = page.ask("[...document.querySelectorAll('.jp-OutputArea img')].map((i) => i.naturalWidth)")
    assert figures and min(figures) > 300, figures
    assert "['best', 'outlook']" in page.text()
    assert not page.driver.find_elements("css selector", ".jp-RayOffload-panel")  # the record has its place


def test_the_saved_notebook_has_the_record(quickstart: list[dict[str, str]], lab: Lab) -> None:
    notebook = lab.saved("quickstart.ipynb")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if WIDGET in output.get("data", {})]
    record, *attached = records(notebook)
    assert set(record.data) == {"text/html", "text/plain"}
    assert "Succeeded" in record.data["text/plain"] and "Succeeded" in record.data["text/html"]
    # What the cell displayed stands below its record, as ordinary outputs.
    assert "data:image/png" not in record.data["text/html"]
    below = outputs[outputs.index(record) + 1 :]
    figure = next(output.data["image/png"] for output in below if "image/png" in output.get("data", {}))
    figure = "".join(figure.split())
    assert len(figure) > 1000
    assert len(attached) == 1 and figure in attached[0].data["text/html"]  # %ray attach shows it again
    html, _ = HTMLExporter().from_notebook_node(notebook)
    assert "Succeeded" in html and "".join(html.split()).count(figure) == 2


# ---------------------------------------------------------------------- a job that takes its time


def test_a_progress_bar_rewrites_its_line(page: Page, lab: Lab) -> None:
    gate = lab.root / "bar"
    bar = ["from tqdm import tqdm", "print('first')", "for _ in tqdm(range(20)): time.sleep(0.2)"]
    page.open(lab.add("bar.ipynb", ["%load_ext jupyter_rayoffload", job_cell(gate, "bar", *bar)]))
    page.watch()
    page.run_all()
    page.panel_shows("Running", "first", "20/20")
    page.until(lambda: "1 s" in " ".join(page.seen("time")), "the time ticks")
    gate.touch()
    page.shows("Succeeded", "Log: 3 lines")
    shown = {int(n) for line in page.seen("line") for n in re.findall(r"(\d+)/20", line)}
    assert len(shown) > 5, shown  # many states of the bar, one after the other,
    assert set(page.seen("count")) <= {"1 line", "2 lines", "3 lines"}  # in one line


def test_cancel(page: Page, lab: Lab) -> None:
    cell = job_cell(lab.root / "never", "endless", "print('begun')")
    page.open(lab.add("cancel.ipynb", ["%load_ext jupyter_rayoffload", cell]))
    page.watch()
    page.run_all()
    page.panel_shows("Running", "begun")
    page.click("[data-do=cancel]")
    page.shows("⊘ Cancelled", "Nothing landed")
    page.save()
    (record,) = records(lab.saved("cancel.ipynb"))
    assert "Cancelled" in record.data["text/plain"] and "begun" in record.data["text/plain"]
    assert WIDGET not in record.data


def test_a_reloaded_page_is_live_again(page: Page, lab: Lab) -> None:
    gate = lab.root / "reload"
    cell = job_cell(gate, "reload", "for i in range(300): print('line', i)")
    page.open(lab.add("reload.ipynb", ["%load_ext jupyter_rayoffload", cell]))
    page.run_all()
    page.panel_shows("Running", "300 lines", "line 299")
    page.save()
    page.reload()
    page.panel_shows("Running", "300 lines", "line 299")
    page.log_key(Keys.HOME)
    page.until(lambda: page.log_lines()[:1] == ["line 0"], "the first line")
    page.log_key(Keys.END)
    gate.touch()
    page.shows("Succeeded", "301 lines")


def test_a_job_outlives_its_kernel(page: Page, lab: Lab) -> None:
    gate = lab.root / "restart"
    cell = job_cell(gate, "restart", "for i in range(300): print('line', i)")
    name = lab.add("restart.ipynb", ["%load_ext jupyter_rayoffload", cell, "'still here'"])
    page.open(name)
    page.run_all()
    page.panel_shows("Running", "line 299")
    page.save()
    page.restart_kernel()
    gone = page.panel_shows("Unknown", "This panel lost its kernel; the job goes on without it")
    assert "Cancel" not in gone
    job = re.search(r"%ray attach (restart-\w+)", gone)
    assert job, gone
    page.reload()
    page.shows("'still here'")
    (saved,) = records(lab.saved(name))
    assert f"%ray attach {job[1]}" in saved.data["text/plain"]  # for viewers without a kernel
    page.run_cell(0)
    page.run_new(f"%ray attach {job[1]}")
    page.panel_shows("Running", "line 299", "300 lines")
    page.log_key(Keys.HOME)
    page.until(lambda: page.log_lines()[:1] == ["line 0"], "the first line")
    gate.touch()
    page.shows("Succeeded", "Log: the last 40 of 301 lines")


# ---------------------------------------------------------------------- much to show


def test_two_hundred_thousand_lines(page: Page, lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    gate = lab.root / "flood"
    cell = job_cell(gate, "flood", f"for i in range({LINES}): print('line', i)")
    page.open(lab.add("flood.ipynb", ["%load_ext jupyter_rayoffload", cell]))
    page.run_all()
    began = time.monotonic()
    page.panel_shows("Running", f"{LINES:,} lines", f"line {LINES - 1}")
    took = {"all lines are there": time.monotonic() - began}
    for what, key, line in [
        ("to the top", Keys.HOME, "line 0"),
        ("to the end", Keys.END, f"line {LINES - 1}"),
    ]:
        began = time.monotonic()
        page.log_key(key)
        page.until(lambda wanted=line: wanted in page.log_lines(), line)
        took[what] = time.monotonic() - began
    began = time.monotonic()
    page.search("line 123456")
    page.until(lambda: "line 123456" in page.log_lines(), "the line that was searched")
    took["search"] = time.monotonic() - began
    page.panel_shows("1 of 1")
    assert page.ask("document.querySelectorAll('.jp-RayOffload-line').length") < 1000
    gate.touch()
    page.shows("Succeeded", f"Log: the last 40 of {LINES + 1:,} lines")
    with capsys.disabled():
        print("", *(f"{what}: {seconds:.2f} s" for what, seconds in took.items()), sep="\n  ")


# ---------------------------------------------------------------------- the cluster


def test_the_cluster_panel_asks_first(page: Page, lab: Lab) -> None:
    page.open(lab.add("cluster.ipynb", ["%load_ext jupyter_rayoffload\n%ray cluster"]))
    page.run_all()
    shown = page.panel_shows("Running", "CPU", "of 2", "Memory", "GiB")
    assert re.search(r"\d of 2\b", shown) and re.search(r"[\d.]+ of [\d.]+ GiB", shown), shown
    page.click(".jp-RayOffload-cluster [title=Delete]")
    page.panel_shows("Keep it")
    page.click(".jp-RayOffload-cluster [data-keep]")
    page.until(lambda: "Keep it" not in page.panel(), "the question goes")
    assert "Running" in page.panel()
    page.click(".jp-RayOffload-cluster [title=Delete]")
    page.click(".jp-RayOffload-cluster .jp-RayOffload-buttons button:not([data-keep])")
    page.panel_shows("Not started")
    assert "CPU" not in page.panel()
    page.click(".jp-RayOffload-cluster button.jp-mod-text")
    page.panel_shows("Starting")
