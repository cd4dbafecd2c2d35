"""The reducer, as a table: what each witness says, in which phase, gives what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.models import JobRecord, JobSpec, Phase, Value, ValueState
from jupyter_rayoffload.phase import Event, advance


def course(*events: tuple[str, dict]) -> JobRecord:
    record = JobRecord(JobSpec(id="fit-1"))
    for at, (kind, content) in enumerate(events):
        record = advance(record, Event(kind, float(at), content))
    return record


def begin(name):
    return ("step", {"name": name, "state": "begin"})


def end(name, note=""):
    return ("step", {"name": name, "state": "end", "note": note})


#: What Ray 2.60 says of a job whose worker pod was deleted.
NODE_DIED = (
    "ip: 10.220.0.22 The actor died because its node has died. Node Id: e3cc3b52 the actor's node was "
    "terminated unexpectedly: health check failed due to missing too many heartbeats."
)
RUNNING = ("phase", {"phase": "running"})
SENT = ("submitted", {"attempt": 1})
UNTIL_QUEUED = [
    begin("cluster"),
    begin("workspace"),
    end("cluster"),
    end("workspace"),
    begin("inputs"),
    end("inputs"),
    begin("queued"),
    SENT,
]


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ([], Phase.PACKAGING),
        ([begin("cluster")], Phase.STARTING_CLUSTER),
        ([begin("cluster"), begin("workspace")], Phase.PACKAGING),
        ([begin("cluster"), begin("workspace"), end("workspace")], Phase.STARTING_CLUSTER),
        (UNTIL_QUEUED[:5], Phase.UPLOADING),
        (UNTIL_QUEUED, Phase.PENDING),
        ([*UNTIL_QUEUED[:6], ("chained", {"reason": "Waits for `m` from job fit"})], Phase.PENDING),
        ([*UNTIL_QUEUED, RUNNING], Phase.RUNNING),
        ([*UNTIL_QUEUED, RUNNING, ("phase", {"phase": "succeeded", "exit_code": 0})], Phase.SUCCEEDED),
        ([*UNTIL_QUEUED, RUNNING, ("phase", {"phase": "failed"})], Phase.FAILED),
        ([*UNTIL_QUEUED, RUNNING, ("ray", {"status": "RUNNING"})], Phase.RUNNING),
        ([*UNTIL_QUEUED, RUNNING, ("ray", {"status": "STOPPED"})], Phase.CANCELLED),
        ([*UNTIL_QUEUED, RUNNING, ("ray", {"status": "SUCCEEDED"})], Phase.FAILED),
        ([*UNTIL_QUEUED, RUNNING, ("ray", {"status": "FAILED", "exit_code": 137})], Phase.FAILED),
        ([*UNTIL_QUEUED, RUNNING, ("gone", {})], Phase.LOST),
        ([*UNTIL_QUEUED, ("cancelled", {})], Phase.CANCELLED),
        ([*UNTIL_QUEUED, ("failed", {"failure": {"reason": "StoreFull"}})], Phase.FAILED),
        ([*UNTIL_QUEUED, RUNNING, ("phase", {"phase": "failed"}), ("again", {})], Phase.PENDING),
    ],
)
def test_phase_after(events, phase):
    assert course(*events).phase is phase


def test_an_end_is_never_taken_back_but_by_a_retry():
    done = course(*UNTIL_QUEUED, RUNNING, ("phase", {"phase": "succeeded"}))
    for late in (("ray", {"status": "FAILED"}), ("gone", {}), ("cancelled", {}), RUNNING, begin("inputs")):
        assert advance(done, Event(late[0], 99.0, late[1])) is done


def test_steps_have_their_times_and_words():
    record = course(begin("workspace"), end("workspace", "reused"), begin("queued"), RUNNING)
    assert record.steps["workspace"].note == "reused"
    assert (record.steps["queued"].begin, record.steps["queued"].end) == (2.0, 3.0)
    assert record.steps["running"].end is None
    assert record.started == 0.0


def test_the_python_of_the_cluster_is_known_when_the_cell_runs():
    told = ("phase", {"phase": "running", "python": "3.11.9"})
    record = course(*UNTIL_QUEUED, ("libraries", {"libraries": {"numpy": "2.1.0"}}), told)
    assert record.libraries == {"numpy": "2.1.0", "python": "3.11.9"}


def test_the_last_word_of_the_runner_is_taken_over():
    outputs = [Value("model", "Model", 41_000_000, ValueState.KEPT).to_json()]
    failure = {"ename": "ValueError", "evalue": "3 rows", "line": 7, "traceback": ["a", "b"]}
    record = course(
        RUNNING,
        ("phase", {"phase": "failed", "exit_code": 1, "failure": failure, "outputs": outputs}),
    )
    assert record.failure.line == 7
    assert record.failure.traceback == ("a", "b")
    assert record.outputs[0].name == "model"
    assert record.exit_code == 1
    assert record.ended == 1.0


@pytest.mark.parametrize(
    ("ray", "reason", "words"),
    [
        ({"exit_code": 137}, "JobCrashed", "SIGKILL"),
        ({"exit_code": 139}, "JobCrashed", "signal 11"),
        ({"exit_code": 5}, "JobCrashed", "exit code 5"),
        (
            {"error_type": "RUNTIME_ENV_SETUP_FAILED", "message": "pip failed"},
            "EnvironmentFailed",
            "pip failed",
        ),
        ({"error_type": "SUPERVISOR_ACTOR_START_TIMEOUT"}, "NotEnoughResources", "gave up"),
        ({"message": NODE_DIED}, "JobCrashed", "The node that the job ran on died"),
        ({"message": "no idea"}, "JobCrashed", "no idea"),
    ],
)
def test_what_ray_says_of_a_crash_becomes_a_reason(ray, reason, words):
    failure = course(RUNNING, ("ray", {"status": "FAILED", **ray})).failure
    assert failure.reason == reason
    assert words in failure.message
    assert failure.hint


def test_what_pip_says_is_one_line_without_colours_and_paths():
    message = (
        "Failed to set up runtime environment.\nTraceback (most recent call last):\n"
        "Command '['/tmp/ray/session_1/virtualenv/bin/python', '-m', 'pip']' returned exit status 1.\n"
        "Last 50 lines of stdout:\n    \x1b[31mERROR: Could not find a version (from versions: none)\x1b[0m\n"
        "    \x1b[31mERROR: No matching   distribution found for nope==9 "
        "(from line 1 of /tmp/ray/session_1/requirements.txt)\x1b[0m\n"
        "    \x1b[33mWARNING: There was an error\x1b[0m\n\n"
    )
    event = ("ray", {"status": "FAILED", "error_type": "RUNTIME_ENV_SETUP_FAILED", "message": message})
    said = course(*UNTIL_QUEUED, event).failure.message
    assert said == (
        "Ray could not make the job's environment: Could not find a version (from versions: none); "
        "No matching distribution found for nope==9"
    )
    event[1]["message"] = "x\n  cannot write   /tmp/ray/session_1/a.txt\x1b[0m\n"
    assert course(*UNTIL_QUEUED, event).failure.message.endswith(": x cannot write a.txt")


def test_a_landed_output_changes_its_state_after_the_end():
    kept = Value("a", "int", 5, ValueState.KEPT)
    record = course(RUNNING, ("phase", {"phase": "succeeded", "outputs": [kept.to_json()]}))
    landed = kept.replace(state=ValueState.LANDED)
    record = advance(record, Event("landed", 9.0, {"outputs": [landed.to_json()]}))
    assert record.outputs == (landed,)
    assert record.phase is Phase.SUCCEEDED


_ANY = st.sampled_from(
    [
        *UNTIL_QUEUED,
        RUNNING,
        ("phase", {"phase": "succeeded"}),
        ("phase", {"phase": "failed"}),
        ("ray", {"status": "FAILED", "exit_code": 1}),
        ("ray", {"status": "STOPPED"}),
        ("gone", {}),
        ("again", {"reason": "x"}),
        ("alive", {}),
        ("stream", {"text": "a\nb\n"}),
        ("wait", {"reason": "w"}),
        ("progress", {"done": 1, "total": 2}),
        ("unheard of", {}),
    ]
)


@given(st.lists(_ANY, max_size=20))
def test_any_order_of_events_gives_a_record_that_survives_json(events):
    record = course(*events)
    assert JobRecord.from_json(record.to_json()) == record
    assert record.phase.ended == (record.ended is not None)
    for step in record.steps.values():
        assert step.end is None or step.end >= step.begin


def items(succeeded: int, failed: int, running: int, *errors: list) -> tuple[str, dict]:
    counts = {"total": 1000, "succeeded": succeeded, "failed": failed, "running": running}
    return ("item", {"counts": counts, "errors": list(errors), "chunks": [[0, [[0, 1, 0.1]]]]})


def test_a_batch_is_counted_and_its_first_errors_are_kept_however_many_there_are():
    errors = [[i, f"x={i}", "ValueError: no", 0.5] for i in range(1000)]
    record = course(*UNTIL_QUEUED, RUNNING, items(3, 2, 4, *errors[:2]), items(5, 995, 0, *errors[2:]))
    assert record.items is not None
    assert (record.items.done, record.items.waiting) == (1000, 0)
    assert [f.index for f in record.items.first] == [0, 1, 2, 3, 4]
    assert record.items.first[0].error == "ValueError: no"
    assert len(str(record.to_json())) < 1500, "a record stays small"


def test_of_a_batch_that_was_killed_nothing_runs_any_more_and_reading_it_again_changes_nothing():
    before = items(3, 1, 4, [7, "x=7", "ValueError: no", 0.5])
    record = course(*UNTIL_QUEUED, RUNNING, before, ("ray", {"status": "FAILED", "exit_code": -9}))
    assert record.items is not None
    assert (record.items.running, record.items.waiting) == (0, 996)
    assert advance(record, Event(before[0], 99.0, before[1])).items == record.items
    assert course(*UNTIL_QUEUED, RUNNING, before, ("again", {})).items is None
