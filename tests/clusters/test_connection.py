"""The connection file: complete, private, and refused where others could have touched it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from jupyter_rayoffload.clusters.connection import Connection, read_connection, write_private
from jupyter_rayoffload.errors import ClusterRefused, FormatMismatch
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase
from jupyter_rayoffload.remote import connection as remote
from jupyter_rayoffload.remote.store import StoreAddress


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    info = ClusterInfo(kind="embedded", phase=ClusterPhase.RUNNING, address="http://127.0.0.1:1", session="s")
    return Connection(
        info=info.replace(python="3.11", ray="2.60.0", resources={"CPU": 2.0}),
        store=StoreAddress(url="redis://127.0.0.1:2", username="u", password="pass-word"),
        owner="ada",
        key=bytes(range(32)),
        file=tmp_path / "run" / "connection.json",
        ray_token="to-ken",
        gcs="127.0.0.1:3",
    )


def test_it_is_read_as_it_was_written(connection: Connection) -> None:
    connection.write()
    assert read_connection(connection.file) == connection
    assert stat.S_IMODE(connection.file.stat().st_mode) == 0o600
    assert os.listdir(connection.file.parent) == ["connection.json"]


def test_a_runner_reads_the_same_file(connection: Connection) -> None:
    connection.write()
    there = remote.read_connection(str(connection.file))
    assert (there.owner, there.key, there.address) == ("ada", connection.key, connection.store)


def test_no_secret_in_its_repr(connection: Connection) -> None:
    text = repr(connection) + str(connection)
    assert not [s for s in ("to-ken", "pass-word", connection.key.hex(), repr(connection.key)) if s in text]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_file_that_is_open_to_others_is_refused(connection: Connection, mode: int) -> None:
    connection.write()
    connection.file.chmod(mode)
    with pytest.raises(ClusterRefused, match=f"is open to others .mode 0{mode:o}.*chmod 600"):
        read_connection(connection.file)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(connection: Connection) -> None:
    connection.write()
    os.chown(connection.file, 12345, 0)
    with pytest.raises(ClusterRefused, match="belongs to user 12345"):
        read_connection(connection.file)


@pytest.mark.parametrize("change", [{"version": 2}, {"key": "xyz"}, {"store": {}}, {"ray": None}])
def test_what_it_cannot_read_it_says(connection: Connection, change: dict[str, object]) -> None:
    write_private(connection.file, json.dumps({**connection.to_json(), **change}))
    with pytest.raises(FormatMismatch, match="is not a connection file that this version can read"):
        read_connection(connection.file)


def test_half_a_file_is_never_seen(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_private(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "new \ud800")
    assert file.read_text() == "old" and os.listdir(tmp_path) == ["file"]
