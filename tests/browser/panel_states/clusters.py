"""Draw every state of the cluster's panel: ``python tests/browser/panel_states/clusters.py [FOLDER]``.

``cluster-light.png`` and ``cluster-dark.png`` of ``docs/images`` are made by this; with a folder, a
picture of every state goes there instead.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_rayoffload.errors import ClusterStartFailed
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase
from jupyter_rayoffload.panel import ClusterPanel

sys.path.insert(0, str(Path(__file__).parent))
from render import HERE, PAGE, picture
from states import CLUSTER, NOW

PROFILES: list[dict[str, Any]] = [
    {"name": "small", "title": "Small", "description": "4 CPUs, 16 GiB", "default": False, "fields": []},
    {
        "name": "gpu",
        "title": "GPU",
        "description": "8 CPUs, 32 GiB and 1 GPU for each worker",
        "default": True,
        "fields": [
            {
                "name": "workers",
                "title": "Workers",
                "kind": "integer",
                "default": 1,
                "minimum": 0,
                "maximum": 4,
            },
            {
                "name": "memory",
                "title": "Memory of a worker",
                "kind": "size",
                "default": "32GiB",
                "minimum": "8GiB",
                "maximum": "64GiB",
            },
            {
                "name": "gpu",
                "title": "Kind of GPU",
                "kind": "choice",
                "default": "l4",
                "choices": [{"value": "t4", "title": "T4"}, {"value": "l4", "title": "L4"}],
            },
        ],
    },
]
NONE = ClusterInfo("default", "kubernetes")
STARTING = NONE.replace(
    phase=ClusterPhase.STARTING,
    reason="Waiting for 1 GPU: no node has one free",
    detail="0/6 nodes are available: 6 Insufficient nvidia.com/gpu",
    workers=1,
    since=NOW - 58,
)
RUNNING = CLUSTER.replace(workers=1)
SUSPENDED = NONE.replace(phase=ClusterPhase.SUSPENDED, workers=1, since=NOW - 900, ray="2.60.0")
FAILED = NONE.replace(
    phase=ClusterPhase.FAILED,
    reason="Quota exceeded: requests.cpu 12 of 8",
    detail="Ask for less, or ask your site for a larger quota",
    since=NOW - 12,
)


def _shown(caption: str, *infos: ClusterInfo, doing: str = "", error: bool = False) -> dict[str, Any]:
    """Give what the kernel sends of a cluster that has been through `infos`."""
    panel = ClusterPanel(infos[0], PROFILES)
    for info in infos[1:]:
        panel.update(info)
    if doing:
        panel.begin(doing)
    if error:
        panel.fail(ClusterStartFailed("the Kubernetes API server does not answer", "Try again in a moment"))
    view = {**panel.get_state()["view"], "now": NOW}
    if doing:
        view["busy"] = view["busy"].replace(view["busy"].split(":")[1].split("}")[0], f"{NOW - 60:.0f}")
    end = min(NOW - 12, *(entry["at"] for entry in view["history"][-1:]), NOW)
    for back, entry in enumerate(reversed(view["history"])):
        entry["at"] = end - 25 * back
    panel.close()
    return {"caption": caption, "kind": "cluster", "state": {"view": view}}


def panels() -> list[dict[str, Any]]:
    """Give every state."""
    pulling = STARTING.replace(reason="Pulling image ray:2.60.0-py312", detail="", since=NOW - 20)
    return [
        _shown("Starting", NONE, STARTING, doing="start"),
        _shown("Running", NONE, STARTING, pulling, RUNNING),
        _shown("None", NONE),
        _shown("Suspended", RUNNING, SUSPENDED),
        _shown("Failed", STARTING, FAILED),
        _shown("Error of a button", NONE, error=True),
        _shown("Deleting", RUNNING, doing="delete"),
        _shown("Asks", RUNNING),
    ]


def page(shown: list[dict[str, Any]], *, dark: bool = False, width: int = 680) -> str:
    """Give the HTML of some states."""
    return PAGE.format(
        theme=(HERE / "theme.css").read_text("utf-8"),
        css=ClusterPanel._css,
        light=json.dumps(not dark),
        width=width,
        now=NOW,
        panels=json.dumps(shown).replace("</", "<\\/"),
        scripts=json.dumps({"cluster": str(ClusterPanel._esm)}).replace("</", "<\\/"),
    )


#: Opens what a person would, for pictures.
OPENED = """<script>
const ready = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(ready);
  document.querySelectorAll('details').forEach((part) => (part.open = true));
  const asks = window.models.find(({ caption }) => caption === 'Asks');
  if (!asks) return;
  asks.node.querySelector('[data-do=delete]').click();
  const text = '2 running jobs will be lost: `score-81c0`, `fit-3f9a`';
  asks.model.state.view = { ...asks.model.state.view, asked: { id: 1, text } };
  asks.model.emit('change:view');
}, 10);
</script>"""


def main(folder: str = "") -> None:
    """Write the pictures in both themes."""
    shown = panels()
    target = Path(folder or HERE.parents[2] / "docs" / "images")
    target.mkdir(parents=True, exist_ok=True)
    for name, dark in (("light", False), ("dark", True)):
        with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
            file.write(page(shown if folder else shown[:2], dark=dark) + OPENED)
            file.flush()
            picture(
                Path(file.name), target / f"cluster-{name}.png", width=740, height=2300 if folder else 560
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
