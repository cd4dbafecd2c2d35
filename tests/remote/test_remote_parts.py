"""Objects inside inputs, and the way to them."""

from __future__ import annotations

import ast
import types
from typing import Any

from jupyter_rayoffload.remote.outputs import Before
from jupyter_rayoffload.remote.parts import Part, parts, shared


class Search:
    def __init__(self) -> None:
        self.best = Model()
        self.rows = [{"model": self.best}, (Model(),)]


class Model:
    pass


def test_parts_are_found_and_followed():
    search = Search()
    for way, item in parts(search):
        assert Part("search", way).of(search) is item
    assert len(list(parts(search))) == 6  # itself, two models, list, dict, tuple
    assert Part.from_key(Part("s", ("best", 3), "ab").key) == Part("s", ("best", 3), "ab")
    assert Part.from_key("plain") == Part("plain")


def test_what_has_no_identity_is_no_part():
    inside = {"n": 1, "s": "text", "f": len, "m": types, "c": Search, "f2": lambda: 0}
    assert [item for _, item in parts(inside)][1:] == [len]


def test_many_objects_are_looked_at_up_to_a_limit():
    assert len(list(parts([[] for _ in range(20_000)]))) == 10_000


def test_numbers_without_end_are_not_looked_at():
    inner: list[Any] = []
    assert [item for _, item in parts([*range(100_000), inner])][1:] == []
    assert [item for _, item in parts([*range(50_000), inner])][1:] == [inner]


def test_a_cycle_ends():
    xs: list[Any] = []
    xs.append(xs)
    assert len(list(parts(xs))) == 1


def test_shared_ones():
    search = Search()
    found = shared({"search": search}, [{"mine": [search.best]}, search.rows])
    assert list(found.values()) == [search.best, search.rows]
    assert [part.steps for part in found] == [("best",), ("rows",)]
    assert shared({}, [search]) == {} and shared({"search": search}, [Model()]) == {}


def _run(source: str, namespace: dict[str, Any], copies: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    tree, asked = ast.parse(source), []

    def as_sent(name: str) -> Any:
        asked.append(name)
        return copies[name]

    names = list(namespace)
    before = Before(namespace, names, (), tree)
    exec(compile(tree, "cell", "exec"), namespace)
    values = [namespace[n] for n in before.changed()]
    found = before.parts_of(names, values, as_sent)
    return found, asked


def test_parts_of_an_unchanged_input_are_known():
    search = Search()
    found, asked = _run("model = search.best", {"search": search, "other": [1]}, {"search": Search()})
    assert list(found.values()) == [search.best] and asked == ["search"]
    (key,) = found
    part = Part.from_key(key)
    assert (part.name, part.steps) == ("search", ("best",)) and part.print


def test_parts_of_a_changed_input_are_not():
    source = "model = search.best\nsetattr(search, 'extra', 1)"
    found, asked = _run(source, {"search": Search()}, {"search": Search()})
    assert found == {} and asked == ["search"]


def test_nothing_is_fetched_where_nothing_is_shared():
    found, asked = _run("model = search.best.__class__()", {"search": Search()}, {})
    assert found == {} and asked == []
