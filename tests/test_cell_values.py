"""What the names of a cell need through their values, and which of them may have changed afterwards."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import pathlib
import types
from collections import Counter, defaultdict, deque
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from sklearn.linear_model import LinearRegression

from jupyter_rayoffload.cell import Reads, analyze, closure, code_reads, pending_writes, watched
from jupyter_rayoffload.cell.reach import MOST_OBJECTS


def notebook(source: str, **values: Any) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__", **values}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), namespace)
    return namespace


def needs(source: str, *asked: str) -> set[str]:
    return set(closure(asked, notebook(source)).names) - set(asked)


FOLLOWED = [
    ("def f(): return g() + w\ndef g(): return v\nw = v = u = 1", "f", "g w v"),
    ("def f(): return g()\ndef g(): return f()", "f", "g"),
    ("def f(x=lambda: w, *, y=lambda: v): pass\nw = v = 1", "f", "w v"),
    ("def f():\n  def g(): return [w for _ in v]\n  return g\nw = v = 1", "f", "w v"),
    ("def f():\n  class A:\n    def m(self): return w\n  return A\nw = 1", "f", "w"),
    ("def make(h):\n  def k(): return h()\n  return k\ndef g(): return w\nf = make(g)\nw = 1", "f", "w"),
    ("import functools\n@functools.lru_cache\ndef f(): return w\nw = 1", "f", "w"),
    ("import functools\n@functools.singledispatch\ndef f(x): return w\nw = 1", "f", "w"),
    ("import contextlib\n@contextlib.contextmanager\ndef f(): yield w\nw = 1", "f", "w"),
    ("import functools\ndef g(x): return w\nf = functools.partial(g, 1)\nw = 1", "f", "w"),
    ("import numpy\ndef g(x): return w\nf = numpy.vectorize(g)\nw = 1", "f", "w"),
    ("class A:\n  def m(self): return w\nw = 1", "A", "w"),
    ("class A:\n  def m(self): return w\na = A()\nw = 1", "a", "w"),
    ("class A:\n  def m(self): return w\na = A().m\nw = 1", "a", "w"),
    ("class A:\n  def m(self): return w\nclass B(A): pass\nw = 1", "B", "w"),
    ("class M(type):\n  def m(cls): return w\nclass A(metaclass=M): pass\nw = 1", "A", "w"),
    ("class A:\n  @staticmethod\n  def s(): return a\n  @classmethod\n  def c(c): return b\n  @property\n"
     "  def p(self): return d\na = b = d = 1", "A", "a b d"),
    ("import functools\nclass A:\n  @functools.cached_property\n  def p(self): return w\nw = 1", "A", "w"),
    ("from dataclasses import *\n@dataclass\nclass A:\n  def m(self): return w\na = A()\nw = 1", "a", "w"),
    ("class A:\n  __slots__ = ('f',)\na = A()\na.f = lambda: w\nw = 1", "a", "w"),
    ("def g(): return w\nxs = [(1, {'k': g})]\nw = 1", "xs", "w"),
    ("class A:\n  def m(self): return w\nxs = [A() for _ in range(3)]\nw = 1", "xs", "w"),
    ("class A:\n  def m(self): return w\ns = {A()}\nd = {A(): 1}\nw = 1", "s", "w"),
    ("import collections\nd = collections.defaultdict(lambda: w)\nw = 1", "d", "w"),
    ("import collections\nd = collections.deque([lambda: w])\nw = 1", "d", "w"),
    ("from sklearn.preprocessing import FunctionTransformer as T\n"
     "from sklearn.pipeline import make_pipeline as p\ndef g(x): return w\np = p(T(g))\nw = 1", "p", "w"),
    ("import enum\nclass E(enum.Enum):\n  A = 1\n  def m(self): return w\ne = E.A\nw = 1", "e", "w"),
    ("def f(): return len(w)\nw = 1", "f", "w"),
    ("def f(): return gone", "f", ""),
    ("x = 1\ny = 'text'\nz = [x, y]", "z", ""),
    ("def f(): return self.w\nw = self = 1", "f", "self"),
]  # fmt: skip


@pytest.mark.parametrize("source, asked, expected", FOLLOWED, ids=[f"{c[1]}: {c[0]}" for c in FOLLOWED])
def test_values_are_followed(source: str, asked: str, expected: str) -> None:
    assert needs(source, asked) == set(expected.split())


def test_a_ray_task_is_followed_to_the_function_in_it() -> None:
    ray = pytest.importorskip("ray")
    source = "@ray.remote\ndef f(): return w\n@ray.remote\nclass A:\n  def m(self): return v\nw = v = 1"
    namespace = notebook(source, ray=ray)
    assert set(closure(["f"], namespace).names) == {"f", "w"}
    assert set(closure(["A"], namespace).names) == {"A", "v"}


def test_names_come_in_a_stable_order() -> None:
    namespace = notebook("def f(): return z + y + g()\ndef g(): return x\nx = y = z = 1")
    assert closure(["z", "f", "z"], namespace).names == ("z", "f", "g", "y", "x")
    assert closure({"z", "f"}, namespace).names == ("f", "z", "g", "y", "x")


def test_only_what_was_asked_for_can_be_missing() -> None:
    namespace = notebook("def f(): return gone\nprint = 1")
    found = closure(["f", "lost", "len", "print"], namespace)
    assert found == Reads(names=("f", "print"), missing=frozenset({"lost"}))


def test_functions_of_other_modules_are_not_looked_into() -> None:
    found = closure(
        ["dumps", "path"], notebook("from json import dumps\nfrom pathlib import Path\npath = Path()")
    )
    assert set(found.names) == {"dumps", "path"}
    assert {name.partition(".")[0] for name in found.modules} >= {"json", "pathlib"}


def test_modules_are_those_of_the_values_and_of_the_imports_in_functions() -> None:
    namespace = notebook(
        "import os.path as p, json\nfrom decimal import Decimal\nx = Decimal(1)\ns = [Decimal(2)]\n"
        "def f():\n  import xml.dom\n  from email import message\n"
    )
    assert closure(["p", "json", "x", "f"], namespace).modules == {
        namespace["p"].__name__,
        "json",
        "decimal",
        "xml.dom",
        "email",
    }
    assert closure(["s"], namespace).modules == {"decimal"}


def test_what_functions_bind_is_told() -> None:
    namespace = notebook("def f():\n  global n\n  n += 1\n  g()\ndef g():\n  global m\n  del m\nn = m = 1")
    found = closure(["f"], namespace)
    assert found.writes == {"n", "m"}
    assert set(found.names) == {"f", "g", "n"}


def test_a_function_from_another_namespace_is_not_the_notebooks() -> None:
    other = types.ModuleType("other")
    exec("def f(): return w\nw = 1", other.__dict__)
    assert closure(["f"], {"f": other.f, "w": 2}).names == ("f",)


def test_what_ipython_keeps_for_itself_stays() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell("1 + 1", store_history=True)
    own = [
        "In",
        "Out",
        "_ih",
        "_oh",
        "_dh",
        "_i",
        "_ii",
        "_i1",
        "exit",
        "quit",
        "get_ipython",
        "open",
        "__name__",
    ]
    found = closure([*own, "_", "_1"], shell.user_ns)
    shell.user_ns["In"] = shell.user_ns["exit"] = 5
    mine = closure(["In", "exit"], shell.user_ns)
    shell.history_manager.end_session()
    assert found.names == ("_", "_1")
    assert not found.missing
    assert mine.names == ("In", "exit")


def test_no_code_of_the_values_runs() -> None:
    namespace = notebook(
        "class A:\n"
        "  def __getattribute__(self, name): raise SystemExit\n"
        "  __iter__ = __len__ = __bool__ = __eq__ = __hash__ = __getattribute__\n"
        "  @property\n"
        "  def __class__(self): raise SystemExit\n"
        "class L(list):\n"
        "  def __iter__(self): raise SystemExit\n"
        "a = A()\nb = L([a])\n"
    )
    assert closure(["a", "b"], namespace).names == ("a", "b")


def test_large_and_looping_values_are_looked_at_up_to_a_limit() -> None:
    chain: list[Any] = []
    chain.append(chain)
    deep: list[Any] = []
    for _ in range(10 * MOST_OBJECTS):
        deep = [deep]
    namespace = notebook(
        "def f(): return w\nw = 1", chain=chain, deep=deep, many=[[i] for i in range(100_000)]
    )
    # What one value hides does not take away the room of the next.
    assert closure(["chain", "deep", "many", "f"], namespace).names == ("chain", "deep", "many", "f", "w")


def test_code_of_a_module_stores_names() -> None:
    code = compile(
        "x = y\ndel z\ndef f():\n  global g\n  g = h\n  return i\nclass A:\n  k = l", "<cell>", "exec"
    )
    reads, writes = code_reads(code)
    assert {"y", "h", "i", "l"} <= reads and not reads & {"x", "g", "k"}
    assert writes == {"x", "z", "f", "g", "A"}


class Color(enum.Enum):
    RED = 1


class Unknown:
    """Any object whose methods nobody knows."""


class Frame(pd.DataFrame):
    """A data frame to which a notebook added something."""

    def mend(self) -> None:
        """Change it, perhaps."""


Frame.__module__ = "__main__"
FRAME = pd.DataFrame({"a": [1]})

#: value, code that uses it as `v` and leaves it as it is, code that may change it
METHODS: list[tuple[Any, str, str]] = [
    (1, "v.bit_length()", ""),
    (1.5, "v.is_integer()", ""),
    (True, "v.real.conjugate()", ""),
    (None, "v.x()", ""),
    ("s", "v.join(x); v.encode().hex()", ""),
    (b"s", "v.hex()", ""),
    (range(3), "v.index(1)", ""),
    ((1, 2), "v.index(1); v.count(1)", ""),
    (([],), "v.index(1)", "v[0].append(1)"),
    (frozenset(), "v.union(x)", ""),
    (json, "v.dumps(x)", ""),
    (len, "v.x()", ""),
    (Color, "v.x()", ""),
    (Color.RED, "v.x()", ""),
    (pathlib.Path(), "v.mkdir()", ""),
    (datetime.datetime(2026, 1, 1), "v.isoformat()", ""),
    (datetime.timedelta(1), "v.total_seconds()", ""),
    (decimal.Decimal(1), "v.sqrt()", ""),
    (np.float64(1), "v.mean()", ""),
    (np.dtype(int), "v.newbyteorder()", ""),
    ([], "v.index(1); v.count(1); v.copy(); v[0].strip()", "v.append(1)"),
    ([], "v.copy()", "v.sort()"),
    ({}, "v.get(1); v.keys(); v.values(); v.items(); v.copy()", "v.update(x)"),
    ({}, "v.get(1)", "v.setdefault(1, []).append(2)"),
    ({}, "v.get(1)", "v['k'].append(1)"),
    ({"k": np.ones(1)}, "v['k'].mean()", "v['k'].sort()"),
    ({"k": [FRAME]}, "v['k'][0].mean()", "v['k'][0].pop('a')"),
    (set(), "v.union(x); v.issubset(x); v.difference(x)", "v.add(1)"),
    (deque(), "v.count(1); v.copy()", "v.appendleft(1)"),
    (Counter(), "v.most_common(); v.elements()", "v.subtract(x)"),
    (defaultdict(list), "v.get(1)", "v[1].append(2)"),
    (bytearray(), "v.hex()", "v.extend(x)"),
    (np.ones(2), "v.mean(); v.T.dot(x); v.astype(int); v.copy()", "v.sort()"),
    (np.ones(2), "v.reshape(1, 2)", "v.T.fill(0)"),
    (np.ones(2), "v.sum()", "v.byteswap(inplace=True)"),
    (np.random.default_rng(), "", "v.normal()"),
    (FRAME, "v.describe(); v.groupby('a').mean(); v.to_parquet(p); v.plot.bar()", "v.insert(0, 'b', 1)"),
    (FRAME, "v.drop(columns='a', inplace=False)", "v.drop(columns='a', inplace=True)"),
    (FRAME, "v.head(); v.loc[0].mean()", "v.pop('a')"),
    (FRAME, "v.head().drop(columns='a', inplace=True)", "v.a.update(x)"),
    (FRAME, "v.to_numpy()", "v.values.sort()"),
    (FRAME.a, "v.sum(); v.str.upper(); v.map(f)", "v.update(x)"),
    (FRAME.index, "v.tolist(); v.union(x)", "v.set_names('n', inplace=True)"),
    (Frame(FRAME), "v.describe()", "v.mend()"),
    (pa.table({"a": [1]}), "v.to_pandas(); v.append_column('b', x)", ""),
    (scipy.sparse.csr_matrix((2, 2)), "v.dot(x); v.toarray()", "v.setdiag(1)"),
    (LinearRegression(), "", "v.fit(x, y)"),
    (Unknown(), "v.attribute", "v.method()"),
    (Unknown(), "", "v.part.method()"),
]


@pytest.mark.parametrize(
    "value, leaves, changes", METHODS, ids=[f"{type(c[0]).__name__}: {c[2]}" for c in METHODS]
)
def test_methods_that_may_change_a_value_are_waited_for(value: Any, leaves: str, changes: str) -> None:
    assert not pending_writes(analyze(leaves), {"v": value}) & {"v"}
    if changes:
        assert "v" in pending_writes(analyze(changes), {"v": value})
        assert "v" in watched(analyze(changes), {"v": value})


def test_tensors_change_by_methods_that_end_in_an_underscore() -> None:
    tensor = types.new_class("Tensor", exec_body=lambda body: body.update(__module__="torch"))()
    for source, expected in [
        ("v.mean()", False),
        ("v.add_(1)", True),
        ("v.data.zero_()", True),
        ("v.__len__()", False),
        ("v.sum().backward()", True),
    ]:
        assert ("v" in pending_writes(analyze(source), {"v": tensor})) is expected, source


@pytest.mark.parametrize(
    "source, expected",
    [
        ("x = 1\nimport y\ndef z(): pass", "x y z"),
        ("del x", "x"),
        ("xs[0] = 1", "xs"),
        ("df['a'] = 1", "df"),
        ("model.alpha = 2", "model"),
        ("json.x = 1", ""),
        ("f(df, xs, model)", ""),
        ("df.mean()", ""),
        ("not_there_yet.fit(x)", "not_there_yet"),
        ("dict.fromkeys(xs)", ""),
    ],
)
def test_what_other_cells_wait_for(source: str, expected: str) -> None:
    namespace = {"df": FRAME, "xs": [], "model": LinearRegression(), "json": json}
    assert pending_writes(analyze(source), namespace) == set(expected.split())


@pytest.mark.parametrize(
    "source, expected",
    [
        ("shuffle(xs)", "xs"),
        ("f(n, text, xs, df, array, model, json, shuffle, pair, numbers)", "xs df array model pair"),
        ("print(xs, len(df))", ""),
        ("for m in xs: m.fit()", "xs"),
        ("for k, m in d.items(): m.fit()", "d"),
        ("m = d['k']\nm.fit()", "d"),
        ("f(df['a'], array[0], model.part)", "model"),
        ("ys = xs\nys.append(1)", "xs"),
        ("xs[0] = 1", "xs"),
        ("df.mean()", ""),
        ("df.drop('a', inplace=True)", "df"),
        ("xs = []\nxs.append(1)", ""),
        ("if n: xs = []\nxs.append(1)", "xs"),
        ("not_there.append(1)", ""),
        ("n += 1", "n"),
        ("def f(): xs.append(1)\nf()", "xs"),
    ],
)
def test_inputs_that_may_come_back_changed(source: str, expected: str) -> None:
    namespace = {
        "n": 1,
        "text": "s",
        "xs": [],
        "d": {},
        "df": FRAME,
        "array": np.ones(1),
        "model": LinearRegression(),
        "json": json,
        "shuffle": notebook("def f(): pass")["f"],
        "pair": (1, []),
        "numbers": (1, 2),
    }
    assert watched(analyze(source), namespace) == set(expected.split())


def test_a_handle_of_ours_hides_nothing_of_the_notebook() -> None:
    from jupyter_rayoffload.spool import Spool

    spool = Spool()
    spool.secret = np.arange(3)  # type: ignore[attr-defined]
    assert closure(["spool"], {"spool": spool}).modules == frozenset()


def test_a_name_that_a_job_will_bind_is_found_through_a_function() -> None:
    namespace = notebook("def f(): return later")
    assert closure(["f"], namespace, {"later"}).names == ("f", "later")
    assert closure(["f"], namespace).names == ("f",)


CLOSURE = """
def make():
    n = 0
    def step():
        nonlocal n
        n += 1
    return step
