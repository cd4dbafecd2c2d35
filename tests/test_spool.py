"""The log in a file: the same lines whatever the pieces it came in."""

from __future__ import annotations

import psutil
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.spool import Spool


def spool(*pieces: str) -> Spool:
    made = Spool()
    for piece in pieces:
        made.write(piece)
    return made


def test_lines_and_the_unfinished_one():
    log = spool("a\nb", "c\nd")
    assert log.total == 3
    assert log.lines(0, 9) == ["a", "bc", "d"]
    assert log.lines(1, 2) == ["bc"]
    assert log.lines(2, 3) == ["d"]


def test_a_progress_bar_leaves_its_last_state():
    assert spool("10%\r", "20%\r", "30%\nend\n").lines(0, 9) == ["30%", "end"]
    assert spool("10%\r20%").lines(0, 9) == ["20%"]


def test_windows_line_ends_are_no_progress_bars():
    assert spool("a\r\nb\r\n").lines(0, 9) == ["a", "b"]


def test_text_gives_back_what_was_written():
    assert spool("a\nb\n").text() == "a\nb\n"
    assert spool("a\nb").text() == "a\nb"
    assert spool().text() == ""


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\b"), max_size=30)


@given(st.lists(_TEXT, max_size=12))
def test_pieces_do_not_matter(pieces):
    whole = "".join(pieces)
    log = spool(*pieces)
    expected = whole.split("\n") if whole else []
    if expected and not expected[-1]:
        expected.pop()
    assert log.lines(0, log.total) == expected
    for i in range(log.total):
        assert log.lines(i, i + 1) == expected[i : i + 1]


@given(st.text(st.sampled_from("ab\r\n\b"), max_size=30), st.integers(0, 30))
def test_carriage_returns_do_not_care_for_pieces_either(text, cut):
    one, two = spool(text), spool(text[:cut], text[cut:])
    assert one.lines(0, one.total) == two.lines(0, two.total)


def test_a_short_log_needs_no_file():
    count = psutil.Process().num_fds
    before = count()
    spools = [Spool() for _ in range(50)]
    for spool in spools:
        spool.write("a line\n" * 100)
    assert count() == before
    spools[0].write("a longer line of text\n" * 10_000)
    assert count() == before + 1
    assert spools[0].total == 10_100 and spools[0].lines(99, 101) == ["a line", "a longer line of text"]
    assert spools[1].lines(0, 2) == ["a line"] * 2
    spools.clear()
    assert count() == before
