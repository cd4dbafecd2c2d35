from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_rayoffload import archive
from jupyter_rayoffload.errors import WorkspaceError, WorkspaceTooLarge
from jupyter_rayoffload.ignore import Rules, holds_private_key
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.workspace import Limits, Snapshot, choose_root, preflight, snapshot, without_folder

SIGNER = Signer(bytes(range(32)))
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx1x2x3x4x5x6x7x8x9x0\n-----END RSA PRIVATE KEY-----\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def write(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def aged(root: Path, seconds: float = 60) -> None:
    """Set the times of all files back; that they were set now shows in their ctime."""
    for path in root.rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def paths(shot: Snapshot) -> list[str]:
    return [entry.path for entry in shot.files]


def take(root: Path, cache: Path, **kwargs) -> Snapshot:
    return snapshot(root, cache_dir=cache, signer=SIGNER, **kwargs)


# ---------------------------------------------------------------------- which files


def test_defaults_stay_and_can_be_brought_back(root: Path, cache: Path):
    write(
        root,
        {
            "main.py": "1",
            "nb.ipynb": "{}",
            "keep.ipynb": "{}",
            ".git/HEAD": "x",
            "a/__pycache__/m.pyc": "x",
            "env/pyvenv.cfg": "",
            "env/lib/x.py": "",
            "conda/conda-meta/history": "",
            "node_modules/x/y.js": "",
            ".rayignore": "!keep.ipynb\n",
        },
    )
    shot = take(root, cache)
    assert paths(shot) == [".rayignore", "keep.ipynb", "main.py"]
    assert shot.excluded == {
        ".git/": "by default",
        "a/__pycache__/": "by default",
        "conda/": "an environment",
        "env/": "an environment",
        "nb.ipynb": "by default",
        "node_modules/": "by default",
    }
    assert shot.folders == ("a",)


def test_ignore_files_at_every_level_and_who_wins(root: Path, cache: Path):
    write(
        root,
        {
            ".gitignore": "*.csv\n/data\n",
            ".rayignore": "!keep.csv\n*.tmp\n",
            "keep.csv": "",
            "drop.csv": "",
            "data/x": "",
            "sub/data/x": "",
            "sub/.gitignore": "x\n!y.csv\n",
            "sub/y.csv": "",
            "sub/keep.csv": "",
            "sub/a.tmp": "",
            "out/b": "",
        },
    )
    shot = take(root, cache, exclude=["out/", "!drop.csv"])
    assert [p for p in paths(shot) if "ignore" not in p] == [
        "drop.csv",
        "keep.csv",
        "sub/keep.csv",
        "sub/y.csv",
    ]
    assert shot.excluded == {
        "data/": ".gitignore",
        "out/": "--exclude",
        "sub/a.tmp": ".rayignore",
        "sub/data/x": "sub/.gitignore",
    }


NAMES = st.sampled_from(["a", "b", "ab", "a.log", "b.log", ".a", "a b", "#a", "A"])
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)
SEGMENTS = st.sampled_from(
    ["a", "b", "*", "**", "*.log", "a*", "?", "[ab]", "[!a]", ".a", "a b", "\\#a", "*b", "A"]
)
PATTERNS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/"]),
    st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "", "/"]),
    st.sampled_from(["", " "]),
)
IGNORES = st.lists(PATTERNS | st.sampled_from(["", "# a", "#a"]), max_size=6)


