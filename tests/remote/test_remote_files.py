"""The private folder: unpacked safely, compared honestly."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.remote.files import LISTED, BadPackage, Folder, _matches


def pack(path: Path, files: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (modes or {}).get(name, 0o100644) << 16
            archive.writestr(info, data)
    return path


@pytest.fixture
def folder(tmp_path) -> Folder:
    (tmp_path / "work").mkdir()
    return Folder(tmp_path / "work")


@pytest.fixture
def filled(folder, tmp_path) -> Folder:
    files = {"a.txt": b"a", "run.sh": b"#!/bin/sh\n", "sub/deep/b.bin": bytes(1000), "empty/": b""}
    folder.unpack(pack(tmp_path / "p.zip", files, {"run.sh": 0o100755, "empty/": 0o040755}))
    return folder


def test_unpacks_with_modes_and_folders(filled):
    assert (filled.root / "sub/deep/b.bin").read_bytes() == bytes(1000)
    assert stat.S_IMODE((filled.root / "run.sh").stat().st_mode) == 0o755
    assert (filled.root / "empty").is_dir()
    assert filled.changes().files == [] and filled.changes().deleted == []


@pytest.mark.parametrize("name", ["../out.txt", "/etc/passwd", "a/../../b", "..", "a\\..\\b"])
def test_an_entry_outside_is_refused_and_nothing_is_written(folder, tmp_path, name):
    package = pack(tmp_path / "p.zip", {"good.txt": b"x", name: b"evil"})
    with pytest.raises(BadPackage, match="outside its folder"):
        folder.unpack(package)
    assert list(folder.root.iterdir()) == []
    assert not (tmp_path / "out.txt").exists()


def test_a_link_in_a_package_is_refused(folder, tmp_path):
    package = pack(tmp_path / "p.zip", {"link": b"/etc"}, {"link": stat.S_IFLNK | 0o777})
    with pytest.raises(BadPackage, match="neither file nor folder"):
        folder.unpack(package)


def test_what_is_no_zip_is_refused(folder, tmp_path):
    (tmp_path / "p.zip").write_bytes(b"not a zip")
    with pytest.raises(BadPackage, match="not a zip"):
        folder.unpack(tmp_path / "p.zip")


@given(name=st.text(st.sampled_from("ab./\\"), min_size=1, max_size=8))
def test_no_name_leads_out(tmp_path_factory, name):
    base = tmp_path_factory.mktemp("any")
    (base / "work").mkdir()
    try:
        Folder(base / "work").unpack(pack(base / "p.zip", {name: b"x"}))
    except (BadPackage, OSError):
        pass
    assert sorted(p.name for p in base.iterdir()) == ["p.zip", "work"]


def test_made_changed_deleted(filled):
    root = filled.root
    (root / "a.txt").write_text("b")  # same size
    (root / "new").mkdir()
    (root / "new/made.csv").write_text("1,2")
    (root / "run.sh").unlink()
    os.utime(root / "sub/deep/b.bin")  # touched only
    changes = filled.changes()
    assert changes.files == [
        {"path": "a.txt", "size": 1, "state": "fetched"},
        {"path": "new/made.csv", "size": 3, "state": "fetched"},
    ]
    assert changes.travel == ["a.txt", "new/made.csv"]
    assert changes.deleted == ["run.sh"]


def test_caches_links_and_pipes_are_passed_over(folder, tmp_path):
    root = folder.root
    (root / "__pycache__").mkdir()
    (root / "__pycache__/m.pyc").write_text("x")
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints/n.ipynb").write_text("x")
    (tmp_path / "secret").write_text("x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "fifo")
    assert folder.changes().files == []


def test_new_empty_folders_are_named_and_come_along(filled, tmp_path):
    root = filled.root
    (root / "emp/inner").mkdir(parents=True)
    (root / "full").mkdir()
    (root / "full/a.txt").write_text("x")
    (root / "cached/__pycache__").mkdir(parents=True)
    (root / "linked").mkdir()
    (root / "linked/up").symlink_to(root)
    (root / "sub/deep/b.bin").unlink()  # leaves a folder empty that was not made by the cell
    changes = filled.changes(total_limit=1)
    assert changes.files == [
        {"path": "cached/", "size": 0, "state": "fetched"},
        {"path": "emp/inner/", "size": 0, "state": "fetched"},
        {"path": "full/a.txt", "size": 1, "state": "fetched"},
        {"path": "linked/", "size": 0, "state": "fetched"},
    ]
    filled.pack(changes.travel, tmp_path / "back.zip")
    (tmp_path / "again").mkdir()
    again = Folder(tmp_path / "again")
    again.unpack(tmp_path / "back.zip")
    assert (again.root / "emp/inner").is_dir()
    assert again.changes().files == []


def test_limits_and_patterns(folder):
    for name, size in (("big.bin", 200), ("out/model.bin", 300), ("s1", 60), ("s2", 60)):
        path = folder.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(size))
    changes = folder.changes(["out/*"], file_limit=100, total_limit=100)
    assert changes.travel == ["out/model.bin", "s1"]
    states = {f["path"]: (f["state"], f.get("reason", "")) for f in changes.files}
    assert states["big.bin"][0] == "there" and "--fetch 'big.bin'" in states["big.bin"][1]
    assert states["s2"][0] == "there" and "too many" in states["s2"][1]
    assert states["out/model.bin"] == ("fetched", "")


def test_many_files_are_counted_and_not_all_named(folder, monkeypatch):
    monkeypatch.setattr("jupyter_rayoffload.remote.files.LISTED", 10)
    for i in range(15):
        (folder.root / f"f{i:02}").write_text("x")
    changes = folder.changes()
    assert len(changes.files) == 10 and changes.more == 5
    assert LISTED >= 1000


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("out/a.csv", "out/*.csv", True),
        ("out/deep/a.csv", "out/*.csv", False),
        ("out/deep/a.csv", "out/**/*.csv", True),
        ("out/a.csv", "out/**/*.csv", True),
        ("a.csv", "*.csv", True),
        ("out/a.csv", "*.csv", False),
        ("out/deep/a.csv", "out", True),
        ("out/deep/a.csv", "out/", True),
        ("x/y/z.pt", "**/*.pt", True),
        ("z.pt", "**", True),
        ("outer/a", "out", False),
    ],
)
def test_patterns_are_those_of_a_shell(path, pattern, matches):
    assert _matches(path, pattern) is matches


def test_a_file_older_than_zip_travels(filled, tmp_path):
    """Archives made to be reproducible unpack to files of 1970, before the first date that a zip can say."""
    os.utime(filled.root / "a.txt", (0, 0))
    filled.pack(["a.txt"], tmp_path / "back.zip")
    with zipfile.ZipFile(tmp_path / "back.zip") as archive:
        assert archive.read("a.txt") == b"a"


def test_packs_what_travels(filled, tmp_path):
    filled.pack(["a.txt", "sub/deep/b.bin"], tmp_path / "back.zip")
    (tmp_path / "again").mkdir()
    again = Folder(tmp_path / "again")
    again.unpack(tmp_path / "back.zip")
    assert (again.root / "sub/deep/b.bin").read_bytes() == bytes(1000)
