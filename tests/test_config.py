"""Settings: where they come from, which one wins, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets.config import Application, Config

from jupyter_rayoffload.config import DEFAULT_RAY, RayOffload
from jupyter_rayoffload.errors import UsageError
from jupyter_rayoffload.models import JobOptions, Resources
from jupyter_rayoffload.traits import OPTIONS


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "weak"))
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(tmp_path / "strong"))
    monkeypatch.delenv("JUPYTERHUB_USER", raising=False)


def _write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)


def test_the_stronger_source_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _write(
        tmp_path / "weak",
        "jupyter_rayoffload_config.py",
        "c.RayOffload.idle_timeout = '1m'\nc.RayOffload.num_cpus = 1",
    )
    assert RayOffload.load().idle_timeout == 60
    _write(tmp_path / "strong", "jupyter_rayoffload_config.json", '{"RayOffload": {"idle_timeout": 120}}')
    assert (RayOffload.load().idle_timeout, RayOffload.load().num_cpus) == (120, 1)
    app = Application(config=Config({"RayOffload": {"idle_timeout": "3m"}}))
    assert RayOffload.load(app).idle_timeout == 180
    monkeypatch.setenv("RAYOFFLOAD_IDLE_TIMEOUT", "4m")
    assert RayOffload.load(app).idle_timeout == 240
    assert RayOffload.load(app, idle_timeout=300).idle_timeout == 300
    config = RayOffload.load(app)
    config.set_from_text("idle_timeout", "6m")
    assert config.idle_timeout == 360


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    _write(tmp_path / "weak", "jupyter_rayoffload_config.py", "1/0")
    with pytest.raises(UsageError, match="jupyter_rayoffload_config cannot be read: ZeroDivisionError"):
        RayOffload.load()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("idle_timeout", "1h30m", 5400),
        ("idle_timeout", "0", 0),
        ("store_limit", "8GiB", 8 << 30),
        ("store_limit", "none", None),
        ("memory", "500MB", 500_000_000),
        ("num_cpus", "4", 4),
        ("num_cpus", "None", None),
        ("backend", "embedded", "embedded"),
        ("record_days", "0.5", 0.5),
        ("fetch_below", "0", 0),
    ],
)
def test_text_is_read_by_the_kind_of_the_setting(key: str, text: str, value: object) -> None:
    config = RayOffload.load()
    config.set_from_text(key, text)
    assert getattr(config, key) == value


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("num_cpus", "many", "num_cpus cannot be 'many'. It must be a whole number, at least 1, or none"),
        ("num_cpus", "0", "num_cpus cannot be '0'. It must be a whole number, at least 1, or none"),
        ("backend", "cloud", "backend cannot be 'cloud'. It must be one of auto, embedded, address"),
        ("store_limit", "-1", "It must be a size such as 8GiB or 500MB, or none"),
        ("idle_timeout", "soon", "It must be a duration such as 90s, 15m or 2h"),
        ("idle_timout", "3m", "there is no setting 'idle_timout'. Did you mean idle_timeout?"),
        ("cpus", "few", "cpus cannot be 'few'. cpus='few': expected a number"),
        ("defaults.memory", "lots", "defaults.memory cannot be 'lots'"),
        ("defaults.colour", "red", "there is no setting 'defaults.colour'"),
        ("owner", "a b", "owner cannot be 'a b'. It must be up to 63 letters, digits, '.', '_' and '-'"),
        ("check_timeout", "soon", "It must be a number, at least 0.1"),
        ("profiles", "[{}]", "profile 1: name: up to 63 letters"),
        ("profiles", "{}", "profiles cannot be '{}'. It must be a JSON list of profiles"),
        ("profiles", '[{"name": "a", "cluster": {"hed": {}}}]', "profile a: cluster: no 'hed' there"),
        ("profiles_file", "/is/not/there.yaml", "profiles_file '/is/not/there.yaml' cannot be read"),
    ],
)
def test_what_is_not_allowed_is_told_in_one_line(key: str, text: str, said: str) -> None:
    config = RayOffload.load()
    before = config.shown()
    with pytest.raises(UsageError) as caught:
        config.set_from_text(key, text)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert config.shown() == before


PROFILES = """
- name: small
- name: large
  default: true
  cluster:
    head: {cpus: 2, memory: 8GiB}
  fields:
    - {name: memory, path: head.memory, kind: size, maximum: 16GiB}
