"""Files come home, and never over what was changed here meanwhile."""

from __future__ import annotations

import os
import zipfile

import pytest

from jupyter_rayoffload.homecoming import bring_home
from jupyter_rayoffload.models import FileInfo


@pytest.fixture
def world(tmp_path):
    """A folder, the workspace as it was sent, and what came back."""
    folder = tmp_path / "notebook"
    folder.mkdir()

    def make(here: dict[str, str], sent: dict[str, str], came: dict[str, str]):
        for name, text in here.items():
            (folder / name).write_text(text)
        zips = []
        for kind, content in (("sent", sent), ("came", came)):
            zips.append(tmp_path / f"{kind}.zip")
            with zipfile.ZipFile(zips[-1], "w") as archive:
                for name, text in content.items():
                    archive.writestr(name, text)
        files = [FileInfo(name, len(text), "fetched") for name, text in came.items()]
        return folder, bring_home(zips[1], zips[:1], folder, files)

    return make


def test_a_new_file_comes_home_with_its_folder(world):
    folder, files = world({}, {}, {"out/a.csv": "1"})
    assert (folder / "out/a.csv").read_text() == "1"
    assert files[0].state == "fetched"


def test_a_changed_file_is_replaced_where_it_is_as_it_was_sent(world):
    folder, files = world({"a": "old"}, {"a": "old"}, {"a": "new"})
    assert (folder / "a").read_text() == "new"
    assert files[0].state == "fetched"


def test_what_was_changed_here_meanwhile_stays(world):
    folder, files = world({"a": "mine"}, {"a": "old"}, {"a": "new"})
    assert (folder / "a").read_text() == "mine"
    assert files[0].state == "kept here"
    assert "meanwhile" in files[0].reason


def test_a_file_that_was_never_sent_and_is_here_stays(world):
    folder, files = world({"a": "mine"}, {}, {"a": "new"})
    assert (folder / "a").read_text() == "mine"
    assert files[0].state == "kept here"


def test_an_empty_folder_comes_home(world):
    folder, files = world({"taken": "mine"}, {}, {"emp/inner/": "", "taken/": ""})
    assert (folder / "emp/inner").is_dir()
    assert files[0].state == "fetched"
    assert (folder / "taken").read_text() == "mine"
    assert files[1].state == "kept here"


def test_a_folder_that_is_here_already_keeps_what_is_in_it(world, tmp_path):
    (tmp_path / "notebook/out").mkdir()
    (tmp_path / "notebook/out/a").write_text("mine")
    folder, files = world({}, {}, {"out/": ""})
    assert (folder / "out/a").read_text() == "mine"
    assert files[0].state == "fetched"


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "../evil/", "/tmp/evil/"])
def test_no_path_leads_out(world, name):
    folder, files = world({}, {}, {name: "x"})
    assert files[0].state == "there"
    assert not (folder.parent / "evil").exists()


def test_no_link_leads_out(world, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "notebook"
    os.symlink(elsewhere, folder / "out")
    _, files = world({}, {}, {"out/a": "x", "out/b/": "", "out/b/c/": ""})
    assert {f.state for f in files} == {"there"}
    assert not list(elsewhere.iterdir())


def test_the_mode_comes_along(tmp_path):
    came = tmp_path / "came.zip"
    with zipfile.ZipFile(came, "w") as archive:
        info = zipfile.ZipInfo("run.sh")
        info.external_attr = 0o100755 << 16
        archive.writestr(info, "#!/bin/sh")
    bring_home(came, [], tmp_path, [FileInfo("run.sh", 9, "fetched")])
    assert os.access(tmp_path / "run.sh", os.X_OK)


def test_what_was_laid_over_the_workspace_was_not_changed_here(tmp_path):
    """A job that waited for another one changes that one's file, which has come home meanwhile."""
    zips = []
    for text in ("as sent", "by the first job", "by the second job"):
        zips.append(tmp_path / f"{len(zips)}.zip")
        with zipfile.ZipFile(zips[-1], "w") as archive:
            archive.writestr("a.txt", text)
    folder = tmp_path / "notebook"
    folder.mkdir()
    for here, after in [
        ("as sent", "by the second job"),
        ("by the first job", "by the second job"),
        ("mine", "mine"),
    ]:
        (folder / "a.txt").write_text(here)
        (file,) = bring_home(zips[2], zips[:2], folder, [FileInfo("a.txt", 17, "fetched")])
        assert (folder / "a.txt").read_text() == after
        assert file.state == ("kept here" if here == "mine" else "fetched")
