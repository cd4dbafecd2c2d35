"""A failed attempt is not the end of a job that may be tried again."""

from __future__ import annotations

from typing import Any

from jupyter_rayoffload.course import Course
from jupyter_rayoffload.models import JobOptions, JobRecord, JobSpec, Phase

FAILED: dict[str, Any] = {"phase": "failed", "exit_code": 1, "failure": {"ename": "E"}}


def _course(retries: int) -> Course:
    spec = JobSpec("job-1", "cell", "1", options=JobOptions(retries=retries))
    course = Course(JobRecord(spec))
    course.tell("submitted", attempt=1)
    return course


def test_only_the_last_failure_is_the_end() -> None:
    course = _course(retries=1)
    course.tell("phase", **FAILED)
    assert course.record.phase is Phase.FAILED
    assert course.retries_left
    assert not course.ended.is_set()
    course.tell("again")
    course.tell("submitted", attempt=2)
    course.tell("phase", **FAILED)
    assert not course.retries_left
    assert course.ended.is_set()


def test_without_retries_the_first_failure_is_the_end() -> None:
    course = _course(retries=0)
    course.tell("phase", **FAILED)
    assert course.ended.is_set()


def test_a_retry_that_cannot_be_submitted_is_the_end() -> None:
    course = _course(retries=5)
    course.tell("phase", **FAILED)
    course.tell("again")
    course.tell("failed", failure={"reason": "ClusterUnreachable", "message": "nobody answers"})
    assert course.record.phase is Phase.FAILED
    assert course.ended.is_set()


def test_a_success_and_a_loss_are_the_end_whatever_retries_are_left() -> None:
    for end in ({"type_": "phase", "phase": "succeeded", "exit_code": 0}, {"type_": "gone"}):
        course = _course(retries=5)
        course.tell(**end)  # type: ignore[arg-type]
        assert course.ended.is_set()


def test_observers_know_whether_it_was_the_end() -> None:
    course, seen = _course(retries=1), []
    course.subscribe(lambda record, event: seen.append((event.type, course.ended.is_set())))
    course.tell("phase", **FAILED)
    course.tell("again")
    course.tell("submitted", attempt=2)
    course.tell("phase", **FAILED)
    assert seen == [("phase", False), ("again", False), ("submitted", False), ("phase", True)]
