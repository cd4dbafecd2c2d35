"""What a cell finds when it runs after a job: its files, too."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from jupyter_rayoffload import landing
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.course import Course
from jupyter_rayoffload.errors import Expired
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.landing import Landing
from jupyter_rayoffload.models import JobRecord, JobSpec, Phase
from jupyter_rayoffload.session import Session
from jupyter_rayoffload.waiting import wait_here


class Offloader:
    """Brings one file home, a little later: as slowly as `delay`, or never."""

    def __init__(self, delay: float, error: Exception | None = None) -> None:
        self.delay, self.error = delay, error

    async def bring_home(self, record: JobRecord, package: str, folder: Path) -> tuple[()]:
        await asyncio.sleep(self.delay)
        if self.error is not None:
            raise self.error
        (folder / "res.txt").write_text("r")
        return ()

    async def settled(self, record: JobRecord) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Notebook:
    """A shell with one job on its way, which assigns `done` and leaves `res.txt`."""

    def __init__(self, folder: Path) -> None:
        self.shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        self.shell.user_ns["Path"] = Path
        self.session = Session(RayOffload(), self.shell.user_ns)
        self.session.folder = str(folder)
        self.landing = Landing(self.shell, self.session)
        self.landing.install()
        self.shell.rayoffload = SimpleNamespace(arrive=lambda names: self.landing.arrive(names))
        self.shown: list[str] = []
        self.marks: list[Any] = []
        self.shell.display_pub.publish = self._publish
        spec = JobSpec("cell-000000", "cell", expected=("done",))
        self.course = Course(JobRecord(spec, phase=Phase.RUNNING))
        self.job = Job(self.session, self.course)
        self.landing.claim(self.job, ["done"], [])

    def _publish(self, data: Any, metadata: Any, **_: Any) -> None:
        self.shown.append(data["text/plain"])
        self.marks.append(metadata)

    def goes(self, delay: float, error: Exception | None = None) -> None:
        """Let the files take so long, and fail with `error`."""
        self.session._offloader = Offloader(delay, error)  # type: ignore[assignment]

    def end(self) -> None:
        """Let the job end."""
        end = {"phase": "succeeded", "exit_code": 0, "files_package": "0" * 64, "outputs": [{"name": "done"}]}
        end["imports"] = {"done": ["sys", None]}  # an output that needs no store
        self.session.soon(lambda: self.course.tell("phase", **end))

    def run(self, cell: str) -> Any:
        """Run a cell, and give its value or raise its error."""
        return self.shell.run_cell(cell).result


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.chdir(tmp_path)
    notebook = Notebook(tmp_path)
    yield notebook
    notebook.landing.uninstall()
    notebook.session.close()


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    "cell", ["(done.__name__, Path('res.txt').read_text())", "('sys', Path('res.txt').read_text())"]
)
def test_files_are_here_when_a_cell_runs_after_its_job(notebook: Notebook, ended: bool, cell: str):
    """Also where the job has ended before the cell began, and where the cell reads no name of it."""
    notebook.goes(0.1)
    notebook.end()
    if ended or "done" not in cell:
        notebook.job.wait(10)
    assert notebook.run(cell) == ("sys", "r")
    assert "Waits for the files of job cell-000000" not in notebook.shown


def test_what_takes_longer_is_said(notebook: Notebook):
    notebook.goes(1)
    notebook.end()
    assert notebook.run("done, Path('res.txt').read_text()")[1] == "r"
    assert notebook.shown[-2:] == ["Waits for the files of job cell-000000", ""]
    # Of all that stands below a cell, one can tell what the cell has not shown itself.
    assert notebook.marks[-2:] == [{"rayoffload": {"awaits": "cell-000000"}}] * 2


def test_nobody_waits_for_ever_nor_twice(notebook: Notebook, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(landing, "HOME_SECONDS", 0.1)
    notebook.goes(1000)
    notebook.end()
    with pytest.warns(UserWarning, match="files of job cell-000000 are still on their way after 0.1 s"):
        assert notebook.run("done.__name__") == "sys"
    began = time.monotonic()
    assert notebook.run("1 + 1") == 2
    assert time.monotonic() - began < 0.3


def test_files_that_do_not_come_are_told_once(notebook: Notebook):
    notebook.goes(0, Expired("its package is gone", ""))
    notebook.end()
    with pytest.warns(UserWarning, match="have not come home: its package is gone"):
        assert notebook.run("done.__name__") == "sys"
    assert notebook.run("1 + 1") == 2


def test_a_waiting_cell_ends_without_files_that_do_not_come(notebook: Notebook):
    notebook.goes(0, Expired("its package is gone", ""))
    notebook.end()
    with pytest.warns(UserWarning, match="have not come home: its package is gone"):
        wait_here(notebook.job, notebook.landing, queue.SimpleQueue(), quiet=True)
    assert notebook.run("done.__name__") == "sys"
