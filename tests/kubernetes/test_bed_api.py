"""The API server asks who it is and what they may."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from tests.kubernetes.bed import Bed
from tests.kubernetes.bed.binaries import KUBERNETES


def _core(kubeconfig: Path) -> Any:
    return client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))


def test_it_is_the_version_that_it_says(admin: client.ApiClient) -> None:
    assert client.VersionApi(admin).get_code().git_version == KUBERNETES


def test_an_account_may_what_its_role_says_and_nothing_else(
    namespace: str, account: Callable[..., Path]
) -> None:
    reader = _core(account("reader", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]))
    assert reader.list_namespaced_pod(namespace).items == []
    for refused in (
        lambda: reader.list_namespaced_secret(namespace),
        lambda: reader.list_namespaced_pod("default"),
        lambda: reader.delete_namespaced_pod("any", namespace),
    ):
        with pytest.raises(client.ApiException, match=r"reader.*cannot") as raised:
            refused()
        assert raised.value.status == 403


def test_nobody_is_let_in_without_a_credential(bed: Bed, tmp_path: Path) -> None:
    stranger = _core(bed.write_kubeconfig(tmp_path / "stranger", "x" * 40, "default"))
    with pytest.raises(client.ApiException) as raised:
        stranger.list_namespace()
    assert raised.value.status == 401


def test_secrets_are_nobody_elses_to_read(bed: Bed) -> None:
    for path in (bed.kubeconfig, *(bed.place.folder / "pki").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(bed.place.folder.stat().st_mode) == 0o700


def test_a_program_of_the_bed_is_stopped_and_started_again(bed: Bed, core: client.CoreV1Api) -> None:
    bed.stop("kube-scheduler")
    bed.restart("kube-scheduler")
    names = {node.metadata.name for node in core.list_node().items}
    assert {"real", "simulated"} <= names
