"""What a job's own page shows beside the panel."""

from __future__ import annotations

import dataclasses
import json

import pytest

from jupyter_rayoffload.models import (
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
from jupyter_rayoffload.pages import job_page, row_fact

T = 1_700_000_000.0


def record(**changes) -> JobRecord:
    spec = JobSpec(
        id="fit-1",
        label="fit",
        source="model = fit(df)",
        notebook="work/sales.ipynb",
        count=7,
        created=T,
        options=JobOptions(
            resources=Resources(cpus=2, memory=8 << 30), pip=("tqdm",), env={"TOKEN": "hunter2"}, retries=1
        ),
        libraries={"pandas": "pandas==2.3.1", "tqdm": "tqdm", "numpy": "numpy==2.1.0"},
        versions={"python": "3.12.8", "ray": "2.60.0"},
        expected=("model",),
        left_behind=(".env",),
        package="abcdef0123456789",
    )
    steps = {"cluster": Step(T, T + 1), "running": Step(T + 2, T + 10)}
    known = JobRecord(
        spec,
        Phase.SUCCEEDED,
        cluster="default",
        started=T,
        ended=T + 10,
        steps=steps,
        inputs=(Value("df", "DataFrame", 96_000_000, ValueState.REUSED, job="load-1"),),
        outputs=(Value("model", "Model", 41_000_000, ValueState.LANDED),),
        files=(FileInfo("out/a.csv", 1_200_000, "fetched"),),
        libraries={"pandas": "1.5.3", "tqdm": "4.6", "numpy": "2.1.0"},
    )
    return dataclasses.replace(known, **changes)


def rows(page, tab, title):
    [table] = [table for table in page[tab] if table["title"] == title]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    return table["rows"]


def test_a_page_says_where_it_ran_and_how_long_it_is_kept():
    facts = {fact["title"]: fact for fact in job_page(record(), kept=60.0)["facts"]}
    assert facts["Notebook"] == {
        "title": "Notebook",
        "text": "work/sales.ipynb, cell 7",
        "notebook": "work/sales.ipynb",
    }
    assert facts["Cluster"]["text"] == "default, 2 CPUs and 8 GiB of memory"
    assert (facts["Started"]["at"], facts["Ended"]["at"], facts["Kept until"]["at"]) == (T, T + 10, T + 70)


def test_its_tables_say_what_travelled_and_where_it_is():
    page = job_page(record())
    assert rows(page, "inputs", "Variables") == [
        ["`df`", "DataFrame", "96 MB", {"job": "load-1", "text": "Reused from job"}]
    ]
    assert rows(page, "outputs", "Variables") == [["`model`", "Model", "41 MB", "Landed"]]
    assert rows(page, "outputs", "Files") == [["`out/a.csv`", "1.2 MB", "Fetched"]]
    assert ["Stayed behind", "`.env`: may hold secrets"] in rows(page, "inputs", "Workspace")
    assert page["source"] == "model = fit(df)"


def test_versions_are_held_against_each_other():
    found = {row[0]: row[1:] for row in rows(job_page(record()), "environment", "Notebook and cluster")}
    assert found["pandas"] == [
        "2.3.1",
        "1.5.3",
        {"mark": "warning", "text": "Differs: values may not travel"},
    ]
    assert found["numpy"][2] == {"mark": "succeeded", "text": "Same"}
    assert found["tqdm"][0] == "not installed"
    assert found["Python"] == ["3.12.8", "", ""]
    lacking = job_page(record(libraries={"pandas": ""}))
    found = {row[0]: row[1:] for row in rows(lacking, "environment", "Notebook and cluster")}
    assert found["pandas"][2]["text"] == "Not on the cluster"
    assert found["numpy"] == ["2.1.0", "", ""]


@pytest.mark.parametrize(
    ("there", "verdict"),
    [("3.12.3", "Same"), ("3.11.9", "Differs: values may not travel")],
)
def test_of_python_the_minor_version_counts(there: str, verdict: str):
    page = job_page(record(libraries={"python": there}))
    found = {row[0]: row[1:] for row in rows(page, "environment", "Notebook and cluster")}
    assert found["Python"][:2] == ["3.12.8", there] and found["Python"][2]["text"] == verdict


def test_values_of_env_are_not_shown():
    page = job_page(record())
    assert "hunter2" not in json.dumps(page)
    asked = {row[0]: row[1] for row in rows(page, "environment", "Asked for")}
    assert asked == {
        "`--cpus`": "2",
        "`--memory`": "8 GiB",
        "`--pip`": "tqdm",
        "`--env`": "`TOKEN` (values are not shown)",
        "`--retries`": "1",
    }


def test_the_line_of_time_is_within_its_bounds():
    bars = {bar["name"]: bar for bar in job_page(record())["bars"]}
    assert (bars["running"]["from"], bars["running"]["share"], bars["running"]["text"]) == (0.2, 0.8, "8.0 s")
    live = job_page(
        record(phase=Phase.RUNNING, ended=None, steps={"running": Step(T, None)}, last_seen=T + 4)
    )
    assert live["bars"][0]["text"] == "" and live["bars"][0]["share"] == 1.0
    assert job_page(record(steps={}))["bars"] == []
    times = [row[0]["at"] for row in job_page(record())["timeline"][0]["rows"]]
    assert times == sorted(times) and times[0] == T


@pytest.mark.parametrize(
    "changes, fact",
    [
        ({}, "sales.ipynb"),
        ({"phase": Phase.FAILED, "failure": Failure("OutOfMemory", "x")}, "out of memory"),
        ({"phase": Phase.FAILED, "failure": Failure(ename="ValueError")}, "sales.ipynb"),
        ({"phase": Phase.PENDING, "reason": "Waits for `df` from job load"}, "waits for `df` from job load"),
        ({"phase": Phase.RUNNING}, "sales.ipynb"),
    ],
)
def test_a_row_has_one_fact(changes, fact):
    assert row_fact(record(**changes)) == fact


def test_a_job_that_has_just_begun_has_a_page():
    page = job_page(JobRecord(JobSpec("a-1", expected=("x",))))
    assert page["facts"] == [{"title": "Id", "text": "a-1"}] and page["bars"] == []
    assert rows(page, "outputs", "Variables") == [["`x`", "", "", "Lands when the job succeeds"]]
