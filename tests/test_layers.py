"""The arrows between modules point one way; what travels to the cluster stands on its own."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jupyter_rayoffload

PACKAGE = Path(jupyter_rayoffload.__file__).parent

#: Each module may import, of this package, only what stands in a line above it.
LAYERS = [
    ["__init__", "errors"],
    ["remote"],
    ["models"],
    ["options", "words", "phase", "ansi", "imports", "images"],
    ["sentences", "spool", "specification", "traits"],
    ["profiles", "loglines"],
    ["declared"],
    ["outputs", "config", "ignore", "cell", "reference", "tracebacks"],
    ["archive", "record"],
    ["scan"],
    ["workspace", "bundle"],
    ["local_modules", "view", "cluster_view", "pages"],
    ["jobclient", "transport", "threads"],
    ["rayapi"],
    ["clusters"],
    ["link", "course", "homecoming"],
    ["matching", "links", "mapping", "item"],
    ["packing", "witness", "ledger"],
    ["redraft"],
    ["standbys"],
    ["submission", "drafting", "items"],
    ["job", "server", "programs"],
    ["claims"],
    ["session"],
    ["api"],
    ["panel"],
    ["display"],
    ["landing"],
    ["waiting", "cluster_verbs"],
    ["magics"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports_of(path: Path) -> set[str]:
    """Give the modules of this package that a file imports, also inside functions; not for types alone."""
    inside = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    tree = ast.parse(path.read_text())
    tree.body = [
        n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    ]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = inside[: len(inside) - (node.level - 1)]
        names = [node.module] if node.module else [alias.name for alias in node.names]
        found |= {(*base, *name.split("."))[0] for name in names if name}
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} is new: give it a place in LAYERS"
    if own == "__init__":
        return
    wrong = {name for name in imports_of(path) - {own, "__version__"} if LEVEL[name] >= LEVEL[own]}
    assert not wrong, f"{own} must not import {', '.join(sorted(wrong))}"


def test_what_travels_imports_nothing_of_us_and_little_else():
    allowed = {
        "traitlets",
        "blake3",
        "cloudpickle",
        "redis",
        "IPython",
        "ray",
        "matplotlib_inline",
        "pandas",
        "numpy",
    }
    for path in (PACKAGE / "remote").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, path
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or top in allowed, f"{path.name} imports {name}"


def test_every_module_that_travels_can_be_imported_under_another_name(tmp_path):
    copy = tmp_path / "runner_of_tomorrow"
    copy.mkdir()
    for path in (PACKAGE / "remote").glob("*.py"):
        (copy / path.name).write_bytes(path.read_bytes())
    names = [p.stem for p in copy.glob("*.py") if p.stem not in ("__main__", "__init__")]
    code = (
        "import sys\nsys.modules['jupyter_rayoffload'] = None\n"
        + "\n".join(f"import runner_of_tomorrow.{name}" for name in names)
        + "\nassert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_importing_and_loading_costs_a_notebook_pod_nothing_heavy():
    code = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
import jupyter_rayoffload
shell.run_line_magic('load_ext', 'jupyter_rayoffload')
heavy = {'ray', 'redis', 'aiohttp', 'anywidget', 'ipywidgets', 'pandas', 'numpy', 'blake3', 'cloudpickle'}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_what_they_say():
    assert sorted(jupyter_rayoffload.__all__) == sorted(set(jupyter_rayoffload.__all__))
    for name in jupyter_rayoffload.__all__:
        assert getattr(jupyter_rayoffload, name) is not None
    assert callable(jupyter_rayoffload.jobs)
    with pytest.raises(AttributeError):
        getattr(jupyter_rayoffload, "nonsense")  # noqa: B009 - as a user would look it up


def test_the_version_stands_in_one_place():
    text = (PACKAGE.parent / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in text
    assert re.fullmatch(r"\d+\.\d+\.\d+", jupyter_rayoffload.__version__)
