"""Floors are bytes over bandwidth and operations over the matrix rate."""

from __future__ import annotations

import pytest

from ops.bench.gpu.floors import (
    Machine,
    RequestLengths,
    attention_bytes,
    attention_flops,
    batch_floor_s,
    prefill_flops,
    token_floor_s,
)
from ops.bench.gpu.model_sizes import MODELS, ModelSize
from ops.bench.gpu.workload import WorkloadSize, draw_requests, lengths_of

H200 = Machine(name="H200", copy_bytes_per_s=4.3e12, flops_per_s=790e12)
SMALL, LARGE = MODELS["qwen3-0.6b"], MODELS["llama-3.1-8b"]


@pytest.mark.parametrize(
    ("model", "kv_item_bytes", "tokens_per_s"),
    [(SMALL, 2, 36_200), (SMALL, 1, 64_000), (LARGE, 2, 13_300)],
    ids=["0.6B", "0.6B fp8", "8B"],
)
def test_floors_of_the_offline_workload_are_those_of_the_targets(
    model: ModelSize, kv_item_bytes: int, tokens_per_s: int
) -> None:
    lengths = lengths_of(draw_requests(WorkloadSize(), model.vocab_size))
    num_output = sum(one.output for one in lengths)
    assert num_output / batch_floor_s(model, H200, lengths, kv_item_bytes) == pytest.approx(tokens_per_s, rel=0.03)


def test_floor_of_requests_over_http_is_that_of_the_targets() -> None:
    floor_s = batch_floor_s(SMALL, H200, [RequestLengths(512, 128)] * 500, 2)
    assert 358 <= 500 / floor_s <= 378


def test_floors_of_one_stream_are_those_of_the_targets() -> None:
    assert token_floor_s(SMALL, H200, 0, 2) == pytest.approx(0.28e-3, rel=0.02)
    assert token_floor_s(LARGE, H200, 0, 2) == pytest.approx(3.5e-3, rel=0.01)


def test_sizes_are_those_of_the_published_configurations() -> None:
    assert SMALL.linear_parameters + SMALL.head_parameters == pytest.approx(596e6, rel=0.001)
    assert LARGE.linear_parameters + 2 * LARGE.head_parameters == pytest.approx(8.03e9, rel=0.001)
    assert (SMALL.kv_token_bytes(2), LARGE.kv_token_bytes(2)) == (114_688, 131_072)


def test_one_request_costs_its_steps_its_context_and_its_prompt() -> None:
    machine = Machine(name="slow", copy_bytes_per_s=1.0, flops_per_s=1.0)
    toy = MODELS["toy"]
    num_tokens = (3 + 2) + (4 + 5)  # written: five; read by two decodes: 4 and 5
    wanted_s = 3 * toy.step_weight_bytes + (num_tokens + 1) * toy.kv_token_bytes(2) + prefill_flops(toy, 3)
    assert batch_floor_s(toy, machine, [RequestLengths(3, 3)], 2) == wanted_s


def test_attention_counts_every_pair_of_a_query_and_a_key_before_it_once() -> None:
    toy = MODELS["toy"]
    pair_flops = 4 * toy.num_heads * toy.head_dim
    assert attention_flops(toy, 4, 4) == 10 * pair_flops
    assert attention_flops(toy, 1, 7) == 7 * pair_flops
    assert attention_bytes(toy, 7, 2) == 7 * toy.kv_token_bytes(2) // toy.num_layers
