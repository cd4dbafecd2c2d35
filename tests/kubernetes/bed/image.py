"""The images of a bed, and how containerd gets them: a name, layers, and what a container of it runs.

All but one are made of what is installed on this machine, and change as rarely as that. The notebook's last
layer is this project; that image is made anew from the others when a test asks for it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import layers
from .layers import HOME, USER, VENV, Layer

#: The name that the tenant's Redis has in kind/tenant; what is in it is Debian's.
REDIS_IMAGE = "docker.io/library/redis:7.2-alpine"
PAUSE_IMAGE = "bed.local/pause:1"
_PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}"
#: Where a layout has its files, by the digests of what is in them.
_BLOBS = Path("blobs") / "sha256"
_OCI = "application/vnd.oci.image"


@dataclass(frozen=True)
class Image:
    """An image.

    Parameters
    ----------
    name : str
        The name and the tag.
    layers : tuple of Layer
        From the bottom.
    config : Mapping
        What is run, by whom, with which environment.
    """

    name: str
    layers: tuple[Layer, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


#: What is known of a layer that has been made: its digest and its size.
Made = dict[str, Any]


def ray_version() -> str:
    """Give the version of Ray in the pods: that of this environment."""
    return metadata.version("ray")


def ray_image() -> str:
    """Give the name of the image of Ray pods."""
    return f"bed.local/ray:{ray_version()}-{_PYTHON}"


def _python(name: str, *above: Layer) -> Image:
    """Give an image with Python, and what the examples import."""
    science = layers.packages("science", "pandas", "matplotlib", "tqdm")
    config = {
        "User": f"{USER}:{USER}",
        "WorkingDir": HOME,
        "Env": [f"PATH={VENV}/bin:/usr/bin:/bin", f"HOME={HOME}", "LANG=C.UTF-8"],
        "Cmd": ["/bin/bash"],
    }
    return Image(name, (layers.system(), science, *above), config)


def _jupyter() -> Layer:
    """Give all that a notebook pod needs, except this project; Ray is not there."""
    wanted = ("jupyter_rayoffload[kubernetes]", "ipykernel")
    return layers.packages("jupyter", *wanted, without=("jupyter_rayoffload",))


def notebook() -> Image:
    """Give the image of notebook pods: it has another name whenever this project has changed."""
    own = layers.own_package()
    return _python(f"bed.local/notebook:{own.digest()[:16]}", _jupyter(), own)


def lasting() -> tuple[Image, ...]:
    """Give the images that every bed has from the start; the notebook's is made of the last one."""
    return (
        Image(PAUSE_IMAGE, (layers.pause(),), {"Entrypoint": ["/pause"]}),
        Image(REDIS_IMAGE, (layers.redis(),), {"Env": ["PATH=/usr/bin:/bin"]}),
        _python(ray_image(), layers.packages("ray", "ray[default]", "pip")),
        _python("bed.local/jupyter:1", _jupyter()),
    )


def digest() -> str:
    """Give what changes when one of the lasting images does."""
    state = [(image.name, image.config, [layer.digest() for layer in image.layers]) for image in lasting()]
    return hashlib.sha256(repr((state, Path(__file__).read_bytes())).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------- what containerd imports


def write_layout(folder: Path, images: Iterable[Image], known: Mapping[str, Made]) -> dict[str, Made]:
    """Write images as an OCI layout (https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md).

    Parameters
    ----------
    folder : Path
        Is made.
    images : iterable of Image
    known : Mapping
        Layers that containerd has already, by their names: they are named, and not in the layout.

    Returns
    -------
    dict
        All layers that are named, by their names.
    """
    (folder / _BLOBS).mkdir(parents=True)
    made = dict(known)
    manifests = []
    for image in images:
        for layer in image.layers:
            if layer.name not in made:
                made[layer.name] = _write_layer(folder, layer)
        there = [made[layer.name] for layer in image.layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _write_json(folder, _description(image, there), "config.v1+json"),
            "layers": there,
        }
        described = _write_json(folder, manifest, "manifest.v1+json")
        manifests.append({**described, "annotations": {"io.containerd.image.name": image.name}})
    index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": manifests}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return made


def _description(image: Image, there: list[Made]) -> dict[str, Any]:
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": image.config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in there]},
        "history": [{"created_by": f"tests/kubernetes/bed: {layer.name}"} for layer in image.layers],
    }


def _write_layer(folder: Path, layer: Layer) -> Made:
    root, archive = folder / "root", folder / "layer"
    root.mkdir(mode=0o755)
    layer.write(root)
    subprocess.run(["tar", "-C", root, "-cf", archive, "--numeric-owner", "."], check=True)
    shutil.rmtree(root)
    with archive.open("rb") as file:
        found = hashlib.sha256()
        while block := file.read(1 << 22):
            found.update(block)
    size = archive.stat().st_size
    archive.rename(folder / _BLOBS / found.hexdigest())
    return {"mediaType": f"{_OCI}.layer.v1.tar", "digest": f"sha256:{found.hexdigest()}", "size": size}


def _write_json(folder: Path, content: object, kind: str) -> Made:
    body = json.dumps(content).encode()
    name = hashlib.sha256(body).hexdigest()
    (folder / _BLOBS / name).write_bytes(body)
    return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{name}", "size": len(body)}
