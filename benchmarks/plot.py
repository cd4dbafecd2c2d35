"""The picture of how cost grows: one panel for each series, in the colours of whoever looks at it.

``python -m benchmarks.plot FIGURES PICTURE`` draws what ``python -m benchmarks.growth --json FIGURES`` wrote.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .growth import Series

__all__ = ["draw"]

#: What matplotlib is told, and what the picture has in its place: a name, its light and its dark colour.
COLOURS = {
    "#010101": ("ink", "#1f2328", "#e6edf3"),
    "#020202": ("paper", "#ffffff", "#0d1117"),
    "#030303": ("grid", "#d1d9e0", "#3d444d"),
    "#040404": ("ours", "#0969da", "#4493f8"),
    "#050505": ("peer", "#bc4c00", "#f0883e"),
}
INK, PAPER, GRID, OURS, PEER = COLOURS


def draw(series: Sequence[Series], path: Path) -> None:
    """Draw medians, with a line from the least to the most of each, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "growth",
        "font.size": 9,
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
    }
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(2, 2, figsize=(8.4, 6.2), layout="constrained")
        for axis, each in zip(axes.flat, series, strict=True):
            _panel(axis, each)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    path.write_text(_themed(path.read_text()))


def _panel(axis: Any, series: Series) -> None:
    sizes = [point.size for point in series.points]
    for colour, mark, of, who in ((OURS, "o", "ours", "here"), (PEER, "s", "theirs", _plain(series.peer))):
        seconds = [getattr(point, of) for point in series.points]
        middle = [statistics.median(each) for each in seconds]
        axis.plot(sizes, middle, color=colour, marker=mark, markersize=4.5, linewidth=1.6, label=who)
        axis.vlines(sizes, [min(s) for s in seconds], [max(s) for s in seconds], color=colour, linewidth=1)
    axis.set(xscale="log", yscale="log", title=series.what, xlabel=series.axis, ylabel="seconds")
    axis.set_xticks(sizes, [point.name for point in series.points])
    every = [seconds for point in series.points for seconds in (*point.ours, *point.theirs)]
    axis.set_ylim(10 ** math.floor(math.log10(min(every))), 10 ** math.ceil(math.log10(max(every))))
    axis.minorticks_off()
    axis.grid(visible=True, linewidth=0.6)
    axis.legend(frameon=False, fontsize=8)


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def _themed(svg: str) -> str:
    """Give the picture the colours of light and dark pages; as a file of its own it follows the browser."""
    light = "".join(f"--{name}:{colour};" for name, colour, _ in COLOURS.values())
    dark = "".join(f"--{name}:{colour};" for name, _, colour in COLOURS.values())
    for told, (name, _, _) in COLOURS.items():
        svg = svg.replace(told, f"var(--{name})")
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, end, rest = svg.partition("<defs>")
    return head + style + end + rest


def main() -> int:
    """Draw figures that were measured before."""
    from .growth import Point, Series

    figures, picture = map(Path, sys.argv[1:])
    found = json.loads(figures.read_text())
    draw([Series(**{**each, "points": [Point(**p) for p in each["points"]]}) for each in found], picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
