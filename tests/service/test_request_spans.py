"""Phases become spans that do not touch, on the wall clock; and a collector is used only where one is named."""

from __future__ import annotations

from itertools import pairwise

import pytest

from contracts.errors import SettingsError
from contracts.records import Chunk, Wait, WaitCause
from contracts.settings import ServerSettings
from service.request_spans import GAP_NS, timed, unix_ns
from service.tracing import check_tracing, is_wanted
from tests.service.test_why import sample

OFFSET_NS = 1_700_000_000_000_000_000


def test_phases_are_a_microsecond_apart_and_in_order() -> None:
    spans = list(timed(sample(), OFFSET_NS))
    assert [phase.name for phase, _, _ in spans] == ["queue", "prefill", "prefill", "decode"]
    assert [start_ns for _, start_ns, _ in spans] == [unix_ns(second, OFFSET_NS) for second in (50.0, 52.0, 52.2, 52.3)]
    for (_, _, earlier_end_ns), (_, later_start_ns, _) in pairwise(spans):
        assert later_start_ns - earlier_end_ns == pytest.approx(GAP_NS, abs=2)
    assert spans[-1][2] == unix_ns(53.3, OFFSET_NS) - GAP_NS


def test_preemption_cuts_the_decoding_in_two() -> None:
    again = Wait(52.5, 53.0, {WaitCause.BLOCKS: 0.5}, 0, preempted_by="cmpl-old", num_lost_tokens=858)
    chunks = [Chunk(52.0, 52.3, 600, 4, 100), Chunk(53.0, 53.1, 858, 4, 0)]
    spans = list(timed(sample(waits=[Wait(50.0, 52.0, {}, 0), again], chunks=chunks), OFFSET_NS))
    assert [phase.name for phase, _, _ in spans] == ["queue", "prefill", "decode", "preempted", "prefill", "decode"]
    assert all(end_ns < start_ns for (_, _, end_ns), (_, start_ns, _) in pairwise(spans))


def test_phase_without_length_is_no_span() -> None:
    spans = list(timed(sample(waits=[Wait(50.0, 50.0, {}, 0)], chunks=[], first_token_s=50.0), OFFSET_NS))
    assert [phase.name for phase, _, _ in spans] == ["decode"]


def test_open_phase_ends_with_the_request() -> None:
    left = sample(waits=[Wait(50.0, None, {}, 0)], chunks=[], first_token_s=None, num_output_tokens=0)
    ((phase, _, end_ns),) = timed(left, OFFSET_NS)
    assert (phase.name, end_ns) == ("queue", unix_ns(53.3, OFFSET_NS) - GAP_NS)


@pytest.mark.parametrize(
    ("endpoint", "environment", "wanted"),
    [
        (None, {}, False),
        ("http://c:4318", {}, True),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ("http://c:4318", {"OTEL_SDK_DISABLED": "TRUE"}, False),
        ("http://c:4318", {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_spans_are_sent_only_where_a_collector_is_named(
    monkeypatch: pytest.MonkeyPatch, endpoint: str | None, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_wanted(ServerSettings(otlp_endpoint=endpoint)) is wanted


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"])
def test_protocol_that_is_not_spoken_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http/json")
    with pytest.raises(SettingsError, match=r"'http/json'.*there are http/protobuf and grpc"):
        check_tracing(ServerSettings(otlp_endpoint="http://c:4318"))
    check_tracing(ServerSettings())


def test_grpc_without_its_packages_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.tracing.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"pip install 'quire\[grpc\]'"):
        check_tracing(ServerSettings(otlp_endpoint="http://c:4317", otlp_protocol="grpc"))
