"""No route can be forgotten: each of the API's description is exercised by a smoke check, or listed with a reason."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from contracts.errors import ServerUnreachable
from service.terminal.api_client import ApiClient
from service.terminal.examination import found
from service.terminal.smoke import NOT_EXERCISED, all_checks, examine_check, run_smoke
from service.terminal.smoke_session import SmokeCheck, SmokeFailure, SmokeSession
from tests.service.terminal.scripted_api import Answer, ScriptedApi, scripted_api
from tests.shape_rules import ROOT

CARD: dict[str, Any] = {
    **{"id": "m", "created": 1, "root": "m", "state": "ready", "is_default": True, "display_name": "m"},
    **{"description": "", "family": "", "kind": "chat", "progress": None, "error": None, "memory_bytes": None},
    **{"load_s": 1.0, "max_model_len": 64, "architecture": "A", "dtype": "float32", "num_parameters": 1},
    **{"sampling_defaults": None},
}
REFUSED = {"error": {"message": "The key 'a' lacks the scope 'metrics'.", "code": "insufficient_scope"}}


def described_routes() -> set[str]:
    document = msgspec.json.decode((ROOT / "contracts/openapi.json").read_bytes())
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


@pytest.fixture
def api() -> Any:
    with scripted_api(v1_models={"object": "list", "data": [CARD, {**CARD, "id": "n", "is_default": False}]}) as api:
        yield api


@pytest.fixture
def session(api: ScriptedApi) -> Any:
    with ApiClient(api.url) as client:
        yield SmokeSession(client, None)


def state_of(check: SmokeCheck, session: SmokeSession) -> tuple[str, str]:
    finding = examine_check(check, session)
    return finding.state, finding.summary


def test_every_described_route_has_a_check_or_a_reason() -> None:
    known = {route for check in all_checks() for route in check.routes}
    assert known | NOT_EXERCISED.keys() == described_routes()
    assert [route for route in NOT_EXERCISED if route in known or not NOT_EXERCISED[route]] == []


def test_names_of_checks_are_distinct() -> None:
    names = [check.name for check in all_checks()]
    assert len(set(names)) == len(names)


def test_default_model_is_tried_unless_another_is_named(session: SmokeSession) -> None:
    assert session.model == "m"
    assert SmokeSession(session.client, "n").model == "n"
    with pytest.raises(SmokeFailure, match="Listed: m, n"):
        SmokeSession(session.client, "x")


def test_server_that_is_not_there_is_told_at_once() -> None:
    with ApiClient("http://127.0.0.1:9") as client, pytest.raises(ServerUnreachable, match="Nothing answers"):
        SmokeSession(client, None)


def test_reply_of_another_shape_fails(session: SmokeSession, api: ScriptedApi) -> None:
    api.answers["GET /v1/presets"] = Answer(body=b'{"data": 5}', headers={"content-type": "application/json"})
    check = SmokeCheck(name="x", routes=(), run=lambda one: found("ok", str(one.call("GET /v1/presets").status)))
    state, summary = state_of(check, session)
    assert (state, summary.startswith("GET /v1/presets answers in another shape")) == ("failed", True)


def test_status_that_is_not_wanted_fails_with_the_servers_words(session: SmokeSession, api: ScriptedApi) -> None:
    body = msgspec.json.encode({"error": {"message": "The engine is dead.", "code": "engine_dead"}})
    api.answers["GET /health"] = Answer(status=503, body=body)
    check = SmokeCheck(name="x", routes=(), run=lambda one: found("ok", str(one.call("GET /health").status)))
    assert state_of(check, session) == ("failed", "GET /health answers 503 instead of 200: The engine is dead.")


def test_scope_that_the_key_lacks_is_no_failure(session: SmokeSession, api: ScriptedApi) -> None:
    api.answers["GET /stats"] = Answer(status=403, body=msgspec.json.encode(REFUSED))
    check = SmokeCheck(name="x", routes=(), run=lambda one: found("ok", str(one.call("GET /stats").status)))
    assert state_of(check, session) == ("skipped", "The key 'a' lacks the scope 'metrics'.")


def test_stream_without_its_end_fails(session: SmokeSession, api: ScriptedApi) -> None:
    api.answers["POST /x"] = Answer(body=b'data: {"a": 1}\n\n', headers={"content-type": "text/event-stream"})
    reply = session.call("POST /x", {})
    assert [event.data for event in reply.events()] == ['{"a": 1}']
    with pytest.raises(SmokeFailure, match=r"without \[DONE\]"):
        reply.chunks(dict[str, int])


def test_dialect_that_is_not_served_is_skipped(session: SmokeSession, api: ScriptedApi) -> None:
    api.answers["GET /openapi.json"] = Answer(body=b'{"paths": {"/health": {"get": {}}}}')
    (check,) = [check for check in all_checks() if check.name == "picollm"]
    assert state_of(check, session)[0] == "skipped"


def test_server_without_anything_fails_everywhere_and_ends(session: SmokeSession) -> None:
    findings = list(run_smoke(session))
    assert [finding.name for finding in findings] == [*(check.name for check in all_checks()), "coverage"]
    assert {finding.state for finding in findings} == {"failed", "skipped"}


def test_unknown_route_is_a_warning(session: SmokeSession, api: ScriptedApi) -> None:
    api.answers["GET /openapi.json"] = Answer(body=b'{"paths": {"/v9/new": {"get": {}}}}')
    finding = list(run_smoke(session))[-1]
    assert (finding.state, "GET /v9/new" in finding.summary) == ("warning", True)
