"""Values of a notebook go out and come back: graph, buffers, refusals, exceptions."""
# ruff: noqa: E501 - the tables are easier to read with one case per line

from __future__ import annotations

import functools
import gc
import io
import os
import pickle
import sqlite3
import sys
import threading
import traceback
import weakref
from collections import OrderedDict, defaultdict, deque

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from other_side import SIGNER, Notebook, OtherSide, round_trip
from sklearn.linear_model import LinearRegression

from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.codec import Unpicklable, WrongFormat, check_header, freeze, header, thaw
from jupyter_rayoffload.remote.signing import PIECE_BYTES

#: A busy machine is not a failure.
unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
NAMESPACE: dict = {"__name__": "__main__"}
BIG = 100_000


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    side = OtherSide(tmp_path_factory.mktemp("there"))
    yield side
    side.close()


@pytest.fixture
def book(there):
    return Notebook(there)


def frozen_here(values, **options):
    return freeze(values, NAMESPACE, SIGNER, **{"copy": True, **options})


def thawed(frozen, names=None):
    return thaw(frozen.graph, [bytearray(b.data) for b in frozen.buffers], NAMESPACE, names)


# -- the graph ----------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.dates()
    | st.fractions()
    | st.builds(range, st.integers(0, 9)),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(), inner)
        | st.builds(deque, st.lists(inner))
        | st.builds(OrderedDict, st.dictionaries(st.integers(), inner))
        | st.sets(st.integers())
        | st.frozensets(st.text())
        | st.builds(bytearray, st.binary())
    ),
    max_leaves=20,
)


@unhurried
@given(st.dictionaries(st.text(), plain, max_size=4))
def test_any_structure_comes_back_equal(values):
    back = round_trip(values)
    assert back == values and list(back) == list(values)
    assert [type(v) for v in back.values()] == [type(v) for v in values.values()]


@unhurried
@given(st.lists(plain, min_size=1, max_size=5), st.lists(st.integers(0, 4), min_size=2, max_size=8))
def test_any_aliasing_is_kept(parts, picks):
    boxes = [[part] for part in parts]
    chosen = {f"n{i}": boxes[pick % len(boxes)] for i, pick in enumerate(picks)}
    chosen["all"] = list(chosen.values())
    back = round_trip(chosen)
    names = [n for n in chosen if n != "all"]
    for n, inside in zip(names, back["all"], strict=True):
        assert back[n] is inside
    for a in names:
        for b in names:
            assert (back[a] is back[b]) == (chosen[a] is chosen[b])


@unhurried
@given(st.dictionaries(st.sampled_from("abcdef"), plain, min_size=1), st.sets(st.sampled_from("abcdef")))
def test_any_selection_of_names(values, wanted):
    frozen = frozen_here(values)
    names = [n for n in values if n in wanted]
    assert thawed(frozen, names) == {n: values[n] for n in names}


def test_values_that_contain_themselves():
    loop: list = [1]
    loop.append(loop)
    table: dict = {}
    table["me"] = table
    back = round_trip({"loop": loop, "table": table, "both": (loop, table)})
    assert back["loop"][1] is back["loop"] and back["table"]["me"] is back["table"]
    assert back["both"][0] is back["loop"] and back["both"][1] is back["table"]


def test_cycle_of_objects_of_the_notebook(book):
    book.run("class N: pass\na, b = N(), N()\na.peer, b.peer = b, a\na.all = [a, b]")
    book.land("ok = a.peer is b and b.peer is a and a.all[0] is a", "a b", "ok a b")
    assert book["ok"] and book["a"].peer is book["b"] and book["b"].peer is book["a"]


def test_default_factory_and_bound_method(book):
    book.run("import collections\nd = collections.defaultdict(lambda: [k])\nk = 1\nadd = d.__getitem__")
    book.land("d['x'].append(5)\nadd('y')", "d k add", "d add")
    assert isinstance(book["d"], defaultdict) and book["d"] == {"x": [1, 5], "y": [1]}
    book["add"]("z")
    assert "z" in book["d"]


