"""The plain data: JSON out and in, and what cannot be read."""

from __future__ import annotations

import json

import pytest

from jupyter_rayoffload.errors import FormatMismatch
from jupyter_rayoffload.models import (
    Batch,
    ClusterInfo,
    ClusterPhase,
    FailedItem,
    Failure,
    ItemCounts,
    JobOptions,
    JobRecord,
    JobSpec,
    Resources,
    Step,
    Value,
    ValueState,
)


def test_a_full_record_survives_json():
    spec = JobSpec(
        id="fit-3f9a1c",
        source="model.fit(X)",
        options=JobOptions(inputs=(), resources=Resources(cpus=2.0, custom={"TPU": 1.0}), env={"A": "1"}),
        inputs=(Value("X", "ndarray 3 × 2 float64", 48, ValueState.SENT),),
        after={"model": "train-1"},
        batch=Batch("x", 9, 2, only=(1, 2)),
    )
    record = JobRecord(
        spec,
        steps={"queued": Step(1.0, 2.0)},
        failure=Failure(ename="E", traceback=("a",)),
        progress=(1.0, 2.0),
        items=ItemCounts(9, 4, 1, 2, first=(FailedItem(3, "x=3", "E", 0.5),)),
    )
    assert JobRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_fields_of_a_newer_version_are_ignored():
    assert JobSpec.from_json({"id": "a", "invented_later": 1}) == JobSpec(id="a")


@pytest.mark.parametrize(
    "data", [{}, {"id": "a", "inputs": 3}, {"id": "a", "inputs": [{"state": "nonsense"}]}]
)
def test_what_cannot_be_read_is_said(data):
    with pytest.raises(FormatMismatch, match=r"JobSpec|Value"):
        JobSpec.from_json(data)


def test_a_cluster_survives_json():
    info = ClusterInfo(phase=ClusterPhase.RUNNING, resources={"CPU": 2.0}, since=1.0)
    assert ClusterInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Resources(), ""),
        (Resources(gpus=1), "1 GPU"),
        (Resources(cpus=4, memory=8 * 2**30), "4 CPUs and 8 GiB of memory"),
        (Resources(memory=300_000_000), "300 MB of memory"),
        (Resources(custom={"TPU": 2}), "2 TPU"),
    ],
)
def test_resources_in_words(asked, words):
    assert asked.words() == words
