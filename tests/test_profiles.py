"""Profiles: what a site may declare, what people may choose, and what each is told."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.declared import read_profiles
from jupyter_rayoffload.errors import UsageError
from jupyter_rayoffload.models import ClusterInfo, ClusterSpec, Profile
from jupyter_rayoffload.profiles import (
    apply,
    check_same,
    choice_text,
    chosen,
    pick,
    profile_text,
    profile_view,
)

GIB = 2**30
BASE: dict[str, Any] = {
    "store_secret": "store",
    "image": "site/ray:1",
    "head": {"cpus": 1, "memory": "4GiB"},
    "groups": [{"name": "workers", "replicas": 1, "pod": {"cpus": 2, "memory": "4GiB"}}],
}
LARGE: dict[str, Any] = {
    "name": "large",
    "title": "Large",
    "description": "For what takes hours.",
    "cluster": {
        "groups": [
            {"name": "workers", "replicas": 2, "pod": {"cpus": 4, "memory": "8GiB"}},
            {"name": "gpu", "replicas": 0, "maximum": 2, "pod": {"cpus": 4, "memory": "16GiB", "gpus": 1}},
        ]
    },
    "fields": [
        {"name": "workers", "path": "groups.workers.replicas", "maximum": 8, "title": "Workers"},
        {
            "name": "memory",
            "path": "groups.workers.pod.memory",
            "kind": "size",
            "minimum": "2GiB",
            "maximum": "16GiB",
        },
        {
            "name": "cpus",
            "path": "groups.workers.pod.cpus",
            "kind": "number",
            "default": 2,
            "minimum": 0.5,
            "maximum": 8,
            "unit": "cores",
        },
        {
            "name": "gpu",
            "path": "groups.gpu.pod.node_selector",
            "kind": "choice",
            "choices": [
                {"value": "any", "title": "Any", "sets": {}},
                {"value": "a100", "title": "NVIDIA A100", "sets": {"accelerator": "a100"}},
            ],
        },
    ],
    "caps": {"cpus": 33, "memory": "100GiB", "gpus": 2},
}


ZONE = {
    "name": "zone",
    "path": "groups.gpu.pod.node_selector.zone",
    "kind": "choice",
    "choices": ["a", "b"],
}


def large(**changes: Any) -> Profile:
    # With a bound of the group's own, which its field must keep, too.
    entry = copy.deepcopy(LARGE)
    entry["cluster"]["groups"][0]["maximum"] = 8
    [profile] = read_profiles([{**entry, **changes}], BASE)
    return profile


def with_field(number: int, **changes: Any) -> list[dict[str, Any]]:
    fields = copy.deepcopy(LARGE["fields"])
    fields[number] = {k: v for k, v in {**fields[number], **changes}.items() if v != "gone"}
    return list(fields)


# ---------------------------------------------------------------------- choosing


def test_what_a_profile_leaves_out_is_that_of_the_settings() -> None:
    spec = apply(large())
    assert (spec.store_secret, spec.image, spec.head.memory) == ("store", "site/ray:1", 4 * GIB)
    assert [(g.name, g.replicas) for g in spec.groups] == [("workers", 2), ("gpu", 0)]
    assert spec.groups[0].pod.cpus == 2  # the field's default goes before the cluster's
    assert (spec.profile, spec.name) == ("large", "default")
    assert spec.choices == {"workers": 2, "memory": 8 * GIB, "cpus": 2, "gpu": "any"}


def test_choices_are_read_as_they_are_written() -> None:
    texts = apply(large(), {"workers": "4", "memory": "6 GiB", "cpus": "0.5", "gpu": "a100"})
    values = apply(large(), {"workers": 4, "memory": 6 * GIB, "cpus": 0.5, "gpu": "a100"})
    assert texts == values
    workers, gpu = values.groups
    assert (workers.replicas, workers.pod.memory, workers.pod.cpus) == (4, 6 * GIB, 0.5)
    assert gpu.pod.node_selector == {"accelerator": "a100"}
    assert ClusterSpec.from_json(json.loads(json.dumps(values.to_json()))) == values


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"workers": 12}, "workers cannot be 12: profile large has 0 to 8"),
        ({"workers": -1}, "workers cannot be -1: profile large has 0 to 8"),
        ({"workers": "many"}, "workers cannot be many: profile large has 0 to 8"),
        ({"workers": 1.5}, "workers cannot be 1.5: profile large has 0 to 8"),
        ({"workers": True}, "workers cannot be True: profile large has 0 to 8"),
        ({"workers": None}, "workers cannot be None: profile large has 0 to 8"),
        ({"workers": 10**400}, "profile large has 0 to 8"),
        ({"memory": "1GiB"}, "memory cannot be 1GiB: profile large has 2 GiB to 16 GiB"),
        ({"memory": "9" * 400}, "profile large has 2 GiB to 16 GiB"),
        ({"cpus": "nan"}, "cpus cannot be nan: profile large has 0.5 to 8"),
        ({"gpu": "h100"}, "gpu cannot be h100: profile large has any or a100"),
        ({"worker": 1}, "profile large has no field 'worker'. Did you mean workers?"),
        (
            {"workers": 8, "cpus": 8},
            "profile large may have 33 CPUs in all, and this is 65 CPUs: workers=8, memory=8GiB, cpus=8",
        ),
        (
            {"workers": 7, "memory": "16GiB"},
            "may have 100 GiB of memory in all, and this is 116 GiB of memory",
        ),
    ],
)
def test_what_is_not_allowed_is_told_in_one_line(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply(large(), choices)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(["workers", "memory", "cpus", "gpu"]), st.text() | st.integers() | st.floats()
    )
)
def test_whatever_is_chosen_is_within_the_bounds_and_caps_or_refused(choices: dict[str, Any]) -> None:
    try:
        spec = apply(large(), choices)
    except UsageError:
        return
    workers, gpu = spec.groups
    assert 0 <= workers.replicas <= 8 and 2 * GIB <= (workers.pod.memory or 0) <= 16 * GIB
    assert 1 + workers.replicas * (workers.pod.cpus or 0) + gpu.replicas * 4 <= 33


def test_the_autoscaler_counts_with_its_maximum() -> None:
    groups = [{"name": "w", "replicas": 1, "maximum": 4, "pod": {"cpus": 4}}]
    cluster = {"autoscale": True, "groups": groups, "head": {"cpus": 1}}
    assert read_profiles([{"name": "auto", "cluster": cluster, "caps": {"cpus": 17}}], {})
    with pytest.raises(UsageError, match="may have 16 CPUs in all, and this is 17 CPUs"):
        read_profiles([{"name": "auto", "cluster": cluster, "caps": {"cpus": 16}}], {})


def test_one_is_picked_by_its_name() -> None:
    both = read_profiles([{"name": "small"}, {**LARGE, "fields": [], "default": True}], BASE)
    assert [p.default for p in both] == [False, True]
    assert (pick(both).name, pick(both, "small").name) == ("large", "small")
    with pytest.raises(UsageError, match=r"there is no profile 'smal'. Did you mean small\?"):
        pick(both, "smal")
    with pytest.raises(UsageError, match="no profile 'big': the embedded cluster has no profiles"):
        pick((), "big")


def test_without_any_there_is_one_of_the_settings() -> None:
    [only] = read_profiles([], BASE)
    assert (only.name, only.default, only.fields) == ("default", True, ())
    assert apply(only).head.memory == 4 * GIB
    with pytest.raises(UsageError, match=r"profile default has no field 'workers'\. Its size is fixed"):
        apply(only, {"workers": 2})


def test_a_cluster_of_another_profile_is_told_apart() -> None:
    there = ClusterInfo(profile="large", choices={"workers": 2, "gpu": "any"})
    for same in (
        ClusterSpec(),
        ClusterSpec(profile="large"),
        ClusterSpec(profile="large", choices={"workers": 2}),
    ):
        check_same(same, there)
    for asked, has, said in (
        (ClusterSpec(profile="small"), there, "cluster 'default' is of profile large, not of profile small"),
        (ClusterSpec(profile="small"), ClusterInfo(), "made without a profile, not of profile small"),
        (ClusterSpec(choices={"workers": 4}), there, "has workers=2, not workers=4"),
        (ClusterSpec(choices={"cpus": 4}), there, "has no cpus, not cpus=4"),
    ):
        with pytest.raises(UsageError) as caught:
            check_same(asked, has)
        assert said in caught.value.message
        assert "--cluster NAME" in caught.value.hint and "%ray cluster down" in caught.value.hint


# ---------------------------------------------------------------------- declaring


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a b"}, "profile a b: name: up to 63 letters"),
        ({"name": None}, "profile 1: name: up to 63 letters"),
        ({"titel": "x"}, "profile large: no 'titel' there. Did you mean title?"),
        ({"title": 3}, "profile large: title: expected some text"),
        ({"default": "yes"}, "profile large: default: expected true or false"),
        ({"cluster": []}, None),
        ({"cluster": {"hed": {}}}, "profile large: cluster: no 'hed' there. Did you mean head?"),
        ({"cluster": {"head": {"memory": "lots"}}}, "cluster.head.memory: expected an amount of memory"),
        ({"cluster": {"head": {"cpus": "2"}}}, "cluster.head.cpus: expected a number, not '2'"),
        (
            {"cluster": {"groups": [{"name": "w", "replicas": -1}]}},
            "cluster.groups.w.replicas: expected a whole number, not -1",
        ),
        (
            {"fields": [], "cluster": {"groups": [{"name": "w", "replicas": 3, "maximum": 2}]}},
            "goes from 0 to 2",
        ),
        ({"fields": {}}, None),
        ({"fields": "x"}, "profile large: fields: expected a list"),
        ({"fields": [3]}, "profile large: field 1: expected names with values"),
        ({"fields": with_field(0, path="gone")}, "field workers: path: expected the part that it sets"),
        ({"fields": with_field(0, path="name")}, "field workers: path: name is no part that a field can set"),
        (
            {"fields": with_field(0, path="groups.worker.replicas")},
            "no 'groups.worker'. Did you mean workers?",
        ),
        ({"fields": with_field(0, path="head.memory.x")}, "the cluster has no 'head.memory.x'"),
        ({"fields": with_field(0, path="image")}, "kind: image cannot be set by a field of the kind integer"),
        ({"fields": with_field(0, kind="slider")}, "kind: expected one of integer, number, size, choice"),
        ({"fields": with_field(0, name="2nd")}, "field 2nd: name: expected letters"),
        ({"fields": with_field(0, minimum="few")}, "minimum: 'few' is not a whole number"),
        ({"fields": with_field(0, minimum=9)}, "minimum: it is above the maximum"),
        ({"fields": with_field(0, default=9)}, "field workers: default: 9 cannot be; it has 0 to 8"),
        (
            {"fields": with_field(0, maximum=9)},
            "worker group 'workers' cannot have 9 workers: it goes from 0 to 8",
        ),
        ({"fields": with_field(0, choices=[1, 2])}, "choices: fields of the kind choice have them"),
        ({"fields": with_field(3, choices="gone")}, "choices: fields of the kind choice have them"),
        ({"fields": with_field(3, choices=["a", "a"])}, "choices: a is there twice"),
        ({"fields": with_field(3, choices=["a"])}, "field gpu: groups.gpu.pod.node_selector: expected names"),
        ({"fields": with_field(3, choices=[[]])}, "choices: a value is text, a number, true or false"),
        ({"fields": with_field(3, maximum=3)}, "maximum: fields of the kind choice have none"),
        ({"fields": with_field(1, name="workers")}, "two fields have the name workers"),
        (
            {"fields": [*with_field(0), ZONE]},
            "zone: path: groups.gpu.pod.node_selector.zone is a part of groups.gpu.pod.node_selector",
        ),
        (
            {"fields": with_field(1, maximum="lots")},
            "field memory: maximum: 'lots' is not a size such as 8GiB",
        ),
        ({"caps": {"cpu": 3}}, "profile large: caps: no 'cpu' there. Did you mean cpus?"),
        ({"caps": {"memory": "x"}}, "caps: memory: 'x' is not a size"),
        ({"caps": {"cpus": 3}}, "profile large: its defaults cannot be: profile large may have 3 CPUs"),
        (
            {"cluster": {"head": {}}, "fields": [], "caps": {"cpus": 9}},
            "cpus cannot be counted: the head has none",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place(changes: dict[str, Any], said: str | None) -> None:
    if said is None:  # empty is as good as left out
        changes = {**changes, "fields": [], "caps": {}}
        assert large(**changes)
        return
    with pytest.raises(UsageError) as caught:
        large(**changes)
    assert said in caught.value.message and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({}, "the profiles are no list"),
        ([3], "profile 1: expected names with values"),
        ([{"name": "a"}, {"name": "a"}], "profile a: another one has this name, too"),
        (
            [{"name": "a", "default": True}, {"name": "b", "default": True}],
            "profile b: default: another one is the default already",
        ),
    ],
)
def test_so_is_a_wrong_list(given_: Any, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_profiles(given_, BASE)
    assert said in caught.value.message


def test_a_default_is_what_the_cluster_has() -> None:
    image = {"name": "image", "path": "image", "kind": "choice"}
    choices = [{"value": "torch", "sets": "site/torch:1"}, {"value": "plain", "sets": "site/ray:1"}]
    [profile] = read_profiles([{"name": "a", "fields": [{**image, "choices": choices}]}], BASE)
    assert profile.fields[0].default == "plain"
    assert apply(profile, {"image": "torch"}).image == "site/torch:1"
    switch = {"name": "grow", "path": "autoscale", "kind": "choice", "choices": [False, True]}
    [profile] = read_profiles([{"name": "a", "fields": [switch]}], BASE)
    assert apply(profile, {"grow": "true"}).autoscale is True and apply(profile).autoscale is False
    idle = {"name": "idle", "path": "idle_seconds", "kind": "number"}
    with pytest.raises(UsageError, match="field idle: default: the cluster has nothing at idle_seconds"):
        read_profiles([{"name": "a", "fields": [idle]}], BASE)
    env = {"name": "mode", "path": "head.env.MODE", "kind": "choice", "choices": ["fast", "exact"]}
    [profile] = read_profiles([{"name": "a", "fields": [env]}], BASE)
    assert apply(profile, {"mode": "exact"}).head.env == {"MODE": "exact"}


# ---------------------------------------------------------------------- telling


def test_forms_are_made_from_what_people_may_know() -> None:
    view = profile_view(large())
    assert view == {
        "name": "large",
        "title": "Large",
        "description": "For what takes hours.",
        "default": True,
        "fields": [
            {
                "name": "workers",
                "title": "Workers",
                "kind": "integer",
                "default": 2,
                "minimum": 0,
                "maximum": 8,
            },
            {
                "name": "memory",
                "title": "memory",
                "kind": "size",
                "default": 8 * GIB,
                "minimum": 2 * GIB,
                "maximum": 16 * GIB,
            },
            {
                "name": "cpus",
                "title": "cpus",
                "kind": "number",
                "default": 2,
                "minimum": 0.5,
                "maximum": 8,
                "unit": "cores",
            },
            {
                "name": "gpu",
                "title": "gpu",
                "kind": "choice",
                "default": "any",
                "choices": [{"value": "any", "title": "Any"}, {"value": "a100", "title": "NVIDIA A100"}],
            },
        ],
    }
    assert "store" not in json.dumps(view)
    [plain] = read_profiles(
        [
            {"name": "a"},
        ],
        BASE,
    )
    assert profile_view(plain) == {"name": "a", "title": "a", "default": True, "fields": []}


def test_whoever_has_the_form_alone_can_check_what_is_chosen() -> None:
    there = Profile.from_json(json.loads(json.dumps(profile_view(large()))))
    assert (
        chosen(there, {"workers": "3", "gpu": "a100"})
        == apply(large(), {"workers": 3, "gpu": "a100"}).choices
    )
    with pytest.raises(UsageError, match="workers cannot be 9: profile large has 0 to 8"):
        chosen(there, {"workers": 9})


def test_a_profile_in_a_terminal() -> None:
    assert profile_text(large()).split("\n") == [
        "large (default): Large",
        "    For what takes hours.",
        "    workers=2    0 to 8           Workers",
        "    memory=8GiB  2 GiB to 16 GiB",
        "    cpus=2       0.5 to 8",
        "    gpu=any      any or a100",
        "    In all at most 33 CPUs, 100 GiB of memory, 2 GPUs",
    ]
    memory = large().fields[1]
    assert choice_text(memory, 300_000_000) == "memory=300MB"