def test_sizes_and_words():
    array = np.arange(BIG, dtype="f8")
    frozen = frozen_here({"array": array, "same": array, "text": "x" * 1000})
    sizes = {v["name"]: v["size"] for v in frozen.values}
    assert array.nbytes <= sizes["array"] <= array.nbytes + 500
    assert sizes["same"] < 20 and 1000 <= sizes["text"] < 1100
    assert [v["type"] for v in frozen.values] == [
        "ndarray 100,000 float64",
        "ndarray 100,000 float64",
        "str, 1,000 characters",
    ]


def test_libraries_are_named_with_their_versions():
    frozen = frozen_here({"df": pd.DataFrame({"x": [1]}), "model": LinearRegression(), "n": 1})
    assert frozen.libraries["pandas"] == pd.__version__ and frozen.libraries["numpy"] == np.__version__
    assert "scikit-learn" in frozen.libraries
    assert frozen_here({"n": [1, {"a": "b"}]}).libraries == {}
    assert frozen_here({"f": np.linalg.norm}).libraries == {"numpy": np.__version__}


def test_module_brings_the_submodules_that_are_spelled(book):
    book.run("import xml.etree.ElementTree, xml.sax")
    frozen = freeze({"xml": book["xml"]}, book.names, SIGNER, copy=True, mentioned=["etree", "ElementTree"])
    assert b"xml.etree.ElementTree" in frozen.graph and b"xml.sax" not in frozen.graph
    assert thaw(frozen.graph, [], {})["xml"] is book["xml"]


# -- buffers ------------------------------------------------------------------------------------------------


def test_frozen_means_frozen():
    array, frame = np.zeros(BIG), pd.DataFrame({"x": np.zeros(BIG)})
    frozen = frozen_here({"array": array, "frame": frame})
    array[:] = 1
    frame.loc[:, "x"] = 1
    back = thawed(frozen)
    assert back["array"].sum() == 0 and back["frame"]["x"].sum() == 0


def test_copies_are_made_up_to_a_size_and_that_is_said():
    values = {"a": np.arange(BIG), "b": np.arange(BIG) + 1}
    size = sum(a.nbytes for a in values.values())
    for most, held in ((size, True), (size - 1, False)):
        frozen = frozen_here(values, most=most)
        assert frozen.held is held
        before = int(values["a"][0])
        values["a"][0] += 1
        assert (thawed(frozen)["a"][0] == before) == held
        assert all(b.digest == SIGNER.digest(b.data) for b in frozen.buffers) is held


def test_what_was_frozen_is_let_go_at_once():
    class Thing:
        pass

    array, thing = np.arange(BIG), Thing()
    watched = [weakref.ref(value) for value in (array, thing)]
    gc.collect()
    gc.disable()  # a notebook that has deleted a value has its memory back
    try:
        frozen = frozen_here({"array": array, "again": {1: thing}, "things": [thing]})
        assert len(frozen.values) == 3
        assert codec.fingerprint(array, NAMESPACE) and codec.fingerprint([thing], NAMESPACE)
        del array, thing
        assert [ref() for ref in watched] == [None, None]
    finally:
        gc.enable()


def test_without_copy_buffers_are_views():
    array = np.zeros(BIG)
    frozen = frozen_here({"array": array}, copy=False)
    array[0] = 5
    assert np.frombuffer(frozen.buffers[0].data, "f8")[0] == 5


def test_digests_are_those_of_the_signer():
    frozen = frozen_here({"array": np.arange(BIG)})
    (buffer,) = frozen.buffers
    assert buffer.digest == SIGNER.digest(buffer.data) and buffer.size == buffer.data.nbytes == BIG * 8


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 2 * PIECE_BYTES + 7])
def test_a_copy_has_the_digest_of_what_was_copied(size):
    data = memoryview(os.urandom(size))
    target, hasher = bytearray(size), SIGNER.hasher()
    assert SIGNER.copy(data, memoryview(target)) == SIGNER.digest(data)
    assert target == data
    for begin in range(0, size, 1 << 20):
        hasher.update(data[begin : begin + (1 << 20)])
    assert hasher.hexdigest() == SIGNER.digest(data)


