"""What is known of a cluster's libraries before a job is sent, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jupyter_rayoffload.clusters import Connection
from jupyter_rayoffload.config import RayOffload
from jupyter_rayoffload.course import Course
from jupyter_rayoffload.errors import MissingLibrary
from jupyter_rayoffload.link import Link
from jupyter_rayoffload.matching import known, learn, require
from jupyter_rayoffload.models import ClusterInfo, JobOptions, JobRecord, JobSpec
from jupyter_rayoffload.remote.store import Entry
from jupyter_rayoffload.sentences import library_notes, meaning
from jupyter_rayoffload.submission import Offloader
from jupyter_rayoffload.witness import Witness

SPEC = JobSpec(
    id="fit-1",
    libraries={"numpy": "numpy==2.1.0", "sklearn": "scikit-learn==1.5.2", "pandas": "pandas==2.2.3"},
    needs=("pandas",),
)
THERE = {"numpy": "1.26.4", "sklearn": "1.5.0", "pandas": ""}


def link(kind: str = "kubernetes", **libraries: str) -> Link:
    nothing: Any = None  # neither store nor Ray is asked
    connection = Connection(ClusterInfo(kind=kind), nothing, "ada", bytes(32), Path("/nowhere"))
    return Link(connection, nothing, nothing, dict(libraries))


def test_what_one_job_has_found_the_next_one_knows() -> None:
    way = link()
    assert known(SPEC, way) == {}
    require(SPEC, way)  # unknown: it is sent
    learn(SPEC, way, {**THERE, "other": "1"})
    assert known(SPEC, way) == THERE


def test_a_missing_library_is_refused_once_and_then_tried() -> None:
    way = link(**THERE)
    with pytest.raises(MissingLibrary) as caught:
        require(SPEC, way)
    assert caught.value.message == "pandas is not on the cluster; the notebook has pandas 2.2.3"
    assert "--pip pandas==2.2.3" in caught.value.hint
    require(SPEC, way)  # somebody may have installed it
    assert known(SPEC, way).keys() == {"numpy", "sklearn"}


def test_several_are_named_together_and_one_that_is_nowhere_has_no_version() -> None:
    spec = JobSpec(id="a-1", libraries={"a": "a==1", "b": "b"}, needs=("a", "b"))
    with pytest.raises(MissingLibrary) as caught:
        require(spec, link(a="", b=""))
    assert caught.value.message == "a, b are not on the cluster; the notebook has a 1"
    assert "Add them with --pip a==1 b" in caught.value.hint


def test_what_the_cell_may_do_without_is_not_refused() -> None:
    require(SPEC.replace(needs=()), link(**THERE))


@pytest.mark.parametrize(
    ("options", "kind"), [(JobOptions(pip=("pandas",)), "kubernetes"), (JobOptions(), "embedded")]
)
def test_an_environment_of_its_own_is_neither_judged_nor_taken_for_that_of_others(
    options: JobOptions, kind: str
) -> None:
    spec, way = SPEC.replace(options=options), link(kind, **THERE)
    require(spec, way)
    assert known(spec, way) == {}
    learn(spec, way, {"numpy": "9"})
    assert way.libraries == THERE


@pytest.mark.parametrize(
    ("mode", "refused", "told"), [("error", True, THERE), ("warn", False, THERE), ("off", False, {})]
)
def test_the_setting_says_what_follows(mode: str, refused: bool, told: dict[str, str]) -> None:
    offloader, course = Offloader(RayOffload(check_versions=mode)), Course(JobRecord(SPEC))
    way = link(**THERE)
    if refused:
        with pytest.raises(MissingLibrary):
            offloader._match(course, way)
    else:
        offloader._match(course, way)
    assert course.record.libraries == told


def test_the_witness_takes_in_what_the_runner_reports() -> None:
    way, course = link(), Course(JobRecord(SPEC, attempt=1))
    unused: Any = None
    witness = Witness(course, way, unused, unused, lambda: 1)
    message = {"type": "libraries", "t": 1.0, "content": {"libraries": THERE}}
    witness._take(Entry("1-0", "fit-1-1", 1, [message]))
    assert way.libraries == THERE == course.record.libraries


def test_the_panel_says_what_may_matter() -> None:
    record = JobRecord(SPEC, libraries=THERE)
    assert library_notes(record) == [
        "numpy is 2.1.0 here and 1.26.4 on the cluster: values may not travel.",
        "`pandas` is not on the cluster: `--pip pandas==2.2.3`.",
    ]
    assert "numpy is 2.1.0 here and 1.26.4 on the cluster" in meaning(record)
    assert not library_notes(JobRecord(SPEC)) and not meaning(JobRecord(SPEC))
    nowhere = JobRecord(JobSpec(id="a-1", libraries={"cupy": "cupy"}), libraries={"cupy": ""})
    assert not library_notes(nowhere)
    assert JobRecord.from_json(record.to_json()) == record
