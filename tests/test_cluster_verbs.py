"""The buttons of a cluster's panel, and the verbs that end jobs."""

from __future__ import annotations

import asyncio

import pytest

from jupyter_rayoffload.cluster_verbs import CLUSTER_VERBS, Controls
from jupyter_rayoffload.errors import ClusterStartFailed, StoreUnreachable, UsageError
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase, JobRecord, JobSpec, Phase
from jupyter_rayoffload.panel import ClusterPanel

RUNNING = ClusterInfo("default", "kubernetes", ClusterPhase.RUNNING, address="http://head:8265", workers=1)
NONE = ClusterInfo("default", "kubernetes")


class FakeOffloader:
    """Clusters that do as they are told, and jobs of one store."""

    def __init__(self, info=RUNNING, jobs=()):
        self.info, self.jobs, self.done, self.gate = info, jobs, [], asyncio.Event()
        self.backend = self.links = self

    async def get(self, name):
        return self.info

    async def records(self, limit):
        if self.jobs is None:
            raise StoreUnreachable("the store does not answer", "Look at it")
        return [JobRecord(JobSpec(id=i), phase) for i, phase in self.jobs]

    async def connect(self, cluster, profile="", choices=None):
        self.started = (cluster, profile, choices)
        await self.gate.wait()
        raise ClusterStartFailed("the quota is used up", "Ask your site")

    async def scale(self, name, workers):
        self.done.append(("scale", workers))

    async def suspend(self, name):
        self.done.append(("suspend",))
        return self.info.replace(phase=ClusterPhase.SUSPENDED, address="")

    async def down(self, name=""):
        self.done.append(("delete",))


@pytest.fixture
def panel():
    panel = ClusterPanel(RUNNING)
    yield panel
    panel.close()


async def settled(controls):
    await asyncio.wait({controls._task}, timeout=5)


@pytest.mark.asyncio
async def test_an_error_of_a_button_is_said_in_the_panel(panel):
    offloader = FakeOffloader(NONE)
    panel.update(NONE)
    controls = Controls(offloader, panel)
    await controls.do("start", {})
    await asyncio.sleep(0)
    assert panel.view["busy"].startswith("Asked to start")
    offloader.gate.set()
    await settled(controls)
    assert panel.view["busy"] == "" and panel.view["fault"]["main"] == "The quota is used up."
    panel.update(RUNNING)
    assert panel.view["fault"] is None


@pytest.mark.asyncio
async def test_a_start_that_is_not_wanted_any_more_is_given_up(panel):
    offloader = FakeOffloader(NONE)
    controls = Controls(offloader, panel)
    await controls.do("start", {})
    await asyncio.sleep(0)
    await controls.do("scale", {"workers": 3})  # a press that has come too late
    await controls.do("delete", {})
    await settled(controls)
    assert offloader.done == [("delete",)] and panel.view["fault"] is None and panel.view["busy"] == ""


@pytest.mark.asyncio
async def test_what_is_not_ours_to_expect_is_said_too(panel):
    controls = Controls(FakeOffloader(), panel)
    await controls.do("scale", {"workers": "many"})
    await settled(controls)
    assert panel.view["fault"]["main"].startswith("Scale has failed: ValueError")


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([], "No job runs on it"),
        ([("a", Phase.RUNNING), ("b", Phase.SUCCEEDED)], "1 running job will be lost: `a`"),
        ([(f"j{n}", Phase.PENDING) for n in range(7)], "7 running jobs will be lost: `j0`"),
        (None, "Nobody knows which jobs run on it: the store does not answer"),
    ],
)
@pytest.mark.asyncio
async def test_the_question_names_what_is_lost(panel, jobs, said):
    await Controls(FakeOffloader(jobs=jobs), panel).do("ask", {"verb": "delete", "id": 4})
    assert panel.view["asked"]["id"] == 4 and panel.view["asked"]["text"].startswith(said)
    assert panel.view["asked"]["text"].endswith("and 2 more") == (len(jobs or ()) == 7)


class FakeSession:
    def __init__(self, offloader):
        self.offloader = offloader

    def call(self, work, timeout=None):
        return asyncio.run(work)


@pytest.mark.parametrize("verb", ["down", "suspend"])
def test_verbs_that_end_jobs_refuse_while_jobs_run(verb, capsys):
    offloader = FakeOffloader(jobs=[("fit-1", Phase.RUNNING)])
    with pytest.raises(UsageError, match="would end 1 running job: fit-1") as refused:
        CLUSTER_VERBS[verb](FakeSession(offloader), [])
    assert f"%ray cluster {verb} --force" in refused.value.hint and offloader.done == []
    CLUSTER_VERBS[verb](FakeSession(offloader), ["--force"])
    assert offloader.done == [("delete" if verb == "down" else "suspend",)]
    assert capsys.readouterr().out


@pytest.mark.parametrize("verb", ["down", "suspend"])
def test_verbs_that_end_jobs_refuse_where_nobody_knows_them(verb):
    offloader = FakeOffloader(jobs=None)
    with pytest.raises(UsageError, match="nobody knows which: the store does not answer") as refused:
        CLUSTER_VERBS[verb](FakeSession(offloader), [])
    assert f"%ray cluster {verb} --force" in refused.value.hint and offloader.done == []
    CLUSTER_VERBS[verb](FakeSession(offloader), ["--force"])
    assert offloader.done
