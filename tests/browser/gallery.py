"""What the sidebar and the page of a job look like in every state: the pictures of ``docs/looks.md``.

``python tests/browser/screenshots.py --beside [FOLDER]`` takes them; without a folder they go to
``docs/images/beside``.
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from jupyter_rayoffload.models import ClusterInfo, ClusterPhase
from jupyter_rayoffload.server.bodies import cluster_body
from tests.browser.lab import Lab
from tests.browser.page import Page
from tests.browser.sidebar import DIALOG, PLACE, ROW, Sidebar

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
CONTRAST = "JupyterLab Dark High Contrast"
WIDTH, HEIGHT = 1200, 720
PAGE = ".jp-MainAreaWidget:not(.lm-mod-hidden) .jp-RayOffload-page"
SHELL = "#main"
INNER = f"{PLACE} .jp-RayOffload-sidebar"
GIB = 2.0**30

DATA = """\
%load_ext jupyter_rayoffload
import numpy as np

rng = np.random.default_rng(7)
X = rng.normal(size=(20_000, 24))
y = X @ rng.normal(size=24) + rng.normal(size=len(X))"""

FIT = """\
%%ray_job fit -o weights,history
from tqdm import tqdm
import matplotlib.pyplot as plt

weights, history = np.zeros(X.shape[1]), []
for epoch in tqdm(range(100), desc="epochs"):
    error = X @ weights - y
    weights = weights - 0.05 * X.T @ error / len(y)
    history.append(float(np.mean(error**2)))
    if epoch % 10 == 0:
        tqdm.write(f"epoch {epoch:3}   loss {history[-1]:8.4f}")
plt.figure(figsize=(5, 2))
plt.plot(history)
plt.ylabel("loss")
plt.show()"""

FAIL = """\
%%ray_job prices
def read(lines):
    return [float(line.split(",")[1]) for line in lines]

print("reading 3 lines")
prices = read(["pears,2.50", "apples,1.80", "plums,n/a"])"""

ENDLESS = """\
%%ray_job watch
import time