step = make()
"""


@pytest.mark.parametrize(
    ("source", "cell", "found"),
    [
        ("stats = []\ndef f(): stats.append(1)", "f()", "stats"),
        (CLOSURE, "step()", "step"),
        ("class A:\n    n = 0\n    def __call__(self): self.n += 1\na = A()", "a()", "a"),
        ("class A:\n    def up(self): self.n = 1\na = A()\nup = a.up", "up()", "up"),
        ("def f(): return 1", "f()", ""),
        ("def f(): f.k = 1", "f()", "f"),
        ("def f(): pass\nf.k = []", "f()", "f"),
        ("def f(x=[], *, y=1): pass", "f()", "f"),
        ("def f(x=(), *, y=1): pass", "f()", ""),
        ("xs = []\nys = xs\nf = xs.append", "f(1)", "f xs ys"),
        ("from functools import partial\nxs, n = [], 5\nf = partial(partial(print, xs), n)", "f()", "f xs"),
        ("from functools import partial\nxs = []\nf = partial(xs.append, 1)", "f()", "f xs"),
        ("class A: items = []", "A.add(1)", "A"),
        ("class A: items = []\nclass B(A): pass\ndef f(): B()", "f()", "B"),
        ("import enum\nclass E(enum.Enum): A = 1", "E.A", ""),
        ("f = 'text'.upper", "f()", ""),
    ],
)
def test_what_a_call_may_change_besides_its_arguments(source: str, cell: str, found: str) -> None:
    namespace = notebook(source)
    analysis = analyze(cell)
    reached = set(closure(analysis.reads, namespace).names) - analysis.reads
    assert watched(analysis, namespace, reached) == set(found.split())


@pytest.mark.parametrize(
    ("source", "old", "pending", "found"),
    [
        ("xs.append(1)", "", "xs", "xs"),
        ("xs.append(1)", "xs = None", "xs", "xs"),
        ("n = df.groupby('a').mean().head()", "", "n", "df"),
        ("n = df.mean()", "import pandas as pd\ndf = pd.DataFrame()", "n", ""),
        ("df.pop('a')", "import pandas as pd\ndf = pd.DataFrame()", "df", "df"),
        ("df.dropna(inplace=True)", "", "df", "df"),
        ("f(xs)", "def f(x): pass", "", "xs"),
        ("xs[0] = 1", "xs = 'text'", "xs", "xs"),
    ],
)
def test_of_what_another_job_brings_nothing_is_known(source, old, pending, found):
    """A cell that reads it waits for the jobs alone that seem to change it; what has changed lands anyhow."""
    analysis, unknown = analyze(source), {"xs", "df"}
    namespace = notebook(old)
    assert pending_writes(analysis, namespace, unknown) == set(pending.split())
    seen = watched(analysis, namespace, (), unknown)
    assert seen >= set(found.split()) & analysis.reads
