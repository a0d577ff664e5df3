"""The least time that a machine could need: bytes over its copy bandwidth, operations over its matrix rate.

A batch of requests, all there at once, takes at least

    steps x weight bytes / bandwidth                      every step reads all matrices; steps = the longest output
    + sum over the generated tokens of the KV bytes of
      their context / bandwidth                           every decode reads its whole context
    + KV bytes of all tokens / bandwidth                  every token is written once
    + prompt operations / matrix rate                     2 per matrix number and token, 2 x 2 x heads x dim per
                                                          pair of a token and one before it in each layer

seconds. The operations of decodes and the bytes that prompts read are hidden behind the other side of each sum and left
out; so are norms, samples and everything on the host. At 4.3 TB/s and 790 TFLOP/s the 256-request workload gives
36,300 output tokens/s for Qwen3-0.6B, 64,700 with a cache of one byte a number, 13,600 for Llama-3.1-8B; one stream
takes 0.28 and 3.5 ms a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ops.bench.gpu.model_sizes import ModelSize


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of the device itself."""

    name: str
    copy_bytes_per_s: float
    """Read and written, both counted."""
    flops_per_s: float
    """Of a large product of bfloat16 matrices."""


class RequestLengths(msgspec.Struct, frozen=True):
    """Tokens of one request."""

    prompt: int
    output: int


def batch_floor_s(model: ModelSize, machine: Machine, requests: Sequence[RequestLengths], kv_item_bytes: int) -> float:
    """Seconds for requests that are all there at once; see the module."""
    token_bytes = model.kv_token_bytes(kv_item_bytes)
    num_steps = max(request.output for request in requests)
    num_read = sum(_num_tokens_read(request) for request in requests)
    num_written = sum(request.prompt + request.output for request in requests)
    num_bytes = num_steps * model.step_weight_bytes + (num_read + num_written) * token_bytes
    flops = sum(prefill_flops(model, request.prompt) for request in requests)
    return num_bytes / machine.copy_bytes_per_s + flops / machine.flops_per_s


def _num_tokens_read(request: RequestLengths) -> int:
    """Tokens of context that its decodes read; the first token comes from the prompt's own step."""
    num_decodes = request.output - 1
    return num_decodes * request.prompt + num_decodes * (num_decodes + 1) // 2


def token_floor_s(model: ModelSize, machine: Machine, context_len: int, kv_item_bytes: int) -> float:
    """Seconds for one token of a single stream."""
    num_bytes = model.step_weight_bytes + context_len * model.kv_token_bytes(kv_item_bytes)
    return num_bytes / machine.copy_bytes_per_s


def prefill_flops(model: ModelSize, num_tokens: int) -> float:
    """Operations of a prompt; of its logits only the last row is computed."""
    attention = attention_flops(model, num_tokens, num_tokens) * model.num_layers
    return 2.0 * model.linear_parameters * num_tokens + 2.0 * model.head_parameters + attention


def attention_flops(model: ModelSize, num_queries: int, context_len: int) -> float:
    """Operations of one layer for the last `num_queries` positions of a context."""
    num_pairs = num_queries * context_len - num_queries * (num_queries - 1) / 2
    return 4.0 * model.num_heads * model.head_dim * num_pairs


def attention_bytes(model: ModelSize, context_len: int, kv_item_bytes: int) -> int:
    """Keys and values of a context in one layer."""
    return context_len * 2 * model.num_kv_heads * model.head_dim * kv_item_bytes
