"""Files of items that run on other nodes: what comes into the runner's folder, what is told of the rest."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from jupyter_rayoffload.remote.elsewhere import TWICE, Harvest, Outpost
from jupyter_rayoffload.remote.files import LISTED, BadPackage, Folder

LIMITS = (1000, 5000)


class Place:
    """A node with a working folder of the same package."""

    def __init__(self, root: Path, name: str) -> None:
        self.home = root / name
        (self.home / "work").mkdir(parents=True)
        package = root / "package.zip"
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("data.csv", "a,b\n")
        self.folder = Folder(self.home / "work")
        self.folder.unpack(package)

    def write(self, path: str, text: str) -> None:
        target = self.folder.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def read(self, path: str) -> str:
        return (self.folder.root / path).read_text()


class Ground:
    """A runner, and processes on two other nodes."""

    def __init__(self, root: Path, fetch: tuple[str, ...] = ()) -> None:
        self.runner, self.one, self.two = (Place(root, name) for name in ("runner", "one", "two"))
        self.harvest = Harvest(self.runner.folder, self.runner.home, LIMITS)
        self.posts = {p: Outpost(p.folder, p.home, fetch) for p in (self.one, self.two)}

    def chunk(self, place: Place) -> dict[str, Any] | None:
        """End a chunk there."""
        came = self.posts[place].changed(self.harvest.limits)
        if came:
            self.harvest.add(came)
        assert sorted(p.name for p in place.home.iterdir()) == ["work"]
        assert sorted(p.name for p in self.runner.home.iterdir()) == ["work"]
        return came

    def listed(self) -> dict[str, tuple[str, str]]:
        """Give what the job's end says of its files."""
        files = self.runner.folder.changes((), *LIMITS).files
        return {f["path"]: (f["state"], f.get("reason", "")) for f in files}


def test_each_chunk_brings_what_it_made_and_changed(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    assert ground.chunk(ground.one) is None
    ground.one.write("out/1.txt", "one")
    ground.one.write("data.csv", "a,b\n1,2\n")
    (ground.one.folder.root / "empty").mkdir()
    ground.chunk(ground.one)
    ground.two.write("out/2.txt", "two")
    came = ground.chunk(ground.two)
    assert came is not None
    assert [f["path"] for f in came["files"]] == ["out/2.txt"]
    assert ground.chunk(ground.one) is None, "what has come does not come again"
    ground.one.write("out/1.txt", "one more")
    came = ground.chunk(ground.one)
    assert came is not None
    assert [f["path"] for f in came["files"]] == ["out/1.txt"]
    assert ground.runner.read("out/1.txt") == "one more"
    assert ground.runner.read("out/2.txt") == "two"
    assert ground.runner.read("data.csv") == "a,b\n1,2\n"
    fetched = ("fetched", "")
    assert ground.listed() == {
        "data.csv": fetched,
        "empty/": fetched,
        "out/1.txt": fetched,
        "out/2.txt": fetched,
    }


def test_what_is_too_large_stays_there_and_is_named(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.one.write("big.bin", "x" * 1001)
    ground.chunk(ground.one)
    [(path, (state, reason))] = ground.listed().items()
    assert (path, state) == ("big.bin", "there")
    assert "--fetch 'big.bin' brings it" in reason
    assert not (ground.runner.folder.root / "big.bin").exists()
    ground.one.write("big.bin", "small now")
    ground.chunk(ground.one)
    assert ground.listed() == {"big.bin": ("fetched", "")}


def test_what_was_asked_for_comes_whatever_its_size(tmp_path: Path) -> None:
    ground = Ground(tmp_path, fetch=("*.bin",))
    ground.one.write("big.bin", "x" * 9000)
    ground.chunk(ground.one)
    assert ground.runner.read("big.bin") == "x" * 9000
    ground.two.write("small.txt", "x")
    ground.chunk(ground.two)
    assert ground.listed()["small.txt"][0] == "there", "the room is used up"


def test_all_chunks_share_the_room(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    for number in range(8):
        ground.one.write(f"{number}.txt", "x" * 900)
        ground.chunk(ground.one)
    states = [state for state, _ in ground.listed().values()]
    assert states == ["fetched"] * 5 + ["there"] * 3


@pytest.mark.parametrize("first", ["one", "runner"])
def test_two_that_write_the_same_path_are_told_of(
    tmp_path: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ground = Ground(tmp_path)
    for place, text in ((getattr(ground, first), "first"), (ground.two, "second")):
        place.write("log.txt", text)
        place.write("same.txt", "the same everywhere")
        if place in ground.posts:
            ground.chunk(place)
    assert ground.runner.read("log.txt") == "first"
    assert ground.listed() == {"log.txt": ("fetched", TWICE), "same.txt": ("fetched", "")}
    assert capsys.readouterr().err == f"log.txt: {TWICE}\n"
    ground.two.write("log.txt", "third")
    ground.chunk(ground.two)
    assert ground.runner.read("log.txt") == "first"
    assert capsys.readouterr().err == "", "once is enough"


def test_what_the_runners_node_wrote_into_a_file_that_came_is_not_lost(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.one.write("log.txt", "one\n")
    ground.chunk(ground.one)
    ground.runner.write("log.txt", "one\nrunner\n")
    ground.one.write("log.txt", "one\nagain\n")
    ground.chunk(ground.one)
    assert ground.runner.read("log.txt") == "one\nrunner\n"
    assert ground.listed() == {"log.txt": ("fetched", TWICE)}


def test_a_file_that_has_no_place_here_is_named(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.runner.write("out", "a file")
    ground.one.write("out/1.txt", "in a folder")
    ground.chunk(ground.one)
    assert ground.listed()["out/1.txt"][0] == "there"
    assert "there is no place for it" in ground.listed()["out/1.txt"][1]


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("../evil.txt", "x")
    files = [{"path": "../evil.txt", "size": 1, "state": "fetched"}]
    with pytest.raises(BadPackage):
        ground.harvest.add({"place": "x", "files": files, "more": 0, "archive": archive.read_bytes()})
    assert not os.path.lexists(ground.runner.home / "evil.txt")


def test_no_end_names_more_files_than_a_record_bears(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    for number in range(LISTED + 5):
        ground.one.write(f"{number}.bin", "")
        os.truncate(ground.one.folder.root / f"{number}.bin", 2000)
    for _ in range(2):
        ground.chunk(ground.one)
        changes = ground.runner.folder.changes((), *LIMITS)
        assert (len(changes.files), changes.more) == (LISTED, 5)
