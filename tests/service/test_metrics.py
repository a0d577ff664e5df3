"""/metrics is Prometheus text with the engine's numbers; vLLM's names come on demand; labels are few."""

from __future__ import annotations

from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from batching.latencies import LatencyBook
from contracts.engine import EngineStats
from contracts.settings import ServerSettings, Settings
from tests.fakes import FakeEngine
from tests.service.test_why import sample

VLLM_NAMES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:cache_config_info",
    "vllm:num_preemptions",
    "vllm:prompt_tokens",
    "vllm:generation_tokens",
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
    "vllm:spec_decode_num_draft_tokens",
    "vllm:spec_decode_num_accepted_tokens",
    "vllm:request_success",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:request_decode_time_seconds",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
}


class BusyEngine(FakeEngine):
    """Has served one sample and serves more."""

    def stats(self) -> EngineStats:
        book = LatencyBook()
        book.end(sample())
        book.decode_step(0.02, 10)
        return msgspec.structs.replace(
            super().stats(),
            num_running=3,
            num_waiting=2,
            num_blocks=100,
            num_free_blocks=60,
            num_cached_blocks=25,
            num_rejected=7,
            num_rate_limited=1,
            latencies=book.snapshot(),
        )


@pytest.fixture
def engine(engine: FakeEngine) -> FakeEngine:
    return BusyEngine(Path(engine.info.model_path), engine.script)


async def scrape(client: httpx.AsyncClient) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name to label values to value."""
    reply = await client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(reply.text):
        assert family.documentation
        for one in family.samples:
            labels = sorted(one.labels.items(), key=lambda label: (not label[0].startswith("model"), label[0]))
            found.setdefault(one.name, {})[tuple(value for _, value in labels)] = one.value
    return found


async def test_numbers_are_the_engines(client: httpx.AsyncClient) -> None:
    found = await scrape(client)
    model = ("fake/model",)
    assert found["quire_engine_up"] == {(): 1.0}
    assert found["quire_requests_running"] == {model: 3.0}
    assert found["quire_requests_waiting"] == {model: 2.0}
    assert found["quire_kv_cache_usage_ratio"] == {model: 0.4}
    assert found["quire_kv_cache_blocks"] == {(*model, "used"): 40, (*model, "cached"): 25, (*model, "empty"): 35}
    assert found["quire_requests_refused_total"] == {(*model, "queue_full"): 7, (*model, "rate_limited"): 1}
    assert found["quire_samples_ended_total"] == {(*model, "length"): 1}
    assert found["quire_time_to_first_token_seconds_count"] == {model: 1.0}
    assert found["quire_time_to_first_token_seconds_sum"][model] == pytest.approx(2.3)
    buckets = found["quire_time_to_first_token_seconds_bucket"]
    assert (buckets[(*model, "1.0")], buckets[(*model, "2.5")], buckets[(*model, "+Inf")]) == (0, 1, 1)
    assert found["quire_inter_token_seconds_count"] == {model: 10.0}


async def test_names_are_ours_alone_unless_asked(client: httpx.AsyncClient) -> None:
    assert all(name.startswith("quire_") for name in await scrape(client))


class TestVllmNames:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(server=ServerSettings(metrics_compat="vllm"))

    async def test_they_are_there_with_the_same_values(self, client: httpx.AsyncClient) -> None:
        found = await scrape(client)
        reply = await client.get("/metrics")
        families = {family.name for family in text_string_to_metric_families(reply.text)}
        assert {name for name in families if name.startswith("vllm:")} == VLLM_NAMES
        assert found["vllm:num_requests_waiting"] == {("fake/model",): 2.0}
        assert found["vllm:kv_cache_usage_perc"] == {("fake/model",): 0.4}
        assert found["vllm:request_success_total"] == {("fake/model", "length"): 1.0}
