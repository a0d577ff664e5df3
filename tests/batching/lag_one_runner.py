"""A device with a cache and rows of its own, one step ahead of the host: what it is told late, it must not need.

The cache holds token ids; the next token depends on all that a row reads there and on its seed. So a step in the wrong
order, a slot given away too early, or a token too many shows in some request's text.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from batching.step import UNKNOWN_TOKEN, SampledToken, ScheduledSequence, SchedulerOutput, StepOutput
from contracts.generation import GenerationRequest
from tests.batching.content_oracle import mix

VOCAB_SIZE = 8
EOS = 7


def next_token(seed: int, token_ids: Sequence[int]) -> int:
    return mix(seed, *token_ids) % VOCAB_SIZE


def text_alone(request: GenerationRequest) -> list[int]:
    """What a request says on a machine of its own."""
    sampling = request.sampling
    token_ids = list(request.prompt_token_ids)
    output: list[int] = []
    while len(output) < sampling.max_tokens and (sampling.ignore_eos or EOS not in output):
        output.append(next_token(sampling.seed, token_ids + output))
    return output


class LagOneRunner:
    """Computes a step when it is launched and tells of it when it is collected, after `delays_s`, in turns.

    While the gate is shut, `collect` waits. Launches whose numbers are in `failing` raise once.
    """

    def __init__(self, num_blocks: int, block_size: int, delays_s: Sequence[float] = (0.0,)) -> None:
        self.block_size = block_size
        self.gate = threading.Event()
        self.gate.set()
        self.num_collecting = 0
        """Calls of `collect` so far."""
        self.failing: set[int] = set()
        self.num_launches = 0
        self.most_under_way = 0
        self._cache = [UNKNOWN_TOKEN] * (num_blocks * block_size)
        self._last_tokens: dict[int, int] = {}
        self._under_way: deque[StepOutput] = deque()
        self._delays_s = _in_turns(delays_s)

    @property
    def num_under_way(self) -> int:
        return len(self._under_way)

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        assert not self._under_way, "execute is for when nothing is under way"
        self.launch(plan)
        return self.collect()

    def launch(self, plan: SchedulerOutput) -> None:
        self.num_launches += 1
        if self.num_launches in self.failing:
            raise RuntimeError("the launch failed")
        for row in plan.sequences:
            self._write(row)
        sampled = [self._sample(row) for row in plan.sequences]
        self._under_way.append(StepOutput(step_id=plan.step_id, sampled=sampled, duration_s=0.001))
        self.most_under_way = max(self.most_under_way, len(self._under_way))
        assert len(self._under_way) <= 2

    def collect(self) -> StepOutput:
        self.num_collecting += 1
        assert self.gate.wait(20.0)
        time.sleep(next(self._delays_s))
        return self._under_way.popleft()

    def _slots(self, row: ScheduledSequence) -> list[int]:
        size = self.block_size
        return [row.block_ids[position // size] * size + position % size for position in range(row.context_len)]

    def _write(self, row: ScheduledSequence) -> None:
        token_ids = row.token_ids
        if UNKNOWN_TOKEN in token_ids:
            assert token_ids == [UNKNOWN_TOKEN]
            token_ids = [self._last_tokens[row.seq_id]]
        for slot, token_id in zip(self._slots(row)[row.start :], token_ids, strict=True):
            self._cache[slot] = token_id

    def _sample(self, row: ScheduledSequence) -> SampledToken | None:
        if not row.is_sampling:
            return None
        token_id = next_token(row.seed, [self._cache[slot] for slot in self._slots(row)])
        self._last_tokens[row.seq_id] = token_id
        return SampledToken(token_id=token_id)


def _in_turns(delays_s: Sequence[float]) -> Iterator[float]:
    while True:
        yield from delays_s
