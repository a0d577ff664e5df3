"""The offline workload: prompt and output lengths uniform, drawn in the order that others draw them in. Knows no model.

Seed 0, 256 requests of 100 to 1,024 tokens each way: 142,827 prompt tokens and 133,966 output tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from contracts.generation import GenerationRequest
from contracts.sampling import SamplingParams
from ops.bench.gpu.floors import RequestLengths

SEED = 0
LARGEST_ID = 10_000


class WorkloadSize(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests, and between which lengths."""

    num_requests: int = 256
    shortest: int = 100
    longest: int = 1024

    @property
    def max_len(self) -> int:
        """No prompt with its output is longer."""
        return 2 * self.longest


def draw_requests(size: WorkloadSize, vocab_size: int, *, number: int = 0) -> list[GenerationRequest]:
    """The requests, greedy and without an early end; another `number` has the same lengths and other prompts."""
    rng = random.Random(SEED)
    prompts = [
        [rng.randint(0, LARGEST_ID) for _ in range(rng.randint(size.shortest, size.longest))]
        for _ in range(size.num_requests)
    ]
    return [
        greedy_request(
            f"{number}-{index}",
            [(token_id + number) % vocab_size for token_id in prompt],
            rng.randint(size.shortest, size.longest),
        )
        for index, prompt in enumerate(prompts)
    ]


def greedy_request(request_id: str, prompt: list[int], num_tokens: int) -> GenerationRequest:
    """Exactly `num_tokens` tokens, each the most probable one."""
    sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
    return GenerationRequest(request_id=request_id, prompt_token_ids=prompt, sampling=sampling)


def lengths_of(requests: Sequence[GenerationRequest]) -> list[RequestLengths]:
    """Prompt and output tokens of each."""
    return [RequestLengths(len(request.prompt_token_ids), request.sampling.max_tokens) for request in requests]
