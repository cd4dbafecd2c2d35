"""A cell does the same with ``%%ray_job --wait`` on top as without it."""

from __future__ import annotations

import importlib.util
import os
import sys

import pytest

from .cells import Notebook, load, parse
from .harness import Seen, Stage, differences

NOTEBOOKS = load()
#: Each job costs Ray some seconds of a core, so a usual run takes these few, from all over the corpus;
#: RAYOFFLOAD_ALL_CELLS=1 takes them all.
USUAL = 98
ALL = bool(os.environ.get("RAYOFFLOAD_ALL_CELLS"))
SAMPLE = NOTEBOOKS if ALL else [NOTEBOOKS[n * len(NOTEBOOKS) // USUAL] for n in range(USUAL)]
pytestmark = pytest.mark.kernel


#: Plain performances of this session: each is compared with more than one other.
_plainly: dict[str, list[Seen]] = {}


def played(stage: Stage, notebook: Notebook) -> list[Seen]:
    """Play `notebook`, if this Python has what it needs."""
    if sys.version_info[:2] < notebook.python:
        pytest.skip(f"needs Python {'.'.join(map(str, notebook.python))}")
    for library in notebook.needs:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")
    return stage.play(notebook)


def played_plainly(stage: Stage, notebook: Notebook) -> list[Seen]:
    """Play `notebook` as it is; a run that fails where it should not says nothing about the other one."""
    if notebook.id in _plainly:
        return _plainly[notebook.id]
    seen = played(stage, notebook)
    cells = [cell for cell in notebook.cells if cell.kind != "file"]
    for cell, one in zip(cells, seen, strict=True):
        raised = one.error["ename"] if one.error else ""
        assert raised == cell.raises, f"{cell.source}\n{one.error and one.error['traceback']}"
    _plainly[notebook.id] = seen
    return seen


def test_corpus_is_large_and_has_no_name_twice() -> None:
    names = [notebook.id for notebook in NOTEBOOKS]
    assert len(names) == len(set(names))
    assert len(names) >= 130
    assert all(any(cell.kind == "job" for cell in notebook.cells) for notebook in NOTEBOOKS)


@pytest.mark.parametrize("notebook", NOTEBOOKS if ALL else SAMPLE[::5], ids=lambda n: n.id)
def test_plain_runs_agree(plain: Stage, second: Stage, notebook: Notebook) -> None:
    """A case that differs from itself proves nothing."""
    seen = played_plainly(plain, notebook)
    difference = differences(notebook, seen, played(second, notebook))
    assert not difference, difference


@pytest.mark.ray
@pytest.mark.parametrize("notebook", SAMPLE, ids=lambda n: n.id)
def test_offloaded_agrees(plain: Stage, offloaded: Stage, notebook: Notebook) -> None:
    seen = played_plainly(plain, notebook)
    difference = differences(notebook, seen, played(offloaded, notebook))
    assert not difference, difference


@pytest.mark.parametrize(
    ("left", "right", "word"),
    [
        ("x = 1", "x = 2", "names"),
        ("x = 1", "x = 1.0", "names"),
        ("x = 1", "x = 1; y = 2", "names"),
        ("a = []; b = a", "a = []; b = []", "names"),
        ("a = []; a.append(a)", "a = []; a.append([])", "names"),
        ("def f(): return 1", "def f(): return 2", "names"),
        ("class A: pass\na = A()", "class A: pass\na = A()\nclass A: pass", "names"),
        ("f = (lambda: 1)", "f = eval('lambda: 1', {})", "names"),
        ("import numpy as np\na = np.ones(3)", "import numpy as np\na = np.ones(3, 'f4')", "names"),
        (
            "import pandas as pd\nd = pd.DataFrame({'a': [1]})",
            "import pandas as pd\nd = pd.DataFrame({'a': [2]})",
            "names",
        ),
        ("print('a')", "print('b')", "stdout"),
        ("import sys\nprint('a', file=sys.stderr)", "import sys", "stderr"),
        ("print(1); display(2)", "display(2); print(1)", "shown"),
        ("display(1)", "1", "shown"),
        ("raise ValueError('a')", "raise ValueError('b')", "error"),
        ("raise ValueError('a')", "\nraise ValueError('a')", "error"),
        ("def f():\n    1/0\nf()", "def f():\n    1 / 0\nf()", "error"),
        ("open('a', 'w').close()", "open('b', 'w').close()", "files"),
        ("import os; os.mkdir('a')", "import os", "files"),
        (
            "import matplotlib.pyplot as plt\nplt.figure(figsize=(3, 2)); plt.plot([1]);",
            "import matplotlib.pyplot as plt\nplt.figure(figsize=(3, 3)); plt.plot([1]);",
            "shown",
        ),
    ],
)
def test_comparison_sees(plain: Stage, second: Stage, left: str, right: str, word: str) -> None:
    """What would be a difference to a person is one to the comparison."""
    first, other = parse(f"left\n--- job\n{left}\n"), parse(f"right\n--- job\n{right}\n")
    assert f"{word} differs" in differences(first, plain.play(first), second.play(other))
