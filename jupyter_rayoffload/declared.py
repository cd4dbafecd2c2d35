"""The profiles that a site declares: read from its settings, checked whole, each fault with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import UsageError
from .models import Choice, ClusterSpec, Model, Profile, ProfileField
from .profiles import CAPS, KIND_WORDS, allowed, apply, number_of, plain, set_by, value_of
from .specification import KINDS, check_groups, cluster_spec, did_you_mean, part, with_part

__all__ = ["read_profiles"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HINT = "Correct it in profiles or profiles_file of the settings; docs/clusters.md says what a profile has"
_PROFILE = ("name", "title", "description", "default", "cluster", "fields", "caps")
_FIELD = ("name", "path", "kind", "title", "default", "minimum", "maximum", "choices", "unit")
_CHOICE = ("value", "title", "sets")


def read_profiles(given: Any, base: Mapping[str, Any]) -> tuple[Profile, ...]:
    """Read what a site declares.

    Parameters
    ----------
    given : sequence of Mapping
        One for each profile, in the JSON form of :class:`.models.Profile`.
    base : Mapping
        The setting `kubernetes_cluster`, of which a profile's ``cluster`` replaces entries.

    Returns
    -------
    tuple of Profile
        One of them is the default. Where none are declared, it is made from `base` alone.

    Raises
    ------
    UsageError
        Something cannot be: one line with the name of the profile and of the field.
    """
    if not isinstance(given, (list, tuple)):
        raise UsageError("the profiles are no list", _HINT)
    entries = given or [{"name": "default", "title": "Default"}]
    made: list[Profile] = []
    for number, entry in enumerate(entries, 1):
        name = entry.get("name") if isinstance(entry, Mapping) else None
        try:
            profile = _profile(entry, base)
            if profile.name in [other.name for other in made]:
                raise ValueError("another one has this name, too")
            if profile.default and any(other.default for other in made):
                raise ValueError("default: another one is the default already")
        except ValueError as problem:
            raise UsageError(f"profile {name or number}: {problem}", _HINT) from None
        made.append(profile)
    if not any(profile.default for profile in made):
        made[0] = made[0].replace(default=True)
    return tuple(made)


def _profile(given: Any, base: Mapping[str, Any]) -> Profile:
    _known(given, _PROFILE)
    name, entries = given.get("name"), given.get("fields") or ()
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("name: up to 63 letters, digits, '.', '_' and '-', a letter or a digit first")
    if not isinstance(given.get("default", False), bool):
        raise ValueError("default: expected true or false")
    own = given.get("cluster") or {}
    if not isinstance(own, Mapping):
        raise ValueError("cluster: expected names with values")
    cluster = cluster_spec({**base, **own})
    check_groups(cluster)
    profile = Profile(
        name,
        _text(given, "title") or name,
        _text(given, "description"),
        given.get("default", False),
        cluster,
        tuple(_field(entry, number, cluster) for number, entry in enumerate(_list(entries, "fields"), 1)),
        _caps(given.get("caps") or {}, cluster),
    )
    for what in ("name", "path"):
        seen = [getattr(field, what) for field in profile.fields]
        for value in seen:
            if seen.count(value) > 1:
                raise ValueError(f"two fields have the {what} {value}")
    _apart(profile)
    try:
        apply(profile)
    except UsageError as error:
        raise ValueError(f"its defaults cannot be: {error.message}") from None
    return profile


def _apart(profile: Profile) -> None:
    """Refuse a field that sets what another one sets a part of: one choice would undo the other unseen."""
    for outer in profile.fields:
        if not isinstance(part(profile.cluster, outer.path)[0], (Model, Mapping, tuple)):
            continue
        for inner in profile.fields:
            if inner.path.startswith(f"{outer.path}."):
                raise ValueError(
                    f"field {inner.name}: path: {inner.path} is a part of {outer.path}, which the field "
                    f"{outer.name} sets"
                )


def _field(given: Any, number: int, cluster: ClusterSpec) -> ProfileField:
    name = given.get("name") if isinstance(given, Mapping) else None
    try:
        _known(given, _FIELD)
        if not isinstance(name, str) or not name.isascii() or not name.isidentifier():
            raise ValueError("name: expected letters, digits and '_', such as workers")
        kind, path = given.get("kind", "integer"), _text(given, "path")
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, not {kind!r:.80}")
        if not path:
            raise ValueError("path: expected the part that it sets, such as groups.workers.replicas")
        there, hint = part(cluster, path)
        if KINDS[kind] and hint not in KINDS[kind]:
            raise ValueError(f"kind: {path} cannot be set by a field of the kind {kind}")
        texts = (_text(given, "title") or name, _text(given, "unit"))
        made = ProfileField(
            name,
            path,
            kind,
            texts[0],
            unit=texts[1],
            choices=tuple(_choices(given, kind)),
            minimum=_bound(given, "minimum", kind),
            maximum=_bound(given, "maximum", kind),
        )
        if made.minimum is not None and made.maximum is not None and made.minimum > made.maximum:
            raise ValueError("minimum: it is above the maximum")
        made = made.replace(default=_default(made, given.get("default"), there))
        for value in _extremes(made):
            check_groups(with_part(cluster, path, set_by(made, value)))
    except ValueError as problem:
        raise ValueError(f"field {name or number}: {problem}") from None
    return made


def _choices(given: Mapping[str, Any], kind: str) -> Iterator[Choice]:
    entries = _list(given.get("choices") or (), "choices")
    if bool(entries) is not (kind == "choice"):
        raise ValueError("choices: fields of the kind choice have them, and no others")
    seen: list[str] = []
    for entry in entries:
        whole = entry if isinstance(entry, Mapping) else {"value": entry}
        _known(whole, _CHOICE, "choices: ")
        value = whole.get("value")
        if not isinstance(value, (str, int, float)) or value == "" or value != value:
            raise ValueError(f"choices: a value is text, a number, true or false, not {value!r:.80}")
        if plain(value) in seen:
            raise ValueError(f"choices: {plain(value)} is there twice")
        seen.append(plain(value))
        yield Choice(value, _text(whole, "title") or plain(value), whole.get("sets"))


def _bound(given: Mapping[str, Any], what: str, kind: str) -> float | None:
    value = given.get(what)
    if kind == "choice" and value is not None:
        raise ValueError(f"{what}: fields of the kind choice have none")
    if value is None:
        return 0 if what == "minimum" and kind in ("integer", "number") else None
    try:
        return number_of(kind, value)
    except ValueError:
        raise ValueError(f"{what}: {value!r:.80} is not {KIND_WORDS[kind]}") from None


def _default(field: ProfileField, given: Any, there: Any) -> Any:
    """Give what holds without a choice: as declared, as the cluster is, or the first choice."""
    if given is None and field.kind == "choice":
        same = [c.value for c in field.choices if set_by(field, c.value) == there]
        given = (same or [field.choices[0].value])[0]
    elif given is None:
        given = there
    if given is None:
        raise ValueError(f"default: the cluster has nothing at {field.path}, so it is needed")
    try:
        return value_of(field, given)
    except ValueError:
        raise ValueError(f"default: {given!r:.80} cannot be; it has {allowed(field)}") from None


def _extremes(field: ProfileField) -> list[Any]:
    if field.kind == "choice":
        return [choice.value for choice in field.choices]
    return [value for value in (field.minimum, field.default, field.maximum) if value is not None]


def _caps(given: Any, cluster: ClusterSpec) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise ValueError("caps: expected names with values")
    _known(given, tuple(CAPS), "caps: ")
    caps: dict[str, float] = {}
    for name, value in given.items():
        kind = "size" if name == "memory" else "number"
        try:
            caps[name] = number_of(kind, value)
        except ValueError:
            raise ValueError(f"caps: {name}: {value!r:.80} is not {KIND_WORDS[kind]}") from None
        # A pod without a limit would make a cap a promise that nobody keeps.
        pods = {"the head": cluster.head, **{f"group {g.name}": g.pod for g in cluster.groups}}
        for whose, pod in pods.items():
            if getattr(pod, name) is None:
                raise ValueError(f"caps: {name} cannot be counted: {whose} has none")
    return caps


def _known(given: Any, known: Sequence[str], where: str = "") -> None:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}expected names with values, not {given!r:.80}")
    for name in given:
        if name not in known:
            raise ValueError(f"{where}no {name!r} there. {did_you_mean(str(name), known)}")


def _text(given: Mapping[str, Any], name: str) -> str:
    text = given.get(name) or ""
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected some text, not {text!r:.80}")
    return " ".join(text.split())


def _list(given: Any, what: str) -> Sequence[Any]:
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"{what}: expected a list, not {given!r:.80}")
    return given
