"""A Kubernetes for all tests, and a namespace for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from tests.kubernetes.bed import Bed
from tests.kubernetes.bed.inside import simulated_node
from tests.kubernetes.ground import until
from tests.kubernetes.notebooks import Jupyter
from tests.kubernetes.tenants import Tenant, applied_tenant, disk, redis_runs

HERE = Path(__file__).parent
#: What an account may do, in the words of a Role.
Rules = list[dict[str, list[str]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of them start a Kubernetes; patience is for busy machines, and for the first build."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def bed(pytestconfig: pytest.Config) -> Iterator[Bed]:
    """Give the bed that ``make kube-up`` has started, or start one that ends with this run."""
    if found := Bed.found():
        yield found
        return
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    started = Bed.start(say=terminal.write_line if terminal else print)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="session")
def admin(bed: Bed) -> Iterator[client.ApiClient]:
    """Give a client that may do everything."""
    with config.new_client_from_config(str(bed.kubeconfig)) as made:
        yield made


@pytest.fixture(scope="session")
def core(admin: client.ApiClient) -> client.CoreV1Api:
    """Give what the administrator can do with pods, services, secrets."""
    return client.CoreV1Api(admin)


@pytest.fixture(scope="session")
def custom(admin: client.ApiClient) -> client.CustomObjectsApi:
    """Give what the administrator can do with RayClusters."""
    return client.CustomObjectsApi(admin)


@pytest.fixture
def namespace(core: client.CoreV1Api, custom: client.CustomObjectsApi) -> Iterator[str]:
    """Make a namespace for one test; no pod of it is there any more when the next one starts."""
    with new_namespace(core, custom) as name:
        yield name


@contextmanager
def new_namespace(core: client.CoreV1Api, custom: client.CustomObjectsApi) -> Iterator[str]:
    """Make a namespace; no pod of it is there any more behind it."""
    name = core.create_namespace({"metadata": {"generateName": "test-"}}).metadata.name
    until(lambda: core.list_namespaced_service_account(name).items, "the account of new pods")
    try:
        yield name
    finally:
        custom.delete_collection_namespaced_custom_object("ray.io", "v1", name, "rayclusters")
        until(lambda: not _pods_left(core, name), f"the end of all pods of {name}")
        core.delete_namespace(name)


def _pods_left(core: client.CoreV1Api, namespace: str) -> list[Any]:
    """Delete all pods, and those that an operator makes meanwhile; give those that are there."""
    core.delete_collection_namespaced_pod(namespace, grace_period_seconds=1)
    pods: list[Any] = core.list_namespaced_pod(namespace).items
    return pods


@pytest.fixture(scope="module")
def tenant(
    bed: Bed,
    admin: client.ApiClient,
    core: client.CoreV1Api,
    custom: client.CustomObjectsApi,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tenant]:
    """Give a tenant as it is shipped, with a Redis that runs."""
    image, folder = bed.notebook_image(), tmp_path_factory.mktemp("tenant")
    with (
        new_namespace(core, custom) as namespace,
        disk(bed, core, namespace),
        applied_tenant(admin, namespace, folder) as objects,
    ):
        redis_runs(core, namespace)
        yield Tenant(namespace, objects, image, core, custom)


@pytest.fixture(scope="module")
def notebook(tenant: Tenant) -> Jupyter:
    """Give the Jupyter server of the tenant's notebook pod."""
    return tenant.start("jupyter-tested")


@pytest.fixture
def account(
    bed: Bed, admin: client.ApiClient, namespace: str, tmp_path: Path
) -> Callable[[str, Rules], Path]:
    """Give what makes a ServiceAccount with a Role, and gives its kubeconfig."""

    def make(name: str, rules: Rules) -> Path:
        core, rights = client.CoreV1Api(admin), client.RbacAuthorizationV1Api(admin)
        metadata: dict[str, Any] = {"metadata": {"name": name}}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        core.create_namespaced_service_account(namespace, metadata)
        rights.create_namespaced_role(namespace, {**metadata, "rules": rules})
        rights.create_namespaced_role_binding(namespace, {**metadata, "roleRef": role, "subjects": [subject]})
        token = core.create_namespaced_service_account_token(name, namespace, {"spec": {}})
        return bed.write_kubeconfig(tmp_path / f"{name}.kubeconfig", token.status.token, namespace)

    return make


@pytest.fixture
def new_node(core: client.CoreV1Api) -> Iterator[Callable[..., None]]:
    """Give what makes a simulated node: ``new_node("big", cpu="64", gpu="8")``."""
    names = []

    def make(name: str, **capacity: str) -> None:
        core.create_node(simulated_node(name, **capacity))
        names.append(name)

    yield make
    for name in names:
        for pod in core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={name}").items:
            core.delete_namespaced_pod(pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0)
        core.delete_node(name)
