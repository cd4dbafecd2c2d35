"""The terminal's tool, without a cluster: its words, and what goes where."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jupyter_rayoffload import api, cli
from jupyter_rayoffload.errors import ClusterError, JobNotFound, UsageError


def test_a_detached_run_prints_the_id_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = SimpleNamespace(id="train-3fbc0e", record=SimpleNamespace(attempt=1), done=lambda: False)
    monkeypatch.setattr(api, "submit_program", lambda *args, **options: job)
    assert cli.main(["run", "--detach", "true"]) == 0
    assert capsys.readouterr() == ("train-3fbc0e\n", "")


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