for minute in range(600):
    print(f"{minute:3} min: nothing yet")
    time.sleep(0.2 if minute < 20 else 60)"""

#: Answers in the place of the server's, by the end of the path: what it would take a site to bring about.
_ANSWER = """
(() => {
  const told = %s;
  const fetched = window.fetch;
  window.fetch = (request, init) => {
    const { pathname } = new URL(request.url ?? request, location.href);
    const end = Object.keys(told).find((end) => pathname.endsWith(`/rayoffload/api/${end}`));
    if (!end) return fetched.call(window, request, init);
    const { status, body } = told[end];
    const headers = { 'Content-Type': 'application/json' };
    return Promise.resolve(new Response(JSON.stringify(body), { status, headers }));
  };
})();
"""


class Gallery:
    """Takes pictures of parts of one page, in both themes.

    Parameters
    ----------
    page : Page
    folder : Path
    """

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder
        folder.mkdir(parents=True, exist_ok=True)

    def both(self, name: str, part: str, height: int = 0, scale: int = 2) -> None:
        """Take a picture of a part in each theme; of its upper end where a height is given."""
        for short, theme in THEMES.items():
            self.page.theme(theme)
            self.one(f"{name}-{short}", part, height, scale)
        self.page.theme(THEMES["light"])

    def one(self, name: str, part: str, height: int = 0, scale: int = 2) -> None:
        """Take one picture as the page is now."""
        time.sleep(0.4)  # for the next frame, and its fonts
        box = self.page.ask("document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", part)
        clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": height or box["height"]}
        asked = {"format": "png", "clip": {**clip, "scale": scale}, "captureBeyondViewport": False}
        shot = self.page.driver.execute_cdp_cmd("Page.captureScreenshot", asked)
        picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
        few = picture.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(self.folder / f"{name}.png", optimize=True)


def take(page: Page, lab: Lab, folder: Path) -> None:
    """Take them all; the cluster runs."""
    gallery, sidebar = Gallery(page, folder), Sidebar(page)
    page.resize(WIDTH, HEIGHT)
    lab.add("sales.ipynb", [DATA, FIT, FAIL, ENDLESS])
    first_time(gallery, sidebar)
    jobs(gallery, sidebar)
    pages(gallery, sidebar)
    around(gallery, sidebar)
    sizes(gallery, sidebar)
    asked(gallery, sidebar)
    away(gallery, sidebar)
    site(gallery, sidebar)


def first_time(gallery: Gallery, sidebar: Sidebar) -> None:
    """Nothing yet; then a cluster that starts."""
    sidebar.open("sales.ipynb")
    sidebar.says("No cluster yet")
    gallery.both("nothing", PLACE, 260)
    sidebar.start_cluster()


def jobs(gallery: Gallery, sidebar: Sidebar) -> None:
    """Jobs in several states, with the buttons of one; and a filter that nothing passes."""
    page = sidebar.page
    page.run_all()
    sidebar.job_is("fit", "Succeeded")
    sidebar.job_is("prices", "Failed")
    sidebar.job_is("watch", "Running")
    page.point_at(f"{ROW}:nth-child(2)")
    gallery.both("jobs", PLACE, 400)
    page.point_at(".jp-Notebook")
    page.click(f"{PLACE} .jp-RayOffload-filter input")
    page.press("holdout")
    sidebar.says("No job matches")
    gallery.both("no-match", PLACE, 330)
    page.click(f"{PLACE} .jp-RayOffload-note button")


def pages(gallery: Gallery, sidebar: Sidebar) -> None:
    """The page of a job: all tabs, one that runs, and one that failed."""
    page = sidebar.page
    sidebar.open_job("watch")
    sidebar.page_says("19 min")
    gallery.both("lab", SHELL, scale=1)
    gallery.both("page-running", PAGE, 480, scale=1)
    sidebar.open_job("fit")
    sidebar.page_says("epoch  90")
    page.click(f"{PAGE} .jp-RayOffload-logbar [aria-label='Search the log']")
    page.press("loss")
    sidebar.page_says(" of 10")
    gallery.both("page-log", PAGE, 420, scale=1)
    page.press(Keys.ESCAPE)
    for tab in ("Outputs", "Inputs", "Environment", "Timeline"):
        sidebar.tab(tab)
        gallery.both(f"page-{tab.lower()}", PAGE, 560, scale=1)
    sidebar.open_job("prices")
    sidebar.page_says("could not convert")
    gallery.both("page-failed", PAGE, 560, scale=1)


def around(gallery: Gallery, sidebar: Sidebar) -> None:
    """Where else jobs are: the notebook, its cells' toolbar, the status bar, and the panel of what runs."""
    page = sidebar.page
    page.driver.execute_script("jupyterapp.commands.execute('docmanager:open', {path: 'sales.ipynb'})")
    page.find(".jp-NotebookPanel:not(.lm-mod-hidden)")
    page.click(".jp-Notebook .jp-Cell[data-windowed-list-index='3'] .cm-content")
    gallery.both("notebook", SHELL, scale=1)
    row = page.find(f"{ROW}:nth-child(1)")
    ActionChains(page.driver).context_click(row).perform()
    page.find(".lm-Menu .lm-Menu-itemLabel")
    gallery.both("menu", SHELL, 520, scale=1)
    page.press(Keys.ESCAPE)
    page.click(".jp-SideBar [data-id='jp-running-sessions']")
    running = "document.querySelector('#jp-running-sessions').innerText.toLowerCase().includes('ray jobs')"
    page.until(lambda: page.ask(running), "our section")
    gallery.both("running", "#jp-running-sessions", 480)
    sidebar.show()


