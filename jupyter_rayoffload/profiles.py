"""Profiles of clusters: chosen from, made into a ClusterSpec, and told to people and to forms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UsageError
from .models import ClusterInfo, ClusterSpec, PodSpec, Profile, ProfileField
from .options import memory
from .specification import check_groups, did_you_mean, with_part
from .words import memory_text

__all__ = [
    "CAPS",
    "KIND_WORDS",
    "Profile",
    "allowed",
    "apply",
    "check_caps",
    "check_same",
    "choice_text",
    "chosen",
    "number_of",
    "pick",
    "plain",
    "profile_text",
    "profile_view",
    "scaled",
    "set_by",
    "value_of",
]

#: What a value of each kind is.
KIND_WORDS = {
    "integer": "a whole number",
    "number": "a number that is not negative",
    "size": "a size such as 8GiB",
    "choice": "one of the choices",
}
#: What can be capped, and its word.
CAPS = {"cpus": "CPUs", "memory": "memory", "gpus": "GPUs"}

# ---------------------------------------------------------------------- choosing


def pick(profiles: Sequence[Profile], name: str = "") -> Profile:
    """Give the profile of a name, or the default one.

    Raises
    ------
    UsageError
        There is none of this name.
    """
    if not profiles:
        which = f"there is no profile {name!r:.80}: " if name else ""
        raise UsageError(
            f"{which}the embedded cluster has no profiles, nor has one that is used by its address",
            "Leave it out",
        )
    for profile in profiles:
        if profile.name == name or (not name and profile.default):
            return profile
    raise UsageError(f"there is no profile {name!r:.80}", did_you_mean(name, [p.name for p in profiles]))


def chosen(profile: Profile, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Check what somebody chooses of a profile's fields.

    Parameters
    ----------
    profile : Profile
    choices : Mapping
        Values by names of fields; texts as on a command line will do.

    Returns
    -------
    dict
        The value of every field.

    Raises
    ------
    UsageError
        One line that says what is allowed.
    """
    known = [field.name for field in profile.fields]
    for name in choices:
        if name not in known:
            hint = did_you_mean(name, known) if known else "Its size is fixed; %ray profiles lists all"
            raise UsageError(f"profile {profile.name} has no field {name!r:.80}", hint)
    values = {}
    for field in profile.fields:
        try:
            values[field.name] = value_of(field, choices.get(field.name, field.default))
        except ValueError:
            given = choices[field.name]
            raise UsageError(
                f"{field.name} cannot be {given!s:.80}: profile {profile.name} has {allowed(field)}"
            ) from None
    return values


def apply(profile: Profile, choices: Mapping[str, Any] | None = None) -> ClusterSpec:
    """Give the cluster that a profile is with these choices.

    Raises
    ------
    UsageError
        A choice is not what it may be, or all together are beyond the caps.
    """
    values, spec = chosen(profile, choices or {}), profile.cluster
    for field in profile.fields:
        spec = with_part(spec, field.path, set_by(field, values[field.name]))
    try:
        check_groups(spec)
    except ValueError as problem:
        raise UsageError(f"profile {profile.name}: {problem}", "Choose another number") from None
    said = ", ".join(choice_text(field, values[field.name]) for field in profile.fields)
    check_caps(profile, {name: _total(spec, name) for name in profile.caps}, said)
    return spec.replace(profile=profile.name, choices=values)


def check_caps(profile: Profile, total: Mapping[str, float], said: str = "") -> None:
    """Refuse a cluster that is larger than its profile allows.

    Parameters
    ----------
    profile : Profile
    total : Mapping
        What all of it has, by the names of `CAPS`.
    said : str
        What makes it so large, in words.

    Raises
    ------
    UsageError
    """
    for name, cap in profile.caps.items():
        if total[name] > cap:
            raise UsageError(
                f"profile {profile.name} may have {_cap(name, cap)} in all, and this is "
                f"{_cap(name, total[name])}" + (f": {said}" if said else ""),
                "Choose fewer workers, or less for each",
            )


def scaled(profile: Profile, choices: Mapping[str, Any], group: str, workers: int) -> dict[str, Any]:
    """Give the choices of a cluster of which one group gets another number of workers.

    Parameters
    ----------
    profile : Profile
    choices : Mapping
        Those that it was made with; what the profile no longer has is not heeded.
    group : str
    workers : int

    Raises
    ------
    UsageError
        The profile does not allow so many.
    """
    known = {field.name: field for field in profile.fields}
    new = {name: workers for name, f in known.items() if f.path == f"groups.{group}.replicas"}
    apply(profile, {**{name: value for name, value in choices.items() if name in known}, **new})
    return {**choices, **new}


def _cap(name: str, amount: float) -> str:
    """Give ``64 CPUs``, ``256 GiB of memory``."""
    return f"{memory_text(amount)} of memory" if name == "memory" else f"{amount:g} {CAPS[name]}"


def _total(spec: ClusterSpec, what: str) -> float:
    def of(pod: PodSpec) -> float:
        return getattr(pod, what) or 0

    counts = [max(g.replicas, g.maximum or 0) if spec.autoscale else g.replicas for g in spec.groups]
    return of(spec.head) + sum(n * of(g.pod) for n, g in zip(counts, spec.groups, strict=True))


