# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI description: whole, valid, and true of the server as schemathesis sees it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import WebSocketRoute
from tests.serve.attacked import Attacked
from tests.serve.conftest import Served

from shipsight.serve import Limits, VertexRoutes
from shipsight.serve.http import build_app
from shipsight.serve.http.description import DescribedRoute, describe
from shipsight.serve.http.stream import Streams
from shipsight.serve.metrics import Metrics
from shipsight.serve.models import Models
from shipsight.serve.open_inference import OpenInference
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.service import PredictionService


@pytest.fixture
def routes() -> list[Any]:
    """All routes of the app, those of Vertex AI among them."""
    scheduler = Scheduler(1)
    service = PredictionService(Models(scheduler), scheduler, Limits(images=7, detections=50))
    app: Any = build_app(
        service,
        Metrics(),
        open_inference=OpenInference(service),
        streams=Streams(service, service.limits, Metrics()),
        vertex=VertexRoutes("/health", "/predict"),
    )
    while not hasattr(app, "routes"):
        app = app._app
    scheduler.close()
    # A WebSocket has no place in OpenAPI; its path has a page beside it that says so.
    return [one for one in app.routes if not isinstance(one, WebSocketRoute)]


def test_every_route_describes_itself(routes: list[Any]) -> None:
    assert [one.path for one in routes if not isinstance(one, DescribedRoute)] == []
    told = describe(routes)["paths"]
    described = {(path, method.upper()) for path, item in told.items() for method in item}
    # Which texts a parameter takes (`{group:path}`) is Starlette's to know, and not OpenAPI's.
    assert described == {
        (one.path.replace(":path}", "}"), method) for one in routes for method in one.methods - {"HEAD"}
    }
    assert len(described) == len(routes) > 20


def test_description_is_valid_and_names_each_operation_once(routes: list[Any]) -> None:
    told = describe(routes)
    OpenAPIV31SpecValidator(told).validate()
    names = [operation["operationId"] for item in told["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)


def test_description_tells_the_limits_of_this_server(routes: list[Any]) -> None:
    predict = describe(routes)["paths"]["/v1/models/{model}/predict"]["post"]
    options = {one["name"]: one["schema"] for one in predict["parameters"]}
    assert options["max_det"]["maximum"] == options["max_det"]["default"] == 50
    assert options["conf"]["default"] == 0.25
    images = predict["requestBody"]["content"]["application/json"]["schema"]["properties"]["images"]
    assert images["maxItems"] == 7


def test_server_gives_its_description(server: Served) -> None:
    answer = httpx.get(f"{server.url}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    OpenAPIV31SpecValidator(answer.json()).validate()
    assert 'href="/openapi.json"' in httpx.get(server.url).text


CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method"
)


# A limit is refused with 413, a flood with 503, and who changes access on an open server with 403, whatever they send: schemathesis would
# take none of these for a refusal.
# And a request may give a millisecond for its answer, which passes on a busy machine: 504 is what such a client asked for.
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = ["400", "403", "404", "413", "415", "5xx"]

[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "504"]
"""
KNOWN = """
[parameters]
model = "digits"
version = "1"
"""


def run_schemathesis(url: str, examples: int, folder: Path, *, knows_model: bool = False) -> None:
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent)) or shutil.which("schemathesis")
    if program is None:
        pytest.skip("schemathesis is not installed")
    (folder / "schemathesis.toml").write_text(CONFIG + KNOWN * knows_model)
    command = [program, "run", f"{url}/openapi.json", "--checks", CHECKS, "--max-examples", str(examples)]
    command += ["--seed", "1", "--no-color", "--request-timeout", "120"]
    # Where the model is known, what does not name one is asked nothing new. A model that is taken out of service leaves
    # nothing to find behind its routes.
    command += ["--include-path-regex", r"\{model\}", "--exclude-path-regex", "unload"] if knows_model else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500, cwd=folder)
    assert done.returncode == 0, done.stdout[-60000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_server_does_as_it_describes(attacked: Attacked, tmp_path: Path) -> None:
    run_schemathesis(attacked.served.url, 2, tmp_path)
    # It may have found the name of the model, and taken it out of service.
    assert attacked.ask("POST", "/v2/repository/models/digits/load").status_code == 200


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("knows_model", [False, True], ids=["any-name", "name-of-the-model"])
def test_server_does_as_it_describes_in_many_examples(
    start: Callable[..., Served],
    digits_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    knows_model: bool,
) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/vertex/predict")
    server = start(digits_bundle, "--variant", "all", "--streams", "2")
    run_schemathesis(server.url, 15, tmp_path, knows_model=knows_model)
    assert httpx.post(f"{server.url}/v2/repository/models/digits/load", timeout=60).status_code == 200
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert server.stop() == 0
