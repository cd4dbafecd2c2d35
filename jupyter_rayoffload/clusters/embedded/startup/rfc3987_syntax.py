"""Stands in front of the distribution of this name in Ray's processes, and loads it when it is first used.

Importing it takes 1 to 2 s, for it compiles its grammars then. jsonschema imports it wherever it is there,
Jupyter installs it, and Ray imports jsonschema in each of its processes, which are a dozen for a head and one
or more for each job (https://github.com/python-jsonschema/jsonschema/issues/1428).
"""

import importlib.machinery
import importlib.util
import os
import sys
from typing import Any

_here = os.path.dirname(os.path.abspath(__file__))
_spec = importlib.machinery.PathFinder.find_spec(
    __name__, [p for p in sys.path if os.path.abspath(p or os.curdir) != _here]
)
if _spec is None or _spec.loader is None:
    raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
__path__ = list(_spec.submodule_search_locations or ())


def is_valid_syntax(*args: Any, **kwargs: Any) -> Any:
    """Call the function of this name; it is the one that jsonschema imports."""
    return _real().is_valid_syntax(*args, **kwargs)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_real(), name)


def _real() -> Any:
    module = sys.modules[__name__]
    if module.__dict__ is globals():
        assert _spec is not None and _spec.loader is not None
        module = sys.modules[__name__] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(module)
    return module
