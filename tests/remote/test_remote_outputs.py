"""What the cell assigned, changed, deleted and imported."""

from __future__ import annotations

import ast
import gc
import json
import weakref

import pytest

from jupyter_rayoffload.remote.outputs import Before, imports_of


def after(source: str, namespace: dict, maybe=()) -> Before:
    tree = ast.parse(source)
    before = Before(namespace, list(namespace), maybe, tree)
    exec(compile(tree, "cell", "exec"), namespace)
    return before


@pytest.mark.parametrize(
    ("source", "maybe", "changed"),
    [
        ("x = 1", (), ["x"]),
        ("xs.append(1)", ("xs",), ["xs"]),
        ("xs.append(1)", (), []),
        ("len(xs)", ("xs", "d"), []),
        ("xs += [1]", ("xs",), ["xs"]),
        ("d['k'] = 2", ("d",), ["d"]),
        ("n = n", (), ["n"]),
        ("if False: n = 2", ("n",), []),
        ("n = 5", (), ["n"]),
        ("for i in range(2): pass", (), ["i"]),
        ("a, (b, *c) = 1, (2, 3)", (), ["a", "b", "c"]),
        ("def f(): global g; g = 1\nf()", (), ["f", "g"]),
        ("_1 = _ = __ = _i3 = In = 5", (), []),
        ("_private = 5", (), ["_private"]),
        ("__version__ = __x__ = 5; __name__ = __doc__ = __file__ = 'a'", (), ["__version__", "__x__"]),
        ("del n", (), []),
    ],
)
def test_names(source, maybe, changed):
    namespace = {"xs": [0], "d": {"k": 1}, "n": 5}
    found = after(source, namespace, maybe)
    assert [n for n in found.changed() if n != "__builtins__"] == changed
    assert found.deleted() == (["n"] if source == "del n" else [])


def test_what_the_cell_drops_is_free():
    class Big:
        pass

    namespace = {"big": Big()}
    watch = weakref.ref(namespace["big"])
    before = Before(namespace, ["big"])
    namespace["big"] = 1
    gc.collect()
    assert watch() is None and before.changed() == ["big"]


def test_an_object_that_takes_the_place_of_a_dead_one_is_another():
    class Small:
        pass

    namespace = {"x": Small()}
    before = Before(namespace, ["x"])
    namespace["x"] = None
    namespace["x"] = Small()  # most likely at the same address
    assert before.changed() == ["x"]


def test_imports():
    source = (
        "import os.path, json as j\nfrom json import dumps, loads as parse\nfrom string import *\n"
        "if True:\n    from math import pi\ndef f():\n    from math import tau\n"
        "tau = 5\nmine = dumps\nshadow = 1\n"
    )
    namespace: dict = {}
    exec(source, namespace)
    namespace["parse"] = 5  # bound anew after its import
    found = imports_of(ast.parse(source), {n: v for n, v in namespace.items() if n != "__builtins__"})
    assert found["os"] == ["os", None] and found["j"] == ["json", None]
    assert found["dumps"] == ["json", "dumps"] and json.dumps is namespace["dumps"]
    assert found["ascii_letters"] == ["string", "ascii_letters"] and found["pi"] == ["math", "pi"]
    assert not {"parse", "tau", "mine", "shadow", "f"} & set(found)


def test_submodules_are_imported_with_their_module():
    source = "import xml.etree.ElementTree, wsgiref.util as u\nif True:\n    import xml.dom, os.path\n"
    namespace: dict = {}
    exec(source, namespace)
    found = imports_of(ast.parse(source), {n: namespace[n] for n in ("xml", "u", "os")})
    assert found["xml"][:2] == ["xml", None]
    assert sorted(found["xml"][2]) == ["xml.dom", "xml.etree", "xml.etree.ElementTree"]
    assert found["u"] == ["wsgiref.util", None] and found["os"] == ["os", None]
    import xml

    assert "xml" in after("xml\nimport xml.dom", {"xml": xml}).changed()


def test_what_is_unchanged_changed_and_gone():
    xs, ys, zs = [1], [2], [3]
    namespace = {"xs": xs, "ys": ys, "zs": zs, "n": 5}
    tree = ast.parse("box = {'x': xs, 'y': ys, 'n': n}\nys.append(3)\nzs.append(4)\nzs = 0")
    before = Before(namespace, list(namespace), ("ys", "zs"), tree, aliased=("zs",))
    exec(compile(tree, "cell", "exec"), namespace)
    assert before.unchanged() == {"xs": xs}
    assert before.replaced() == {"zs": [3, 4]} and before.replaced()["zs"] is zs


def test_a_result_of_an_earlier_cell_comes_back_by_its_other_names():
    xs = [1]
    before = after("_.append(2)\n_3.append(4)", {"_": xs, "_3": [3], "_4": [5]}, ("_", "_3", "_4"))
    assert before.replaced() == {"_": [1, 2], "_3": [3, 4]} and before.replaced()["_"] is xs
    assert before.changed() in ([], ["__builtins__"])


def test_a_name_that_did_not_travel_is_seen_to_be_deleted():
    source = "try:\n    1 / divisor\nexcept ZeroDivisionError as error:\n    pass"
    for divisor, deleted in ((0, ["error"]), (1, [])):
        namespace = {"divisor": divisor}
        before = Before(namespace, list(namespace), (), ast.parse(source), deletes=("error",))
        exec(source, namespace)
        assert before.deleted() == deleted
        assert before.changed() == []
