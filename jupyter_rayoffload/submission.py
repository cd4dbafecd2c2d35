"""What a kernel, a script and a server do with jobs: submit, chain, retry, cancel, rerun, list.

Everything here is asynchronous and belongs to one loop; :mod:`.job` owns that loop in a kernel.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from . import matching
from .clusters import open_backend
from .course import Course, Draft
from .errors import DependencyFailed, JobNotFound, NotEnoughResources, OffloadError, StoreError
from .homecoming import bring_home
from .ledger import newest, read_fields, read_record, request_stop
from .link import Link, Opener, blocking, open_link, translated
from .links import Links
from .models import (
    ClusterInfo,
    Failure,
    FileInfo,
    JobOptions,
    JobRecord,
    JobSpec,
    Phase,
    ValueState,
)
from .packing import Packed, is_sent, pack, provide, runtime_env, send
from .redraft import redraft
from .remote.chunks import Done
from .remote.chunks import pack as pack_inputs
from .remote.events import Numbers
from .remote.store import NewRecord
from .standbys import Standbys, entrypoint_resources, standing
from .witness import Witness
from .words import size_text

if TYPE_CHECKING:
    from .config import RayOffload

__all__ = ["Offloader"]

#: A job that waits in this process is written again this often, so that others see that it is alive, seconds.
KEEPALIVE_SECONDS = 10.0
#: A workspace that is packed within this is in the first word of a job that others can read, seconds.
PACKING_SECONDS = 0.05
#: What was packed within this is packed in the loop the next time: most likely nothing has changed, and to
#: wake a thread and be woken by it would take as long.
AT_ONCE_SECONDS = 0.005
#: Files of a job that ended so long before a cell was run have come home, or were changed there, seconds.
LATE_SECONDS = 5.0
#: How long standbys may take to be told that their cluster ends, seconds: they are no reason to wait for.
SEND_OFF_SECONDS = 5.0
#: Between two looks at a job that another process has yet to submit, or at what others want of ours, seconds.
WATCH_SECONDS = 0.5


class Offloader:
    """Submits jobs to one owner's clusters and follows them.

    Parameters
    ----------
    config : RayOffload
    opener : callable
        Opens the way to a cluster.
    """

    def __init__(self, config: RayOffload, opener: Opener = open_link) -> None:
        self.config = config
        self.backend = open_backend(config)
        self.links = Links(self.backend, config, opener)
        self.standbys = Standbys(config)
        #: Those that somebody follows, or still has a handle of.
        self.courses: WeakValueDictionary[str, Course] = WeakValueDictionary()
        self.closing = False  # this process ends, which cancels no job
        self._packing = asyncio.Lock()
        self._packs_in = float("inf")  # seconds of the last time

    # ------------------------------------------------------------------ the cluster

    async def standing(self, info: ClusterInfo) -> ClusterInfo:
        """Give what is known of a cluster with what waits there for a job, if there is a way to its store."""
        return await standing(info, self.links.used(info.name) or await self.links.find(info.name))

    async def down(self, cluster: str = "") -> None:
        """Take the cluster down; records and results stay in the store."""
        name = cluster or "default"
        await self._send_off(name)
        await self.links.close(name)
        await self.backend.delete(name)

    async def suspend(self, cluster: str = "") -> ClusterInfo:
        """Suspend the cluster; jobs that run there end."""
        name = cluster or "default"
        await self._send_off(name)
        return await self.backend.suspend(name)

    async def scale(self, cluster: str, workers: int) -> ClusterInfo:
        """Give the cluster so many workers: a standby must not take a job in one that is to go."""
        await self._send_off(cluster or "default")
        return await self.backend.scale(cluster, workers)

    async def _send_off(self, name: str) -> None:
        """Let standbys go before their pods do, if the store answers soon."""

        async def told() -> None:
            link = await self.links.find(name)
            if link is not None and link.info.kind == "kubernetes":
                await self.standbys.send_off(link)

        with suppress(OffloadError, asyncio.TimeoutError):
            await asyncio.wait_for(told(), SEND_OFF_SECONDS)

    async def aclose(self) -> None:
        """Close all ways; clusters and jobs go on."""
        await self.standbys.aclose()
        await self.links.aclose()
        await self.backend.aclose()

    # ------------------------------------------------------------------ one job, from its draft to its end

    async def run(self, draft: Draft, course: Course) -> None:
        """Take a job from its draft to its end.

        Whatever goes wrong is told to the course. Cancelling the task before the job was handed to Ray
        cancels the job.
        """
        self.courses[course.record.id] = course
        try:
            link = await self._submit_draft(draft, course)
            await self._follow(course, link)
        except OffloadError as error:
            _give_up(course, error)
            await self.save(course)
        except asyncio.CancelledError:
            if not course.record.attempt and not self.closing:
                course.tell("cancelled", reason="Cancelled by you")
                await self.save(course)
            raise
        except Exception as error:  # a slip of ours must not leave the panel waiting for ever
            failure = Failure(reason="OffloadError", message=f"jupyter_rayoffload failed: {error!r}")
            course.tell("failed", failure=failure.to_json())
            raise

    async def send_first(self, draft: Draft, on_progress: Callable[[int, int], None]) -> None:
        """Send the inputs' buffers ahead of everything else: they are still the notebook's own memory."""
        link = await self.links.connect(draft.spec.options.cluster, draft.spec.options.profile)
        if draft.frozen is None:
            return
        total, done = draft.frozen.size, 0
        for buffer in {b.digest: b for b in draft.frozen.buffers}.values():
            before = done
            await blocking(
                link.store.put_blob,
                buffer.digest,
                buffer.data,
                lambda sent, _: on_progress(before + sent, total),  # noqa: B023 - called before the next round
            )
            done += buffer.size

    async def _submit_draft(self, draft: Draft, course: Course) -> Link:
        packing, written = asyncio.ensure_future(self._pack(draft, course)), False
        await asyncio.sleep(0)  # side by side, but the workspace begins
        try:
            link = await self._cluster(draft.spec.options, course)
            await asyncio.wait({packing}, timeout=PACKING_SECONDS)
            new = None
            if not draft.copy_from:  # from then on it can be found by its id
                written = packing.done() and packing.exception() is None
                new = self._new_record(draft if written else None, course, link)
            at_once = written and self._begins_at_once(draft, packing.result(), course, link)
            if new is not None and not at_once:
                await blocking(link.store.create, *new)
                new = None
            packed = await packing
        finally:
            packing.cancel()
        self._match(course, link)
        with self._kept_alive(course):
            await self._send(draft, packed, course, link, written)
            await self._await_upstream(course)
            await self._lay_over(course, link)
            return await self._submit(course, link, new)

    def _begins_at_once(self, draft: Draft, packed: Packed | None, course: Course, link: Link) -> bool:
        """Whether nothing comes between the entry of a job and its hand-over, which then go together."""
        to_send = draft.frozen is not None or draft.program_input is not None
        to_send = to_send or (packed is not None and not is_sent(packed, link))
        refused = self.config.check_versions == "error" and matching.lacking(course.record.spec, link)
        return not (to_send or draft.spec.after or refused)

    def _new_record(self, draft: Draft | None, course: Course, link: Link) -> NewRecord:
        """Give what enters the job into the store, and small inputs of `draft` with it."""
        spec, state = course.record.spec, course.record.to_json()
        del state["spec"]
        sealed = b""
        if draft is not None and draft.frozen is not None:
            sealed = link.store.seal_payload(spec.id, "inputs", draft.frozen) or b""
        if sealed and draft is not None:
            draft.frozen = None
            self._mark_sent(course, reused=False)
        fields = {"spec": spec.to_json(), "state": state}
        return NewRecord(spec.id, fields, spec.created, sealed)

    async def _cluster(self, options: JobOptions, course: Course) -> Link:
        def on_change(info: ClusterInfo) -> None:
            course.tell("wait", reason=info.reason, detail=info.detail)

        async with course.step("cluster"):
            link = await self.links.connect(options.cluster, options.profile, on_change)
        info = link.info
        course.tell("cluster", name=info.name, dashboard=info.dashboard, session=info.session)
        try:
            matching.check_resources(options.resources, info)
        except NotEnoughResources:  # a node may have joined since the cluster was looked at
            matching.check_resources(options.resources, await self.backend.get(info.name))
        return link

    async def _pack(self, draft: Draft, course: Course) -> Packed | None:
        if draft.copy_from:
            return None
        loop = asyncio.get_running_loop()

        def on_progress(text: str) -> None:
            loop.call_soon_threadsafe(lambda: course.tell("wait", reason=text))

        async with course.step("workspace") as box, self._packing:
            work = partial(pack, draft, self.config, self.backend.signer(), on_progress)
            begin = time.monotonic()
            packed = work() if self._packs_in < AT_ONCE_SECONDS else await asyncio.to_thread(work)
            self._packs_in = time.monotonic() - begin
            box["note"] = "reused" if packed.known else ""
        course.record = course.record.replace(spec=packed.described(course.record.spec))
        return packed

    def _match(self, course: Course, link: Link) -> None:
        """Say what is known of the cluster's libraries, and refuse what cannot run with them."""
        spec, mode = course.record.spec, self.config.check_versions
        if mode == "off":
            return
        if there := matching.known(spec, link):
            course.tell("libraries", libraries=there)
        if mode == "error":
            matching.require(spec, link)

    async def _send(
        self, draft: Draft, packed: Packed | None, course: Course, link: Link, written: bool
    ) -> None:
        """Put into the store what it lacks, and the record as it is to be run, unless that is `written`."""
        loop = asyncio.get_running_loop()
        spec = course.record.spec
        names = ", ".join(f"`{v.name}`" for v in spec.inputs if v.state is not ValueState.WAITS)

        def on_progress(done: int, total: int) -> None:
            text = f"Sending {names}: {size_text(done)} of {size_text(total)}"
            loop.call_soon_threadsafe(lambda: course.tell("progress", reason=text, done=done, total=total))

        async with course.step("inputs"):
            if packed is not None:
                if draft.program_input is not None:
                    given = await _put_input(draft.program_input, link)
                    await blocking(link.store.write, spec.id, "input", given)
                if not written:
                    await blocking(link.store.write, spec.id, "spec", spec.to_json())
                await send(packed, link)
            if draft.frozen is not None:
                sent = await blocking(link.store.put_payload, spec.id, "inputs", draft.frozen, on_progress)
                total = sum(v["size"] for v in draft.frozen.values)
                draft.frozen = None  # the copies have gone: the notebook's memory is free again
                self._mark_sent(course, reused=sent < total / 2)

    def _mark_sent(self, course: Course, reused: bool) -> None:
        state = ValueState.REUSED if reused else ValueState.SENT
        inputs = [v if v.state is ValueState.WAITS else v.replace(state=state) for v in course.record.inputs]
        course.tell("inputs", inputs=[v.to_json() for v in inputs])

    async def _await_upstream(self, course: Course) -> None:
        """Wait for the jobs whose outputs this one reads; their values go from store to cluster."""
        for name, place in course.record.spec.after.items():
            job_id = place.partition("#")[0]
            upstream = self.courses.get(job_id)
            if upstream is None:
                continue
            if not upstream.record.phase.ended:
                label = upstream.record.spec.label or job_id
                course.tell("chained", reason=f"Waits for `{name}` from job {label}")
                await upstream.ended.wait()
                course.tell("step", name="inputs", state="end")
            if upstream.record.phase is not Phase.SUCCEEDED:
                raise DependencyFailed(
                    f"{name!r} comes from job {job_id}, which ended as {upstream.record.phase.value}",
                    f"%ray logs {job_id} shows why; run its cell again, then this one",
                )
        there = [
            v.replace(state=ValueState.REUSED) if v.state is ValueState.WAITS else v
            for v in course.record.inputs
        ]
        course.tell("inputs", inputs=[v.to_json() for v in there])

    async def _lay_over(self, course: Course, link: Link) -> None:
        """Note the files that came too late for the workspace; a rerun has them noted already."""
        spec = course.record.spec
        late = self._late_files(spec, spec.created - LATE_SECONDS)
        if late and not spec.overlays:
            spec = spec.replace(overlays=tuple(late))
            course.record = course.record.replace(spec=spec)
            await blocking(link.store.write, spec.id, "spec", spec.to_json())

    def _late_files(self, spec: JobSpec, since: float) -> dict[str, None]:
        """Give the packages of all that the chain has made `since` then, the oldest first."""
        found: dict[str, None] = {}
        ids = {place.partition("#")[0] for place in spec.after.values()}
        upstream = [course for job_id in ids if (course := self.courses.get(job_id)) is not None]
        for course in sorted(upstream, key=lambda course: course.record.spec.created):
            if course.ended_here is None or course.ended_here < since:
                continue
            found |= self._late_files(course.record.spec, since)
            if package := course.end.get("files_package"):
                found[package] = None
        return found

    async def _submit(self, course: Course, link: Link, new: NewRecord | None = None) -> Link:
        """Enter a `new` job, and hand it to a standby, or to Ray; give the way to its cluster."""
        spec, attempt = course.record.spec, course.record.attempt + 1
        course.tell("step", name="queued", state="begin")
        submission = await self.standbys.hand(spec, attempt, link, new)
        if not submission:
            if not await link.answers():  # it was believed to
                link = await self._cluster(spec.options, course)
                course.tell("step", name="queued", state="begin")
            submission = f"{spec.id}-{attempt}"
            await provide(spec, link)
            await link.ray.submit(
                submission_id=submission,
                entrypoint=f"python -m {spec.versions['runner']} {spec.id} {attempt}",
                runtime_env=runtime_env(spec, link.connection, self.config),
                metadata={
                    "owner": spec.owner,
                    "notebook": spec.notebook,
                    "label": spec.label,
                    "job": spec.id,
                },
                resources=entrypoint_resources(spec, link),
            )
        course.tell("submitted", attempt=attempt, submission=submission)
        self.standbys.behind(course, link)
        if submission.startswith(course.record.id):  # where it was handed over, its runner writes sooner
            await self.save(course)
        return link

    async def _follow(self, course: Course, link: Link) -> None:
        retries = course.record.spec.options.retries
        while True:
            await self._witness(course, link).follow()
            if not course.retries_left:
                return
            attempt = course.record.attempt
            course.tell("again", reason=f"Failed, and tried again: retry {attempt} of {retries}")
            link = await self._submit(course, link)

    def _witness(self, course: Course, link: Link) -> Witness:
        return Witness(course, link, self.backend.get, self.save, lambda: len(self.live()))

    async def save(self, course: Course) -> None:
        """Write the record's state, for those who list jobs; a store that is away is no reason to fail."""
        link = self.links.used(course.record.cluster)
        if link is None:
            return
        state = course.record.to_json()
        del state["spec"]
        with suppress(StoreError):
            await blocking(link.store.write_state, course.record.id, state, force=True)

    @contextmanager
    def _kept_alive(self, course: Course) -> Iterator[None]:
        """Write the state of a job that waits here now and then, so that others see it is not abandoned."""
        waiting = asyncio.current_task()
        assert waiting is not None

        async def beat() -> None:
            saved = time.monotonic()
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                link = self.links.used(course.record.cluster)
                if link is None:
                    continue
                with suppress(StoreError):
                    if await blocking(link.store.stop_requested, course.record.id):
                        waiting.cancel()  # somebody cancels it from elsewhere
                        return
                if time.monotonic() - saved < KEEPALIVE_SECONDS:
                    continue
                saved = time.monotonic()
                course.tell("alive")
                await self.save(course)
                with suppress(StoreError):  # its inputs must not expire while it waits
                    await blocking(link.store.touch, course.record.id)

        task = asyncio.ensure_future(beat())
        try:
            yield
        finally:
            task.cancel()

    def live(self) -> list[Course]:
        """Give the courses of this process that have not ended."""
        return [c for c in self.courses.values() if not c.record.phase.ended]

    # ------------------------------------------------------------------ jobs by id

    async def course(self, job_id: str) -> Course:
        """Give the course of a job of any process, as the store knows it.

        Raises
        ------
        JobNotFound
        """
        link = await self.links.reach()
        fields = await read_fields(link, job_id)
        # Its log is read from the first line, and counted as it comes.
        course = Course(read_record(fields).replace(lines=0))
        course.end = fields.get("end") or {}
        self.courses[job_id] = course
        return course

    async def attach(self, course: Course) -> None:
        """Take in a job of any process from its first line, and follow it to its end."""
        ended = course.record.phase.ended
        link = await (self.links.reach if ended else self.links.connect)(course.record.cluster)
        if not ended:
            try:
                await self._until_submitted(course, link)
                if not course.record.phase.ended:
                    await self._follow(course, link)
                return
            except OffloadError as error:  # nothing is saved: whoever submitted it may see more
                return _give_up(course, error)
        after, numbers = "0", Numbers(whole=True)
        while entries := await blocking(link.store.read_events, course.record.id, after, 0):
            # A runner that lost its store for a while may have written an entry twice.
            for message in (m for entry in entries if numbers.admit(entry) for m in entry.messages):
                if message["type"] != "phase":
                    course.tell(message["type"], at=message["t"], **message["content"])
            after = entries[-1].id

    async def _until_submitted(self, course: Course, link: Link) -> None:
        """Wait until the process that drafted a job has handed it to Ray, or has been silent for too long."""
        while not course.record.attempt and not course.record.phase.ended:
            await asyncio.sleep(WATCH_SECONDS)
            with suppress(StoreError):
                fields = await blocking(link.store.read, course.record.id)
                if not fields:
                    raise JobNotFound(
                        f"job {course.record.id} was deleted", "%ray jobs lists those that are kept"
                    )
                course.take(read_record(fields))

    async def records(self, limit: int = 20) -> list[JobRecord]:
        """Read the newest jobs of this owner, newest first."""
        link = await self.links.reach()
        return await newest(link, limit)

    async def cancel(self, course: Course) -> None:
        """Stop a job: gracefully first, finally after Ray's grace; idempotent."""
        record = course.record
        if record.phase.ended:
            return
        link = await self.links.reach(record.cluster)
        await request_stop(link, record)

    async def delete(self, job_id: str) -> None:
        """Forget a job that has ended: record, events, payloads."""
        link = await self.links.reach()
        await blocking(link.store.delete, job_id)
        self.courses.pop(job_id, None)

    async def fetch(self, record: JobRecord, slot: str) -> Any:
        """Give a payload, checked and not yet unpickled: header, graph, buffers.

        Raises
        ------
        Expired, Forged, FormatMismatch, StoreUnreachable
        """
        link = await self.links.reach(record.cluster)
        return await blocking(link.store.fetch_payload, record.id, slot)

    def opened(self, course: Course, slot: str) -> Any:
        """Give a payload that came with the job's end, as :meth:`fetch` gives one; None if it did not.

        Raises
        ------
        Forged, FormatMismatch
        """
        came, link = course.values.pop(slot, None), self.links.used(course.record.cluster)
        if came is None or link is None:
            return None
        with translated():
            return link.store.open_payload(course.record.id, slot, came)

    async def settled(self, record: JobRecord) -> None:
        """Tell the store what has become of outputs and files; what has landed it need not keep long."""
        link = await self.links.reach(record.cluster)
        outputs, files = [v.to_json() for v in record.outputs], [f.to_json() for f in record.files]
        with suppress(StoreError):
            await blocking(link.store.write, record.id, "settled", {"outputs": outputs, "files": files})
            if record.outputs and all(v.state is ValueState.LANDED for v in record.outputs):
                await blocking(link.store.landed, record.id)

    async def blob(self, record: JobRecord, digest: str, size: int) -> bytes:
        """Give bytes that a program wrote, checked against their digest."""
        link = await self.links.reach(record.cluster)
        return bytes(await blocking(link.store.get_blob, digest, size))

    async def bring_home(self, record: JobRecord, package: str, folder: Path) -> tuple[FileInfo, ...]:
        """Write the files that came back into `folder`; see :func:`.homecoming.bring_home`."""
        link = await self.links.reach(record.cluster)
        with tempfile.TemporaryDirectory(prefix="rayoffload-") as place:
            came, sent = Path(place, "came.zip"), []
            await blocking(link.store.get_package, package, came)
            for number, name in enumerate(filter(None, (record.spec.package, *record.spec.overlays))):
                sent.append(Path(place, f"sent{number}.zip"))
                await blocking(link.store.get_package, name, sent[-1])
            return await asyncio.to_thread(bring_home, came, sent, folder, record.files)

    async def rerun_draft(
        self, record: JobRecord, options: JobOptions, kept: Sequence[Done] | None = None
    ) -> Draft:
        """Make a draft of a job again; see :func:`.redraft.redraft`."""
        return await redraft(record, options, await self.links.reach(record.cluster), kept)


def _give_up(course: Course, error: OffloadError) -> None:
    """Let the job end here, for this side cannot go on."""
    failure = Failure(reason=error.reason, message=error.message, hint=error.hint)
    course.tell("failed", failure=failure.to_json())


async def _put_input(value: Any, link: Link) -> dict[str, Any]:
    """Put a program's input into the store as bytes, or those of a batch; they are never unpickled."""
    kind, data = ("batch", pack_inputs(value)) if isinstance(value, list) else value
    digest = link.signer.digest(data)
    await blocking(link.store.put_blob, digest, memoryview(data))
    return {"kind": kind, "digest": digest, "size": len(data)}
