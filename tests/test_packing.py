"""What is packed with a job."""

from __future__ import annotations

import time
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.course import Draft
from jupyter_rayoffload.models import JobSpec
from jupyter_rayoffload.packing import STORED_SECONDS, Packed, is_sent, pack
from jupyter_rayoffload.remote.signing import Signer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data/rayoffload/packages"


def packed(folder: Path) -> Packed:
    draft = Draft(JobSpec("cell-000000", "cell"), cwd=str(folder))
    return pack(draft, RayOffload(), Signer(bytes(32)), lambda text: None)


def test_a_workspace_of_empty_folders_alone_travels(cache: Path, tmp_path: Path):
    """A notebook beside `out/`: the notebook stays, and the cell writes into `out`."""
    folder = tmp_path / "nb"
    folder.mkdir()
    (folder / "nb.ipynb").write_text("{}")
    assert packed(folder).package == ""
    (folder / "out/deep").mkdir(parents=True)
    first = packed(folder)
    with zipfile.ZipFile(cache / f"{first.package}.zip") as package:
        assert package.namelist() == ["out/deep/"]
    assert packed(folder) == Packed(**{**vars(first), "known": True})


def test_libraries_are_what_nobody_brings(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An editable install travels, and has a version all the same; a Ray is on every cluster."""
    (tmp_path / "nb").mkdir()
    (tmp_path / "src").mkdir()
    (tmp_path / "src/at_work.py").write_text("")
    (tmp_path / "src/at_work-1.0.dist-info").mkdir()
    (tmp_path / "src/at_work-1.0.dist-info/METADATA").write_text("Name: at-work\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    assert metadata.version("at_work") == "1.0"
    modules = ("json", "numpy.linalg", "at_work", "ray.data", "nowhere_at_all")
    draft = Draft(
        JobSpec("cell-000000", "cell"), modules=modules, cwd=str(tmp_path / "nb"), needs=frozenset({"numpy"})
    )
    made = pack(draft, RayOffload(), Signer(bytes(32)), lambda text: None)
    here = metadata.version("numpy")
    assert made.libraries == {"nowhere_at_all": "nowhere_at_all", "numpy": f"numpy=={here}"}
    assert made.needs == ("numpy",)
    spec = made.described(draft.spec)
    assert (spec.libraries, spec.needs) == (made.libraries, made.needs)
    off = pack(draft, RayOffload(check_versions="off"), Signer(bytes(32)), lambda text: None)
    assert (off.libraries, off.needs) == ({}, ())


@pytest.mark.usefixtures("cache")
def test_nothing_is_left_to_send_where_the_store_was_just_seen_to_have_all(tmp_path: Path):
    (tmp_path / "nb").mkdir()
    (tmp_path / "nb/data.csv").write_text("1")
    made, now = packed(tmp_path / "nb"), time.monotonic()
    link: Any = SimpleNamespace(stored={made.bundle: now})
    assert not is_sent(made, link), "the workspace is on its way"
    link.stored[made.package] = now - STORED_SECONDS
    assert not is_sent(made, link), "that was long ago"
    link.stored[made.package] = now
    assert is_sent(made, link)
