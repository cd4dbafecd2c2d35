"""Distributions behind values."""

from __future__ import annotations

import json

import numpy as np

from jupyter_rayoffload.remote.libraries import package_of, versions


def test_the_package_of_a_type_is_text_whatever_its_module_is():
    assert package_of(np.ndarray) == "numpy"
    assert package_of(type("Odd", (), {"__module__": property(lambda self: "x")})) == ""
    assert package_of(type("None_", (), {"__module__": None})) == ""


def test_the_standard_library_has_no_version():
    assert versions({"json", "numpy.linalg", "__main__", ""}) == {"numpy": np.__version__}
    assert versions({json.__name__}) == {}