def check_same(asked: ClusterSpec, there: ClusterInfo) -> None:
    """Refuse to take a cluster for one of another profile, or of other choices.

    Parameters
    ----------
    asked : ClusterSpec
        Its profile and its choices count; what is empty asks for nothing.
    there : ClusterInfo

    Raises
    ------
    UsageError
        It says what the cluster is, and what to do.
    """
    down = "%ray cluster down" + (f" --cluster {there.name}" if there.name != "default" else "")
    hint = f"Take another one: --cluster NAME; or end this one first: {down}"
    if asked.profile and asked.profile != there.profile:
        made = f"of profile {there.profile}" if there.profile else "made without a profile"
        raise UsageError(f"cluster {there.name!r} is {made}, not of profile {asked.profile}", hint)
    for name, value in asked.choices.items():
        has = there.choices.get(name)
        if has != value:
            said = f"{name}={plain(has)}" if name in there.choices else f"no {name}"
            raise UsageError(f"cluster {there.name!r} has {said}, not {name}={plain(value)}", hint)


def number_of(kind: str, value: Any) -> float:
    """Read a number of a kind, which may be text.

    Raises
    ------
    ValueError
        It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(KIND_WORDS[kind])
    try:
        number = memory(value) if kind == "size" else float(value)
    except OverflowError:
        raise ValueError(KIND_WORDS[kind]) from None
    if not math.isfinite(number) or number < 0 or (kind == "integer" and number != int(number)):
        raise ValueError(KIND_WORDS[kind])
    return int(number) if number == int(number) else number


def value_of(field: ProfileField, value: Any) -> Any:
    """Give a value of a field as it is kept.

    Raises
    ------
    ValueError
        It is none.
    """
    if field.kind == "choice":
        for choice in field.choices:
            if isinstance(value, (str, int, float)) and plain(value) == plain(choice.value):
                return choice.value
        raise ValueError(KIND_WORDS[field.kind])
    number = number_of(field.kind, value)
    low, high = field.minimum, field.maximum
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(allowed(field))
    return number


def set_by(field: ProfileField, value: Any) -> Any:
    """Give what goes to the field's path."""
    for choice in field.choices:
        if choice.value == value and choice.sets is not None:
            return choice.sets
    return value


def plain(value: Any) -> str:
    """Give a value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------------- telling


def allowed(field: ProfileField) -> str:
    """Say what a field may be: ``0 to 8``, ``2 GiB to 16 GiB``, ``a100 or h100``."""
    if field.kind == "choice":
        *first, last = (plain(choice.value) for choice in field.choices)
        return f"{', '.join(first)} or {last}" if first else last
    low, high = (None if b is None else _amount(field, b) for b in (field.minimum, field.maximum))
    if high is None:
        return (
            f"{KIND_WORDS[field.kind]}, {low} or more"
            if low is not None and field.minimum
            else KIND_WORDS[field.kind]
        )
    return f"up to {high}" if low is None else f"{low} to {high}" if low != high else low


def _amount(field: ProfileField, value: float) -> str:
    return memory_text(value) if field.kind == "size" else f"{value:.12g}"


def choice_text(field: ProfileField, value: Any) -> str:
    """Give a choice as people write it: ``workers=4``, ``memory=8GiB``."""
    text = memory_text(value).replace(" ", "") if field.kind == "size" else plain(value)
    return f"{field.name}={text}"


def profile_text(profile: Profile) -> str:
    """Give a profile with its fields for a terminal."""
    named = profile.title if profile.title != profile.name else ""
    head = f"{profile.name}{' (default)' * profile.default}" + (f": {named}" if named else "")
    lines = [head, *([f"    {profile.description}"] if profile.description else [])]
    rows = [
        (choice_text(f, f.default), allowed(f), f.title if f.title != f.name else "") for f in profile.fields
    ]
    wide = [max((len(row[n]) for row in rows), default=0) for n in (0, 1)]
    lines += [f"    {one:{wide[0]}}  {two:{wide[1]}}  {three}".rstrip() for one, two, three in rows]
    if profile.caps:
        lines.append(f"    In all at most {', '.join(_cap(*cap) for cap in profile.caps.items())}")
    return "\n".join(lines)


def profile_view(profile: Profile) -> dict[str, Any]:
    """Give what forms are made from: the profile without what it sets.

    Returns
    -------
    dict
        JSON-ready: ``name``, ``title``, ``description``, ``default`` and ``fields``; each field with
        ``name``, ``title``, ``kind``, ``default`` and, where they apply, ``minimum``, ``maximum``,
        ``choices`` (``value`` and ``title``) and ``unit``. :meth:`.Profile.from_json` reads it.
    """
    plain = profile.replace(cluster=ClusterSpec(), caps={}, fields=()).to_json()
    plain.pop("cluster", None)
    return {**plain, "fields": [_field_view(field) for field in profile.fields]}


def _field_view(field: ProfileField) -> dict[str, Any]:
    shown = field.to_json()
    shown.pop("path", None)
    if field.choices:
        shown["choices"] = [{"value": c.value, "title": c.title} for c in field.choices]
    return shown
