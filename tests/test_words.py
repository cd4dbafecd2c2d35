"""The words that every surface shares: numbers, sizes, times, phases."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload import sentences, words
from jupyter_rayoffload.models import (
    ClusterInfo,
    ClusterPhase,
    Failure,
    FileInfo,
    JobOptions,
    JobRecord,
    JobSpec,
    Phase,
    Resources,
    Step,
    Value,
    ValueState,
)
from jupyter_rayoffload.remote.failures import beyond_memory

GIB = 2**30


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (312, "312 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (3400, "3.4 kB"),
        (14_600_000, "14.6 MB"),
        (96_000_000, "96 MB"),
        (999_700, "1 MB"),
        (2_100_000_000, "2.1 GB"),
        (1.5e15, "1,500 TB"),
    ],
)
def test_sizes_are_decimal_with_three_figures(size, text):
    assert words.size_text(size) == text


@given(st.integers(0, 10**15))
def test_a_size_says_what_it_is_to_three_figures(size):
    number, unit = words.size_text(size).replace(",", "").split()
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(float(number) * scale - size) <= 0.005 * size
    assert len(number.replace(".", "").lstrip("0")) <= 3 or unit == "TB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0001, "1 ms"),
        (0.008, "8 ms"),
        (0.0994, "99 ms"),
        (0.0999, "0.1 s"),
        (0.4, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (38, "38 s"),
        (59.6, "1 min 00 s"),
        (139, "2 min 19 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (86399, "1 d 0 h"),
        (273_600, "3 d 4 h"),
        (-1, "0 s"),
    ],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert words.duration_text(seconds) == text


@given(st.floats(0.0005, 1e8))
def test_a_duration_is_as_long_as_it_says(seconds):
    units = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}
    parts = re.findall(r"([\d.]+) (ms|s|min|h|d)\b", words.duration_text(seconds))
    said = sum(float(n) * units[u] for n, u in parts)
    smallest = units[parts[-1][1]] * (0.1 if "." in parts[-1][0] else 1)
    assert abs(said - seconds) <= 0.51 * smallest
    assert 1 <= len(parts) <= 2


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 lines"), (1, "1 line"), (105, "105 lines"), (1_000_000, "1,000,000 lines")]
)
def test_plural_forms_and_thousands(count, text):
    assert words.lines_text(count) == text


@pytest.mark.parametrize(
    "size", [1, 300_000_000, 1_500_000_000, 200 << 20, 8 * GIB, 10**9, 2**30, 123_456_789]
)
def test_memory_is_said_alike_here_and_there(size):
    assert f"the {words.memory_text(size)} that" in beyond_memory(size)["message"]


def test_the_article_of_a_type():
    assert [words.with_article(n) for n in ("int", "ExcelFile", "dict", "ufunc")] == [
        "an int",
        "an ExcelFile",
        "a dict",
        "a ufunc",
    ]


def test_memory_and_what_is_in_use():
    assert words.memory_text(8 * GIB) == "8 GiB"
    assert words.memory_text(512 * 2**20) == "512 MiB"
    assert words.memory_text(3e8) == "300 MB"
    assert words.amount_text(GIB, 4e9, memory=True) == "1 of 3.73 GiB"
    assert words.amount_text(21 * GIB, 32 * GIB, memory=True) == "21 of 32 GiB"
    assert words.amount_text(2.5, 8) == "2.5 of 8"


def test_a_span_names_the_date_and_utc():
    assert words.span_text(0, 139) == "1970-01-01, 00:00:00 to 00:02:19 UTC"
    assert words.span_text(86_399, 86_401) == "1970-01-01, 23:59:59 to 1970-01-02, 00:00:01 UTC"


def test_marks_become_plain_text_or_code():
    text = "Waits for `model` since {at:3600}, for {since:100}"
    assert words.plain(text, now=139) == "Waits for model since 01:00:00 UTC, for 39 s"
    assert words.plain("`a`", code="<code>{}</code>") == "<code>a</code>"
    assert words.plain("{x} `` {at:now}") == "{x} `` {at:now}"


def test_every_phase_has_a_word_and_a_drawing():
    from jupyter_rayoffload.panel import STATIC

    for phase in [*Phase, *ClusterPhase]:
        assert (STATIC / "icons" / f"state-{words.icon(phase)}.svg").exists()
    assert [words.phase_word(p) for p in (Phase.PACKAGING, Phase.LOST)] == ["Packaging", "Lost"]
    assert len({words.phase_word(p) for p in Phase}) == len(Phase)
    assert len({words.cluster_word(p) for p in ClusterPhase}) == len(ClusterPhase)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value("a"), ""),
        (Value("a", state=ValueState.TO_SEND), "to send"),
        (Value("a", state=ValueState.KEPT), "kept in the store"),
        (Value("a", state=ValueState.NOT_LANDED, reason="rebound"), "not landed"),
        (Value("a", state=ValueState.CANNOT_TRAVEL), "cannot travel"),
        (Value("a", state=ValueState.CANNOT_TRAVEL, reason="an open file"), "cannot travel: an open file"),
    ],
)
def test_states_of_values(value, text):
    assert words.value_state(value) == text


def test_states_of_files():
    assert words.file_state(FileInfo("a", state="fetched")) == "fetched"
    assert words.file_state(FileInfo("a", reason="larger than 1 MB")) == "not fetched: larger than 1 MB"
    assert words.file_state(FileInfo("a", state="kept here")) == "not overwritten: changed here meanwhile"


def record(phase=Phase.RUNNING, **more):
    spec = more.pop("spec", {})
    return JobRecord(JobSpec(**{"id": "fit-3f9a1c", "label": "fit", **spec}), phase, **more)


INPUTS_SENT = {"inputs": Step(1, 2)}
LANDED = Value("model", state=ValueState.LANDED)
MISSED = Value("df", state=ValueState.NOT_LANDED, reason="the name was rebound")
OPEN_FILE = Value("f", state=ValueState.CANNOT_TRAVEL, reason="an open file")
KEPT = Value("a", state=ValueState.KEPT)
LOST = Failure("JobLost", "the head died", "Rerun starts it again")


@pytest.mark.parametrize(
    ("job", "main", "second"),
    [
        (record(Phase.PACKAGING), "Packing the workspace", ""),
        (record(Phase.STARTING_CLUSTER), "Starting the cluster", ""),
        (record(Phase.UPLOADING), "Sending the inputs", ""),
        (record(Phase.PENDING), "Waiting for the job to start", ""),
        (record(Phase.PENDING, reason="waiting for 4 CPUs", detail="Job score holds them"),
         "Waiting for 4 CPUs", "Job score holds them."),
        (record(Phase.RUNNING), "", ""),
        (record(Phase.RUNNING, spec={"left_behind": (".env",)}), "",
         "Stays behind because it may hold secrets: `.env`."),
        (record(Phase.SUCCEEDED, outputs=(LANDED,)), "", ""),
        (record(Phase.SUCCEEDED, outputs=(LANDED, MISSED)), "`df` did not land: the name was rebound.",
         'The job’s value is in `fit.outputs["df"]`.'),
        (record(Phase.SUCCEEDED, outputs=(OPEN_FILE,)), "`f` cannot travel: an open file", ""),
        (record(Phase.CANCELLED, reason="cancelled by you", ended=60.0), "Cancelled by you at {at:60}", ""),
        (record(Phase.CANCELLED, spec={"expected": ("a", "b")}),
         "Cancelled. Nothing landed; `a` and `b` are what they were.", ""),
        (record(Phase.LOST, failure=LOST), "The head died.", "Rerun starts it again."),
        (record(Phase.FAILED, failure=Failure(ename="KeyError", evalue="'price'")), "KeyError: 'price'", ""),
        (record(Phase.FAILED, failure=Failure(ename="KeyError", traceback=("x",))), "", ""),
        (record(Phase.FAILED, failure=Failure(ename="KeyError"), outputs=(KEPT,)),
         "KeyError.", "What was assigned before is in `fit.outputs`: `a`."),
        (record(Phase.FAILED), "Nothing says why", ""),
    ],
)  # fmt: skip
def test_both_voices(job, main, second):
    assert sentences.voices(job) == (main, second)


def test_many_files_that_stay_behind_are_counted():
    job = record(spec={"left_behind": tuple("abcdefg"), "notes": ("only local modules travel",)})
    behind, note = sentences.workspace_notes(job)
    assert behind == "Stay behind because they may hold secrets: `a`, `b`, `c`, `d`, `e` and 2 more."
    assert note == "Only local modules travel."


def test_the_line_of_a_job_that_ended_well_names_its_outputs():
    kept = Value("big", state=ValueState.KEPT)
    assert sentences.sentence(record(Phase.SUCCEEDED, outputs=(LANDED, kept))) == (
        "`model` landed · `big` kept in the store"
    )


@pytest.mark.parametrize(
    ("job", "worth"),
    [
        (record(Phase.LOST, failure=LOST, steps=INPUTS_SENT), True),
        (record(Phase.LOST, failure=LOST, attempt=1), True),
        (record(Phase.LOST, failure=LOST), False),  # its inputs never reached the store
        (record(Phase.CANCELLED, attempt=1), True),
        (record(Phase.SUCCEEDED, attempt=1), True),
        (record(Phase.RUNNING, attempt=1), False),
        (record(Phase.FAILED, attempt=1, failure=Failure(ename="ValueError")), False),
        (record(Phase.FAILED, attempt=1, failure=Failure("ClusterMismatch", "other Python")), False),
        (record(Phase.FAILED, steps=INPUTS_SENT, failure=LOST, spec={"after": {"x": "job"}}), False),
    ],
)
def test_a_rerun_is_offered_where_it_can_help(job, worth):
    assert sentences.worth_a_rerun(job) is worth


def test_a_job_without_a_name_is_reached_by_its_id():
    job = record(spec={"label": ""})
    assert sentences.job_name(job) == "fit-3f9a1c"
    assert sentences.expression(job) == 'jupyter_rayoffload.attach("fit-3f9a1c")'


def test_a_cluster_in_one_line():
    running = ClusterInfo(
        phase=ClusterPhase.RUNNING,
        since=100,
        resources={"CPU": 8, "memory": 32 * GIB, "node:10.0.0.1": 1},
        used={"CPU": 3},
    )
    assert words.cluster_sentence(running, now=4000) == (
        "Cluster default: Running · up for 1 h 05 min · CPU 3 of 8 · memory 0 of 32 GiB"
    )
    assert words.cluster_sentence(ClusterInfo()) == "Cluster default: Not started · the first cell starts it"
    waiting = ClusterInfo(phase=ClusterPhase.STARTING, reason="1 GPU: no node has one free")
    assert words.cluster_sentence(waiting) == "Cluster default: Starting · 1 GPU: no node has one free"


def test_no_sentence_begs_or_shouts():
    """What a person reads has no please, no apology and no exclamation."""
    said = [*words.LOG_WORDS.values(), words.cluster_warning("delete", "default")]
    for phase in Phase:
        options = JobOptions(resources=Resources(cpus=1))
        said += sentences.voices(record(phase, spec={"options": options}, failure=LOST))
    for text in said:
        assert not re.search(r"\bplease\b|\boops\b|!|\bsorry\b", text, re.I), text
