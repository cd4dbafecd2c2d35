"""Take the pictures of the README in a real JupyterLab: ``python tests/browser/screenshots.py [FOLDER]``.

Those of the README go to ``docs/images``; with a folder, every live state goes there too, to be looked at.
With ``--beside`` those of the sidebar and of the page of a job are taken instead: ``gallery.py``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.browser import gallery
from tests.browser.lab import Lab, running_lab
from tests.browser.page import MISSING, Page, open_browser

IMAGES = Path(__file__).parents[2] / "docs" / "images"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
WIDTH, HEIGHT = 1200, 800
SCALE = 2  # pixels of the picture for each of the page

DATA = """\
%load_ext jupyter_rayoffload
import numpy as np

rng = np.random.default_rng(7)
X = rng.normal(size=(400_000, 24))
y = X @ rng.normal(size=24) + rng.normal(size=len(X))"""

FIT = """\
%%ray_job fit -o weights,history
from tqdm import tqdm

weights, history = np.zeros(X.shape[1]), []
for epoch in tqdm(range(500), desc="epochs"):
    error = X @ weights - y
    weights = weights - 0.01 * X.T @ error / len(y)
    history.append(float(np.mean(error**2)))
    if epoch % 50 == 0:
        tqdm.write(f"epoch {epoch:3}   loss {history[-1]:8.4f}")"""

FAIL = """\
%%ray_job load
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


class Camera:
    """Takes pictures of one page, in both themes.

    Parameters
    ----------
    page : Page
    folder : Path or None
        Where pictures go that the README does not show; None takes none of them.
    """

    def __init__(self, page: Page, folder: Path | None) -> None:
        self.page, self.folder = page, folder

    def __call__(self, name: str, words: str, folder: Path | None = None, height: int = HEIGHT) -> None:
        """Take a picture with the cell that shows `words` at the top."""
        into = folder or self.folder
        if into is None:
            return
        self.page.resize(WIDTH, height, SCALE)
        for short, theme in THEMES.items():
            self.page.theme(theme)
            self.page.bring(words)
            time.sleep(0.5)  # for the next frame, and its fonts
            self.page.driver.save_screenshot(str(into / f"{name}-{short}.png"))
        self.page.theme(THEMES["light"])
        self.page.resize(WIDTH, HEIGHT, SCALE)


def quickstart(page: Page, camera: Camera) -> None:
    """The quickstart, run to its end."""
    page.open("quickstart.ipynb")
    page.run_all()
    page.shows("Best outlook: north", "To see it live or again")
    page.idle()
    camera("quickstart", "%%ray_job forecasts", IMAGES, height=1180)
    camera("quickstart-end", "Best outlook")


def live(page: Page, lab: Lab, camera: Camera) -> None:
    """A job that runs, and how it ended."""
    page.open(lab.add("fit.ipynb", [DATA, FIT]))
    page.run_all()
    page.panel_shows("Running", "epoch 100")
    camera("live", "%%ray_job fit", IMAGES)
    page.shows("✓ Succeeded")
    camera("succeeded", "%%ray_job fit")


def ended(page: Page, lab: Lab, camera: Camera) -> None:
    """Jobs that did not succeed."""
    page.open(lab.add("load.ipynb", ["%load_ext jupyter_rayoffload", FAIL]))
    page.run_all()
    page.shows("✗ Failed", "could not convert string to float")
    camera("failed", "%%ray_job load")
    page.open(lab.add("cancel.ipynb", ["%load_ext jupyter_rayoffload", ENDLESS]))
    page.run_all()
    page.panel_shows("Running", "19 min")
    page.click("[data-do=cancel]")
    page.shows("⊘ Cancelled")
    camera("cancelled", "%%ray_job watch")


def orphaned(page: Page, lab: Lab, camera: Camera) -> None:
    """A search in the log; then the kernel goes, and comes back."""
    page.open(lab.add("watch.ipynb", ["%load_ext jupyter_rayoffload", ENDLESS]))
    page.run_all()
    page.panel_shows("Running", "19 min")
    page.search("19 min")
    page.panel_shows("1 of 1")
    camera("search", "%%ray_job watch")
    page.restart_kernel()
    page.panel_shows("This panel lost its kernel")
    camera("gone", "%%ray_job watch")
    page.save()
    page.reload()
    page.shows("Error displaying widget")
    camera("gone-reloaded", "%%ray_job watch")


def cluster(page: Page, lab: Lab, camera: Camera) -> None:
    """The cluster's panel until it is down, and a job that starts it again."""
    page.open(lab.add("cluster.ipynb", ["%load_ext jupyter_rayoffload\n%ray cluster", ENDLESS]))
    page.run_cell(0)
    page.panel_shows("Running", "CPU")
    camera("cluster", "%ray cluster")
    page.click(".jp-RayOffload-cluster [title=Delete]")
    page.panel_shows("Keep it")
    camera("cluster-asks", "%ray cluster")
    page.click(".jp-RayOffload-cluster .jp-RayOffload-buttons button:not([data-keep])")
    page.panel_shows("Not started")
    camera("cluster-down", "%ray cluster")
    page.run_cell(1)
    page.shows("Starting Ray")
    camera("starting", "%ray cluster")


def main() -> int:
    """Take them all; give 1 where there is no browser."""
    if MISSING:
        print(MISSING)
        return 1
    only_beside = "--beside" in sys.argv
    folders = [word for word in sys.argv[1:] if not word.startswith("--")]
    folder = Path(folders[0]) if folders else None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with running_lab() as lab, open_browser(lab) as page:
        if only_beside:
            gallery.take(page, lab, folder or IMAGES / "beside")
            return 0
        lab.start_cluster()
        camera = Camera(page, folder)
        page.resize(WIDTH, HEIGHT, SCALE)
        quickstart(page, camera)
        live(page, lab, camera)
        if folder is not None:
            for more in (ended, orphaned, cluster):
                more(page, lab, camera)
    return 0


if __name__ == "__main__":
    sys.exit(main())
