"""Distributions behind values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jupyter_rayoffload.remote.codec import freeze
from jupyter_rayoffload.remote.libraries import (
    UNKNOWN,
    differing,
    installed,
    package_of,
    pin,
    requirements,
    versions,
)
from jupyter_rayoffload.remote.signing import Signer


def test_the_package_of_a_type_is_text_whatever_its_module_is():
    assert package_of(np.ndarray) == "numpy"
    assert package_of(type("Odd", (), {"__module__": property(lambda self: "x")})) == ""
    assert package_of(type("None_", (), {"__module__": None})) == ""


def test_the_standard_library_has_no_version():
    assert versions({"json", "numpy.linalg", "__main__", ""}) == {"numpy": np.__version__}
    assert versions({json.__name__}) == {}


def test_what_pip_would_call_the_libraries_of_modules():
    assert requirements({"numpy.linalg", "json", "cloudpickle", "jupyter_rayoffload.api", ""}) == {
        "numpy": f"numpy=={np.__version__}"
    }
    assert requirements({"nowhere_at_all.part"}) == {"nowhere_at_all": "nowhere_at_all"}
    needed = requirements({"dateutil"})
    assert needed["dateutil"].startswith("python-dateutil")


def test_what_is_installed_is_asked_by_module():
    needed = {"numpy": "numpy==0.1", "nowhere_at_all": "nowhere==1", "json": "no-such-distribution==1"}
    assert installed(needed) == {"numpy": np.__version__, "nowhere_at_all": "", "json": UNKNOWN}


@pytest.mark.parametrize(
    ("root", "here", "there", "matters"),
    [
        ("numpy", "2.1.0", "1.26.4", True),
        ("numpy", "2.1.0", "2.3.1", False),
        ("pandas", "3.0.0", "2.2.3", True),
        ("pandas", "2.1.0", "2.2.3", False),
        ("sklearn", "1.5.2", "1.4.0", True),
        ("sklearn", "1.5.2", "1.5.0", False),
        ("torch", "2.5.1+cu121", "2.5.1+cpu", False),
        ("torch", "2.5.1", "2.4.1", True),
        ("ray", "2.60.0", "2.60.1", True),
        ("requests", "3.0", "2.0", False),
        ("numpy", "2.1.0", "", False),
        ("numpy", "2.1.0", UNKNOWN, False),
        ("numpy", "", "1.26.4", False),
    ],
)
def test_which_differences_matter(root, here, there, matters):
    needed = {root: f"{root}=={here}" if here else root}
    assert differing(needed, {root: there}) == ([root] if matters else [])


def test_after_a_failure_every_difference_counts():
    needed = {"numpy": "numpy==2.1.0", "requests": "requests==2.32.3", "attr": "attrs==24.1"}
    there = {"numpy": "2.1.1", "requests": "2.32.3"}
    assert differing(needed, there, all_=True) == ["numpy"]


def test_a_pin_is_one_that_pip_finds():
    assert pin("torch==2.5.1+cu121") == "torch==2.5.1" and pin("torch") == "torch"


def needs(**values):
    return freeze(values, values, Signer(bytes(32)), copy=False).needs


def test_a_reader_needs_what_goes_by_reference():
    class Own:
        pass

    assert needs(a=np.arange(3)) == {"numpy"} == needs(a=[np.float64(1)], b=np)
    assert needs(a=[1, "x"], b=json, c=Own()) == frozenset()
    assert needs(a=pytest.Session) == {"_pytest"}


def test_of_ray_its_objects_count_and_not_the_module(monkeypatch):
    import sys
    import types

    fake = types.ModuleType("ray")
    fake.Thing = type("Thing", (), {"__module__": "ray"})
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(fake, "__spec__", json.__spec__)
    assert needs(r=fake) == frozenset()
    assert needs(r=fake.Thing()) == {"ray"}
