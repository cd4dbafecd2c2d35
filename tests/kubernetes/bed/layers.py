"""What the images of a bed are made of: each layer is a folder that is written from this machine.

There is no registry and no Docker. The Python in the images is the one that runs this, so its version is
that of the kernels here, and their packages are the ones that are installed here. What else a pod needs is a
shell, the programs that Kubernetes, Ray and people call, and their libraries; they are copied, too.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib.metadata as metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.distributions import closure

from .binaries import program
from .places import BedError

ROOT = Path(__file__).parents[3]
#: Who runs in the pods, as in Ray's own images and in those of Jupyter.
USER = 1000
HOME = "/home/ray"
#: Where the environment with the packages is.
VENV = Path("/opt/python")
SITE = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
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
#: Of this project, what its wheel is made of.
_OWN = ("pyproject.toml", "README.md", "LICENSE", "jupyter_rayoffload", "jupyter-config")


@dataclass(frozen=True)
class Layer:
    """A part of an image's file system.

    Parameters
    ----------
    name : str
        Unlike that of any other.
    write : callable
        Fills an empty folder with its files.
    made_of : callable
        Gives what they are made of: another answer is another layer.
    """

    name: str
    write: Callable[[Path], None]
    made_of: Callable[[], object] = tuple

    def digest(self) -> str:
        """Give what changes when the layer does."""
        state = (self.name, self.made_of(), sys.version, sys.base_prefix, platform.machine())
        return hashlib.sha256(repr((state, Path(__file__).read_bytes())).encode()).hexdigest()


def system() -> Layer:
    """Give the layer below all that run Python: programs, the interpreter, an empty environment."""
    return Layer("system", _write_system)


def packages(name: str, *requirements: str, without: tuple[str, ...] = ()) -> Layer:
    """Give a layer with Python packages, and all that they need, as they are installed here.

    Parameters
    ----------
    name : str
    *requirements : str
    without : tuple of str
        Distributions that are left out.
    """

    def wanted() -> list[str]:
        return sorted(set().union(*map(closure, requirements)) - set(without))

    def versions() -> list[tuple[str, str]]:
        return [(name, metadata.version(name)) for name in wanted()]

    return Layer(name, lambda root: _write_packages(root, wanted()), versions)


def own_package() -> Layer:
    """Give the layer with this project as its wheel installs it."""
    return Layer("jupyter_rayoffload", _write_own, _own_files)


def redis() -> Layer:
    """Give the layer with this machine's Redis and a shell."""
    there = [Path(f"/usr/bin/{name}") for name in ("redis-server", "redis-cli", "sh")]
    return Layer(
        "redis", lambda root: _write_programs(root, there), lambda: [p.stat().st_mtime for p in there]
    )


def pause() -> Layer:
    """Give the layer with the program that holds a pod's namespaces."""
    there = program("pause", "pause")
    return Layer("pause", lambda root: _copy(there, root, Path("/pause")), lambda: there.parent.name)


# ---------------------------------------------------------------------- programs and Python


def _write_programs(root: Path, programs: Iterable[Path]) -> None:
    """Write programs and the libraries that they need."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for there in programs:
        _copy(there, root, Path("/usr/bin") / there.name)
    _write_libraries(root)


def _write_system(root: Path) -> None:
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), (HOME[1:], 0o755), ("root", 0o755)):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    os.chown(root / HOME[1:], USER, USER)
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = Path(sysconfig.get_path("stdlib")).resolve()
    _copy(python, root, python)
    shutil.copytree(library, _in(root, library), ignore=_WITHOUT, symlinks=True)
    venv = _in(root, VENV)
    (venv / "bin").mkdir(parents=True)
    _in(root, SITE).mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    for name in ("python", "python3"):
        (venv / "bin" / name).symlink_to(python)
    found = [shutil.which(name, path="/usr/bin:/bin") for name in PROGRAMS]
    _write_programs(root, [Path(path) for path in found if path])


def _in(root: Path, path: Path) -> Path:
    """Give where a path of the image is while its layer is written."""
    return root / str(path).lstrip("/")


def _copy(source: Path, root: Path, target: Path) -> None:
    there = _in(root, target)
    if not there.exists():
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, there)


def _write_libraries(root: Path) -> None:
    for library in _libraries(list(_binaries(root))):
        if not library.is_relative_to(root):  # what came with its wheel is there
            _copy(library, root, library.parent.resolve() / library.name)


def _binaries(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 4:
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def _libraries(binaries: list[Path]) -> set[Path]:
    """Give the libraries of this machine that programs need, the loader included."""
    found: set[Path] = set()
    for start in range(0, len(binaries), 100):
        some = binaries[start : start + 100]
        # It complains of static ones; the rest counts.
        text = subprocess.run(["ldd", *map(str, some)], capture_output=True, text=True).stdout
        found |= {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", text, re.M)}
    return found


# ---------------------------------------------------------------------- packages


def _write_packages(root: Path, names: Iterable[str]) -> None:
    site = _in(root, SITE)
    site.mkdir(parents=True)
    for name in names:
        distribution = metadata.distribution(name)
        base = Path(str(distribution.locate_file("")))
        files = [file.parts for file in distribution.files or ()]
        for top in {parts[0] for parts in files} - {"..", "__pycache__"}:
            _copy_any(base / top, site / top)
        for parts in files:  # kernel specifications, and what switches server extensions on
            if parts[:3] == ("..", "..", "..") and parts[3] in ("etc", "share"):
                _copy(base.joinpath(*parts), root, VENV.joinpath(*parts[3:]))
        for point in distribution.entry_points.select(group="console_scripts"):
            _write_script(root, point)
    _compile(root)
    _write_libraries(root)


def _copy_any(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
    elif source.exists():
        shutil.copy2(source, target)


def _write_script(root: Path, point: metadata.EntryPoint) -> None:
    path = _in(root, VENV / "bin" / point.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!{VENV}/bin/python\nimport sys\nfrom {point.module} import {point.attr.split('.')[0]}\n"
        f"sys.exit({point.attr}())\n"
    )
    path.chmod(0o755)


def _compile(root: Path) -> None:
    """Whoever runs in a pod cannot write here, and would compile all of it in each process."""
    compiling = [sys.executable, "-m", "compileall", "-q", "-s", str(root), "-p", "/", str(_in(root, SITE))]
    subprocess.run(compiling, stdout=subprocess.DEVNULL)  # not all that packages bring is for this Python


def _own_files() -> list[tuple[str, str]]:
    tops = [ROOT / name for name in _OWN]
    files = [path for top in tops for path in ([top] if top.is_file() else sorted(top.rglob("*")))]
    return [
        (str(path.relative_to(ROOT)), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    ]


def _write_own(root: Path) -> None:
    """Install the wheel: its modules, its data, its programs."""
    folder = root / "wheel"
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BedError(f"pip makes no wheel of this project:\n{done.stderr[-3000:]}")
    site = _in(root, SITE)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shutil.rmtree(folder)
    for data in site.glob("*.data/data"):
        shutil.copytree(data, _in(root, VENV), dirs_exist_ok=True)
        shutil.rmtree(data.parent)
    [points] = site.glob("*.dist-info/entry_points.txt")
    scripts = configparser.ConfigParser(delimiters="=")
    scripts.read(points)
    for name, value in scripts["console_scripts"].items():
        _write_script(root, metadata.EntryPoint(name, value, "console_scripts"))
    _compile(root)
