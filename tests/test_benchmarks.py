"""The page of figures: it is made of what was measured, and its picture is for light and dark pages."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.growth import Point, Series, section
from benchmarks.plot import COLOURS, draw

SERIES = [
    Series(
        f"Thing {number}",
        "sizes",
        "`peer()`",
        [Point(1, "1", [0.002, 0.003, 0.001], [0.2]), Point(10, "ten", [2.0], [30.0])],
    )
    for number in range(4)
]


def test_the_page_has_the_medians_and_the_picture() -> None:
    page = benchmarks.page("FIGURES", section(SERIES, benchmarks.PICTURE), "MACHINE")
    assert (
        "| Thing 3 | 1 | ten |\n| --- | --- | --- |\n| here | 2 ms | 2 s |\n| `peer()` | 200 ms | 30 s |"
        in page
    )
    assert f"]({benchmarks.PICTURE})" in page


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("plot") / "images" / "growth.svg"
    draw(SERIES, path)
    return path.read_text()


def test_the_picture_names_what_it_shows(picture: str) -> None:
    texts = {
        element.text for element in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {*(series.what for series in SERIES), "here", "peer()", "seconds", "sizes", "ten"} <= texts


def test_the_picture_has_colours_for_light_and_dark_pages(picture: str) -> None:
    assert set(re.findall(r"var\(--(\w+)\)", picture)) == {name for name, _, _ in COLOURS.values()}
    light, _, dark = picture.partition("prefers-color-scheme:dark")
    for told, (name, bright, dim) in COLOURS.items():
        assert told not in picture
        assert f"--{name}:{bright};" in light
        assert f"--{name}:{dim};" in dark
