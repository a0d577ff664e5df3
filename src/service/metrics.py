"""The engine's numbers under Prometheus names: base units, prefix `quire_`, labels whose values are few and fixed.

All of them are the engine's own, so that every HTTP worker answers with the same. `vllm` adds the names that existing
dashboards, autoscalers and gateways ask for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from contracts.engine import EngineInfo, EngineStats
from contracts.latencies import Histogram
from contracts.model_state import ModelTable
from contracts.version import VERSION

_HISTOGRAMS: Final = (
    ("queue_s", "queue_seconds", "request_queue_time_seconds", "From submission to the first place in the batch."),
    ("prefill_s", "prefill_seconds", "request_prefill_time_seconds", "From there to the first token."),
    ("time_to_first_token_s", "time_to_first_token_seconds", "time_to_first_token_seconds", "Since submission."),
    ("inter_token_s", "inter_token_seconds", "inter_token_latency_seconds", "Between two tokens of a sequence."),
    ("decode_s", "decode_seconds", "request_decode_time_seconds", "From the first token to the end."),
    ("request_s", "request_seconds", "e2e_request_latency_seconds", "From submission to the end."),
    ("prompt_tokens", "request_prompt_tokens", "request_prompt_tokens", "Tokens in a prompt."),
    ("output_tokens", "request_output_tokens", "request_generation_tokens", "Tokens generated for a sample."),
)
"""Field of Latencies, our name, vLLM's name, help."""


