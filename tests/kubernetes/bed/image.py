"""The image of the pods: this machine's Python with ``ray[default]``, and nothing of ours.

There is no registry and no Docker: a folder becomes an archive that containerd imports. The Python is the
one that runs this, so its version is that of the kernels here. What else a Ray pod needs is a shell and the
programs that Kubernetes and Ray call; they and their libraries are copied from this machine, too.
"""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.distributions import closure

#: Who runs in the pods, as in Ray's own images.
USER = 1000
HOME = "/home/ray"
#: Where the environment with Ray is.
VENV = Path("/opt/ray")
#: For shells, probes, and whoever looks into a pod.
PROGRAMS = (
    "bash sh env cat ls mkdir rm cp mv ln chmod chown touch head tail wc sort grep sed find sleep date id "
    "uname hostname kill ps dirname basename readlink true false test tee tr cut stat du df nproc xargs "
    "getent tar gzip"
).split()
#: Parts of the standard library that a pod does without.
_WITHOUT = shutil.ignore_patterns("site-packages", "dist-packages", "test", "idlelib", "tkinter", "config-*")
_FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/bin/bash\nray:x:{USER}:{USER}:ray:{HOME}:/bin/bash\n",
    "etc/group": f"root:x:0:\nray:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
#: Debian's layout: these are links into /usr.
_MERGED = ("bin", "sbin", "lib", "lib64")


def ray_version() -> str:
    """Give the version of Ray in the pods: that of this environment."""
    return metadata.version("ray")


def ray_image() -> str:
    """Give the name of the image."""
    return f"bed.local/ray:{ray_version()}-py{sys.version_info.major}{sys.version_info.minor}"


def digest() -> str:
    """Give what changes when the image does."""
    versions = sorted((name, metadata.version(name)) for name in closure("ray[default]"))
    state = repr((versions, sys.version, sys.base_prefix, platform.machine(), Path(__file__).read_text()))
    return hashlib.sha256(state.encode()).hexdigest()[:16]


def write_ray_root(root: Path) -> None:
    """Fill an empty folder with the files of the image."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), (HOME[1:], 0o755), ("root", 0o755)):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    os.chown(root / HOME[1:], USER, USER)
    programs = [Path(found) for name in PROGRAMS if (found := shutil.which(name, path="/usr/bin:/bin"))]
    for program in programs:
        _copy(program, root, Path("/usr/bin") / program.name)
    python = _write_python(root)
    _write_venv(root, python)
    for library in _libraries([*programs, *_binaries(root)]):
        if not library.is_relative_to(root):  # what came with its wheel is there
            _copy(library, root, library.parent.resolve() / library.name)


def _copy(source: Path, root: Path, target: Path) -> None:
    there = root / str(target).lstrip("/")
    if not there.exists():
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, there)


def _write_python(root: Path) -> Path:
    """Copy the interpreter and its library to where they are here, and give the path of the interpreter."""
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    _copy(python, root, python)
    library = Path(sysconfig.get_path("stdlib")).resolve()
    shutil.copytree(library, root / str(library).lstrip("/"), ignore=_WITHOUT, symlinks=True)
    return python


def _write_venv(root: Path, python: Path) -> None:
    """Write an environment with Ray and what it needs."""
    venv = root / str(VENV).lstrip("/")
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3"):
        (venv / "bin" / name).symlink_to(python)
    for name in closure("ray[default]") | {"pip"}:
        distribution = metadata.distribution(name)
        base = Path(str(distribution.locate_file("")))
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            _copy_any(base / top, site / top)
        for point in distribution.entry_points.select(group="console_scripts"):
            _write_script(venv / "bin" / point.name, point)
    # Whoever runs in a pod cannot write here, and would compile all of Ray in each process.
    compiling = [sys.executable, "-m", "compileall", "-q", "-s", str(root), "-p", "/", str(site)]
    subprocess.run(compiling, stdout=subprocess.DEVNULL)  # not all that packages bring is for this Python


def _copy_any(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
    elif source.exists():
        shutil.copy2(source, target)


def _write_script(path: Path, point: metadata.EntryPoint) -> None:
    path.write_text(
        f"#!{VENV}/bin/python\nimport sys\nfrom {point.module} import {point.attr.split('.')[0]}\n"
        f"sys.exit({point.attr}())\n"
    )
    path.chmod(0o755)


def _binaries(root: Path) -> Iterable[Path]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 4:
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _libraries(binaries: list[Path]) -> set[Path]:
    """Give the libraries of this machine that programs need, the loader included."""
    found: set[Path] = set()
    for start in range(0, len(binaries), 100):
        command = [
            "ldd",
            *map(str, binaries[start : start + 100]),
        ]  # complains of static ones; the rest counts
        text = subprocess.run(command, capture_output=True, text=True).stdout
        found |= {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", text, re.M)}
    return found


def write_archive(archive: Path, root: Path, name: str, config: dict[str, object]) -> None:
    """Write an image of one layer, as ``docker save`` would.

    Parameters
    ----------
    archive : Path
        The file.
    root : Path
        The folder that the layer is made of.
    name : str
        The name and the tag.
    config : dict
        What is run, by whom, with which environment.
    """
    layer = archive.with_suffix(".layer")
    subprocess.run(["tar", "-C", root, "-cf", layer, "--numeric-owner", "."], check=True)
    with layer.open("rb") as file:
        diff = "sha256:" + _sha256(file)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    description = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created_by": "tests/kubernetes/bed"}],
    }
    body = json.dumps(description).encode()
    described = hashlib.sha256(body).hexdigest() + ".json"
    manifest = json.dumps([{"Config": described, "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for file_name, content in ((described, body), ("manifest.json", manifest)):
            info = tarfile.TarInfo(file_name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.add(layer, "layer.tar")
    layer.unlink()


def _sha256(file: io.BufferedReader) -> str:
    made = hashlib.sha256()
    while block := file.read(1 << 22):
        made.update(block)
    return made.hexdigest()


def ray_config() -> dict[str, object]:
    """Give how a container of the image runs."""
    return {
        "User": f"{USER}:{USER}",
        "WorkingDir": HOME,
        "Env": [f"PATH={VENV}/bin:/usr/bin:/bin", f"HOME={HOME}", "LANG=C.UTF-8"],
        "Cmd": ["/bin/bash"],
    }