def sizes(gallery: Gallery, sidebar: Sidebar) -> None:
    """A narrow sidebar, text of twice the size, and high contrast."""
    page = sidebar.page
    narrow(page, 200)
    gallery.both("narrow", INNER, 400)
    narrow(page, 0)
    page.resize(WIDTH // 2, HEIGHT // 2, 2)
    gallery.both("zoom", SHELL, scale=1)
    page.resize(WIDTH, HEIGHT)
    sidebar.open_job("fit")
    sidebar.tab("Timeline")
    page.theme(CONTRAST)
    gallery.one("contrast", SHELL, scale=1)
    sidebar.tab("Log")
    gallery.one("contrast-log", SHELL, scale=1)
    page.theme(THEMES["light"])


def narrow(page: Page, width: int) -> None:
    """Draw the sidebar narrower than the 250 px at which JupyterLab keeps it; 0 is as wide as it is."""
    page.driver.execute_script(
        "document.querySelector(arguments[0]).style.maxWidth = arguments[1]",
        INNER,
        f"{width}px" if width else "",
    )


def asked(gallery: Gallery, sidebar: Sidebar) -> None:
    """What is asked before a cluster goes."""
    sidebar.cluster_verb("delete")
    sidebar.dialog("1 running job will be lost")
    gallery.both("delete", f"{DIALOG} .jp-Dialog-content")
    sidebar.refuse()


def away(gallery: Gallery, sidebar: Sidebar) -> None:
    """The server does not answer."""
    driver = sidebar.page.driver
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/rayoffload/api/*"]})
    sidebar.says("No answer from the server")
    driver.execute_script("document.activeElement.blur()")
    gallery.both("away", PLACE, 420)
    driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


# -------------------------------------------------------------------- what a site brings about

INFO = ClusterInfo(kind="kubernetes", ray="2.60.0", python="3.12")


def _conditions(now: float) -> list[ClusterInfo]:
    usage = {"resources": {"CPU": 8.0, "memory": 32 * GIB}, "used": {"CPU": 0.0, "memory": 29 * GIB}}
    starting = {"phase": ClusterPhase.STARTING, "profile": "gpu", "since": now - 72}
    return [
        INFO.replace(name="default", reason="Waiting for 1 GPU: no node has one free", **starting),
        INFO.replace(name="nightly", phase=ClusterPhase.SUSPENDED, reason="After 30 min without a job"),
        INFO.replace(name="train", phase=ClusterPhase.RUNNING, workers=2, nodes=3, since=now - 4000, **usage),
        INFO.replace(name="wide", phase=ClusterPhase.FAILED, reason="Quota exceeded: requests.cpu 12 of 8"),
        INFO.replace(name="shared", phase=ClusterPhase.UNKNOWN, reason="Kubernetes does not answer"),
    ]


def _answers(clusters: Sequence[ClusterInfo], profiles: Sequence[Any] = ()) -> dict[str, Any]:
    found = [cluster_body(info, "") for info in clusters]
    return {
        "clusters": {"status": 200, "body": {"clusters": found}},
        "clusters/default": {"status": 200, "body": cluster_body(INFO, "")},
        "profiles": {"status": 200, "body": {"profiles": list(profiles)}},
    }


@contextmanager
def answering(page: Page, answers: dict[str, Any]) -> Iterator[None]:
    """Answer in the place of the server, from the next page on."""
    source = {"source": _ANSWER % json.dumps(answers)}
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", source)
    try:
        yield
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def site(gallery: Gallery, sidebar: Sidebar) -> None:
    """What Kubernetes, profiles, and a server without our extension make of it."""
    from tests.browser.panel_states.clusters import PROFILES

    with answering(sidebar.page, _answers(_conditions(time.time()))):
        sidebar.open("sales.ipynb")
        sidebar.says("Quota exceeded")
        gallery.both("conditions", PLACE)
    with answering(sidebar.page, _answers([], PROFILES)):
        sidebar.open("sales.ipynb")
        sidebar.says("No cluster yet")
        sidebar.page.click(f"{PLACE} .jp-mod-primary")
        sidebar.says("Profile")
        gallery.both("new-cluster", PLACE, 460)
    missing = {"status": {"status": 404, "body": {"message": "Not Found"}}}
    with answering(sidebar.page, missing):
        sidebar.open("sales.ipynb")
        sidebar.says("The server extension is not there")
        gallery.both("missing", PLACE, 320)
