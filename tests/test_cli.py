"""The terminal's tool, without a cluster: its words, and what goes where."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyter_rayoffload import api, cli, cluster_verbs
from jupyter_rayoffload import session as sessions
from jupyter_rayoffload.clusters.connection import Connection
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.errors import ClusterError, JobNotFound, UsageError
from jupyter_rayoffload.models import ClusterInfo
from jupyter_rayoffload.remote.store import StoreAddress


def test_a_detached_run_prints_the_id_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = SimpleNamespace(id="train-3fbc0e", record=SimpleNamespace(attempt=1), done=lambda: False)
    monkeypatch.setattr(api, "submit_program", lambda *args, **options: job)
    assert cli.main(["run", "--detach", "true"]) == 0
    assert capsys.readouterr() == ("train-3fbc0e\n", "")


def test_a_run_over_many_items_is_one_job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []

    def submit_program(command: Any, **options: Any) -> SimpleNamespace:
        asked.append((command, options))
        return SimpleNamespace(id="train-3fbc0e", record=SimpleNamespace(attempt=1), done=lambda: False)

    monkeypatch.setattr(api, "submit_program", submit_program)
    line = ["run", "--detach", "--map", "seed=[n * n for n in range(3)]", "--max-parallel", "2"]
    assert cli.main([*line, "--retries", "1", "python", "train.py", "--seed", "{seed}"]) == 0
    [(command, options)] = asked
    assert command == ["python", "train.py", "--seed", "{seed}"]
    assert options["inputs"] == {"seed": [0, 1, 4]}
    assert (options["max_parallel"], options["retries"]) == ("2", "1")
    capsys.readouterr()
    for wrong, said in {
        "seed": "--map seed: expected NAME=EXPR",
        "a b=[1]": "--map a b=[1]: expected NAME=EXPR; 'a b' is not a name",
        "seed=nowhere": "NameError: name 'nowhere' is not defined",
        "seed=5": "an int has no items",
    }.items():
        assert cli.main(["run", "--map", wrong, "true"]) == 2
        assert said in capsys.readouterr().err
    assert cli.main(["run", "--max-parallel", "2", "true"]) == 2
    assert "--max-parallel is for batches. Add --map NAME=EXPR" in capsys.readouterr().err
    assert len(asked) == 1


@pytest.mark.parametrize("count", ["-1", "0", "many", "1.5"])
def test_a_number_of_jobs_is_one_or_more(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["jobs", "-n", count])
    assert caught.value.code == 2
    assert f"{count!r}: expected a whole number, one or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            JobNotFound("there is no job 'x'", "%ray jobs lists those that are kept"),
            "JobNotFound: there is no job 'x'. jupyter rayoffload jobs lists those that are kept",
        ),
        (
            UsageError("%ray cluster down would end 1 running job: x", "Or say %ray cluster down --force"),
            "jupyter rayoffload cluster down would end 1 running job: x. "
            "Or say jupyter rayoffload cluster down --force",
        ),
        (
            ClusterError("nobody answers", "See %ray, and %ray rerun x in a notebook"),
            "ClusterError: nobody answers. See jupyter rayoffload cluster, and %ray rerun x in a notebook",
        ),
    ],
)
def test_errors_name_the_verbs_of_the_terminal(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def attach(job_id: str) -> None:
        raise error

    monkeypatch.setattr(api, "attach", attach)
    assert cli.main(["attach", "x"]) in (1, 2)
    assert capsys.readouterr() == ("", f"{said}\n")


def test_a_size_is_chosen_as_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []
    verbs = {"up": lambda here, words: asked.append(words), "down": lambda here, words: asked.append(words)}
    monkeypatch.setattr(cluster_verbs, "CLUSTER_VERBS", verbs)
    for line in ("up", "up --profile large workers=4", "down --force", "--force down", "down --cluster big"):
        assert cli.main(["cluster", *line.split()]) == 0
    assert asked == [
        [],
        ["--profile", "large", "workers=4"],
        ["--force"],
        ["--force"],
        ["--cluster", "big"],
    ]


def test_profiles_are_listed_in_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profiles = RayOffload(
        profiles=[{"name": "small", "title": "Small", "caps": {"cpus": 8}}]
    ).cluster_profiles()
    monkeypatch.setattr(sessions, "session", lambda: SimpleNamespace(profiles=lambda: profiles))
    assert cli.main(["profiles"]) == 0
    assert capsys.readouterr().out == "small (default): Small\n    In all at most 8 CPUs\n"
    monkeypatch.setattr(sessions, "session", lambda: SimpleNamespace(profiles=lambda: ()))
    assert cli.main(["profiles"]) == 0
    assert "The embedded cluster has no profiles" in capsys.readouterr().out


def test_a_store_that_does_not_answer_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def attach(job_id: str) -> SimpleNamespace:
        time.sleep(0.5)
        return SimpleNamespace(logs=lambda: "line 1")

    monkeypatch.setattr(api, "attach", attach)
    monkeypatch.setattr(cli, "SLOW_SECONDS", 0.05)
    for silent, said in ((True, "The store does not answer, trying again\n"), (False, "")):
        monkeypatch.setattr(cli, "_store_is_silent", lambda silent=silent: silent)
        assert cli.main(["logs", "x"]) == 0
        assert capsys.readouterr() == ("line 1\n", said)


def test_a_frozen_store_is_silent_and_one_that_is_not_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "connection.json"
    monkeypatch.setenv("RAYOFFLOAD_CONNECTION_FILE", str(file))
    monkeypatch.setattr(cli, "SLOW_SECONDS", 0.2)
    assert not cli._store_is_silent()
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # it lets one in, and says nothing
        url = f"redis://127.0.0.1:{frozen.getsockname()[1]}"
        Connection(ClusterInfo(address="http://x"), StoreAddress(url), "me", bytes(32), file).write()
        assert cli._store_is_silent()