@pytest.mark.skipif(not shutil.which("git"), reason="git is the oracle")
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, ignores=st.dictionaries(st.sampled_from(["", "a", "b", "a/b"]), IGNORES, max_size=3))
def test_git_says_the_same(tmp_path: Path, tree: list[str], ignores: dict[str, list[str]]):
    root = tmp_path / "oracle"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path in tree:
        try:
            write(root, {path: "x"})
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # one path is a file and a folder in this example
    for folder, lines in ignores.items():
        if (root / folder).is_dir():
            write(root, {f"{folder}/.gitignore".lstrip("/"): "\n".join(lines) + "\n"})
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DIR": str(root / ".git"),
    }
    subprocess.run(["git", "init", "-q", "."], cwd=root, env={**env, "GIT_WORK_TREE": str(root)}, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-per-directory=.gitignore"],
        cwd=root, env={**env, "GIT_WORK_TREE": str(root)}, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    shot = take(root, tmp_path / "cache")
    assert sorted(paths(shot)) == sorted(p for p in listed if p)


def test_index_of_patterns_changes_no_answer():
    lines = ["*.tar.gz", "a[.]b", "*.py[cod]", "x.*", "*", "!*.txt", "lit"]
    for name, stays in [("q.txt", False), ("x.txt", False), ("lit", True), ("a.b", True), ("m.pyc", True)]:
        says = Rules(lines).match(f"d/{name}", name, False)
        assert says is not None and says.stays is stays
    assert Rules(lines[:4]).match("d/b.gz", "b.gz", False) is None
    assert Rules(["trailing\\", "!", "ok"]).match("ok", "ok", False)  # invalid ones are skipped


@pytest.mark.parametrize("file", [".gitignore", ".rayignore"])
def test_list_of_what_travels_brings_no_secrets_and_caches(root: Path, cache: Path, file: str):
    write(
        root,
        {
            file: "*\n!*/\n!*.py\n!*.key\n",
            "a.py": "",
            "b.csv": "",
            "sub/c.py": "",
            ".git/d.py": "",
            ".aws/e.py": "",
            ".env": "",
            "s.key": "",
        },
    )
    shot = take(root, cache)
    assert paths(shot) == ["a.py", *(["s.key"] if file == ".rayignore" else []), "sub/c.py"]
    assert ".git/" in shot.excluded and ".aws/" in shot.left_behind


# ---------------------------------------------------------------------- secrets


def test_secrets_stay_and_are_named(root: Path, cache: Path):
    write(
        root,
        {
            ".env": "K=1",
            ".env.local": "",
            ".env.example": "",
            "deep/id_ed25519": "",
            "deep/id_ed25519.pub": "",
            "cert.PEM": "",
            ".aws/credentials": "",
            "x/.docker/config.json": "",
            "notes.txt": PEM,
            "sa.json": '{"type": "x", "private_key": "-----BEGIN PRIVATE KEY-----\\nMII"}',
            "tests/fake.pem": PEM,
            "lint.py": 'MARK = "-----BEGIN RSA PRIVATE KEY-----"\n',
            "id_rsa_tools.py": "",
            ".gitignore": ".env\n",
            ".rayignore": "!tests/fake.pem\n",
        },
    )
    shot = take(root, cache)
    assert shot.left_behind == (
        ".aws/", ".env", ".env.local", "cert.PEM",
        "deep/id_ed25519", "notes.txt", "sa.json", "x/.docker/config.json",
    )  # fmt: skip
    assert "tests/fake.pem" in paths(shot) and "lint.py" in paths(shot) and "id_rsa_tools.py" in paths(shot)
    assert ".env.example" in paths(shot) and "deep/id_ed25519.pub" in paths(shot)


def test_secret_by_content_is_found_again_when_no_longer_allowed(root: Path, cache: Path):
    write(root, {"k.txt": PEM, ".rayignore": "!k.txt\n"})
    aged(root)
    assert "k.txt" in paths(take(root, cache))
    (root / ".rayignore").write_text("")
    assert take(root, cache).left_behind == ("k.txt",)


def test_link_to_a_secret_is_one(root: Path, cache: Path):
    write(root, {".ssh/config": "x", "a.key": "x"})
    (root / "plain").symlink_to(".ssh/config")
    (root / "other").symlink_to("a.key")
    shot = take(root, cache)
    assert shot.left_behind == (".ssh/", "a.key", "other", "plain")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (PEM, True),
        (PEM.replace("\n", "\r\n"), True),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: 1\n\nlQOYBGGxyzxyzxyzxyzxyzxyz\n", True),
        ("-----BEGIN PUBLIC KEY-----\nMIIEowIBAAKCAQEAx1x2x3x4x5\n", False),
        ("-----BEGIN PRIVATE KEY-----\n...\n", False),
        ("x" * 70_000 + "\n" + PEM, False),
    ],
)
def test_private_key_in_content(text: str, secret: bool):
    assert holds_private_key(text.encode()) is secret


# ---------------------------------------------------------------------- links and odd files


