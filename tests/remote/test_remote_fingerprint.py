"""A fingerprint stays while a value is only read, and differs once it has changed."""
# ruff: noqa: E501 - the tables are easier to read with one case per line

from __future__ import annotations

import functools
import threading

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from jupyter_rayoffload.remote.codec import fingerprint

NAMESPACE: dict = {"__name__": "__main__"}


def of(value, namespace=NAMESPACE):
    print_ = fingerprint(value, namespace)
    assert print_ is not None
    return print_


def fragmented():
    df = pd.DataFrame({"a": np.arange(5000.0), "s": ["x", "y"] * 2500})
    for n in range(5):
        df[f"c{n}"] = np.arange(5000.0) + n
    return df


class Lazy:
    @functools.cached_property
    def total(self):
        return [1, 2]


READS = {
    "frame describe": (fragmented, lambda df: (df.describe(), df.values, df.to_numpy(), df.sum(numeric_only=True))),
    "frame consolidated": (fragmented, lambda df: (df._consolidate_inplace(), df.T, df.groupby("s").mean(), repr(df))),
    "frame from matrix": (lambda: pd.DataFrame(np.ones((50, 4))), lambda df: (df.mean(), df.values, df[0], df.index.is_unique)),
    "frame with all sorts": (
        lambda: pd.DataFrame({"d": pd.date_range("2020", periods=3, tz="UTC"), "c": pd.Categorical(list("aba")),
                              "i": pd.array([1, None, 3], dtype="Int64"), "o": [[1], None, {}]}),
        lambda df: (df.describe(include="all"), df["d"].dt.day, df.memory_usage(), df.loc[0], df["c"].value_counts())),
    "series": (lambda: pd.Series([3, 1], index=list("ab"), name="n"), lambda s: (s["a"], s.sum(), s.index.is_monotonic_increasing)),
    "index": (lambda: pd.Index(["a", "b"]), lambda i: (i.get_loc("a"), i.is_unique, "a" in i)),
    "sparse": (lambda: scipy.sparse.random(9, 9, 0.5, "csr", random_state=0), lambda m: (m.sum(), m.has_sorted_indices, m.has_canonical_format, m @ m)),
    "cached property": (Lazy, lambda v: v.total),
    "set": (lambda: set(range(50)), lambda s: (len(s), 3 in s, sorted(s))),
    "array": (lambda: np.arange(90_000.0).reshape(300, 300), lambda a: (a.sum(), a.T.copy())),
    "model": (lambda: LinearRegression().fit([[1.0], [2.0]], [1, 2]), lambda m: m.predict([[3.0]])),
}  # fmt: skip


@pytest.mark.parametrize("case", READS)
def test_reading_changes_nothing(case):
    make, read = READS[case]
    value = make()
    before = of(value)
    read(value)
    assert of(value) == before


CHANGES = {
    "list": (lambda: [1, [2]], lambda v: v[1].append(3)),
    "dict": (lambda: {"a": 1}, lambda v: v.update(a=2)),
    "big array": (lambda: np.zeros(90_000), lambda v: v.__setitem__(80_000, 1)),
    "strided array": (lambda: np.zeros((300, 300))[:, ::2], lambda v: v.__setitem__((200, 100), 1)),
    "object array": (lambda: np.array([[1], None], dtype=object), lambda v: v[0].append(3)),
    "frame value": (fragmented, lambda v: v.__setitem__("c2", 0.0)),
    "frame one cell": (fragmented, lambda v: v.iloc.__setitem__((4000, 3), 7.0)),
    "frame text": (fragmented, lambda v: v.iloc.__setitem__((4000, 1), "z")),
    "frame column": (fragmented, lambda v: v.drop(columns="a", inplace=True)),
    "frame order": (fragmented, lambda v: v.sort_values("c1", ascending=False, inplace=True)),
    "frame names": (fragmented, lambda v: v.rename(columns={"a": "b"}, inplace=True)),
    "frame index name": (fragmented, lambda v: setattr(v.index, "name", "i")),
    "frame attrs": (fragmented, lambda v: v.attrs.update(unit="m")),
    "series": (lambda: pd.Series([1.0, 2.0]), lambda v: v.__setitem__(0, 5.0)),
    "series name": (lambda: pd.Series([1.0]), lambda v: setattr(v, "name", "x")),
    "sparse": (lambda: scipy.sparse.random(9, 9, 0.5, "csr", random_state=0), lambda m: m.data.__setitem__(0, 9)),
    "model": (LinearRegression, lambda m: m.fit([[1.0], [2.0]], [1, 2])),
    "generator state": (lambda: np.random.default_rng(0), lambda g: g.normal()),
    "attribute": (Lazy, lambda v: setattr(v, "x", 1)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("case", CHANGES)
def test_a_change_shows(case):
    make, change = CHANGES[case]
    value = make()
    before = of(value)
    assert of(value) == before
    change(value)
    assert of(value) != before


@settings(deadline=None)
@given(st.lists(st.integers() | st.text()), st.integers())
def test_appending_shows_and_taking_back_hides_it(items, more):
    before = of(items)
    items.append(more)
    assert of(items) != before
    items.pop()
    assert of(items) == before


def test_functions_and_classes():
    namespace: dict = {"__name__": "__main__"}
    exec(
        "def make():\n n = 0\n def up():\n  nonlocal n\n  n += 1\n return up\nup = make()\n"
        "class A:\n k = 1\n def f(self): return super().__repr__()\na = A()\ndef plain(): return w\nw = 1\n"
        "import functools\n@functools.singledispatch\ndef single(x): return 1\n@functools.cache\ndef cached(x): return x",
        namespace,
    )
    names = "up A a plain single cached".split()
    before = {n: of(namespace[n], namespace) for n in names}
    exec("a.f(); plain(); single(3); cached(3); w = 2", namespace)
    assert {n: of(namespace[n], namespace) for n in names} == before
    exec("up(); A.k = 2; plain.x = 1", namespace)
    after = {n: of(namespace[n], namespace) for n in names}
    assert {n for n in names if after[n] != before[n]} == {"up", "A", "plain"}


def test_what_cannot_be_pickled_has_none():
    assert fingerprint([threading.Lock()], NAMESPACE) is None
    assert fingerprint((i for i in ()), NAMESPACE) is None