"""


def test_profiles_come_from_a_setting_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [only] = RayOffload.load().cluster_profiles()
    assert (only.name, only.cluster.groups[0].name) == ("default", "workers")
    file = tmp_path / "profiles.yaml"
    file.write_text(PROFILES)
    config = RayOffload.load(profiles_file=str(file))
    assert [(p.name, p.default) for p in config.cluster_profiles()] == [("small", False), ("large", True)]
    assert config.cluster_profiles()[1].cluster.head.memory == 8 << 30
    file.write_text("- name: other")  # a site may change it while kernels run
    assert [p.name for p in config.cluster_profiles()] == ["other"]
    with pytest.raises(UsageError, match="profiles and profiles_file are both set"):
        config.set_from_text("profiles", '[{"name": "a"}]')
    assert config.profiles == []
    monkeypatch.setenv("RAYOFFLOAD_PROFILES", '[{"name": "a"}]')
    assert [p.name for p in RayOffload.load().cluster_profiles()] == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name: [", "cannot be read: while parsing"),
        ("profiles: []", "the profiles are no list"),
        (
            "- {name: a, fields: [{name: n, path: head.cpus, kind: slider}]}",
            "profile a: field n: kind: expected",
        ),
    ],
)
def test_profiles_that_cannot_be_are_refused_at_load(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        RayOffload.load(profiles_file=str(file))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_variable_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYOFFLOAD_NUM_CPUS", "many")
    with pytest.raises(UsageError, match="RAYOFFLOAD_NUM_CPUS cannot be 'many'"):
        RayOffload.load()


def test_job_options_have_defaults() -> None:
    config = RayOffload.load(defaults={"cpus": 2})
    config.set_from_text("timeout", "2h")
    config.set_from_text("defaults.memory", "8GiB")
    config.set_from_text("pip", "numpy, polars")
    config.set_from_text("env", "A=1,B=2")
    config.set_from_text("lazy", "yes")
    assert config.memory is None
    assert config.job_options() == JobOptions(
        resources=Resources(cpus=2.0, memory=8 << 30),
        timeout=7200.0,
        pip=("numpy", "polars"),
        env={"A": "1", "B": "2"},
        lazy=True,
    )
    assert set(OPTIONS) >= {"cpus", "gpus", "memory", "timeout", "retries"}


def test_no_secret_is_shown() -> None:
    config = RayOffload.load(ray_token="s3cret")
    assert "s3cret" not in repr(config) + str(config.shown()) + str(config)
    assert config.shown()["ray_token"] == "(set)"


def test_the_owner_is_the_hub_user_and_fits_into_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = set()
    for name in ("ada", "ada@example.org", "ada@example-org", "ünï", "ada{x}", "*", "a" * 90):
        monkeypatch.setenv("JUPYTERHUB_USER", name)
        owner = RayOffload.load().owner
        assert RayOffload(owner=owner).owner == owner
        owners.add(owner)
    assert "ada" in owners and len(owners) == 7


@given(st.text(max_size=30), st.sampled_from(sorted([*RayOffload.class_trait_names(config=True), *OPTIONS])))
def test_no_text_does_anything_but_set_or_refuse(text: str, key: str) -> None:
    config = RayOffload()
    try:
        config.set_from_text(key, text)
    except UsageError as error:
        assert error.message
    assert config.job_options() is not None
    assert config.shown()


def test_lifetimes_are_in_seconds() -> None:
    lifetimes = RayOffload(record_days=2, input_days=0.5, landed_hours=3).lifetimes()
    assert (lifetimes.record, lifetimes.input, lifetimes.landed) == (172_800, 43_200, 10_800)


def test_importing_it_loads_neither_ray_nor_aiohttp() -> None:
    import subprocess
    import sys

    code = (
        "import sys, jupyter_rayoffload.config, jupyter_rayoffload.rayapi, jupyter_rayoffload.clusters;"
        "print(sorted({'ray', 'aiohttp', 'redis', 'numpy', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_map_of_images_is_checked_when_it_is_read(tmp_path: Path) -> None:
    text = "c.RayOffload.images = {'311': 'registry.example/ray'}"
    _write(tmp_path / "weak", "jupyter_rayoffload_config.py", text)
    with pytest.raises(UsageError, match="'311' is no key of images"):
        RayOffload.load()
    config = RayOffload()
    config.set_from_text("images", '{"py311-ray2.60": "registry.example/ray:2.60"}')
    assert config.images == {"py311-ray2.60": "registry.example/ray:2.60"}
    with pytest.raises(UsageError, match="images cannot be"):
        config.set_from_text("images", '{"py311": ""}')


def test_an_image_that_is_given_goes_before_the_map() -> None:
    config = RayOffload(images={"py38": "old"}, ray_version="2.58.0")
    assert config.pod_image("mine") == ("mine", "2.58.0")
    assert RayOffload(ray_version="").pod_image("mine") == ("mine", DEFAULT_RAY)
