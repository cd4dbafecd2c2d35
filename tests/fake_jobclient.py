"""A ``JobClient`` without Ray: the entrypoint runs in a shell of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_rayoffload.errors import JobNotFound, UsageError
from jupyter_rayoffload.jobclient import ClusterStatus, JobInfo, check_submission


@dataclass
class _Job:
    info: JobInfo
    task: asyncio.Task[None] | None = None
    process: asyncio.subprocess.Process | None = None
    stopped: bool = False
    output: bytes = b""


@dataclass
class FakeJobClient:
    """Keeps jobs in memory, and behaves as the Jobs API does.

    Parameters
    ----------
    env : Mapping of str to str
        What every job finds in its environment, besides its own ``env_vars``.
    """

    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    session: str = "session_fake"
    jobs: dict[str, _Job] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)

    async def version(self) -> dict[str, str]:
        return {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": self.session}

    async def python_version(self) -> str:
        import platform

        return platform.python_version()

    async def cluster_status(self) -> ClusterStatus:
        return ClusterStatus(1, {"CPU": 2.0}, {"CPU": float(sum(j.info.live for j in self.jobs.values()))})

    async def has_package(self, name: str) -> bool:
        return name in self.packages

    async def put_package(self, name: str, path: Path) -> None:
        self.packages[name] = Path(path).read_bytes()

    async def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        runtime_env: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> str:
        runtime_env, metadata = runtime_env or {}, metadata or {}
        check_submission(submission_id, entrypoint, runtime_env, metadata)
        if there := self.jobs.get(submission_id):
            if (there.info.entrypoint, there.info.metadata) != (entrypoint, metadata):
                raise UsageError(f"Ray already has another job of the id {submission_id}")
            return submission_id
        info = JobInfo(
            submission_id, "PENDING", start=time.time(), entrypoint=entrypoint, metadata=dict(metadata)
        )
        job = self.jobs[submission_id] = _Job(info)
        job.task = asyncio.create_task(self._run(job, runtime_env.get("env_vars") or {}))
        return submission_id

    async def _run(self, job: _Job, variables: Mapping[str, str]) -> None:
        job.process = await asyncio.create_subprocess_shell(
            job.info.entrypoint,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**self.env, **variables, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self._change(job, status="RUNNING", node_id="fake")
        assert job.process.stdout is not None
        while chunk := await job.process.stdout.read(65536):
            job.output += chunk
        code = await job.process.wait()
        if job.stopped:
            self._change(job, status="STOPPED", end=time.time())
        elif code:
            code = 128 - code if code < 0 else code
            self._change(
                job,
                status="FAILED",
                end=time.time(),
                exit_code=code,
                error_type="JOB_ENTRYPOINT_COMMAND_ERROR",
                message=f"Job entrypoint command failed with exit code {code}",
            )
        else:
            self._change(job, status="SUCCEEDED", end=time.time(), exit_code=0)

    def _change(self, job: _Job, **changes: Any) -> None:
        import dataclasses

        job.info = dataclasses.replace(job.info, **changes)

    async def info(self, submission_id: str) -> JobInfo | None:
        job = self.jobs.get(submission_id)
        return job.info if job else None

    async def list(self) -> list[JobInfo]:
        return [job.info for job in self.jobs.values()]

    async def stop(self, submission_id: str) -> bool:
        job = self.jobs.get(submission_id)
        if job is None or not job.info.live:
            return False
        while job.process is None:
            await asyncio.sleep(0.01)
        job.stopped = True
        os.killpg(job.process.pid, signal.SIGTERM)
        return True

    async def delete(self, submission_id: str) -> bool:
        return self.jobs.pop(submission_id, None) is not None

    async def logs(self, submission_id: str) -> str:
        if submission_id not in self.jobs:
            raise JobNotFound(f"Ray has no job {submission_id}")
        return self.jobs[submission_id].output.decode(errors="replace")

    async def aclose(self) -> None:
        for job in self.jobs.values():
            if job.process and job.process.returncode is None:
                os.killpg(job.process.pid, signal.SIGKILL)
            if job.task:
                await job.task