def test_arrays_come_back_writable_and_small_ones_stay_in_the_stream():
    frozen = frozen_here({"big": np.zeros(BIG), "small": np.zeros(5)})
    assert len(frozen.buffers) == 1
    back = thawed(frozen)
    back["big"][0] = back["small"][0] = 1


SOME = np.random.default_rng(0)
TIMES = pd.date_range("2020-01-01", periods=BIG, freq="s", tz="UTC")
OUT_OF_BAND = {
    "rows": SOME.random(BIG),
    "columns": np.asfortranarray(SOME.random((BIG // 4, 4))),
    "with gaps": SOME.random(2 * BIG)[::2],
    "backwards": SOME.random(BIG)[::-1],
    "part of rows": SOME.random((BIG, 4))[:, 1:3],
    "dates": np.arange(BIG).astype("M8[s]"),
    "dates with gaps": np.arange(2 * BIG).astype("M8[ns]")[::2],
    "spans": np.arange(BIG).astype("m8[us]"),
    "records": np.zeros(BIG, "f8,i4"),
    "characters": np.array([f"abc{i}" for i in range(BIG)]),
    "other bytes": np.arange(2 * BIG).astype(">i8")[::2],
    "frame of numbers": pd.DataFrame({name: SOME.random(BIG) for name in "abc"}),
    "frame of times": pd.DataFrame({"a": range(BIG), "t": TIMES}, index=TIMES),
    "frame that may lack": pd.DataFrame({"a": pd.array(range(BIG), dtype="Int64")}),
    "frame of categories": pd.DataFrame({"a": pd.Categorical(SOME.integers(0, 9, BIG))}),
    "frame of Arrow's text": pd.DataFrame(
        {"a": pd.array([f"item{i}" for i in range(BIG)], dtype="string[pyarrow]")}
    ),
    "frame of Arrow's numbers": pd.DataFrame({"a": pd.array(range(BIG), dtype="int64[pyarrow]")}),
    "table": pa.table({"a": SOME.random(BIG), "s": [f"x{i}" for i in range(BIG)]}),
    "part of an Arrow array": pa.array(SOME.random(BIG)).slice(10, BIG // 2),
    "sparse rows": scipy.sparse.random(BIG, 20, density=0.1, format="csr", random_state=0),
    "sparse columns": scipy.sparse.csc_array(scipy.sparse.random(BIG, 20, density=0.1, random_state=0)),
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b) and a.dtype == b.dtype
    if scipy.sparse.issparse(a):
        return (a != b).nnz == 0 and type(a) is type(b)
    return a.equals(b)


@pytest.mark.parametrize("value", OUT_OF_BAND.values(), ids=list(OUT_OF_BAND))
def test_large_buffers_stay_out_of_the_stream(value):
    frozen = frozen_here({"value": value})
    assert len(frozen.graph) < 8_000 and frozen.size >= 100_000
    assert same(value, thawed(frozen)["value"])


def test_torch_tensors_come_back():
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    value = torch.rand(BIG)
    assert torch.equal(value, thawed(frozen_here({"value": value}))["value"])


@pytest.mark.parametrize(
    "value",
    [
        pd.DataFrame({"a": pd.Series([f"item{i}" for i in range(BIG)], dtype=object)}),
        list(range(BIG)),
        np.ma.masked_array(SOME.random(BIG), SOME.random(BIG) > 0.5),
    ],
    ids=["objects", "list", "masked"],
)
def test_what_offers_no_buffers_is_in_the_stream_and_its_size_is_known(value):
    frozen = frozen_here({"value": value})
    assert frozen.size == 0
    assert 0 <= len(frozen.graph) - frozen.values[0]["size"] < 1_000


def test_an_array_that_is_compacted_keeps_what_it_may():
    array = np.arange(4.0 * BIG)[::4]
    array.flags.writeable = False
    frozen = frozen_here({"fixed": array, "free": np.arange(2.0 * BIG)[::2]})
    assert frozen.size == 2 * array.nbytes, "the gaps do not travel"
    there = thawed(frozen)
    assert not there["fixed"].flags.writeable and there["free"].flags.writeable
    there["free"][0] = 7


def test_arrays_over_the_same_memory_still_share_it():
    array = np.zeros((200, 500))
    back = round_trip({"a": array, "b": array.reshape(-1), "c": array.T})
    back["b"][7] = 3
    assert back["a"][0, 7] == 3 and back["c"][7, 0] == 3


def test_equal_arrays_are_kept_once_and_stay_apart():
    frozen = frozen_here({"a": np.zeros(BIG), "b": np.zeros(BIG)})
    first, second = frozen.buffers
    assert first.digest == second.digest and first.data is second.data
    memory = bytearray(first.data)
    back = thaw(frozen.graph, [memory, memory], NAMESPACE)
    back["a"][0] = 1
    assert back["b"][0] == 0


def test_arrays_of_all_layouts():
    base = np.arange(60_000.0).reshape(100, 600)
    values = {
        "fortran": np.asfortranarray(base),
        "strided": base[:, ::2],
        "reversed": base[::-1],
        "zero": np.zeros((0, 3)),
        "scalar": np.array(3.5),
        "objects": np.array([[1], None, "x"], dtype=object),
        "dates": np.arange("2020-01-01", "2024-01-01", dtype="M8[D]"),
        "records": np.zeros(5000, dtype=[("a", "i4"), ("b", "f8")]),
        "readonly": np.broadcast_to(np.arange(10.0), (9000, 10)),
        "number": np.float32(2.5),
    }
    back = round_trip(values)
    for name, array in values.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype
    assert back["fortran"].flags.f_contiguous


def test_values_of_the_scientific_libraries(book):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 4))
    book.names |= {
        "df": pd.DataFrame({"n": np.arange(20_000), "s": ["ä", None] * 10_000, "c": pd.Categorical(["a", "b"] * 10_000),
                            "t": pd.date_range("2020", periods=20_000, freq="h", tz="UTC")}),
        "series": pd.Series([1, 2], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), name="s"),
        "table": pa.table({"x": list(range(20_000)), "y": ["q"] * 20_000}),
        "sparse": scipy.sparse.random(300, 300, density=0.3, format="csr", random_state=1),
        "model": LinearRegression().fit(X, X.sum(axis=1)),
        "rng": rng,
        "X": X,
    }  # fmt: skip
    before = {k: v for k, v in book.names.items() if not k.startswith("_")}
    expected = (
        LinearRegression().fit(X, X.sum(axis=1)).predict(X[:3]),
        pickle.loads(pickle.dumps(rng)).normal(),
    )
    book.land(
        "seen = model.predict(X[:3]), rng.normal()\ndf['new'] = df['n'] * 2\nX[0] = 0\ntable = table.slice(0, 5)",
        " ".join(before),
        " ".join([*before, "seen"]),
    )
    pd.testing.assert_frame_equal(book["df"].drop(columns="new"), before["df"])
    assert (book["df"]["new"] == before["df"]["n"] * 2).all() and (book["X"][0] == 0).all()
    pd.testing.assert_series_equal(book["series"], before["series"])
    assert book["table"].equals(before["table"].slice(0, 5))
    assert (book["sparse"] != before["sparse"]).nnz == 0
    np.testing.assert_allclose(book["seen"][0], expected[0])
    assert book["seen"][1] == expected[1]
    book["X"][1] = 5  # still writable after two crossings


# -- what cannot travel -------------------------------------------------------------------------------------


class Holder:
    def __init__(self, handle):
        self.handle = handle


class Slotted:
    __slots__ = ("_Slotted__secret", "lock")

    def __init__(self, lock):
        self.lock = lock


class Ray:
    ref = type("ObjectRef", (), {"__module__": "ray._raylet"})
    actor = type("ActorHandle", (), {"__module__": "ray.actor"})


def closing_over(value):
    def inner():
        return value

    return inner


def with_default(value):
    exec_namespace = {"__name__": "__main__", "value": value}
    exec("def f(x=value): return x", exec_namespace)
    return exec_namespace["f"]


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("make", "path", "reason"),
    [
        (lambda: {"sources": [1, 2, Holder(open(os.devnull))]}, 'v["sources"][2].handle', "an open file"),
        (lambda: [open(os.devnull, "rb")], "v[0]", "an open file"),
        (lambda: (LOCK,), "v[0]", "a thread lock"),
        (lambda: Slotted(LOCK), "v.lock", "a thread lock"),
        (lambda: {1: {("a", 2): threading.RLock()}}, "v[1][('a', 2)]", "a thread lock"),
        (lambda: (i for i in ()), "v", "a generator"),
        (lambda: {"g": [(i for i in ())]}, 'v["g"][0]', "a generator"),
        (lambda: sqlite3.connect(":memory:"), "v", "a database connection"),
        (lambda: [Ray.ref()], "v[0]", "a Ray object reference, which lives only inside its job"),
        (lambda: {"a": Ray.actor()}, 'v["a"]', "a Ray actor handle, which lives only inside its job"),
        (lambda: closing_over(LOCK), "v (its variable value)", "a thread lock"),
        (lambda: with_default(LOCK), "v (a default)", "a thread lock"),
        (lambda: functools.partial(print, LOCK), "v.args[0]", "a thread lock"),
        (lambda: functools.partial(print, k=LOCK), 'v.keywords["k"]', "a thread lock"),
        (lambda: deque([0, LOCK]), "v[1]", "a thread lock"),
        (lambda: ValueError(LOCK), "v.args[0]", "a thread lock"),
        (lambda: Holder([{"deep": Holder(LOCK)}]), 'v.handle[0]["deep"].handle', "a thread lock"),
        (lambda: np.array([1, LOCK], dtype=object), "v", "a thread lock"),
    ],
)  # fmt: skip
def test_refusal_leads_to_the_culprit(make, path, reason):
    value = make()
    with pytest.raises(Unpicklable) as caught:
        frozen_here({"fine": 1, "v": value})
    assert (caught.value.name, caught.value.reason) == ("v", reason)
    assert caught.value.path.startswith("v") if isinstance(value, np.ndarray) else caught.value.path == path
    assert str(caught.value) == f"{caught.value.path}: {reason}"
    _close(value)


