"""May a request come in at all: can it ever fit, is there room in the queue, and when to come back if not."""

from __future__ import annotations

import math

from batching.block_table import num_blocks_for
from batching.scheduler_config import SchedulerConfig
from batching.waiting_queue import WaitingQueue
from contracts.errors import ContextLengthExceeded, InvalidValue, NoRoom, QueueFull
from contracts.generation import GenerationRequest

MAX_RETRY_AFTER_S = 120.0
_SMOOTHING = 0.05
"""Weight of the newest step in the measured token rate."""


class Admission:
    """The checks of `Scheduler.submit`. Owner: the Scheduler; reads the waiting queue, changes nothing."""

    def __init__(self, config: SchedulerConfig, waiting: WaitingQueue) -> None:
        self._config = config
        self._waiting = waiting
        self._tokens_per_s = 0.0
        self.num_rejected = 0
        """Requests refused because the queue was full."""

    def observe(self, num_tokens: int, duration_s: float) -> None:
        """Learn from a step how many tokens a second the engine computes."""
        if duration_s > 0.0:
            rate = num_tokens / duration_s
            weight = _SMOOTHING if self._tokens_per_s else 1.0
            self._tokens_per_s += weight * (rate - self._tokens_per_s)

    def check(self, request: GenerationRequest, num_waiting: int, *, is_known: bool) -> None:
        """Raise unless all samples of the request can be queued and will fit one day."""
        if is_known:
            raise InvalidValue(f"request id {request.request_id!r} is in use by a request that has not ended")
        self._check_values(request)
        self._check_length(request)
        self._check_queue(request, num_waiting)

    def _check_values(self, request: GenerationRequest) -> None:
        if not request.prompt_token_ids:
            raise InvalidValue("the prompt is empty: at least one token is needed", param="prompt")
        if request.num_samples < 1:
            raise InvalidValue(f"n is {request.num_samples}, at least 1 is needed", param="n")
        if request.sampling.max_tokens < 1:
            raise InvalidValue(f"max_tokens is {request.sampling.max_tokens}, at least 1 is needed", param="max_tokens")
        if not 0.0 < request.tenant.weight < math.inf:
            raise InvalidValue(f"the weight of the tenant is {request.tenant.weight}, a number above 0 is needed")
        if not 0 <= min(request.prompt_token_ids) <= max(request.prompt_token_ids) < self._config.vocab_size:
            raise InvalidValue(f"prompt token ids must lie in 0..{self._config.vocab_size - 1}", param="prompt")

    def _check_length(self, request: GenerationRequest) -> None:
        num_prompt, max_tokens = len(request.prompt_token_ids), request.sampling.max_tokens
        wanted = num_prompt + max_tokens
        if wanted > self._config.max_model_len:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self._config.max_model_len} tokens, but {wanted} were "
                f"requested ({num_prompt} in the prompt, {max_tokens} to generate). Shorten one of them.",
                param="max_tokens",
            )
        if num_blocks_for(wanted, self._config.block_size) > self._config.num_blocks:
            room = self._config.num_blocks * self._config.block_size
            raise ContextLengthExceeded(
                f"The KV cache holds {room} tokens, but {wanted} were requested ({num_prompt} in the prompt, "
                f"{max_tokens} to generate). Shorten one of them, or serve with a larger --kv-cache-memory.",
                param="max_tokens",
            )

    def _check_queue(self, request: GenerationRequest, num_waiting: int) -> None:
        config = self._config
        num_tokens = self._waiting.num_tokens + len(request.prompt_token_ids)
        is_over_requests = num_waiting + request.num_samples > config.max_queued_requests
        is_over_tokens = len(self._waiting) > 0 and num_tokens > config.max_queued_tokens
        if is_over_requests or is_over_tokens:
            self.num_rejected += 1
            is_closed_to_all = (
                num_waiting >= config.max_queued_requests or self._waiting.num_tokens >= config.max_queued_tokens
            )
            raise (NoRoom if is_closed_to_all else QueueFull)(
                f"The queue is full: {num_waiting} of {config.max_queued_requests} sequences and "
                f"{self._waiting.num_tokens} of {config.max_queued_tokens} tokens wait.",
                retry_after_s=self.retry_after_s,
            )

    @property
    def retry_after_s(self) -> float:
        """Seconds until the waiting tokens are computed at the measured rate, between 1 and 120."""
        if not self._tokens_per_s:
            return 1.0
        return min(MAX_RETRY_AFTER_S, max(1.0, math.ceil(self._waiting.num_tokens / self._tokens_per_s)))