def test_links(root: Path, cache: Path, tmp_path: Path):
    (tmp_path / "outside").write_text("x")
    write(root, {"real/a.txt": "content", "real/deep/b.txt": "b"})
    (root / "file").symlink_to("real/a.txt")
    (root / "folder").symlink_to("real")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "gone").symlink_to("nowhere")
    (root / "real" / "loop").symlink_to("..")
    (root / "self").symlink_to("self")
    shot = take(root, cache)
    assert paths(shot) == [
        "file", "folder/a.txt", "folder/deep/b.txt", "real/a.txt", "real/deep/b.txt"
    ]  # fmt: skip
    assert shot.excluded == {
        "folder/loop/": "a link to a folder that it is in",
        "gone": "a link that leads nowhere",
        "out": "a link out of the folder",
        "real/loop/": "a link to a folder that it is in",
        "self": "a link that leads nowhere",
    }
    assert "`out` stays: a link out of the folder" in shot.notes
    shot.zip_to(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as package:
        assert package.read("file") == b"content"
        assert stat.S_ISREG(package.getinfo("file").external_attr >> 16)


def test_links_in_a_ring_end(root: Path, cache: Path):
    write(root, {"a/x": "", "b/y": ""})
    (root / "a" / "to_b").symlink_to("../b")
    (root / "b" / "to_a").symlink_to("../a")
    assert paths(take(root, cache)) == ["a/to_b/y", "a/x", "b/to_a/x", "b/y"]


def test_pipes_and_sockets_are_named_and_never_opened(root: Path, cache: Path):
    write(root, {"a": ""})
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(root)  # the path of a socket is limited to 108 bytes
        try:
            server.bind("sock")
        finally:
            os.chdir(before)
        shot = take(root, cache)
    assert shot.excluded == {"pipe": "a pipe", "sock": "a socket"}


def test_names_that_cannot_travel(root: Path, cache: Path):
    write(root, {"back\\slash": "", "c:x/y": "", "täglich ✓": ""})
    (Path(os.fsdecode(os.fsencode(root) + b"/bad\xff"))).write_text("")
    shot = take(root, cache)
    assert paths(shot) == ["täglich ✓"]
    assert set(shot.excluded.values()) == {"Ray does not unpack such a name", "its name is not UTF-8"}


UNREADABLE = """
import os, sys
from jupyter_rayoffload.remote.signing import Signer
from jupyter_rayoffload.workspace import snapshot

os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)  # root reads everything
for exclude in ([], ["closed"], ["shut/", "closed"]):
    try:
        shot = snapshot(".", exclude=exclude, cache_dir="cache", signer=Signer(bytes(32)))
        print([entry.path for entry in shot.files])
    except Exception as error:
        print(error)
"""


def test_what_cannot_be_read_is_an_error_that_names_it():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root, {"sub/closed": "x", "shut/x": "", "open": ""})
        (root / "sub" / "closed").chmod(0)
        (root / "shut").chmod(0)
        root.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", UNREADABLE, name], capture_output=True, text=True, check=True
        )
        (root / "shut").chmod(0o700)
    lines = done.stdout.splitlines()
    for line, path in zip(lines, ("shut/", "shut/"), strict=False):
        assert line.startswith(
            f"{path} cannot be read: Permission denied. Leave it out with --exclude '{path}'"
        )
    assert lines[2] == "['open']"


def test_no_folder(tmp_path: Path, cache: Path):
    with pytest.raises(WorkspaceError, match="nope is not a folder"):
        take(tmp_path / "nope", cache)


# ---------------------------------------------------------------------- digest


CONTENTS = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c", "xy"]), min_size=1, max_size=3).map("/".join),
    st.tuples(st.sampled_from(["", "x", "yz", "z"]), st.booleans()),
    min_size=1,
    max_size=5,
)


