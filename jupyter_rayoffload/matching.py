"""Whether a cluster has what a job needs: resources, and the libraries that earlier jobs have found there."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import MissingLibrary, NotEnoughResources
from .link import Link
from .models import ClusterInfo, JobSpec, Resources
from .remote.libraries import name_and_version, pin

__all__ = ["check_resources", "known", "lacking", "learn", "require"]


def _told_apart(spec: JobSpec, link: Link) -> bool:
    """Whether what is true for this job is true for others.

    A job with pip packages has an environment of its own, and an embedded Ray has the notebook's, which
    ``%pip install`` may change at any time.
    """
    return not spec.options.pip and link.info.kind != "embedded"


def learn(spec: JobSpec, link: Link, libraries: Mapping[str, str]) -> None:
    """Keep what a runner has found on its cluster, for the jobs after it.

    Parameters
    ----------
    spec : JobSpec
    link : Link
    libraries : Mapping of str to str
        Versions by module, as the runner reports them.
    """
    if _told_apart(spec, link):
        link.libraries.update(libraries)


def known(spec: JobSpec, link: Link) -> dict[str, str]:
    """Give what is known of the libraries that a job needs; nothing is asked of the cluster."""
    if not _told_apart(spec, link):
        return {}
    return {root: link.libraries[root] for root in spec.libraries if root in link.libraries}


def lacking(spec: JobSpec, link: Link) -> list[str]:
    """Give what a job cannot begin without and, for all that is known, is not there."""
    there = known(spec, link)
    return [root for root in spec.needs if there.get(root) == ""]


def require(spec: JobSpec, link: Link) -> None:
    """Refuse a job that cannot begin without a library that is not there.

    What has been refused once is forgotten: somebody may have installed it, and the next job finds out.

    Parameters
    ----------
    spec : JobSpec
    link : Link

    Raises
    ------
    MissingLibrary
    """
    missing = lacking(spec, link)
    if not missing:
        return
    for root in missing:
        del link.libraries[root]
    pairs = [name_and_version(spec.libraries[root]) for root in missing]
    pins = " ".join(pin(spec.libraries[root]) for root in missing)
    are, them, came = ("is", "it", "it has") if len(missing) == 1 else ("are", "them", "they have")
    versions = ", ".join(f"{name} {version}" for name, version in pairs if version)
    raise MissingLibrary(
        f"{', '.join(name for name, _ in pairs)} {are} not on the cluster"
        + (f"; the notebook has {versions}" if versions else ""),
        f"Add {them} with --pip {pins}, or use an image that has {them}; "
        f"run the cell again if {came} come there meanwhile",
    )


def check_resources(asked: Resources, info: ClusterInfo) -> None:
    """Refuse at once what a cluster that cannot grow can never give.

    Raises
    ------
    NotEnoughResources
    """
    if info.kind == "kubernetes" or not info.resources:
        return
    for name, amount in asked.by_name().items():
        there = info.resources.get(name, 0.0)
        if amount > there:
            few = (
                "has none"
                if not there
                else f"has {there / 2**30:.3g} GiB"
                if name == "memory"
                else f"has {there:g}"
            )
            raise NotEnoughResources(
                f"the job asks for {asked.words()}, and cluster {info.name} {few}",
                "Ask for less, or use a larger cluster",
            )
