"""What travels with a job besides its inputs: workspace, local modules, and the runner's own package."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import bundle, workspace
from .archive import cache_folder, prune
from .errors import WorkspaceTooLarge
from .link import Link, blocking
from .local_modules import LocalModule, local_modules, pack_modules
from .models import JobSpec
from .remote.files import ray_package
from .remote.libraries import requirements, roots
from .words import items_text, number_text, size_text

if TYPE_CHECKING:
    from .clusters import Connection
    from .config import RayOffload
    from .course import Draft
    from .remote.signing import Signer

__all__ = ["Packed", "is_sent", "pack", "preflight", "provide", "runtime_env", "send"]

#: Ray keeps a package ten minutes after it was asked for (RAY_RUNTIME_ENV_TEMPORARY_REFERENCE_EXPIRATION_S in
#: ray/_private/ray_constants.py); for this long it is not asked again, seconds.
PROVIDED_SECONDS = 240.0
#: How long the store is not asked again for a package that it has, seconds.
STORED_SECONDS = 60.0
#: Ray's grace between SIGTERM and SIGKILL, seconds; the runner needs some of it to say goodbye.
STOP_SECONDS = 6


@dataclass(frozen=True)
class Packed:
    """The packages of one job, as zips in the cache folder.

    Parameters
    ----------
    package : str
        Digest of the workspace; empty where none travels.
    modules : tuple of str
        Digests of local modules from outside it.
    bundle : str
        Digest of the runner's package.
    runner : str
        Name of the package that ``python -m`` runs.
    left_behind, notes : tuple of str
        As in :class:`~.models.JobSpec`.
    known : bool
        Whether nothing had to be packed anew.
    libraries : dict of str to str
    needs : tuple of str
        As in :class:`~.models.JobSpec`: what travels is not among them.
    """

    package: str
    modules: tuple[str, ...]
    bundle: str
    runner: str
    left_behind: tuple[str, ...]
    notes: tuple[str, ...]
    known: bool
    libraries: dict[str, str]
    needs: tuple[str, ...]

    def described(self, spec: JobSpec) -> JobSpec:
        """Give `spec` with the packages in it."""
        return spec.replace(
            package=self.package,
            modules=self.modules,
            bundle=self.bundle,
            left_behind=self.left_behind,
            notes=self.notes,
            libraries=self.libraries,
            needs=self.needs,
            versions={**spec.versions, "runner": self.runner},
        )


def pack(draft: Draft, config: RayOffload, signer: Signer, on_progress: Callable[[str], None]) -> Packed:
    """Find and pack what travels; what is in the cache folder already is not packed again.

    Raises
    ------
    WorkspaceError, WorkspaceTooLarge, UsageError
    """
    shot, notes = _workspace(draft, config, signer)
    packed: list[bool] = []

    def told(done: int, count: int, size: int) -> None:
        on_progress(
            f"Packing the workspace: {number_text(done)} of {number_text(count)} files, {size_text(size)}"
        )

    package = _zipped(shot, packed, told) if shot and (shot.files or shot.folders) else ""
    local = _modules(draft, shot)
    extras = pack_modules(local, signer=signer)
    libraries = {} if config.check_versions == "off" else _libraries(draft, local)
    modules = [_zipped(extra, packed, told) for extra in extras]
    shots = [*([shot] if shot else []), *extras]
    runner = _runner()
    if any(packed):
        prune(_folder(), ".zip")
    return Packed(
        package,
        tuple(modules),
        runner.digest,
        runner.package,
        tuple(path for s in shots for path in s.left_behind),
        (*notes, *(note for s in shots for note in s.notes)),
        not any(packed),
        libraries,
        tuple(sorted(draft.needs & libraries.keys())),
    )


#: The bundle that this process sends, by cache folder: it runs one version of this package, and goes on to.
_runners: dict[Path, bundle.Bundle] = {}


def _runner() -> bundle.Bundle:
    folder = cache_folder(None)
    known = _runners.get(folder)
    if known is None or not known.path.exists():
        known = _runners[folder] = bundle.build()
    return known


def preflight(draft: Draft, config: RayOffload, signer: Signer) -> str:
    """Say what would travel; nothing is sent."""
    shot, notes = _workspace(draft, config, signer)
    lines = [*notes]
    if shot:
        lines.append(workspace.preflight(shot))
    modules = _modules(draft, shot)
    if modules:
        lines += ["", "Local modules from elsewhere", *(f"  {m.name}  {m.path}" for m in modules)]
    inputs = [v for v in draft.spec.inputs if v.size is not None]
    if inputs:
        lines += ["", "Inputs", *(f"  {size_text(v.size or 0):>8}  {v.name}  {v.type}" for v in inputs)]
    waits = [v for v in draft.spec.inputs if v.job]
    if waits:
        lines += ["", "From other jobs", *(f"  {v.name}  from {v.job}" for v in waits)]
    if draft.spec.batch:
        many = draft.spec.batch.parallel
        at_once = f", {number_text(many)} at once at most" if many else ""
        lines += ["", f"Runs once for each of {items_text(draft.spec.batch.total)}{at_once}"]
    lines += [
        "",
        f"Comes back: {', '.join(draft.spec.expected) or 'nothing that the text of the cell names'}",
    ]
    return "\n".join(lines).strip()


def _workspace(
    draft: Draft, config: RayOffload, signer: Signer
) -> tuple[workspace.Snapshot | None, list[str]]:
    options = draft.spec.options
    root, note = workspace.choose_root(draft.cwd, options.workdir)
    if root is None:
        return None, [note]
    limits = workspace.Limits(config.workspace_files, config.workspace_bytes)
    try:
        shot = workspace.snapshot(root, exclude=options.exclude, limits=limits, signer=signer)
    except WorkspaceTooLarge as error:
        if options.workdir:
            raise
        return None, [workspace.without_folder(error)]
    return shot, [note] if note else []


def _modules(draft: Draft, shot: workspace.Snapshot | None) -> list[LocalModule]:
    root, files = (shot.root, {e.path for e in shot.files}) if shot else (None, None)
    return local_modules(draft.modules, root, explicit=draft.spec.options.py_modules, files=files)


def _libraries(draft: Draft, local: list[LocalModule]) -> dict[str, str]:
    """Give the libraries that the cluster must have: nobody else brings them."""
    # Every cluster has a Ray; which one matters only to what `needs` says of values.
    wanted = roots(draft.modules) - {"ray"} | draft.needs
    return requirements(wanted - {module.name.partition(".")[0] for module in local})


def _folder() -> Path:
    folder = cache_folder(None) / "packages"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _zipped(shot: workspace.Snapshot, packed: list[bool], told: Any) -> str:
    """Have the zip of `shot` in the cache folder, and give the digest of what is in it."""
    path = _folder() / f"{shot.digest}.zip"
    packed.append(not path.exists())
    if path.exists():
        path.touch()
        return shot.digest
    fresh = path.with_suffix(".new")
    shot = shot.zip_to(fresh, told)
    fresh.replace(_folder() / f"{shot.digest}.zip")
    return shot.digest


# ---------------------------------------------------------------------- to the store, and to Ray


async def send(packed: Packed, link: Link) -> None:
    """Put the packages that the store lacks there: a rerun must not depend on Ray's copies."""
    for digest in _digests(packed.package, packed.modules, packed.bundle):
        if time.monotonic() - link.stored.get(digest, float("-inf")) < STORED_SECONDS:
            continue
        if not await blocking(link.store.has_package, digest):
            await blocking(link.store.put_package, digest, _local(digest))
        link.stored[digest] = time.monotonic()