def _close(value):
    if isinstance(value, (io.IOBase, sqlite3.Connection)):
        value.close()
    elif isinstance(value, Holder):
        _close(value.handle)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _close(part)
    elif isinstance(value, dict):
        for part in value.values():
            _close(part)


def test_a_class_of_the_notebook_with_a_lock():
    namespace = {"__name__": "__main__", "LOCK": LOCK}
    exec("class A:\n lock = LOCK\na = A()", namespace)
    with pytest.raises(Unpicklable) as caught:
        freeze({"A": namespace["A"]}, namespace, SIGNER, copy=True)
    assert caught.value.path == "A.lock"


def test_an_error_of_the_values_own_is_told_in_its_words():
    class Odd:
        def __reduce__(self):
            raise RuntimeError("not today")

    with pytest.raises(Unpicklable) as caught:
        frozen_here({"odd": [Odd()]})
    assert caught.value.path == "odd[0]" and caught.value.reason == "RuntimeError: not today"


def test_too_deep():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Unpicklable, match="deep: it is nested too deeply"):
        frozen_here({"deep": deep})
    while deep:  # taken apart by hand, or its destruction is as deep
        deep = deep.pop()


def test_skip_leaves_out_what_cannot_travel_and_the_rest_is_whole():
    shared = [1]
    values = {"a": {"shared": shared, "lock": LOCK}, "b": shared, "gen": (i for i in ()), "c": [shared]}
    frozen = frozen_here(values, skip=True)
    assert frozen.refused == {"a": 'a["lock"]: a thread lock', "gen": "a generator"}
    back = thawed(frozen)
    assert back == {"b": [1], "c": [[1]]} and back["c"][0] is back["b"]
    assert [v["name"] for v in frozen.values] == ["b", "c"]


