"""What a RayCluster, its pods and their events say together, as one phase and one sentence: pure.

``status.state`` is never asked: it says ``ready`` once and for ever. What the pods say goes before the
conditions of the RayCluster, which nobody takes back while the operator is away. Where what stands:
https://github.com/ray-project/kuberay/blob/v1.6.2/ray-operator/controllers/ray/utils/constant.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...models import ClusterPhase
from ...words import memory_text
from .pods import Trouble, condition, instant, is_ready, is_running, quantity, trouble_of

__all__ = ["Verdict", "head_runs", "judged"]

Json = Mapping[str, Any]

#: An operator that runs takes a RayCluster up within a second; after so long, seconds, there is none.
OPERATOR_SECONDS = 15.0
#: After so long, seconds, waiting for an operator is hopeless.
OPERATOR_LIMIT = 120.0
#: A deletion that takes longer, seconds, names what holds it up.
DELETION_SECONDS = 30.0


@dataclass(frozen=True)
class Verdict:
    """The state of a cluster.

    Parameters
    ----------
    phase : ClusterPhase
    reason : str
        One sentence without its stop, for people; may be empty.
    detail : str
        What Kubernetes itself said, or what to do.
    since : float, optional
        When this phase began, seconds since the epoch.
    hopeless : bool
        Whether waiting will not help: somebody has to change something.
    """

    phase: ClusterPhase
    reason: str = ""
    detail: str = ""
    since: float | None = None
    hopeless: bool = False


def judged(
    cluster: Json | None, pods: Sequence[Json], events: Sequence[Json], now: float, answers: bool = False
) -> Verdict:
    """Reduce what the API server knows of a cluster to what a person wants to know.

    Parameters
    ----------
    cluster : Mapping, optional
        The RayCluster; None where there is none.
    pods, events : sequence of Mapping
        Its pods, and events of its namespace: those of other objects are left out here.
    now : float
        Seconds since the epoch.
    answers : bool
        Whether Ray answers, whatever is said of the head.

    Returns
    -------
    Verdict
    """
    if cluster is None:
        return Verdict(ClusterPhase.NONE)
    facts = _Facts(cluster, pods, events, now, answers)
    return next(verdict for rule in _RULES if (verdict := rule(facts)) is not None)


def head_runs(pods: Iterable[Json]) -> bool:
    """Whether the container of a head runs: Ray may answer in it, also before the head is called ready."""
    return any(_kind(pod) == "head" and is_running(pod) for pod in pods)


class _Facts:
    """What is known of one cluster, by name."""

    def __init__(
        self, cluster: Json, pods: Sequence[Json], events: Sequence[Json], now: float, answers: bool
    ) -> None:
        self.cluster, self.now, self.answers = cluster, now, answers
        self.spec: Json = cluster.get("spec") or {}
        self.status: Json = cluster.get("status") or {}
        self.metadata: Json = cluster["metadata"]
        self.pods = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        self._all_events = events

    @cached_property
    def age(self) -> float:
        """Seconds since the cluster was asked for."""
        return self.now - self.created

    @cached_property
    def created(self) -> float:
        return instant(self.metadata.get("creationTimestamp")) or self.now

    @cached_property
    def head(self) -> Json | None:
        return next((pod for pod in self.pods if _kind(pod) == "head"), None)

    @cached_property
    def workers(self) -> list[Json]:
        return [pod for pod in self.pods if _kind(pod) == "worker"]

    @cached_property
    def wanted(self) -> int:
        """Number of workers that the cluster should have."""
        groups = self.spec.get("workerGroupSpecs") or ()
        return sum((group.get("replicas") or 0) * (group.get("numOfHosts") or 1) for group in groups)

    def condition(self, name: str) -> Json:
        """Give a condition of the RayCluster if it is true, else an empty one."""
        found = condition(self.status, name)
        return found if found.get("status") == "True" else {}

    def events(self, about: Json) -> list[Json]:
        """Give the events of an object, the newest last; not those of an earlier one of the same name."""
        uid = about["metadata"].get("uid")
        found = [e for e in self._all_events if (e.get("involvedObject") or {}).get("uid") == uid]
        return sorted(found, key=lambda e: _last_seen(e) or 0)

    def trouble(self, pod: Json) -> Trouble | None:
        """Say what keeps a pod from being ready."""
        return trouble_of(pod, self.events(pod), self.now)


def _kind(pod: Json) -> str:
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return labels.get("ray.io/node-type", "")


def _last_seen(event: Json) -> float | None:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((instant(t) for t in (*times, event.get("firstTimestamp")) if t), None)


# ---------------------------------------------------------------------- the rules, the first that fits holds


def _deleted(facts: _Facts) -> Verdict | None:
    since = instant(facts.metadata.get("deletionTimestamp"))
    if since is None:
        return None
    reason, detail = "Being deleted", ""
    holders = facts.metadata.get("finalizers") or ()
    if facts.now - since > DELETION_SECONDS and holders:
        reason = f"Being deleted for {{since:{since:.0f}}}: {', '.join(holders)} has not let go"
        detail = "The KubeRay operator, or the Job that it has made for this, does not get on: see its log"
    return Verdict(ClusterPhase.STOPPING, reason, detail, since)


def _suspended(facts: _Facts) -> Verdict | None:
    if not facts.spec.get("suspend"):
        return None
    done = facts.condition("RayClusterSuspended")
    if done:
        return Verdict(ClusterPhase.SUSPENDED, since=instant(done.get("lastTransitionTime")))
    if not facts.status:
        return _not_taken_up(facts)
    left = len(facts.pods)
    reason = "Being suspended" + (f": {left} {'pod is' if left == 1 else 'pods are'} left" if left else "")
    return Verdict(ClusterPhase.STOPPING, reason)


def _refused(facts: _Facts) -> Verdict | None:
    """KubeRay tells of a spec that it does not take by an event alone."""
    told = [e for e in facts.events(facts.cluster) if e.get("reason") in _INVALID]
    taken = facts.status.get("observedGeneration")
    if not told or (taken is not None and taken == facts.metadata.get("generation")):
        return None
    message = str(told[-1].get("message", ""))
    said = re.sub(r"^The RayCluster (?:spec|metadata|status) is invalid \S+: *", "", message)
    return Verdict(
        ClusterPhase.FAILED,
        f"KubeRay refuses the cluster: {said}",
        "Correct the profile or the settings, then delete the cluster and start it again",
        facts.created,
        hopeless=True,
    )


_INVALID = ("InvalidRayClusterSpec", "InvalidRayClusterMetadata", "InvalidRayClusterStatus")


def _not_taken_up(facts: _Facts) -> Verdict | None:
    if facts.status or facts.pods:
        return None
    if facts.age < OPERATOR_SECONDS:
        return Verdict(ClusterPhase.STARTING, "Waiting for the KubeRay operator", since=facts.created)
    return Verdict(
        ClusterPhase.STARTING,
        f"No KubeRay operator has taken up the cluster for {{since:{facts.created:.0f}}}",
        "Ask your site whether the operator runs and watches this namespace",
        facts.created,
        hopeless=facts.age > OPERATOR_LIMIT,
    )


def _running(facts: _Facts) -> Verdict | None:
    if facts.head is None or not (facts.answers or is_ready(facts.head)):
        return None
    since = instant(condition(facts.head["status"], "Ready").get("lastTransitionTime"))
    reason, detail = _late_workers(facts)
    return Verdict(ClusterPhase.RUNNING, reason, detail, since)


def _late_workers(facts: _Facts) -> tuple[str, str]:
    ready = sum(map(is_ready, facts.workers))
    if ready >= facts.wanted:
        return "", ""
    so_far = f"{ready} of {facts.wanted} workers" if facts.wanted > 1 else "No worker yet"
    refused = _pods_refused(facts)
    if refused:
        return f"{so_far}: {_continued(refused.reason)}", refused.detail
    late = [trouble for pod in facts.workers if (trouble := facts.trouble(pod))]
    if not late:
        return so_far, ""
    worst = max(late, key=lambda trouble: trouble.weight)
    return f"{so_far}: {_continued(worst.reason)}", worst.detail


def _continued(sentence: str) -> str:
    """Give a sentence as it goes on after a colon; names and abbreviations keep their capitals."""
    small = sentence[1:2].islower() or sentence.startswith("A ")
    return sentence[:1].lower() + sentence[1:] if small else sentence


def _pods_refused(facts: _Facts) -> Verdict | None:
    """Quota, limits and Pod Security refuse a pod before there is one."""
    failure = facts.condition("ReplicaFailure")
    if not failure:
        return None
    message = str(failure.get("message", ""))
    said = re.search(r"(?:is|are) forbidden: (.*)", message, re.S)
    text = " ".join((said[1] if said else message).split())
    since = instant(failure.get("lastTransitionTime"))
    for pattern, tell in _REFUSALS:
        if match := pattern.search(text):
            reason, hopeless = tell(match)
            phase = ClusterPhase.FAILED if hopeless else ClusterPhase.STARTING
            return Verdict(phase, reason, text, since, hopeless)
    return Verdict(ClusterPhase.STARTING, f"Kubernetes refuses a pod: {text}", "", since)


def _over_quota(match: re.Match[str]) -> tuple[str, bool]:
    """Say which limits of a quota a pod would break: waiting helps unless it alone would."""
    asked, used, limits = (_amounts(match[name]) for name in ("requested", "used", "limited"))
    broken, alone = [], False
    for name, limit in limits.items():
        total = asked.get(name, 0) + used.get(name, 0)
        if total > limit:
            amount = _memory if "memory" in name or "storage" in name else _number
            broken.append(f"{name} {amount(total)} of {amount(limit)}")
            alone = alone or asked.get(name, 0) > limit
    return f"Quota exceeded: {', '.join(broken) or match['quota']}", alone


def _amounts(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip(): quantity(amount.strip()) for name, _, amount in pairs}


def _number(value: float) -> str:
    return f"{value:g}"


def _memory(value: float) -> str:
    return memory_text(round(value))


#: What refuses a pod, as it is said after "is forbidden: ": the sentence, and whether waiting is hopeless.
_REFUSALS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[str, bool]]], ...] = (
    (
        re.compile(
            r"exceeded quota: (?P<quota>[^,]+), requested: (?P<requested>.+), used: (?P<used>.+), "
            r"limited: (?P<limited>[^ ]+)"
        ),
        _over_quota,
    ),
    (
        re.compile(r"failed quota: ([^:]+): must specify (.+)"),
        lambda m: (f"The quota {m[1]} takes only pods that state {m[2]}", True),
    ),
    (
        re.compile(r'violates PodSecurity "([^"]+)": (.+)'),
        lambda m: (f"Pod Security ({m[1]}) forbids the pods: {m[2]}", True),
    ),
    (
        re.compile(r"((?:maximum|minimum) \S+ usage per (?:Container|Pod) is .+)"),
        lambda m: (f"Outside the limits of this namespace: {m[1]}", True),
    ),
    (
        re.compile(r'error looking up service account [^:]*: serviceaccount "([^"]+)" not found'),
        lambda m: (f"There is no ServiceAccount {m[1]}", True),
    ),
    (
        re.compile(r"no PriorityClass with name (\S+) was found"),
        lambda m: (f"There is no priority class {m[1]}", True),
    ),
)


def _starting(facts: _Facts) -> Verdict:
    if facts.head is None:
        reason = "Making the head"
        if facts.condition("RayClusterProvisioned"):
            reason = "The head is gone, and KubeRay makes a new one"
        if facts.condition("RayClusterSuspended"):
            reason = "Waking up"
        return Verdict(ClusterPhase.STARTING, reason, since=facts.created)
    since = instant(facts.head["metadata"].get("creationTimestamp")) or facts.created
    trouble = facts.trouble(facts.head)
    if trouble is None:
        return Verdict(ClusterPhase.STARTING, "Starting Ray", since=since)
    phase = ClusterPhase.FAILED if trouble.hopeless else ClusterPhase.STARTING
    return Verdict(phase, trouble.reason, trouble.detail, since, trouble.hopeless)


_Rule = Callable[[_Facts], "Verdict | None"]
_RULES: Iterable[_Rule] = (
    _deleted,
    _suspended,
    _refused,
    _not_taken_up,
    _running,
    _pods_refused,
    _starting,
)