def is_sent(packed: Packed, link: Link) -> bool:
    """Whether the store is known to have all packages, so that :func:`send` has nothing to do."""
    begin = time.monotonic() - STORED_SECONDS
    digests = _digests(packed.package, packed.modules, packed.bundle)
    return all(link.stored.get(digest, float("-inf")) > begin for digest in digests)


async def provide(spec: JobSpec, link: Link) -> None:
    """Put the packages that Ray lacks there; it forgets them with its head, or soon after their last use."""
    for digest in _digests(spec.package, spec.modules, spec.bundle):
        if time.monotonic() - link.provided.get(digest, float("-inf")) < PROVIDED_SECONDS:
            continue
        if not await link.ray.has_package(ray_package(digest)):
            path = _local(digest)
            if not path.exists():
                await blocking(link.store.get_package, digest, path)
            await link.ray.put_package(ray_package(digest), path)
        link.provided[digest] = time.monotonic()


def runtime_env(spec: JobSpec, connection: Connection, config: RayOffload) -> dict[str, Any]:
    """Give the job's runtime_env: packages by content, no secret, the same for the same workspace."""
    env: dict[str, Any] = {
        "py_modules": [f"gcs://{ray_package(d)}" for d in (spec.bundle, *spec.modules)],
        "env_vars": {
            **spec.options.env,
            "RAYOFFLOAD_CONNECTION_FILE": str(connection.file),
            "RAYOFFLOAD_OUTPUT_LIMIT": str(config.output_limit),
            "RAYOFFLOAD_FETCH_BELOW": str(config.fetch_below),
            "RAYOFFLOAD_FETCH_TOTAL": str(config.fetch_total),
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
            "RAY_DEDUP_LOGS": "0",
            "COLUMNS": "80",
        },
    }
    if connection.info.kind == "embedded":
        env["env_vars"]["RAYOFFLOAD_MEMORY_LIMIT"] = "1"
    if spec.package:
        env["working_dir"] = f"gcs://{ray_package(spec.package)}"
    if spec.options.pip:
        env["pip"] = list(spec.options.pip)
    return env


def _digests(package: str, modules: tuple[str, ...], runner: str) -> Iterator[str]:
    yield from (d for d in (runner, package, *modules) if d)


def _local(digest: str) -> Path:
    path = _folder() / f"{digest}.zip"
    return path if path.exists() else bundle.cached(digest) or path