def test_standard_streams_go_by_name():
    assert round_trip({"out": [sys.stdout]})["out"][0] is sys.stdout


def test_ray_itself_refuses_the_same():
    ray = pytest.importorskip("ray")
    ref = ray.ObjectRef(os.urandom(28))
    with pytest.raises(Unpicklable) as caught:
        frozen_here({"refs": {"x": [ref]}})
    assert caught.value.path == 'refs["x"][0]' and "lives only inside its job" in caught.value.reason


# -- exceptions ---------------------------------------------------------------------------------------------


def test_exceptions_of_the_notebook(book):
    book.run(
        "class Failed(Exception):\n def __init__(self, code, *, hint):\n"
        "  super().__init__(f'failed with {code}')\n  self.code, self.hint = code, hint\n"
        "class Silent(ValueError):\n def __init__(self, a, b):\n  self.a = a\n"
        "class Missing(FileNotFoundError):\n def __init__(self, path):\n"
        "  super().__init__(2, 'no such thing', path)\n  self.path = path"
    )
    book.land(
        "def fail():\n"
        " try:\n  1 / 0\n"
        " except ZeroDivisionError as cause:\n"
        "  raise Failed(7, hint='again') from cause\n"
        "try: fail()\nexcept Failed as caught:\n error = caught\n"
        "if hasattr(error, 'add_note'): error.add_note('a note')\n"
        "errors = [error, Silent(1, 2), Missing('/x'), error.__cause__]",
        "Failed Silent Missing",
        "error errors",
    )
    error, silent, missing, cause = book["errors"]
    assert book["error"] is error and type(error) is book["Failed"]
    assert (str(error), error.code, error.hint) == ("failed with 7", 7, "again")
    assert error.__cause__ is cause and isinstance(cause, ZeroDivisionError) and error.__suppress_context__
    assert getattr(error, "__notes__", ["a note"]) == ["a note"]
    assert error.__traceback__ is None
    assert (silent.args, silent.a) == ((1, 2), 1)
    assert (missing.errno, missing.filename, missing.path, str(missing)) == (
        2,
        "/x",
        "/x",
        "[Errno 2] no such thing: '/x'",
    )
    assert "The above exception was the direct cause" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "make",
    [
        lambda: OSError(2, "gone", "/a", None, "/b"),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        lambda: SyntaxError("bad", ("f.py", 3, 4, "x =", 3, 5)),
        lambda: ImportError("no", name="mod", path="/p"),
        lambda: StopIteration(5),
        lambda: SystemExit(3),
        lambda: KeyError("k"),
        lambda: KeyboardInterrupt(),
        lambda: __import__("subprocess").CalledProcessError(3, ["ls"], b"out"),
        lambda: __import__("json").JSONDecodeError("bad", "{", 1),
        lambda: sqlite3.OperationalError("locked"),
        lambda: pa.ArrowInvalid("bad"),
        lambda: pd.errors.MergeError("bad"),
        lambda: __import__("urllib.error").error.HTTPError("http://x", 404, "no", None, None),
    ],
)
def test_exceptions_of_libraries(make):
    error = make()
    error.__context__ = ValueError("before")
    back = round_trip({"e": error})["e"]
    assert type(back) is type(error) and back.args == error.args and str(back) == str(error)
    for name in (
        "errno",
        "filename",
        "filename2",
        "reason",
        "lineno",
        "name",
        "path",
        "value",
        "code",
        "cmd",
        "doc",
        "pos",
    ):
        assert getattr(back, name, None) == getattr(error, name, None)
    assert str(back.__context__) == "before"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups are new in Python 3.11")