class EngineMetrics:
    """One scrape of all engines. Life cycle: made, collected once."""

    def __init__(
        self, engines: Sequence[tuple[EngineInfo, EngineStats]], table: ModelTable, *, is_vllm_compatible: bool
    ) -> None:
        self._engines = engines
        self._table = table
        self._is_vllm_compatible = is_vllm_compatible

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks a registry for: each name once, with a sample for each engine."""
        default = [stats for info, stats in self._engines if info.model_name == self._table.default_alias]
        is_up = any(stats.is_alive for stats in default)
        yield GaugeMetricFamily(
            "quire_engine_up", "Whether the default model's engine serves: 1, or 0.", value=float(is_up)
        )
        yield _models(self._table)
        families: dict[str, Metric] = {}
        for info, stats in self._engines:
            for metric in _metrics_of(info, stats, is_vllm_compatible=self._is_vllm_compatible):
                family = families.setdefault(metric.name, metric)
                if family is not metric:
                    family.samples += metric.samples
        yield from families.values()


def _models(table: ModelTable) -> Metric:
    states = GaugeMetricFamily("quire_model_state", "1 for the state of each model.", labels=["model", "state"])
    for model in table.models:
        states.add_metric([model.alias, model.phase.value], 1.0)
    return states


def _metrics_of(info: EngineInfo, stats: EngineStats, *, is_vllm_compatible: bool) -> Iterator[Metric]:
    yield from _own(info, stats)
    if is_vllm_compatible:
        yield from _vllm(info, stats)


def _own(info: EngineInfo, stats: EngineStats) -> Iterator[Metric]:
    model = [info.model_name]
    facts = GaugeMetricFamily(
        "quire_engine_info", "What is served: always 1.", labels=["model", "version", "device", "dtype"]
    )
    facts.add_metric([info.model_name, VERSION, info.device, info.dtype], 1.0)
    yield facts
    used = stats.num_blocks - stats.num_free_blocks
    gauges = (
        ("requests_running", "Sequences in the batch.", stats.num_running),
        ("requests_waiting", "Sequences in the queue.", stats.num_waiting),
        ("waiting_tokens", "Prompt tokens in the queue.", stats.num_waiting_tokens),
        ("kv_cache_usage_ratio", "Share of the KV blocks that live sequences hold.", used / max(1, stats.num_blocks)),
        ("engine_draining", "Whether the engine takes no new requests: 1, or 0.", float(stats.is_draining)),
    )
    for name, text, value in gauges:
        gauge = GaugeMetricFamily(f"quire_{name}", text, labels=["model"])
        gauge.add_metric(model, value)
        yield gauge
    blocks = GaugeMetricFamily("quire_kv_cache_blocks", "KV blocks by state.", labels=["model", "state"])
    blocks.add_metric([*model, "used"], used)
    blocks.add_metric([*model, "cached"], stats.num_cached_blocks)
    blocks.add_metric([*model, "empty"], stats.num_free_blocks - stats.num_cached_blocks)
    yield blocks
    counters = (
        ("requests", "Requests admitted to the queue.", stats.num_requests),
        ("prompt_tokens", "Tokens of the admitted prompts.", stats.num_prompt_tokens),
        ("prompt_tokens_cached", "Of these, found in the prefix cache.", stats.num_cached_tokens),
        ("generated_tokens", "Tokens sampled.", stats.num_generated_tokens),
        ("preemptions", "Sequences that lost their blocks to others.", stats.num_preemptions),
        ("engine_steps", "Steps computed.", stats.num_steps),
        ("engine_step_seconds", "Time in the model and the sampler.", stats.step_time_s),
        ("engine_step_sequences", "Sequences in the steps; by engine_steps, the batch size.", stats.num_scheduled_seqs),
        ("draft_tokens", "Draft tokens verified (--num-speculative-tokens).", stats.num_drafts),
        ("draft_tokens_accepted", "Of these, those that came true.", stats.num_accepted_drafts),
        ("engine_out_of_memory", "Steps that ran out of memory.", stats.num_out_of_memory),
        ("engine_integrity_faults", "Wrong books found and repaired.", stats.num_integrity_faults),
    )
    for name, text, value in counters:
        counter = CounterMetricFamily(f"quire_{name}", text, labels=["model"])
        counter.add_metric(model, value)
        yield counter
    refused = CounterMetricFamily("quire_requests_refused", "Requests refused, by reason.", labels=["model", "reason"])
    refused.add_metric([*model, "queue_full"], stats.num_rejected)
    refused.add_metric([*model, "rate_limited"], stats.num_rate_limited)
    yield refused
    yield _ends("quire_samples_ended", "Samples ended, by reason.", ["model", "reason"], info, stats)
    for field, name, _, text in _HISTOGRAMS:
        yield _histogram(f"quire_{name}", text, ["model"], model, getattr(stats.latencies, field))


def _vllm(info: EngineInfo, stats: EngineStats) -> Iterator[Metric]:
    model, labels = [info.model_name], ["model_name"]
    used_ratio = (stats.num_blocks - stats.num_free_blocks) / max(1, stats.num_blocks)
    for name, value in (
        ("num_requests_running", stats.num_running),
        ("num_requests_waiting", stats.num_waiting),
        ("kv_cache_usage_perc", used_ratio),
    ):
        gauge = GaugeMetricFamily(f"vllm:{name}", "As vLLM names it.", labels=labels)
        gauge.add_metric(model, value)
        yield gauge
    config = GaugeMetricFamily(
        "vllm:cache_config_info", "As vLLM names it.", labels=["block_size", "num_gpu_blocks", *labels]
    )
    config.add_metric([str(info.block_size), str(info.num_blocks), *model], 1.0)
    yield config
    for name, value in (
        ("num_preemptions", stats.num_preemptions),
        ("prompt_tokens", stats.num_prompt_tokens),
        ("generation_tokens", stats.num_generated_tokens),
        ("prefix_cache_queries", stats.num_prompt_tokens),
        ("prefix_cache_hits", stats.num_cached_tokens),
        ("spec_decode_num_draft_tokens", stats.num_drafts),
        ("spec_decode_num_accepted_tokens", stats.num_accepted_drafts),
    ):
        counter = CounterMetricFamily(f"vllm:{name}", "As vLLM names it.", labels=labels)
        counter.add_metric(model, value)
        yield counter
    yield _ends("vllm:request_success", "As vLLM names it.", ["model_name", "finished_reason"], info, stats)
    for field, _, name, _ in _HISTOGRAMS:
        yield _histogram(f"vllm:{name}", "As vLLM names it.", labels, model, getattr(stats.latencies, field))


def _ends(name: str, text: str, labels: list[str], info: EngineInfo, stats: EngineStats) -> Metric:
    ends = CounterMetricFamily(name, text, labels=labels)
    for reason, count in sorted(stats.latencies.ends.items()):
        ends.add_metric([info.model_name, reason], count)
    return ends


def _histogram(name: str, text: str, labels: list[str], values: list[str], histogram: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=False):
        total += count
        buckets.append((bound, total))
    if buckets:
        family.add_metric(values, buckets, histogram.sum)
    return family
