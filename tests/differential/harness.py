"""Play a notebook of the corpus in a real kernel, and say where two performances differ."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.kernel_client import Kernel, KernelDied, Run, fold

from .cells import Cell, Notebook
from .outputs import Tidy, printed, shown

PROBE = Path(__file__).with_name("probe.py")
#: A cell that gives the kernel its ``%probe``, and leaves no name in the notebook.
LOAD_PROBE = f"""\
exec(
    "import importlib.util, sys;"
    "spec = importlib.util.spec_from_file_location('probe', path);"
    "module = sys.modules['probe'] = importlib.util.module_from_spec(spec);"
    "spec.loader.exec_module(module);"
    "module.load_ipython_extension(shell)",
    {{"shell": get_ipython(), "path": {str(PROBE)!r}}},
)"""
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Seen:
    """What one cell did, in a form that can be compared."""

    source: str
    ok: bool
    error: dict[str, str] | None
    stdout: str
    stderr: str
    shown: list[Any]
    names: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class Stage:
    """A kernel in a folder of its own, in which notebooks are played one after the other.

    Parameters
    ----------
    folder : Path
        The notebooks' folder; emptied before each.
    offloaded : bool
        Whether the cells that are marked get their ``%%ray_job``.
    env : dict, optional
        Further environment of the kernel.
    """

    def __init__(self, folder: Path, offloaded: bool, env: dict[str, str] | None = None) -> None:
        self.folder, self.offloaded = folder, offloaded
        folder.mkdir(parents=True, exist_ok=True)
        self.kernel = Kernel(folder, env)
        self._prepare()

    def close(self) -> None:
        """End the kernel."""
        self.kernel.shutdown()

    def play(self, notebook: Notebook, timeout: float = 60) -> list[Seen]:
        """Run the cells of `notebook` in order, and look at the names after each but the first plain ones."""
        self._clear()
        try:
            runs = [(cell, self._perform(cell, timeout)) for cell in notebook.cells]
        except (KernelDied, TimeoutError):
            self.kernel.restart()
            self._prepare()
            raise
        outputs = fold(run for _, (run, _) in runs if run)
        cells = [(cell, run, names) for cell, (run, names) in runs if run]
        tidy = Tidy(self.folder, first=cells[0][1].count)
        seen = [
            _see(cell, run, folded, tidy, names)
            for (cell, run, names), folded in zip(cells, outputs, strict=True)
        ]
        seen[-1].files = _files(self.folder)
        for one in seen if self.offloaded else ():
            _drop(one.names, notebook.stays)
        return seen

    def _prepare(self) -> None:
        self.kernel.run(LOAD_PROBE, history=False).check()
        if self.offloaded:
            self.kernel.run("%load_ext jupyter_rayoffload", history=False).check()
            # The first start is not what is compared, and may be slow on a busy machine.
            self.kernel.run("%%ray_job --wait --quiet\npass", history=False, timeout=300).check()

    def _clear(self) -> None:
        self.kernel.run("%reset -f", history=False).check()
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _perform(self, cell: Cell, timeout: float) -> tuple[Run | None, str]:
        if cell.kind == "file":
            path = self.folder / cell.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(cell.source, encoding="utf-8")
            return None, ""
        run = self.kernel.run(cell.text(self.offloaded), timeout=timeout)
        probe = self.kernel.run("%probe" if run.ok else "%probe !error", timeout=timeout, history=False)
        return run, probe.check().stdout


def _see(cell: Cell, run: Run, folded: list[Any], tidy: Tidy, names: str) -> Seen:
    return Seen(
        source=cell.source,
        ok=run.ok,
        error=_error(run, tidy),
        stdout=printed(folded, "stdout", tidy),
        stderr=printed(folded, "stderr", tidy),
        shown=shown(folded, tidy),
        names=json.loads(tidy(names)),
    )


def _error(run: Run, tidy: Tidy) -> dict[str, str] | None:
    errors = run.contents("error")
    if not errors:
        return None
    [error] = errors
    text = tidy(ANSI.sub("", "\n".join(error["traceback"])))
    # A file is known by its name: a job has the workspace in a folder of its own.
    text = re.sub(r"^File \S*?([^/\s]+):(\d+)", r"File \1:\2", text, flags=re.M)
    return {"ename": error["ename"], "evalue": tidy(error["evalue"]), "traceback": text}


def _files(folder: Path) -> dict[str, str]:
    kept = [p for p in sorted(folder.rglob("*")) if "__pycache__" not in p.parts]
    files = {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()[:16]
        for p in kept
        if p.is_file()
    }
    return files | {str(p.relative_to(folder)): "a folder" for p in kept if p.is_dir()}


def _drop(names: dict[str, Any], stays: tuple[str, ...]) -> None:
    for name in stays:
        assert name not in names, f"{name} came back, which the case says it cannot"


def differences(notebook: Notebook, plain: list[Seen], other: list[Seen]) -> str:
    """Say where two performances of one notebook differ; empty where they do not."""
    return "\n".join(
        text
        for number, (a, b) in enumerate(zip(plain, other, strict=True), 1)
        if (text := _difference(notebook, number, a, b))
    )


def _difference(notebook: Notebook, number: int, plain: Seen, other: Seen) -> str:
    left, right = _comparable(notebook, plain), _comparable(notebook, other)
    found = [diff(key, left[key], right[key]) for key in left if left[key] != right[key]]
    return f"cell {number}:\n{plain.source}\n" + "\n".join(found) if found else ""


def _comparable(notebook: Notebook, seen: Seen) -> dict[str, Any]:
    out = asdict(seen)
    for name in notebook.stays:
        out["names"].pop(name, None)
    if notebook.unordered:
        out["stdout"] = sorted(seen.stdout.splitlines())
        out["shown"] = [s for s in seen.shown if not isinstance(s, str)]
    return out


def diff(key: str, left: Any, right: Any) -> str:
    """Give a line by line account of two things that are not the same."""
    texts = [v if isinstance(v, str) else json.dumps(v, indent=1, sort_keys=True) for v in (left, right)]
    if key == "error" and left and right:
        texts = ["\n".join(f"{k}: {v}" for k, v in side.items()) for side in (left, right)]
    lines = difflib.unified_diff(
        texts[0].split("\n"), texts[1].split("\n"), "plain", "other", n=4, lineterm=""
    )
    return f"{key} differs:\n" + "\n".join(lines)
