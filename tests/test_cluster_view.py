"""What a cluster's panel says and offers."""

from __future__ import annotations

import pytest

from jupyter_rayoffload.cluster_view import History, Request, cluster_view
from jupyter_rayoffload.errors import ClusterError
from jupyter_rayoffload.models import ClusterInfo, ClusterPhase

GIB = 2**30
PROFILES = [{"name": "small", "title": "Small", "description": "4 CPUs", "default": True, "fields": []}]


def info(phase=ClusterPhase.RUNNING, kind="kubernetes", **more):
    return ClusterInfo("default", kind, phase, **more)


def offered(view):
    return [action["do"] for action in view["actions"]]


@pytest.mark.parametrize(
    ("phase", "embedded", "kubernetes"),
    [
        (ClusterPhase.NONE, ["start"], ["start"]),
        (ClusterPhase.STARTING, ["delete"], ["delete"]),
        (ClusterPhase.RUNNING, ["delete"], ["suspend", "delete"]),
        (ClusterPhase.SUSPENDED, ["delete"], ["resume", "delete"]),
        (ClusterPhase.FAILED, ["start", "delete"], ["start", "delete"]),
        (ClusterPhase.UNKNOWN, [], []),
    ],
)
def test_it_offers_what_makes_sense_and_what_its_back_end_can_do(phase, embedded, kubernetes):
    assert offered(cluster_view(info(phase, "embedded"))) == embedded
    view = cluster_view(info(phase))
    assert offered(view) == kubernetes
    assert offered(cluster_view(info(phase, "address"))) == []
    for action in view["actions"]:
        assert ("confirm" in action) == (action["do"] in ("suspend", "delete"))


def test_workers_can_be_changed_where_their_number_is_known():
    assert cluster_view(info(workers=0))["workers"] == {"count": 0, "text": "0 workers", "rests": False}
    assert cluster_view(info())["workers"] is None
    assert cluster_view(info(kind="embedded", workers=2))["workers"] is None
    assert cluster_view(info(ClusterPhase.SUSPENDED, workers=2))["workers"] is None


def test_numbers_that_nobody_has_said_are_not_zeros():
    assert cluster_view(info(ClusterPhase.STARTING, resources={"CPU": 8.0}))["meters"] == []
    assert cluster_view(info())["meters"] == []
    view = cluster_view(info(resources={"GPU": 0.0, "memory": 32.0 * GIB, "CPU": 8.0}, used={"CPU": 2.0}))
    assert [(m["name"], m["share"], m["text"]) for m in view["meters"]] == [
        ("CPU", 0.25, "2 of 8"),
        ("Memory", None, "32 GiB in all"),
    ]


def test_a_form_stands_only_where_there_is_no_cluster():
    view = cluster_view(info(ClusterPhase.NONE), PROFILES)
    assert view["form"] == {"profiles": PROFILES} and offered(view) == []
    assert cluster_view(info(), PROFILES)["form"] is None
    assert cluster_view(info(ClusterPhase.NONE))["form"] is None
    assert cluster_view(info(ClusterPhase.NONE, "address"), PROFILES)["form"] is None


def test_while_something_is_under_way_the_rest_waits_but_a_start_may_be_given_up():
    busy = cluster_view(info(workers=1), request=Request("scale", 50.0, 3))
    assert busy["busy"] == "Asked for 3 workers {since:50} ago"
    assert all(action["rests"] for action in busy["actions"]) and busy["workers"]["rests"]
    starting = cluster_view(info(ClusterPhase.STARTING), request=Request("start", 50.0))
    assert [(a["do"], a["rests"]) for a in starting["actions"]] == [("delete", False)]


def test_an_error_is_said_once():
    error = ClusterError("the quota is used up", "Ask your site")
    assert cluster_view(info(), request=Request(error=error))["fault"] == {
        "main": "The quota is used up.",
        "second": "Ask your site.",
    }
    failed = info(ClusterPhase.FAILED, reason="the quota is used up")
    assert cluster_view(failed, request=Request(error=error))["fault"] is None


def test_an_address_that_no_browser_reaches_is_a_word_and_no_link():
    view = cluster_view(info(address="http://x-head-svc.n.svc:8265"))
    assert "dashboard" not in offered(view) and "`http://x-head-svc.n.svc:8265`" in view["lines"][-1]
    linked = cluster_view(info(address="http://x", dashboard="/user/ada/rayoffload/dashboard/default/"))
    assert linked["actions"][0]["href"].startswith("/user/ada/") and linked["lines"] == []


def test_history_has_changes_and_not_what_only_counts_on():
    history = History()
    for at, phase, reason in [
        (1.0, ClusterPhase.NONE, ""),
        (2.0, ClusterPhase.STARTING, "Starting Ray: 1 s"),
        (3.0, ClusterPhase.STARTING, "Starting Ray: 2 s"),
        (4.0, ClusterPhase.STARTING, "pulling the image"),
    ]:
        history = history.after(info(phase, reason=reason), at)
    history = history.after(info(since=4.5), 5.0)
    assert [(e["at"], e["word"], e["text"]) for e in history.entries] == [
        (1.0, "Not started", ""),
        (2.0, "Starting", "Starting Ray: 2 s"),
        (4.0, "Starting", "Pulling the image"),
        (4.5, "Running", ""),
    ]
    for n in range(9):
        history = history.after(info(reason="even" if n % 2 else "odd"), 10.0 + n)
    assert len(history.entries) == 6 and history.entries[-1]["at"] == 18.0


def test_what_waits_for_the_next_cell_is_said_with_its_memory():
    assert not any("standby" in line for line in cluster_view(info())["lines"])
    assert (
        "1 standby waits for the next cell: 135 MB of memory"
        in (cluster_view(info(standbys=1, standby_memory=134_656_000))["lines"])
    )
    gone = info(ClusterPhase.SUSPENDED, standbys=1, standby_memory=1)
    assert not any("standby" in line for line in cluster_view(gone)["lines"])
