"""How sidebar and job view stand with many jobs, long logs, and readers who cannot see them.

Times are printed (``pytest -s``) and not asserted: the machine may be busy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("selenium")

from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.remote.store import Store
from tests.browser.lab import Lab, running_lab
from tests.browser.page import MISSING, Page, open_browser
from tests.browser.sidebar import PLACE, Sidebar
from tests.ray_fixture import make_backend, run

AXE = Path(__file__).parents[2] / "labextension/node_modules/axe-core/axe.min.js"
JOBS = 1_000
LINES = 200_000

pytestmark = [
    pytest.mark.browser,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab() as lab:
        lab.start_cluster()
        fill(lab)
        lab.add("long.ipynb", ["x = 1"])
        yield lab


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[Page]:
    with open_browser(lab, (1300, 1000)) as page:
        yield page


@pytest.fixture(scope="module")
def sidebar(page: Page) -> Sidebar:
    sidebar = Sidebar(page)
    sidebar.open("long.ipynb")
    page.until(lambda: len(sidebar.jobs()) >= 100, "the first jobs")
    return sidebar


def fill(lab: Lab) -> None:
    """Put a thousand jobs that have ended into the store, the newest with a long log."""
    connection = run(make_backend(lab.root).find("default"))
    assert connection is not None
    with Store(connection.store, connection.owner, Signer(connection.key)) as store:
        now = time.time() - 60
        states = ("succeeded", "failed", "cancelled", "succeeded")
        for number in range(JOBS):
            job_id = f"step{number}-{number:06x}"
            created = now - (JOBS - number)
            spec = {
                "id": job_id,
                "label": f"step{number}",
                "owner": "tester",
                "notebook": f"note{number % 7}.ipynb",
                "source": f"needle_{number} = 1",
                "created": created,
            }
            state = {"phase": states[number % 4], "attempt": 1, "started": created, "ended": created + 5}
            store.create(job_id, {"spec": spec, "state": state}, created)
        text = [f"line {n} \x1b[32mof the log\x1b[0m" for n in range(LINES)]
        for number, first in enumerate(range(0, LINES, 1000), 1):
            content = {"name": "stdout", "text": "\n".join(text[first : first + 1000]) + "\n"}
            store.append(job_id, f"{job_id}-1", number, [{"t": now, "type": "stream", "content": content}])


def median_ms(page: Page, script: str, times: int = 7) -> float:
    """Give how long the page takes until it has shown what `script` does; two frames are the end."""
    page.driver.set_script_timeout(120)
    measured = page.driver.execute_async_script(
        f"""
        const done = arguments[0];
        const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
        (async () => {{
          const found = [];
          for (let i = 0; i < {times}; i++) {{
            await frame();
            const begin = performance.now();
            {script}
            document.body.getBoundingClientRect();
            await frame();
            found.push(performance.now() - begin);
          }}
          done(found.sort((a, b) => a - b)[{times // 2}]);
        }})();
        """
    )
    return float(measured)


def test_a_thousand_jobs(page: Page, sidebar: Sidebar) -> None:
    box = f"document.querySelector('{PLACE} .jp-RayOffload-scroll')"

    # All are read when their end comes into sight.
    def all_there() -> bool:
        page.driver.execute_script(f"{box}.scrollTop = {box}.scrollHeight")
        return len(sidebar.jobs()) >= JOBS

    page.until(all_there, f"{JOBS} jobs")
    field = f"document.querySelector('{PLACE} .jp-RayOffload-filter input')"
    took = {
        "scroll": median_ms(page, f"{box}.scrollTop = (i * 7919) % {box}.scrollHeight;"),
        "filter": median_ms(
            page, f"{field}.value = i % 2 ? 'step9' : ''; {field}.dispatchEvent(new Event('input'));", 8
        ),
    }
    memory = page.ask("performance.memory.usedJSHeapSize") / 1e6
    print(f"{JOBS} jobs: {json.dumps(took)} ms, heap {memory:.0f} MB")
    page.driver.execute_script(f"{field}.value = ''; {field}.dispatchEvent(new Event('input'))")
    # What only the server knows is found too: the source of a cell.
    page.driver.execute_script(f"{field}.value = 'needle_17 ='; {field}.dispatchEvent(new Event('input'))")
    page.until(lambda: [name for name, _ in sidebar.jobs()] == ["step17"], "the cell with that source")
    page.driver.execute_script(f"{field}.value = ''; {field}.dispatchEvent(new Event('input'))")


def test_a_long_log(page: Page, sidebar: Sidebar) -> None:
    page.until(lambda: len(sidebar.jobs()) > 100, "the jobs")
    page.driver.execute_script(
        "jupyterapp.commands.execute('jupyter-rayoffload:open-job', {id: arguments[0]})",
        f"step{JOBS - 1}-{JOBS - 1:06x}",
    )
    sidebar.page_says(f"{LINES:,} lines")
    port = "document.querySelector('.jp-RayOffload-page [role=log]')"
    begin = time.monotonic()
    page.click(".jp-RayOffload-page .jp-RayOffload-logbar [aria-label='Search the log']")
    page.press(f"line {LINES // 2} of")
    page.until(lambda: "1 of 1" in sidebar.page_text(), "the line in the middle")
    found = time.monotonic() - begin
    took = median_ms(page, f"{port}.scrollTop = ({port}.scrollHeight / 9) * (i + 1);")
    memory = page.ask("performance.memory.usedJSHeapSize") / 1e6
    print(f"{LINES} lines: scroll {took:.0f} ms, search {found:.1f} s from the click, heap {memory:.0f} MB")
    lines = page.ask("[...document.querySelectorAll('.jp-RayOffload-page .jp-RayOffload-line')].length")
    assert lines < 2_000  # a window, not the log


@pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is installed with the JupyterLab extension's tools: npm ci"
)
@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark", "JupyterLab Dark High Contrast"])
def test_axe_finds_nothing(page: Page, sidebar: Sidebar, theme: str) -> None:
    page.theme(theme)
    page.driver.execute_script(AXE.read_text("utf-8"))
    page.driver.execute_script(
        "jupyterapp.commands.execute('jupyter-rayoffload:open-job', {id: arguments[0]})", "step0-000000"
    )
    sidebar.page_says("step0")
    assert violations(page, PLACE) == []
    for tab in ("Log", "Outputs", "Inputs", "Environment", "Timeline"):
        sidebar.tab(tab)
        time.sleep(0.5)
        assert violations(page, ".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-RayOffload-page") == [], tab
    sidebar.cluster_verb("delete")
    sidebar.dialog("Delete cluster")
    try:
        assert violations(page, ".jp-Dialog .jp-Dialog-content") == []
    finally:
        sidebar.refuse()


def violations(page: Page, selector: str) -> list[str]:
    """Give what axe-core finds below a selector."""
    looked_at, found = page.driver.execute_async_script(
        "const done = arguments[1]; axe.run(arguments[0], {})"
        ".then((r) => done([r.passes.length, r.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3)"
        ".map((n) => n.html.slice(0, 160) + ' ' + n.failureSummary).join(' | '))]),"
        "(e) => done([1, [String(e)]]))",
        selector,
    )
    assert looked_at, selector
    return list(found)


_MOVES = """
[...document.querySelectorAll(arguments[0])].flatMap((root) => [root, ...root.querySelectorAll('*')])
  .filter((node) => {
    const { animationName, transitionDuration } = getComputedStyle(node);
    const times = transitionDuration.split(', ').map((time) => parseFloat(time));
    return animationName !== 'none' || Math.max(...times) > 0.001;
  })
  .map((node) => node.outerHTML.slice(0, 120))
"""


def test_nothing_moves_by_itself_for_those_who_asked_for_that(page: Page, sidebar: Sidebar) -> None:
    page.driver.execute_script(
        "jupyterapp.commands.execute('jupyter-rayoffload:open-job', {id: arguments[0]})", "step0-000000"
    )
    sidebar.page_says("step0")
    reduced = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": reduced})
    try:
        assert page.ask("matchMedia('(prefers-reduced-motion: reduce)').matches")
        assert page.ask(_MOVES, f"{PLACE}, .jp-RayOffload-page, .jp-RayOffload-status") == []
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
