"""The settings, in one place: kernel, scripts and server read this class; its help text is the reference.

From weak to strong: ``jupyter_rayoffload_config.py`` and ``.json`` on Jupyter's configuration path, the
configuration of the running application (``c.RayOffload...`` in ``ipython_config.py``), environment variables
``RAYOFFLOAD_<SETTING>``, what the caller gives, ``%ray config``.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Dict, Enum, Float, Int, TraitError, TraitType, Unicode, default, validate
from traitlets.config import Application, Config, Configurable

from .declared import read_profiles
from .errors import UsageError
from .images import bad_key, choose
from .models import JobOptions, Profile
from .options import from_keywords
from .specification import cluster_spec, did_you_mean
from .traits import OPTIONS, Duration, Json, JsonList, Number, Size

if TYPE_CHECKING:
    from .remote.store import Lifetimes

__all__ = ["RayOffload"]

MIB, GIB = 1 << 20, 1 << 30
#: Where neither the settings nor this environment say which Ray: the newest that the tests have seen.
DEFAULT_RAY = "2.60.0"
DEFAULT_CLUSTER = {
    "head": {"cpus": 1, "memory": 4 * GIB},
    "groups": [{"name": "workers", "replicas": 1, "pod": {"cpus": 2, "memory": 4 * GIB}}],
}
DAY = 86400


# A part of every key in the store; Redis gives braces a meaning there, and access rules a star.
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class RayOffload(Configurable):
    """Settings of jupyter_rayoffload.

    In ``jupyter_rayoffload_config.py`` or ``ipython_config.py``: ``c.RayOffload.idle_timeout = "30m"``;
    in the environment: ``RAYOFFLOAD_IDLE_TIMEOUT=30m``; in a notebook: ``%ray config idle_timeout=30m``.
    """

    # Which cluster

    backend = Enum(
        ["auto", "embedded", "address", "kubernetes"],
        "auto",
        help="Where jobs run: 'embedded' is a Ray on this machine, 'address' the one of ray_address or "
        "connection_file, 'kubernetes' a RayCluster that is made on first use. 'auto' is 'kubernetes' in a "
        "pod whose service account may create RayClusters, 'address' where ray_address or a connection_file "
        "with the address of a Ray is set, else 'embedded', but never inside a Kubernetes pod.",
    ).tag(config=True)
    ray_address = Unicode(
        help="Dashboard URL of an existing Ray cluster, http://HOST:8265. It needs store_url, and "
        "connection_file on its nodes."
    ).tag(config=True)
    ray_token = Unicode(
        help="Token of that cluster; ray_token_file keeps it out of configuration files."
    ).tag(config=True, secret=True)
    ray_token_file = Unicode(help="File that holds the token.").tag(config=True)
    connection_file = Unicode(
        help="Connection file that somebody made ready: address and secrets of cluster and store in one. "
        "On Kubernetes it may be left out where this account may read the Secret store_secret of "
        "kubernetes_cluster."
    ).tag(config=True)

    # The store

    store_url = Unicode(
        help="Redis to use, redis://HOST:6379/0, rediss:// or unix://, without the password. Empty: the "
        "embedded cluster starts its own."
    ).tag(config=True)
    store_username = Unicode(help="Redis user; empty for the default user.").tag(config=True)
    store_password_file = Unicode(help="File that holds the password of store_url.").tag(config=True)
    signing_key_file = Unicode(
        help="File with the owner's signing key, 64 hex digits. Empty: one is made and kept in Jupyter's "
        "data directory."
    ).tag(config=True)
    owner = Unicode(help="Whose jobs these are. Default: JUPYTERHUB_USER, else the login name.").tag(
        config=True
    )
    store_limit = Size(
        None,
        help="Cap of the embedded store; when it is reached, jobs are refused with a clear text. Default: "
        "a quarter of the memory.",
    ).tag(config=True)
    record_days = Number(7, help="Days for which records and events are kept after their last use.").tag(
        config=True
    )
    input_days = Number(1, help="Days for which inputs and packages are kept after their job's end.").tag(
        config=True
    )
    landed_hours = Number(1, help="Hours for which outputs are kept after they have landed.").tag(config=True)

    # The embedded cluster

    num_cpus = Int(
        None,
        allow_none=True,
        min=1,
        help="CPUs of the embedded cluster. Default: what the control group and the CPU affinity allow.",
    ).tag(config=True)
    memory = Size(
        None, help="Memory of the embedded cluster. Default: what the control group or the machine has."
    ).tag(config=True)
    object_store_memory = Size(
        None,
        help="Ray's object store in the embedded cluster. Default: a tenth of the memory, at most 2 GiB.",
    ).tag(config=True)
    idle_timeout = Duration(
        900, help="The embedded cluster stops when no job has been live for so long; 0: never."
    ).tag(config=True)
    start_timeout = Duration(60, help="How long the embedded cluster may take to start.").tag(config=True)

    # The cluster on Kubernetes

    namespace = Unicode(
        help="Namespace of the RayClusters. Default: that of this pod, or of the kubeconfig's context."
    ).tag(config=True)
    kubeconfig = Unicode(
        help="File with the credential for Kubernetes. Default: the service account inside a pod, else what "
        "kubectl uses."
    ).tag(config=True)
    through_server = Bool(
        True,
        help="In a pod, a kernel leaves its clusters to the extension of its Jupyter server, if that has it; "
        "false: each kernel asks Kubernetes itself.",
    ).tag(config=True)
    images = Json(
        help="Images of Ray pods by Python and Ray, {'py311-ray2.60.0': 'registry.example/ray:2.60.0-py311', "
        "'py312': '...'}: the entry that fits and says most counts, where kubernetes_cluster has no image. "
        "Where none fits it is image."
    ).tag(config=True)
    kubernetes_reach = Enum(
        ["auto", "service", "proxy"],
        "auto",
        help="How Ray and the store of a cluster on Kubernetes are reached: 'service' by the names of their "
        "services, from inside; 'proxy' through the API server alone, from anywhere. 'auto' is 'service' in "
        "a pod, else 'proxy'.",
    ).tag(config=True)
    image = Unicode(
        help="Image of Ray pods where neither kubernetes_cluster nor images has one: ray[default] and this "
        "Python's minor version must be in it. Default: rayproject/ray of ray_version and this Python, "
        "where images is empty."
    ).tag(config=True)
    ray_version = Unicode(
        help="Version of Ray in the image. Default: that of this environment; without one the newest that "
        f"images has for this Python, else {DEFAULT_RAY}."
    ).tag(config=True)
    kubernetes_cluster = Json(
        DEFAULT_CLUSTER,
        help="What a cluster on Kubernetes is, in the JSON form of models.ClusterSpec: head, groups, "
        "store_secret, token_secret, volumes, overlay and more. Default: a head of 1 CPU, one worker of 2.",
    ).tag(config=True)
    profiles = JsonList(
        help="Named sizes of clusters on Kubernetes, for --profile: a list with name, title, description, "
        "default, cluster (what differs from kubernetes_cluster), fields (what people may change) and caps; "
        "docs/clusters.md describes them. Default: one, of kubernetes_cluster."
    ).tag(config=True)
    profiles_file = Unicode(
        help="YAML file with the list of profiles, instead of profiles. It is read anew at each use."
    ).tag(config=True)
    kubernetes_start_timeout = Duration(
        600, help="How long a cluster on Kubernetes may take to start: nodes and images may have to come."
    ).tag(config=True)

    # What travels

    workspace_files = Int(20_000, min=1, help="Most files that a workspace may have.").tag(config=True)
    workspace_bytes = Size(
        100 * MIB, help="Largest workspace package; Ray's Jobs API takes no more than 100 MiB."
    ).tag(config=True)
    freeze_limit = Size(
        256 * MIB,
        help="Inputs larger than this in all are sent before the cell returns; smaller ones are copied and "
        "sent behind it.",
    ).tag(config=True)
    lazy_above = Size(
        2 * GIB, help="Outputs larger than this stay in the store, as a reference with get()."
    ).tag(config=True)
    fetch_below = Size(
        1_000_000, help="Files up to this size that the cell made or changed come back by themselves."
    ).tag(config=True)
    fetch_total = Size(20_000_000, help="But no more than this in all.").tag(config=True)
    output_limit = Size(
        64_000_000,
        help="Most that a cell may print and display; what is beyond is cut, and the text says so.",
    ).tag(config=True)

    # Jobs

    check_versions = Enum(
        ["error", "warn", "off"],
        "error",
        help="What is made of the cluster's libraries before a job is sent. 'error': a job is refused that "
        "cannot run without a library that is not there, and versions between which values may not travel "
        "are told. 'warn': all that is told, nothing refused. 'off': nobody looks.",
    ).tag(config=True)
    standby = Int(
        None,
        allow_none=True,
        min=0,
        help="Runners that are started ahead and wait for the next cell, so that it begins in milliseconds. "
        "They hold memory (%ray cluster says how much), no GPU, and no more than what a job has that asks "
        "for nothing. 0: none. Default: 1 on the embedded cluster, 0 on others.",
    ).tag(config=True)
    standby_idle = Float(600, min=1, help="Seconds after which a runner that waits in vain ends.").tag(
        config=True
    )
    defaults = Dict(
        help="Default options of %%ray_job, {'cpus': 2, 'timeout': '2h'}. In a notebook: "
        "%ray config cpus=2, or defaults.memory=8GiB where a setting has the same name. Options: "
        + ", ".join(OPTIONS)
        + "."
    ).tag(config=True)
    check_timeout = Float(
        10, min=0.1, help="Seconds within which an existing cluster and store must answer."
    ).tag(config=True)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        for name in self.trait_names(config=True):
            text = os.environ.get(f"RAYOFFLOAD_{name.upper()}")
            if text is not None and name not in given:
                self._set(name, text, f"RAYOFFLOAD_{name.upper()}")

    @default("owner")
    def _default_owner(self) -> str:
        try:
            name = os.environ.get("JUPYTERHUB_USER") or getpass.getuser()
        except (KeyError, OSError):  # a container may run under a number that has no name
            name = f"uid-{os.getuid()}"
        return _slug(name)

    @default("ray_version")
    def _default_ray_version(self) -> str:
        try:
            return metadata.version("ray")
        except metadata.PackageNotFoundError:
            return ""

    @validate("images")
    def _validate_images(self, proposal: Mapping[str, Any]) -> dict[str, str]:
        given: dict[str, str] = proposal["value"]
        if wrong := bad_key(given):
            raise TraitError(f"images: {wrong}")
        return given

    @validate("kubernetes_cluster")
    def _validate_kubernetes_cluster(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = proposal["value"]
        try:
            cluster_spec(given, "kubernetes_cluster")
        except ValueError as error:
            raise TraitError(str(error)) from None
        return given

    @validate("owner")
    def _validate_owner(self, proposal: Mapping[str, Any]) -> str:
        owner: str = proposal["value"]
        if not _OWNER.fullmatch(owner):
            raise TraitError(f"owner cannot be {owner!r}: it has letters, digits, '.', '_' and '-'")
        return owner

    @validate("defaults")
    def _validate_defaults(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = proposal["value"]
        for name in given:
            if name not in OPTIONS:
                raise TraitError(f"defaults: there is no job option {name!r}. {did_you_mean(name, OPTIONS)}")
        try:
            from_keywords(given, JobOptions())
        except UsageError as error:
            raise TraitError(f"defaults: {error}") from None
        return given

    @classmethod
    def load(cls, parent: Configurable | None = None, **given: Any) -> RayOffload:
        """Make the settings from files, the running application, the environment and `given`.

        Parameters
        ----------
        parent : traitlets.config.Configurable, optional
            The running application or shell, whose configuration is heeded too.
        **given
            Settings that go before all others.

        Raises
        ------
        UsageError
            A file cannot be read, or a setting is not what it may be.
        """
        config = _read_files()
        if parent is not None:
            config.merge(parent.config)
        try:
            made = cls(config=config, **given)
        except TraitError as error:
            raise UsageError(str(error), "%ray config shows the settings") from None
        made.cluster_profiles()
        return made

    def cluster_profiles(self) -> tuple[Profile, ...]:
        """Give the named sizes that the site declares for its clusters; one of them is the default.

        Raises
        ------
        UsageError
            One of them cannot be, or their file cannot be read.
        """
        if self.profiles and self.profiles_file:
            raise UsageError("profiles and profiles_file are both set", "Keep one of them")
        declared = _yaml(self.profiles_file) if self.profiles_file else self.profiles
        return read_profiles(declared, self.kubernetes_cluster)

    def job_options(self) -> JobOptions:
        """Give the options of a job for which none are asked."""
        return from_keywords(self.defaults, JobOptions())

    def pod_image(self, given: str = "") -> tuple[str, str]:
        """Give the image of Ray's pods for this Python, and the version of Ray in it.

        Parameters
        ----------
        given : str
            The image, where the cluster's specification names it.

        Raises
        ------
        UsageError
            None of `images` fits, and there is no `image`.
        """
        if given:
            return given, self.ray_version or DEFAULT_RAY
        return choose(self.images, self.image, sys.version_info[:2], self.ray_version, DEFAULT_RAY)

    def lifetimes(self) -> Lifetimes:
        """Give how long the store keeps what."""
        from .remote.store import Lifetimes

        return Lifetimes(
            record=self.record_days * DAY, input=self.input_days * DAY, landed=self.landed_hours * 3600
        )

    def set_from_text(self, key: str, text: str) -> None:
        """Set what ``%ray config KEY=TEXT`` says.

        Parameters
        ----------
        key : str
            A setting, a job option (``cpus``), or ``defaults.OPTION`` where both have the name.
        text : str
            The value, read by the kind of the setting.

        Raises
        ------
        UsageError
            There is no such setting, or the value is not what it may be.
        """
        option = key.removeprefix("defaults.")
        if option in OPTIONS and (option != key or not self.has_trait(key)):
            try:
                self.defaults = {**self.defaults, option: OPTIONS[option](text)}
            except (TraitError, ValueError) as error:
                raise UsageError(f"{key} cannot be {text!r}", str(error).removeprefix("defaults: ")) from None
        elif key in self.trait_names(config=True):
            before = getattr(self, key)
            self._set(key, text, key)
            try:
                self.cluster_profiles()
            except UsageError:
                setattr(self, key, before)
                raise
        else:
            known = sorted({*self.trait_names(config=True), *OPTIONS})
            raise UsageError(f"there is no setting {key!r}", did_you_mean(key, known))

    def _set(self, name: str, text: str, said: str) -> None:
        trait = self.traits()[name]
        try:
            setattr(self, name, _options(text) if name == "defaults" else trait.from_string(text))
        except (TraitError, ValueError):
            # A refused secret must not show in the message.
            shown = "this text" if trait.metadata.get("secret") else repr(text)
            raise UsageError(f"{said} cannot be {shown}", f"It must be {_allowed(trait)}") from None

    def shown(self) -> dict[str, str]:
        """Give every setting as text, for people: secrets are not in it."""
        out = {}
        for name, trait in sorted(self.traits(config=True).items()):
            value = getattr(self, name)
            out[name] = "(set)" if trait.metadata.get("secret") and value else str(value)
        return out


def _slug(name: str) -> str:
    """Give a name that can be an owner; two names never become the same one."""
    if _OWNER.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return f"{readable or 'user'}--{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _options(text: str) -> dict[str, Any]:
    pairs = [word.partition("=") for word in text.split()]
    return {name: OPTIONS.get(name, str)(value) for name, _, value in pairs}


#: What a setting may be, where traitlets says it in words of its own.
_PLAIN = {
    "owner": "up to 63 letters, digits, '.', '_' and '-', a letter or a digit first",
    "a unicode string": "some text",
    "kubernetes_cluster": "a JSON object with the fields of a ClusterSpec",
    "profiles": "a JSON list of profiles",
    "images": "a JSON object of keys such as py311-ray2.60.0 and images",
    "a float": "a number",
    "an int": "a whole number",
    "an int or None": "a whole number",
}


def _allowed(trait: TraitType[Any, Any]) -> str:
    if isinstance(trait, Enum):
        return "one of " + ", ".join(trait.values or ())
    if trait.name == "defaults":
        return "OPTION=VALUE pairs, of " + ", ".join(OPTIONS)
    low = getattr(trait, "min", None)
    info = _PLAIN.get(str(trait.name)) or _PLAIN.get(trait.info()) or trait.info()
    info = info.removesuffix(" or None") + (f", at least {low}" if low is not None else "")
    return f"{info}, or none" if trait.allow_none else info


def _yaml(file: str) -> Any:
    """Read the file of profiles."""
    import yaml

    try:
        return yaml.safe_load(Path(file).expanduser().read_text("utf-8")) or []
    except (OSError, RuntimeError, ValueError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"profiles_file {file!r:.200} cannot be read: {said:.300}", "Correct it") from None


def _read_files() -> Config:
    from jupyter_core.paths import jupyter_config_path

    reader = Application(raise_config_file_errors=True)
    try:
        reader.load_config_file("jupyter_rayoffload_config", path=jupyter_config_path())
    except Exception as error:  # a configuration file is a program: it may raise anything
        raise UsageError(
            f"jupyter_rayoffload_config cannot be read: {type(error).__name__}: {error}",
            "jupyter --paths shows where Jupyter looks for it",
        ) from error
    return Config(reader.config)