def lay(root: Path, tree: dict[str, tuple[str, bool]], order: int = 1) -> dict[str, tuple[str, bool]]:
    """Write a tree, in either order, and give what of it can exist."""
    files = {p: v for p, v in tree.items() if not any(q.startswith(f"{p}/") for q in tree)}
    for path in list(files)[::order]:
        write(root, {path: files[path][0]})
        (root / path).chmod(0o755 if files[path][1] else 0o600)
    return files


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=CONTENTS, two=CONTENTS)
def test_digest_changes_exactly_with_the_content(tmp_path: Path, one, two):
    shots, trees = [], []
    for number, (tree, order) in enumerate([(one, 1), (two, 1), (one, -1)]):
        root = tmp_path / str(number)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        trees.append(lay(root, tree, order))
        shots.append(take(root, tmp_path / "cache"))
    assert (shots[0].digest == shots[1].digest) == (trees[0] == trees[1])
    assert shots[0].digest == shots[2].digest


def test_digest_is_keyed_and_sees_empty_folders(root: Path, cache: Path):
    write(root, {"a": "x"})
    first = take(root, cache)
    assert re.fullmatch("[0-9a-f]{64}", first.digest)
    assert snapshot(root, cache_dir=cache, signer=Signer(b"k" * 32)).digest != first.digest
    (root / "out").mkdir()
    second = take(root, cache)
    assert second.folders == ("out",) and second.digest != first.digest
    write(root, {"out/nb.ipynb": "", ".gitignore": "hidden/"})
    (root / "hidden").mkdir()
    assert take(root, cache).folders == ("out",)  # what stays behind neither fills a folder nor is one


# ---------------------------------------------------------------------- stat cache


def settle(root: Path, monkeypatch: pytest.MonkeyPatch, ahead: float = 10.0) -> None:
    """Let the clock of the scan be `ahead` seconds later, as if the files had been left alone that long."""
    now = time.time_ns
    monkeypatch.setattr(archive.time, "time_ns", lambda: now() + int(ahead * 1e9))


