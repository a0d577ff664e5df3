"""contracts/openapi.json describes exactly what is served."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.settings import Settings
from service.app import create_app
from service.authorization import PUBLIC_PATHS
from service.openapi import render_openapi
from tests.fakes import FakeEngine

COMMITTED = Path(__file__).parents[2] / "contracts" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(render_openapi())


def test_committed_document_is_current() -> None:
    assert COMMITTED.read_bytes() == render_openapi(), "run: python -m service.openapi > contracts/openapi.json"


async def test_document_is_served(client: httpx.AsyncClient, document: Any) -> None:
    reply = await client.get("/openapi.json")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == document


def test_described_operations_are_the_served_routes(engine: FakeEngine, document: Any) -> None:
    routes = create_app(Settings(), engine).routes
    served = {
        (re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path), method.lower())
        for route in routes
        for method in route.methods
        if method != "OPTIONS"
    }
    described = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert described == served


def test_every_reference_resolves(document: Any) -> None:
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize(
    ("schema", "field", "limits"),
    [
        ("ChatCompletionRequest", "n", {"minimum": 1, "maximum": 8}),
        ("ChatCompletionRequest", "top_logprobs", {"minimum": 0, "maximum": 20}),
        ("CompletionRequest", "temperature", {"minimum": 0, "maximum": 2}),
    ],
)
def test_limits_of_optional_fields_are_kept(document: Any, schema: str, field: str, limits: dict[str, int]) -> None:
    variants = document["components"]["schemas"][schema]["properties"][field]["anyOf"]
    assert any(limits.items() <= variant.items() for variant in variants)


@pytest.mark.parametrize(("path", "also"), [("/v1/chat/completions", {"507"}), ("/v1/completions", set())])
def test_errors_and_streams_are_described(document: Any, path: str, also: set[str]) -> None:
    """A full disk (507) is the matter of conversations alone."""
    responses = document["paths"][path]["post"]["responses"]
    common = {"200", "400", "401", "403", "404", "408", "409", "413", "415", "429", "500", "503"}
    assert set(responses) == common | also
    assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}


def test_keys_are_described_for_every_path_that_needs_one(document: Any) -> None:
    described = {path: next(iter(methods.values())) for path, methods in document["paths"].items()}
    with_key = {path for path, operation in described.items() if "401" in operation["responses"]}
    without_key = {path for path, operation in described.items() if operation.get("security") == []}
    assert with_key == set(described) - PUBLIC_PATHS
    assert without_key == set(described) & PUBLIC_PATHS
    assert set(document["components"]["securitySchemes"]) == {"bearer", "password"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_examples_are_served(client: httpx.AsyncClient, document: Any, path: str) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert (await client.post(path, json=content["example"])).status_code == 200
