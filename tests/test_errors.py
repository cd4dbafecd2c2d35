"""The tree of errors: they pickle, they say what to do, and each shows as one line."""

from __future__ import annotations

import pickle

import pytest

from jupyter_rayoffload import errors

ALL = [getattr(errors, name) for name in errors.__all__ if isinstance(getattr(errors, name), type)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_pickles_and_shows_as_one_line(kind):
    error = kind("what happened", "What to do")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == "what happened. What to do"
    assert copy.to_json() == {"message": "what happened", "reason": kind.__name__, "hint": "What to do"}
    assert len(error._render_traceback_()) == 1


def test_a_cell_error_keeps_the_remote_traceback():
    error = errors.CellError("ValueError: no", "", "ValueError", "no", ["line 1", "line 2"])
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.ename, copy.evalue, copy.traceback) == ("ValueError", "no", ["line 1", "line 2"])
    assert copy._render_traceback_() == ["line 1", "line 2"]


def test_the_drawing_shows_every_class():
    assert [kind.__name__ for kind in ALL if kind.__name__ not in errors.__doc__] == []


def test_by_name():
    assert type(errors.by_name("StoreFull", "m")) is errors.StoreFull
    assert type(errors.by_name("os", "m")) is errors.OffloadError
    assert type(errors.by_name("Any", "m")) is errors.OffloadError
