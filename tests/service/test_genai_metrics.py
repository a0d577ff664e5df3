"""The metrics of the GenAI conventions: one point for each request in the right histograms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from contracts.generation import PhaseTimes
from service import genai_metrics
from service.genai_metrics import RequestFigures, record

TIMES = PhaseTimes(submitted_s=10.0, scheduled_s=10.5, first_token_s=11.0, finished_s=12.0)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("service.genai_metrics.metrics.get_meter", provider.get_meter)
    genai_metrics._instruments.cache_clear()
    yield reader
    genai_metrics._instruments.cache_clear()
    provider.shutdown()


def figures(**changes: Any) -> RequestFigures:
    known: dict[str, Any] = {
        "operation": "chat",
        "model": "m",
        "total_s": 2.5,
        "prompt_tokens": 7,
        "completion_tokens": 11,
        "times": TIMES,
        "error_type": None,
    }
    return RequestFigures(**(known | changes))


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    data = reader.get_metrics_data()
    assert data is not None
    metrics = data.resource_metrics[0].scope_metrics[0].metrics
    found: dict[str, Any] = {one.name: one.data.data_points for one in metrics}
    return {name: [(point.sum, dict(point.attributes)) for point in all_of] for name, all_of in found.items()}


def test_request_is_counted_once_in_each(reader: InMemoryMetricReader) -> None:
    record(figures())
    told = points(reader)
    who = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "quire",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
    }
    assert told == {
        "gen_ai.server.request.duration": [(2.5, who)],
        "gen_ai.server.time_to_first_token": [(1.0, who)],
        "gen_ai.server.time_per_output_token": [(pytest.approx(0.1), who)],
        "gen_ai.client.token.usage": [
            (7, who | {"gen_ai.token.type": "input"}),
            (11, who | {"gen_ai.token.type": "output"}),
        ],
    }


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"times": None}, {"gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token"}),
        ({"completion_tokens": 1}, {"gen_ai.server.time_per_output_token"}),
    ],
)
def test_what_did_not_happen_is_not_measured(
    reader: InMemoryMetricReader, changes: dict[str, Any], missing: set[str]
) -> None:
    record(figures(**changes))
    assert not missing & set(points(reader))


def test_failure_has_its_type(reader: InMemoryMetricReader) -> None:
    record(figures(error_type="503"))
    ((_, attributes),) = points(reader)["gen_ai.server.request.duration"]
    assert attributes["error.type"] == "503"
