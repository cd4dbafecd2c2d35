"""``openapi.yaml`` against a running server: what it allows is answered as it says, the rest is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, settings
from schemathesis import checks

import jupyter_rayoffload
from jupyter_rayoffload.server import schema
from tests.ray_fixture import short_folder
from tests.server.conftest import Scene
from tests.server.fake_service import Parts
from tests.server.running import BASE, TOKEN, running_server

FILE = Path(jupyter_rayoffload.__file__).with_name("server") / "openapi.yaml"
#: Of each operation.
EXAMPLES = 12
JOB = "fit-1"
SIZED = {"profile": "large", "options": {"workers": 2}, "name": "big"}
PATTERNS = {
    "id": schema.document()["components"]["schemas"]["JobId"]["pattern"],
    "name": schema.document()["components"]["schemas"]["ClusterName"]["pattern"],
}

# Without `security`: it would play with the token, which Jupyter checks, and test_server_rest.py.
api = schemathesis.openapi.from_dict(
    {key: part for key, part in yaml.safe_load(FILE.read_text()).items() if key != "security"}
)
checks.load_all_checks()


@pytest.fixture(scope="module")
def whole() -> Iterator[Scene]:
    """One server for all examples: hypothesis gives no fixture of a single one."""
    parts = Parts()
    with short_folder() as root, running_server(root, parts.make_service) as server:
        assert server.api("GET", "status").status == 200  # there is a service from now on
        yield Scene(server, parts)


@api.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_the_server_does_what_the_file_says(case: Any, whole: Scene) -> None:
    _set(whole)
    for name, there in (("id", JOB), ("name", "default")):
        given = (case.path_parameters or {}).get(name)
        if isinstance(given, str) and re.fullmatch(PATTERNS[name], given, re.ASCII):
            case.path_parameters[name] = there  # nothing is found by chance
    if (
        case.operation.label == "POST /clusters"
        and _valid(case.body)
        and {"profile", "options"} & set(case.body)
    ):
        case.body = SIZED  # nor is a profile, or what it has
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{whole.server.port}{BASE}rayoffload/api",
        headers={"Authorization": f"token {TOKEN}"},
    )


def _valid(body: Any) -> bool:
    schema_ = schema.document()["components"]["schemas"]["NewCluster"]
    return jsonschema.Draft202012Validator(schema_).is_valid(body)


def _set(scene: Scene) -> None:
    """Let there be a cluster and a job that has ended, whatever the example before has done."""
    scene.up()
    if scene.parts.store.read(JOB) is None:
        scene.parts.job(JOB)
        scene.parts.inputs(JOB, x=1)
        scene.parts.says(JOB, 1, "stream", name="stdout", text="1\n")