def test_unchanged_files_are_not_read_again(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    write(root, {f"f{n}": str(n) for n in range(20)})
    settle(root, monkeypatch)
    first = take(root, cache)
    read = []
    original = archive.read_settled
    monkeypatch.setattr(archive, "read_settled", lambda source: read.append(source) or original(source))
    assert take(root, cache).digest == first.digest
    assert read == []
    (root / "f3").write_text("changed")
    assert take(root, cache).digest != first.digest
    assert [Path(source).name for source in read] == ["f3"]


def test_two_edits_of_equal_size_at_once(root: Path, cache: Path):
    digests = set()
    for number in range(30):
        (root / "m.py").write_text(f"x = {number:02}\n")
        digests.add(take(root, cache).digest)
    assert len(digests) == 30


def test_chmod_is_seen_through_the_cache(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    write(root, {"run.sh": "x"})
    settle(root, monkeypatch)
    first = take(root, cache).digest
    (root / "run.sh").chmod(0o755)
    assert take(root, cache).digest != first


@pytest.mark.parametrize("damage", [b"", b"{}", b"garbage" * 100, None])
def test_damaged_cache_is_an_empty_one(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage):
    write(root, {"a": "x"})
    settle(root, monkeypatch)
    digest = take(root, cache).digest
    (file,) = cache.glob("*.files")
    data = file.read_bytes()
    forged = data.replace(digest_of("x").encode(), digest_of("y").encode())
    assert forged != data
    file.write_bytes(forged if damage is None else damage)
    assert take(root, cache).digest == digest
    assert file.read_bytes() == data


def digest_of(text: str) -> str:
    return SIGNER.digest(text.encode())


def test_cache_that_cannot_be_written(root: Path, tmp_path: Path):
    write(root, {"a": "x"})
    (tmp_path / "file").write_text("")
    assert paths(take(root, tmp_path / "file" / "cache")) == ["a"]


def test_processes_share_a_cache(root: Path, cache: Path):
    write(root, {f"d/f{n}": str(n) for n in range(200)})
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(take(root, cache).digest)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(digests) == 4 and len(set(digests)) == 1


def test_ten_thousand_unchanged_files_are_not_read_again(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in range(10_000):
        folder = root / f"d{number % 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(b"%d" % number)
    settle(root, monkeypatch)
    first = take(root, cache)
    monkeypatch.setattr(archive, "read_settled", lambda source: pytest.fail(f"{source} was read"))
    assert take(root, cache).digest == first.digest


# ---------------------------------------------------------------------- the zip


def test_zip_is_deterministic_and_whole(root: Path, cache: Path, tmp_path: Path):
    write(root, {"b.py": "print(1)" * 50, "a/run.sh": "#!/bin/sh", "x.png": "not really" * 20})
    (root / "a" / "run.sh").chmod(0o744)
    (root / "empty").mkdir()
    told = []
    shot = take(root, cache)
    assert shot.zip_to(tmp_path / "1.zip", lambda *numbers: told.append(numbers)) is shot
    aged(root, 1000)
    take(root, tmp_path / "other").zip_to(tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert told[-1] == (3, 3, shot.size)
    with zipfile.ZipFile(tmp_path / "1.zip") as package:
        infos = {info.filename: info for info in package.infolist()}
        assert list(infos) == ["a/run.sh", "b.py", "x.png", "empty/"]
        assert {i.date_time for i in infos.values()} == {(1980, 1, 1, 0, 0, 0)}
        assert infos["a/run.sh"].external_attr >> 16 == stat.S_IFREG | 0o755
        assert infos["b.py"].external_attr >> 16 == stat.S_IFREG | 0o644
        assert infos["b.py"].compress_type == zipfile.ZIP_DEFLATED
        assert infos["x.png"].compress_type == zipfile.ZIP_STORED
        assert package.testzip() is None


def test_progress_is_told_now_and_then_and_at_the_end(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(root, {f"{n:03}": "x" for n in range(400)})
    times = iter(n * 0.01 for n in range(500))  # a hundred files a second
    told = []
    shot = take(root, cache)
    monkeypatch.setattr(archive.time, "monotonic", lambda: next(times))
    shot.zip_to(tmp_path / "x.zip", lambda *numbers: told.append(numbers))
    assert told[-1] == (400, 400, 400)
    assert 10 < len(told) < 30


def test_file_that_changed_since_the_snapshot(root: Path, cache: Path, tmp_path: Path):
    write(root, {"a": "one", "b": "two"})
    shot = take(root, cache)
    (root / "a").write_text("ONE")
    packed = shot.zip_to(tmp_path / "x.zip")
    assert packed.digest == take(root, cache).digest != shot.digest
    with zipfile.ZipFile(tmp_path / "x.zip") as package:
        assert package.read("a") == b"ONE"
    (root / "b").unlink()
    assert paths(packed.zip_to(tmp_path / "x.zip")) == ["a"]


def test_file_that_never_rests(root: Path, cache: Path, tmp_path: Path):
    write(root, {"quiet": "x", "log.txt": "0" * 20})
    shot, stop = take(root, cache), threading.Event()

    def scribble() -> None:
        while not stop.wait(0.0002):
            with open(root / "log.txt", "a") as file:
                file.write("more" * 1000)

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        with pytest.raises(WorkspaceError, match=r"log.txt changes while it is packed.*--exclude 'log.txt'"):
            for _ in range(20):
                shot = shot.zip_to(tmp_path / "x.zip")
                assert (
                    SIGNER.digest(zipfile.ZipFile(tmp_path / "x.zip").read("log.txt")) == shot.files[0].digest
                )
    finally:
        stop.set()
        thread.join(10)
    assert not list(tmp_path.glob(".x.zip*"))


def test_ray_unpacks_it_as_it_is(root: Path, cache: Path, tmp_path: Path):
    """One folder at the top stays where it is, and modes survive: by Ray's own code."""
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    write(root, {"only/main.py": "x", "only/run.sh": "y"})
    (root / "only" / "run.sh").chmod(0o755)
    (root / "only" / "empty").mkdir()
    take(root, cache).zip_to(tmp_path / "x.zip")

    class KeyValue:
        async def async_internal_kv_get(self, key, namespace, timeout):
            return (tmp_path / "x.zip").read_bytes()

    there = tmp_path / "there"
    there.mkdir()
    unpacked = asyncio.run(
        packaging.download_and_unpack_package(
            "gcs://_ray_pkg_0123.zip", str(there), KeyValue(), logging.getLogger("test")
        )
    )
    assert sorted(p.relative_to(unpacked).as_posix() for p in Path(unpacked).rglob("*")) == [
        "only", "only/empty", "only/main.py", "only/run.sh"
    ]  # fmt: skip
    assert os.access(Path(unpacked, "only", "run.sh"), os.X_OK)
    assert not os.access(Path(unpacked, "only", "main.py"), os.X_OK)


# ---------------------------------------------------------------------- limits and choices


def test_too_many_and_too_large(root: Path, cache: Path):
    write(root, {f"d/f{n:02}": "x" * n for n in range(1, 31)})
    with pytest.raises(WorkspaceTooLarge, match="has 30 files, 465 B, and 29 files, ") as error:
        take(root, cache, limits=Limits(files=29))
    assert "the largest are d/f30 (30 B), d/f29 (29 B)" in error.value.message
    assert error.value.message.count("d/f") == 10
    assert all(word in error.value.hint for word in ("--exclude", ".rayignore", "--workdir", "volume"))
    with pytest.raises(WorkspaceTooLarge, match="has more than 20 files"):
        take(root, cache, limits=Limits(files=4))
    with pytest.raises(WorkspaceTooLarge, match="30 files, 464 B may travel"):
        take(root, cache, limits=Limits(30, 464))
    assert take(root, cache, limits=Limits(30, 465)).size == 465
    assert not cache.exists() or len(list(cache.iterdir())) == 0 or take(root, cache).size == 465


def test_empty_folders_count_and_a_million_of_them_end_the_walk(root: Path, cache: Path):
    write(root, {"a": "xx"})
    for n in range(30):
        (root / f"d{n}" / "inner").mkdir(parents=True)
    with pytest.raises(WorkspaceTooLarge, match="has 1 file, 30 empty folders, 2 B, and 30 files, "):
        take(root, cache, limits=Limits(files=30))
    with pytest.raises(WorkspaceTooLarge, match=r"has more than [01] files?, (20|19) empty folders"):
        take(root, cache, limits=Limits(files=4))
    shot = take(root, cache, limits=Limits(files=31))
    assert len(shot.folders) == 30
    assert preflight(shot).startswith(f"Workspace {root}: 1 file, 30 empty folders, 2 B")


def test_zip_beyond_the_limit(root: Path, cache: Path, tmp_path: Path):
    (root / "x.bin").write_bytes(os.urandom(1000))
    shot = take(root, cache, limits=Limits(bytes=1000))
    with pytest.raises(WorkspaceTooLarge, match=r"kB when packed"):
        shot.zip_to(tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_choose_root(tmp_path: Path):
    home = tmp_path / "people" / "ann"
    project = home / "project"
    (project / "src").mkdir(parents=True)
    assert choose_root(project, home=home) == (project, "")
    for folder in (home, home.parent, Path("/")):
        root, note = choose_root(folder, home=home)
        assert root is None and "only the local modules" in note and "--workdir" in note
    assert choose_root(project, "src", home) == (project / "src", "")
    assert choose_root(project, str(home), home) == (home, "")
    (tmp_path / "link").symlink_to(home)
    assert choose_root(tmp_path / "link", home=home)[0] is None
    with pytest.raises(WorkspaceError, match="--workdir nope: there is no folder"):
        choose_root(project, "nope", home)


def test_note_for_a_folder_that_is_too_large(root: Path, cache: Path):
    write(root, {"a": "xx"})
    with pytest.raises(WorkspaceTooLarge) as error:
        take(root, cache, limits=Limits(bytes=1))
    note = without_folder(error.value)
    assert note.startswith(
        f"Too large: workspace {root} has 1 file, 2 B, and 20,000 files, 1 B may travel, so only"
    )


def test_preflight(root: Path, cache: Path):
    write(
        root,
        {
            "data.bin": "x" * 3400,
            "a.py": "",
            ".env": "",
            "nb.ipynb": "1234",
            "build/x": "12",
            ".gitignore": "build/",
        },
    )
    assert (
        preflight(take(root, cache))
        == f"""\
Workspace {root}: 3 files, 3.41 kB

Largest
    3.4 kB  data.bin
       6 B  .gitignore
       0 B  a.py

Stays because it may hold secrets
  .env
  (!NAME in a .rayignore lets one travel)

Left out
  build/ (.gitignore): 1 file, 2 B
  nb.ipynb (by default): 4 B"""
    )
