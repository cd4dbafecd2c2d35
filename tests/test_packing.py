"""What is packed with a job."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.course import Draft
from jupyter_rayoffload.models import JobSpec
from jupyter_rayoffload.packing import Packed, pack
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
