"""What a loaded model is asked before it serves, and when two answers to it count as the same."""

from __future__ import annotations

import torch

from batching.step import ScheduledSequence, SchedulerOutput
from contracts.sampling import SamplingParams

NUM_PROBE_IDS = 100
"""Token ids of a probe: fewer than any vocabulary has."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}
"""Largest accepted relative difference (2-norm) of the probe logits. A wrong pass is off by about 1; bfloat16 rounds
at other places than transformers does (the fused residual stream is float32), which random deep models amplify."""


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over that of `expected`."""
    wide = expected.float()
    return float((actual.float() - wide).norm() / wide.norm().clamp_min(1e-6))


def probe_plans(num_tokens: int, block_ids: list[int]) -> tuple[SchedulerOutput, SchedulerOutput]:
    """A chunk of `num_tokens` tokens, and the decode step after it; each is complete in itself."""
    tokens = [position % NUM_PROBE_IDS for position in range(num_tokens + 1)]
    return _plan(tokens[:-1], 0, block_ids), _plan(tokens[-1:], num_tokens, block_ids)


def _plan(token_ids: list[int], start: int, block_ids: list[int]) -> SchedulerOutput:
    row = ScheduledSequence(
        seq_id=0,
        token_ids=token_ids,
        start=start,
        block_ids=block_ids,
        is_sampling=True,
        sampling=SamplingParams(temperature=0.0),
        seed=0,
        num_output_tokens=0,
    )
    return SchedulerOutput(step_id=0, sequences=[row], num_tokens=len(token_ids), num_decodes=0)
