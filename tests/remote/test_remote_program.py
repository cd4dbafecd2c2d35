"""What a program uses: its input and output, without the store and without pickles."""

from __future__ import annotations

import json

import pytest

from jupyter_rayoffload.remote.program import read_input, write_output


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYOFFLOAD_OUTPUT", str(tmp_path))
    monkeypatch.delenv("RAYOFFLOAD_INPUT", raising=False)
    return tmp_path


def test_no_input_is_none():
    assert read_input() is None


def test_json_and_bytes_in(folder, monkeypatch):
    (folder / "input.json").write_text('{"a": [1, null]}')
    monkeypatch.setenv("RAYOFFLOAD_INPUT", str(folder / "input.json"))
    assert read_input() == {"a": [1, None]}
    (folder / "input.bin").write_bytes(b"\x80\x05raw")
    monkeypatch.setenv("RAYOFFLOAD_INPUT", str(folder / "input.bin"))
    assert read_input() == b"\x80\x05raw"


def test_the_last_output_counts(folder):
    write_output({"a": 1})
    write_output(b"bytes")
    assert sorted(p.name for p in folder.iterdir()) == ["output.bin"]
    write_output([1])
    assert json.loads((folder / "output.json").read_text()) == [1]
    assert sorted(p.name for p in folder.iterdir()) == ["output.json"]


def test_what_is_neither_is_refused_and_leaves_nothing(folder):
    with pytest.raises(TypeError):
        write_output(object())
    assert list(folder.iterdir()) == []
