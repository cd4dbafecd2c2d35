"""containerd: its configuration, and its store with the images in it, made once.

The store of a bed is a copy of the one in the cache, file by file a hard link: what a container changes it
copies first, so only containerd's own data bases must be copies of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from . import image
from .image import PAUSE_IMAGE
from .namespaces import command_inside
from .places import HERE, BedError, Place, cache, only_one

#: How long containerd may take to answer, and an image to be imported, seconds.
START_SECONDS, IMPORT_SECONDS = 60, 900
#: In the store: the layers of the images, by their names.
_LAYERS = "layers.json"


def store() -> Path:
    """Give where the store with the images is, or will be."""
    return cache() / f"images-{image.digest()}"


def make_store(say: Callable[[str], None] = print) -> None:
    """Make the images and import them, if that has not been done.

    Parameters
    ----------
    say : callable
        Is told how long it took.
    """
    with only_one("images"):
        if store().exists():
            os.utime(store())
            return
        _forget_old()
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(dir=cache(), prefix="images-") as name:
            work = Path(name)
            layers = image.write_layout(work / "layout", image.lasting(), {})
            done = subprocess.run(
                command_inside("import", str(work)), capture_output=True, text=True, timeout=IMPORT_SECONDS
            )
            if done.returncode:
                raise BedError(f"containerd does not take the images:\n{done.stderr[-3000:]}")
            (work / "store" / _LAYERS).write_text(json.dumps(layers))
            (work / "store").rename(store())
        say(f"made the images in {time.monotonic() - begin:.0f} s")


def _forget_old() -> None:
    """Remove images that nobody has asked for in a week; a bed that has a copy keeps it."""
    for path in cache().glob("images-*"):
        if path.stat().st_mtime < time.time() - 7 * 24 * 3600:
            shutil.rmtree(path, ignore_errors=True)


def import_lasting(work: Path) -> None:
    """Import a layout into a new store; runs in namespaces of its own.

    Parameters
    ----------
    work : Path
        Has the folder ``layout``, and gets the folder ``store``.
    """
    socket = "/run/containerd.sock"
    write_config(Path("/run/containerd.toml"), root=work / "store", state="/run/containerd", socket=socket)
    with Path("/run/containerd.log").open("wb") as log:
        daemon = subprocess.Popen(["containerd", "-c", "/run/containerd.toml"], stdout=log, stderr=log)
        wait_for(socket)
        import_layout(work / "layout", socket)
        daemon.terminate()  # it writes its data bases
        daemon.wait(START_SECONDS)


def import_layout(layout: Path, socket: str) -> None:
    """Let containerd import what is in a layout."""
    packing = subprocess.Popen(["tar", "-C", layout, "-c", "."], stdout=subprocess.PIPE)
    command = ["ctr", "-a", socket, "-n", "k8s.io", "images", "import", "-"]
    done = subprocess.run(command, stdin=packing.stdout, capture_output=True, text=True)
    packing.communicate()
    if done.returncode:
        raise BedError(f"containerd does not take the images in {layout}:\n{done.stderr[-3000:]}")


def write_notebook(place: Place) -> tuple[str, Path | None]:
    """Write the layout of the notebook's image, with the layers that no bed has from the start.

    Parameters
    ----------
    place : Place
        The bed, which must not have another version of the lasting images.

    Returns
    -------
    tuple of str and Path
        The name of the image, and its layout; None if the bed has it.
    """
    wanted = image.notebook()
    layout = place.folder / wanted.name.rpartition(":")[2]
    if layout.exists():
        return wanted.name, None
    known = json.loads((place.folder / "containerd" / _LAYERS).read_text())
    with tempfile.TemporaryDirectory(dir=place.folder) as work:
        image.write_layout(Path(work) / "layout", [wanted], known)
        (Path(work) / "layout").rename(layout)
    return wanted.name, layout


def wait_for(socket: str) -> None:
    """Wait until containerd answers."""
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(["ctr", "-a", socket, "version"], capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise BedError(f"containerd does not answer at {socket} within {START_SECONDS} s")
        time.sleep(0.1)


def copy_store(target: Path) -> None:
    """Give a bed a store of its own."""
    subprocess.run(["cp", "-al", store(), target], check=True)
    for path in target.glob("*/*.db"):
        copy = path.with_suffix(".copy")
        shutil.copy2(path, copy)
        copy.replace(path)


def write_config(path: Path, root: Path, state: str, socket: str) -> None:
    """Write containerd's configuration.

    Parameters
    ----------
    path : Path
        Where to.
    root : Path
        The store.
    state, socket : str
        What it needs while it runs.
    """
    path.write_text(
        f"""version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true  # root of a container may not lower it
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{HERE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""
    )


def write_network(place: Place) -> None:
    """Write how pods are linked: a bridge, and addresses of the bed's network; no rule is needed."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": str(place.pods)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(HERE / "cni" / "addresses"),
    }
    bridge = {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    content = {"cniVersion": "0.4.0", "name": "bed", "plugins": [bridge, ports]}
    (place.folder / "cni").mkdir()
    (place.folder / "cni" / "10-bed.conflist").write_text(json.dumps(content, indent=1))
