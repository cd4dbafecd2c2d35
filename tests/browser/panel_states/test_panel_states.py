"""The panels in a real browser: every state, the log under load, search, focus, and a kernel that goes."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import render  # noqa: E402

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not shutil.which("chromedriver"), reason="no chromedriver is installed"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What behaviour.js saw."""
    path = tmp_path_factory.mktemp("panels") / "page.html"
    path.write_text(render.page(records=False), "utf-8")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=800,900"):
        options.add_argument(argument)
    options.binary_location = render.browser()
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_script_timeout(180)
        driver.get(f"file://{path}")
        script = (HERE / "behaviour.js").read_text("utf-8")
        seen = json.loads(driver.execute_async_script(script))
    finally:
        driver.quit()
    assert "error" not in seen, (seen["error"], {k: v for k, v in seen.items() if k != "text"})
    return seen


def test_every_state_says_what_it_is(seen):
    words = {
        "1 ": ["Packaging", "214 of 1,021 files", ".env", "to send", "Cancel", "land when the job succeeds"],
        "2 ": ["Starting cluster", "1 min 12 s", "Waiting for 1 GPU", "asked 58 s ago", "Event"],
        "3 ": ["Uploading", "Sending df: 61 of 96 MB", "inputs"],
        "4 ": ["Running", "1 min 29 s", "on default", "67 lines", "62/100"],
        "6 ": ["Succeeded", "2 min 19 s", "model, history landed", "105 lines", "Model(loss=0.231)"],
        "7 ": ["14:27:13 to 14:29:32 on default", "fit-3f9a1c", "Rerun", "out/forecast.csv", "not fetched"],
        "8 ": ["Failed", "line 7 of the cell", "3 rows of 'units' are NaN", "reused"],
        "9 ": ["out of memory", "31.6 of 32 GiB", "Rerun with 64 GiB", "Killed: out of memory"],
        "10": ["Cancelled by you at 14:29:32", "model and history are what they were", "Rerun"],
        "11": ["Lost", "last sign of life 14:29:17", "The cluster’s head died", "Rerun"],
        "12": ["df did not land", 'load.outputs["df"]', "cannot travel: an open file", "Copy expression"],
        "13": ["Waits for model from job fit", "1 min 29 s", "lands when the job succeeds", "waits"],
        "14": [
            "Unknown",
            "as of 14:29:32",
            "running when the kernel ended",
            "%ray attach fit-3f9a1c",
            "Copy",
        ],
        "5 ": [
            "620 of 1,000 items",
            "about 1 min",
            "612 ok",
            "8 failed",
            "4 running",
            "376 waiting",
            "store=217",
        ],
        "15": ["8 of 1,000 items failed", "992 ok", "Retry failed", "3 more: score.items.failed", "0.7 s"],
        "Cl": ["Running", "8 of 8", "21 of 32 GiB", "Up for 1 h 12 min", "2 nodes"],
    }
    for start, expected in words.items():
        shown = next(text for caption, text in seen["text"].items() if caption.startswith(start))
        for word in expected:
            assert word in shown, f"{start}: {word!r} is not in {shown!r}"
    assert "Rerun" not in next(text for caption, text in seen["text"].items() if caption.startswith("8 "))


def test_what_the_cell_displayed_cannot_run(seen):
    assert seen["title"] == "Panels"
    assert (seen["scripts"], seen["handlers"], seen["tables"]) == (0, 0, 1)


def test_every_control_and_panel_has_a_name(seen):
    assert seen["nameless"] == 0
    assert set(seen["groups"]) == {"Job fit", "Job load", "Job evaluate", "Job score", "Cluster default"}


def test_the_log_follows_until_the_reader_scrolls_up(seen):
    assert seen["followsAtFirst"] and seen["follows"]
    assert seen["lastLine"] == "one more"
    assert seen["released"] == "false" and seen["stays"]
    assert seen["again"] == "true"
    assert seen["count"] == "69 lines"  # what the snapshot already had was left out
    assert seen["sameButton"]


def test_search(seen):
    assert seen["searchFocused"]
    assert (seen["found"], seen["next"], seen["current"]) == ("16 of 16", "1 of 16", "best")
    assert (seen["none"], seen["cased"]) == ("no match", "no match")
    assert seen["searchClosed"]


def test_a_million_lines_cost_a_window(seen):
    assert seen["rows"] < 500
    assert seen["millionEnd"] == "line 999999"
    assert abs(seen["wanted"][0] - 500_000) < 2_000
    assert abs(int(seen["middle"].split()[1]) - 500_000) < 2_000
    assert seen["home"] == "line 0"


def test_scrolling_through_them_leaves_no_line_out(seen):
    steps = seen["steps"]
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert all(8 <= gap <= 10 for gap in gaps), steps  # 150 px are 8.8 lines


def test_a_search_of_all_of_them_asks_the_kernel(seen):
    assert seen["asked"] == {"id": "string", "text": "line 77777", "case": False}
    assert seen["firstHit"] == "line 777770"  # the page has none of them, and goes there all the same
    assert seen["hit"] == "line 77777"
    assert seen["hits"] == "1 of 11"


def test_news_of_the_job_leave_a_search_alone(seen):
    assert seen["typed"] == ["line 777770", "line 7777700", "line 77777000"]


def test_intents_and_focus(seen):
    assert (
        seen["intent"] == [{"do": "rerun", "options": {"memory": 64 * 2**30}}]
        or seen["intent"][0]["do"] == "cancel"
    )
    assert seen["asking"][0] is True and seen["asking"][1].startswith("Asked for")
    assert seen["focus"] == "summary"
    assert seen["said"] == "Job fit: Succeeded. model, history landed"


def test_a_kernel_that_goes_takes_its_controls_along(seen):
    assert "Unknown" in seen["gone"] and "uploading when the kernel ended" in seen["gone"]
    assert seen["goneButtons"] == ["Copy"]
    assert seen["endedGone"] == ["Copy job id"]


def test_a_cluster_asks_first(seen):
    assert seen["question"] and seen["safe"] == "Keep it" and not seen["notYet"]
    assert seen["deleted"] == {"do": "delete", "options": {}}


def test_nothing_sticks_out_of_a_narrow_notebook(seen):
    assert seen["wide"] == 0
