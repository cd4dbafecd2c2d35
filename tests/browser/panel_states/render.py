"""Draw every state of the panels in a real browser: ``python tests/browser/panel_states/render.py [FOLDER]``.

One page holds them all, with the scripts and styles that ship, fed by real widgets without a kernel. The
pictures in ``docs/images`` are made by this.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_rayoffload.panel import ClusterPanel, JobPanel
from jupyter_rayoffload.record import bundle

from states import CLUSTER, NOW, State, states  # isort: skip - beside this file

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Panels</title>
<style>{theme}</style><style>{css}</style></head>
<body data-jp-theme-light="{light}"><main style="width: {width}px"></main>
<script type="module">
// Everything happens at one moment, so that pictures can be compared.
Date.now = () => {now} * 1000;
Date.prototype.getHours = Date.prototype.getUTCHours;
window.sent = [];
window.models = [];
const load = (source) => import(URL.createObjectURL(new Blob([source], {{type: 'text/javascript'}})));
const panels = {panels};
const modules = Object.fromEntries(
  await Promise.all(Object.entries({scripts}).map(async ([name, text]) => [name, await load(text)])));
for (const {{caption, kind, state, gone, open, html}} of panels) {{
  const main = document.querySelector('main');
  main.insertAdjacentHTML('beforeend', '<h2 class="page-caption"></h2>');
  main.insertAdjacentHTML('beforeend', '<div class="jp-OutputArea-output"></div>');
  main.querySelector('h2:last-of-type').textContent = caption;
  const node = main.lastElementChild;
  if (html) {{ node.innerHTML = html; node.className += ' jp-RenderedHTMLCommon'; continue; }}
  if (gone) node.classList.add('jupyter-widgets-disconnected');
  const handlers = {{}};
  const model = {{
    state,
    get: (key) => model.state[key],
    send: (message) => window.sent.push(message),
    on: (name, handler) => (handlers[name] ??= []).push(handler),
    off() {{}},
    emit: (name, ...args) => (handlers[name] ?? []).forEach((handler) => handler(...args)),
  }};
  window.models.push({{caption, model, node}});
  const exported = modules[kind].default;
  const widget = typeof exported === 'function' ? await exported() : exported;
  const signal = new AbortController().signal;
  await widget.initialize?.({{model, signal}});
  await widget.render({{model, el: node, signal}});
  if (open) node.querySelector('details').open = true;
}}
document.body.dataset.ready = 'yes';
</script></body></html>"""


def _job(state: State) -> dict[str, Any]:
    panel = JobPanel(state.record)
    panel.write("stdout", state.log)
    panel.outputs = state.outputs
    sent = panel.get_state()
    panel.close()
    view = {**sent["view"], "now": NOW}
    shown = {"view": view, "log": sent["log"], "outputs": sent["outputs"]}
    more = {"gone": state.gone, "open": state.open}
    return {"caption": state.caption, "kind": "job", "state": shown, **more}


def _record(state: State) -> dict[str, Any]:
    html = bundle(state.record, state.outputs, state.log.splitlines()[-3:])["text/html"]
    return {"caption": f"Record: {state.caption}", "html": html}


def page(*, dark: bool = False, width: int = 680, records: bool = True) -> str:
    """Give the HTML of all states."""
    panels = [_job(state) for state in states()]
    cluster = ClusterPanel(CLUSTER)
    view = {**cluster.get_state()["view"], "now": NOW}
    panels.append({"caption": "Cluster", "kind": "cluster", "state": {"view": view}})
    cluster.close()
    if records:
        panels += [_record(state) for state in states() if state.caption[:2] in ("7 ", "8 ", "11")]
    scripts = {"job": JobPanel._esm, "cluster": ClusterPanel._esm}
    return PAGE.format(
        theme=(HERE / "theme.css").read_text("utf-8"),
        css=JobPanel._css,
        light=json.dumps(not dark),
        width=width,
        now=NOW,
        panels=json.dumps(panels).replace("</", "<\\/"),
        scripts=json.dumps({k: str(v) for k, v in scripts.items()}).replace("</", "<\\/"),
    )


def browser() -> str:
    """Find the machine's browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        raise FileNotFoundError("no Chromium is installed: apt install chromium")
    return program


def picture(page: Path, target: Path, *, width: int, height: int) -> None:
    """Take a picture of a page, without a window."""
    with tempfile.TemporaryDirectory() as profile:
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=3000",
        ]
        where = [
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            f"--screenshot={target.resolve()}",
        ]
        subprocess.run(
            [browser(), *options, *where, f"file://{page}"], capture_output=True, timeout=90, check=True
        )


def main(folder: str = "docs/images") -> None:
    """Write ``panel-light.png`` and ``panel-dark.png``."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for name, dark in (("light", False), ("dark", True)):
        with tempfile.NamedTemporaryFile("w", suffix=".html", encoding="utf-8") as file:
            file.write(page(dark=dark))
            file.flush()
            picture(Path(file.name), target / f"panel-{name}.png", width=740, height=5050)


if __name__ == "__main__":
    main(*sys.argv[1:])