def test_exception_groups():
    group = ExceptionGroup("many", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])])  # noqa: F821
    back = round_trip({"g": group})["g"]
    assert back.message == "many" and repr(back.exceptions) == repr(group.exceptions)


def test_exception_with_a_reduce_of_its_own():
    from jupyter_rayoffload.errors import CellError

    error = CellError("E: x", "hint", "E", "x", ["line"])
    error.__cause__ = KeyError("k")
    back = round_trip({"e": error})["e"]
    assert (back.message, back.traceback) == ("E: x", ["line"]) and repr(back.__cause__) == "KeyError('k')"


def test_exceptions_that_cause_each_other():
    a, b = ValueError("a"), ValueError("b")
    a.__context__, b.link = b, a
    back = round_trip({"a": a})["a"]
    assert back.__context__.link is back


# -- formats ------------------------------------------------------------------------------------------------


def test_header_of_this_process_is_fine():
    check_header(header())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": codec.FORMAT + 1}, "format 2"),
        ({"python": "3.1"}, "Python 3.1"),
        ({"format": None}, "format None"),
    ],
)
def test_header_of_others_is_not(change, text):
    with pytest.raises(WrongFormat, match=text):
        check_header({**header(), **change})


@unhurried
@given(st.binary(max_size=200))
def test_other_bytes_are_no_values(data):
    with pytest.raises(WrongFormat):
        thaw(data, [], NAMESPACE)


