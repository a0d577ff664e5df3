"""The hub is asked for a hub name only, and its answer is told with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.checkup import Finding
from contracts.model_catalog import ModelProfile
from contracts.settings import EMBEDDED_MODEL, EngineSettings
from service.terminal import hub_check
from service.terminal.hub_check import check_hub
from tests.service.terminal.scripted_api import Answer, ScriptedApi, scripted_api

MODEL = "org/quire-test-of-a-missing-model"
PATH = f"GET /api/models/{MODEL}/auth-check"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedApi]:
    with scripted_api() as api:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", api.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        yield api


def ask(model: str = MODEL, *, offline: bool = False) -> Finding:
    return check_hub(ModelProfile(alias="a", model=model), EngineSettings(offline=offline))


def test_model_that_can_be_fetched_is_well(hub: ScriptedApi) -> None:
    hub.answers[PATH] = Answer()
    finding = ask()
    assert (finding.state, "fetched at the first start" in finding.summary) == ("ok", True)
    assert hub.asked[0].headers["authorization"] == "Bearer hf_test"


@pytest.mark.parametrize(
    ("status", "words"), [(403, "is gated"), (404, "that this user may see"), (401, "may see"), (500, "status 500")]
)
def test_refusal_fails_with_the_remedy(hub: ScriptedApi, status: int, words: str) -> None:
    hub.answers[PATH] = Answer(status=status)
    finding = ask()
    assert (finding.state, words in finding.summary) == ("failed", True)
    assert "HF_TOKEN" in (finding.remedy or "")


def test_model_that_is_fetched_already_needs_no_hub(hub: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_check, "find_directory", lambda model: Path("/cached"))
    hub.answers[PATH] = Answer(status=503)
    assert (ask().state, ask(offline=True).state) == ("warning", "ok")


@pytest.mark.usefixtures("hub")
def test_hub_that_is_not_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    finding = ask()
    assert (finding.state, "cannot be reached" in finding.summary) == ("failed", True)


def test_offline_model_that_was_never_fetched_fails(hub: ScriptedApi) -> None:
    assert (ask(offline=True).state, hub.asked) == ("failed", [])


@pytest.mark.parametrize("model", [EMBEDDED_MODEL, "/somewhere"])
def test_model_of_this_machine_asks_nobody(hub: ScriptedApi, model: str) -> None:
    assert (ask(model).state, hub.asked) == ("skipped", [])
