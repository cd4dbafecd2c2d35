"""Arrays that share memory share it on the other side, too."""

from __future__ import annotations

import ast

import numpy as np
import pandas as pd
import pytest
from other_side import SIGNER, round_trip

from jupyter_rayoffload.remote.codec import freeze
from jupyter_rayoffload.remote.memory import sharing
from jupyter_rayoffload.remote.outputs import Before

BASES = {
    "small": np.zeros((2, 3)),
    "large": np.zeros((400, 300)),
    "by columns": np.zeros((2, 3), order="F"),
    "a view itself": np.zeros((9, 4, 3))[2:8, ::2],
    "of bytes": np.frombuffer(bytearray(480)).reshape(20, 3),
    "records": np.zeros((4, 2), [("a", "i4"), ("b", "f8")]),
}


def numbered(base: np.ndarray) -> np.ndarray:
    base[...] = np.arange(base.size).reshape(base.shape)
    return base


@pytest.mark.parametrize("base", BASES.values(), ids=list(BASES))
def test_views_of_an_array(base):
    base = numbered(base)
    views = {"row": base[1], "back": base[::-1], "turned": base.T, "same": base[:], "one": base[1:2, 0]}
    if base.dtype.names:
        views["field"] = base["b"]
    there = round_trip({"box": [base, *views.values()], **views})
    arrived = there["box"][0]
    for name, view in views.items():
        assert np.array_equal(there[name], view) and there[name].dtype == view.dtype
        assert np.shares_memory(there[name], arrived), name
    assert np.array_equal(arrived, base)
    there["row"][...] = 99
    assert np.array_equal(arrived[1], there["row"]) and np.array_equal(there["turned"], arrived.T)


def test_what_is_read_only_stays_so():
    base = np.arange(4.0)
    fixed = base[:2]
    fixed.flags.writeable = False
    there = round_trip({"base": base, "fixed": fixed})
    assert there["base"].flags.writeable and not there["fixed"].flags.writeable
    base.flags.writeable = False
    there = round_trip({"base": base, "view": base[1:]})
    assert not there["base"].flags.writeable and not there["view"].flags.writeable


def test_a_view_alone_does_not_bring_what_it_is_a_part_of():
    big = np.zeros(1_000_000)

    def size(**values):
        frozen = freeze(values, {}, SIGNER, copy=False)
        return frozen.size + len(frozen.graph)

    assert size(a=big[:3]) < 2_000
    assert size(a=big[:3], b=big[-3:]) < 2_000
    assert size(a=big[::250_000], b=big[::-250_000], c=big[999:]) < 8_010_000
    assert size(a=big[::500_000], b=big[::999_999]) < 2_000
    assert size(a=big, b=big[:3], c=[big[5:]]) < 8_010_000


def test_objects_frames_and_nothing():
    words = np.array(["a", None], dtype=object)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    there = round_trip(
        {"w": words, "v": words[:1], "f": frame, "c": frame["a"], "n": np.zeros((0, 3))[:, 1:]}
    )
    assert list(there["w"]) == ["a", None] and list(there["v"]) == ["a"] and there["n"].shape == (0, 2)
    pd.testing.assert_frame_equal(there["f"], frame)
    assert list(there["c"]) == [1.0, 2.0]


def test_views_of_bytes():
    data = bytearray(range(12))
    views = {"part": memoryview(data)[4:], "numbers": memoryview(data).cast("H", (2, 3))}
    views["fixed"] = views["part"].toreadonly()
    there = round_trip({"data": data, **views})
    there["part"][0] = 99
    assert there["data"][4] == 99 and there["fixed"][0] == 99 and there["fixed"].readonly
    assert there["numbers"].shape == (2, 3) and there["numbers"].tolist()[0][0] == 256
    assert round_trip({"m": memoryview(bytes(100_000))[:3]}) == {"m": bytes(3)}


def test_names_of_one_memory():
    grid, buf = np.zeros((2, 3)), bytearray(3)
    values = {"grid": [grid], "row": grid[1], "other": np.zeros(3), "buf": buf, "view": memoryview(buf)}
    assert sharing(values, ["row"]) == {"grid", "row"}
    assert sharing(values, ["buf"]) == {"buf", "view"}
    assert sharing(values, ["other"]) == {"other"}


def test_an_array_is_changed_through_its_views():
    namespace = round_trip({"grid": np.zeros((2, 3)), "row": None, "far": np.zeros(3)})
    namespace["row"] = namespace["grid"][1]
    tree = ast.parse("row[0] = 7")
    before = Before(namespace, list(namespace), (), tree)
    exec(compile(tree, "cell", "exec"), {}, namespace)
    assert sorted(before.changed()) == ["grid", "row"]
