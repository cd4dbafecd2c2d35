"""The worker groups of a RayCluster that is there: more workers, one group more, one less; pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import UsageError
from ...models import Profile
from ...profiles import check_caps
from ...profiles import scaled as scaled_choices
from .manifest import limits_of, made_from, name_of

__all__ = ["Change", "added", "check_growth", "emptied", "removed", "scaled", "workers_of"]

Json = dict[str, Any]


class Change(NamedTuple):
    """What a RayCluster shall have: its worker groups, and the choices that it says it was made with."""

    groups: list[Json]
    choices: Json


def workers_of(spec: Mapping[str, Any]) -> int | None:
    """Give how many workers are wanted, where one number can say it: as :func:`scaled` sets it."""
    groups = spec.get("workerGroupSpecs", ())
    if spec.get("enableInTreeAutoscaling") or len(groups) != 1:
        return None
    return sum(int(group.get("replicas", 0)) for group in groups)


def scaled(cluster: Mapping[str, Any], group: str, workers: int, profiles: Sequence[Profile]) -> Change:
    """Give one group so many workers; the first one, where `group` is empty.

    Raises
    ------
    UsageError
        There is no such group, the profile does not allow so many, or Ray's autoscaler decides.
    """
    name, spec = name_of(cluster), cluster["spec"]
    if spec.get("enableInTreeAutoscaling"):
        raise UsageError(
            f"Ray's autoscaler decides how many workers cluster {name!r} has",
            "Ask for what the cell needs with --cpus, --gpus or --memory",
        )
    groups = _groups(cluster)
    entry = next((entry for entry in groups if group in ("", entry["groupName"])), None)
    if entry is None:
        raise UsageError(
            f"cluster {name!r} has no worker group {group!r}"
            if group
            else f"cluster {name!r} has no workers",
            _known(groups) or "Give it groups in kubernetes_cluster, then %ray cluster down and up",
        )
    # Without an autoscaler KubeRay keeps replicas between these two; nothing else uses them.
    low, high = entry.get("minReplicas", 0), entry.get("maxReplicas", workers)
    entry.update(replicas=workers, minReplicas=min(low, workers), maxReplicas=max(high, workers))
    profile, choices = _declared(cluster, profiles)
    if profile is not None:
        choices = scaled_choices(profile, choices, entry["groupName"], workers)
    return Change(groups, choices)


def added(cluster: Mapping[str, Any], made: Mapping[str, Any]) -> Change:
    """Add the entry of a group.

    Raises
    ------
    UsageError
        It has such a group already.
    """
    groups, group = _groups(cluster), made["groupName"]
    if group in (entry["groupName"] for entry in groups):
        raise UsageError(
            f"cluster {name_of(cluster)!r} has a worker group {group!r} already",
            "Scale that one, or give this one another name",
        )
    return Change([*groups, dict(made)], made_from(cluster)[1])


def emptied(cluster: Mapping[str, Any], group: str) -> Change:
    """Take all workers from a group that is to be removed.

    Raises
    ------
    UsageError
        There is no such group, or no cell could run without it.
    """
    _without(cluster, group)
    none = {"replicas": 0, "minReplicas": 0, "maxReplicas": 0}
    groups = [entry | none if entry["groupName"] == group else entry for entry in _groups(cluster)]
    return Change(groups, made_from(cluster)[1])


def removed(cluster: Mapping[str, Any], group: str, profiles: Sequence[Profile]) -> Change:
    """Take a group away, and with it what was chosen for it.

    Raises
    ------
    UsageError
        There is no such group, or no cell could run without it.
    """
    profile, choices = _declared(cluster, profiles)
    paths = {field.name: field.path for field in profile.fields} if profile else {}
    kept = {k: v for k, v in choices.items() if not paths.get(k, "").startswith(f"groups.{group}.")}
    return Change(_without(cluster, group), kept)


def check_growth(cluster: Mapping[str, Any], groups: Sequence[Json], profiles: Sequence[Profile]) -> None:
    """Refuse what makes a cluster larger than its profile allows; one that shrinks is never refused.

    Raises
    ------
    UsageError
    """
    profile, _ = _declared(cluster, profiles)
    if profile is None:
        return
    had = limits_of(cluster)
    total = limits_of({**cluster, "spec": {**cluster["spec"], "workerGroupSpecs": groups}})
    check_caps(profile, {name: amount if amount > had[name] else 0 for name, amount in total.items()})


def _groups(cluster: Mapping[str, Any]) -> list[Json]:
    return [dict(entry) for entry in cluster["spec"].get("workerGroupSpecs", ())]


def _known(groups: Sequence[Json]) -> str:
    return f"It has: {', '.join(entry['groupName'] for entry in groups)}" if groups else ""


def _declared(cluster: Mapping[str, Any], profiles: Sequence[Profile]) -> tuple[Profile | None, Json]:
    """Give the profile of a cluster, if it is declared still, and its choices."""
    name, choices = made_from(cluster)
    return next((profile for profile in profiles if profile.name == name), None), choices


def _without(cluster: Mapping[str, Any], group: str) -> list[Json]:
    groups, name = _groups(cluster), name_of(cluster)
    left = [entry for entry in groups if entry["groupName"] != group]
    if len(left) == len(groups):
        raise UsageError(f"cluster {name!r} has no worker group {group!r}", _known(groups) or "It has none")
    start = cluster["spec"]["headGroupSpec"].get("rayStartParams", {})
    if not left and start.get("num-cpus") == "0":
        raise UsageError(
            f"{group!r} is the last worker group of cluster {name!r}, and its head runs no cells",
            "Scale it to 0 workers, or add another group first",
        )
    return left