def test_a_name_that_is_not_there():
    with pytest.raises(KeyError, match="nothing"):
        thawed(frozen_here({"a": 1}), ["nothing"])


# -- what is not installed here -------------------------------------------------------------------------------


def test_a_missing_library_keeps_only_those_values_away_that_need_it(tmp_path, monkeypatch):
    (tmp_path / "gone_library.py").write_text("class Thing:\n    pass\n\n\ndef make():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import gone_library

    thing = gone_library.Thing()
    thing.size = np.arange(BIG)
    shared = [1, 2]
    space = {"__name__": "__main__", "gone_library": gone_library, "Base": gone_library.Thing}
    exec("def uses(): return gone_library.make()\nclass Own(Base): pass\nown = Own()", space)
    values = {
        "plain": {"shared": shared, "array": np.arange(BIG)},
        "thing": thing,
        "inside": [{"deep": (thing,)}],
        "function": gone_library.make,
        "module": gone_library,
        "uses": space["uses"],
        "own": space["own"],
        "last": shared,
    }
    frozen = freeze(values, space, SIGNER, copy=True)
    monkeypatch.undo()
    del sys.modules["gone_library"], gone_library, thing, values, space
    gc.collect()  # what is alive is known by its identity, and need not be imported

    buffers = [bytearray(b.data) for b in frozen.buffers]
    with pytest.raises(ModuleNotFoundError):
        thaw(frozen.graph, buffers, {"__name__": "__main__"})
    refused: dict[str, str] = {}
    found = thaw(frozen.graph, buffers, {"__name__": "__main__"}, None, refused)
    assert set(refused) == {"thing", "inside", "function", "module", "own"}
    assert all("gone_library" in why for why in refused.values())
    assert list(found) == ["plain", "uses", "last"]
    assert found["plain"]["shared"] is found["last"]
    assert found["plain"]["array"].sum() == np.arange(BIG).sum()


# -- what the reader has already ------------------------------------------------------------------------------


def test_values_that_hold_what_the_reader_has_hold_its_own():
    data, other, array = [1, 2], {"a": 1}, np.arange(BIG)
    known = {"data": data, "other": other, "array": array}
    values = {"box": {"in": data, "twice": [array, array]}, "data_again": data, "new": [1, 2]}
    frozen = freeze(values, NAMESPACE, SIGNER, copy=True, known=known)
    assert not frozen.buffers  # the array stays where it is
    asked = []
    mine = {"data": [1, 2], "array": np.arange(BIG)}

    def give(name):
        asked.append(name)
        return mine[name]

    back = thaw(frozen.graph, [], NAMESPACE, known=give)
    assert back["box"]["in"] is mine["data"] is back["data_again"]
    assert back["box"]["twice"][0] is back["box"]["twice"][1] is mine["array"]
    assert back["new"] == [1, 2] and back["new"] is not mine["data"]
    assert sorted(asked) == ["array", "data"]  # nobody needs the other one
    with pytest.raises(WrongFormat, match="refer to others that are not at hand: data, array"):
        thaw(frozen.graph, [], NAMESPACE)


def test_many_known_objects_are_told_apart():
    known = {f"name{i}": [i] for i in range(400)}
    frozen = freeze({"all": list(known.values())[::-1]}, NAMESPACE, SIGNER, copy=True, known=known)
    back = thaw(frozen.graph, [], NAMESPACE, known=lambda name: known[name])
    assert all(a is b for a, b in zip(back["all"], list(known.values())[::-1], strict=True))
