"""The manifests of a tenant, as administrators render and apply them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_docs import blocks

ROOT = Path(__file__).parents[1]
KIND = ROOT / "kind"
TENANT = KIND / "tenant"


def copy_tenant(folder: Path) -> Path:
    """Copy what the repository has of the tenants, without secrets that somebody has made here."""
    return shutil.copytree(TENANT, folder / "tenant", ignore=shutil.ignore_patterns("secrets", ".secrets-*"))


def new_tenant(tenant: Path, name: str, owner: str = "", namespace: str = "") -> Path:
    """Make a tenant's overlay and secrets with the script for that, and give its folder."""
    overlay = tenant / "overlays" / name
    if namespace:
        text = (tenant / "overlays" / "demo" / "kustomization.yaml").read_text()
        overlay.mkdir(exist_ok=True)
        overlay.joinpath("kustomization.yaml").write_text(
            re.sub("^namespace: .*", f"namespace: {namespace}", text, flags=re.M)
        )
    command = [tenant / "new", name, *([owner] if owner else [])]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return overlay


def render(overlay: Path) -> list[dict[str, Any]]:
    """Give the objects that ``kubectl apply -k`` would apply."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, overlay], check=True, capture_output=True, text=True)
            return list(yaml.safe_load_all(done.stdout))
    pytest.skip("neither kustomize nor kubectl is on PATH")


def one(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """Give the one object of a kind, or the one with a name."""
    [found] = [o for o in objects if o["kind"] == kind and (not name or o["metadata"]["name"] == name)]
    return found


def example(words: str) -> str:
    """Give the one Python example of the administrators' guide that has these words."""
    page = ROOT / "docs" / "administrators.md"
    [found] = [b.text for b in blocks(page) if b.language == "python" and words in b.text]
    return found
