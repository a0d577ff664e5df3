"""What is asked of the engine and what comes back, in token ids; text belongs to the service."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from contracts.finish_reason import FinishReason as FinishReason
from contracts.records import SampleRecord
from contracts.sampling import SamplingParams


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """On whose behalf a request runs: what the engine's share and limits are counted by. All requests without a key
    are one tenant."""

    name: str = ""
    """The key's label; never the key."""
    weight: float = 1.0
    """Share of the engine relative to the other tenants that have work waiting, and of the prefix cache relative to
    those that have something cached."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Counts prompt and max_tokens when a request is admitted; what was not generated is given back at its end."""
    max_concurrency: int | None = None
    """Requests that may be waiting or running at once."""


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request as the engine sees it: immutable, validated, tokenised."""

    request_id: str
    prompt_token_ids: list[int]
    sampling: SamplingParams
    num_samples: int = 1
    """Independent continuations of the prompt; sample i draws its noise from the seed and i."""
    priority: int = 0
    """Lower goes first; waiting longer makes up for a higher number (ageing)."""
    timeout_s: float | None = None
    """Seconds from submission until the request is ended with DeadlineExceeded."""
    cache_salt: str = ""
    """Requests share prefix blocks only under the same salt."""
    tenant: Tenant = Tenant()
    client_request_id: str = ""
    """The x-request-id of the HTTP request that it came with."""
    traceparent: str = ""
    """W3C trace context of the span under which it runs."""
    reply_recipe: bytes = b""
    """An encoded ReplyRecipe, kept with the record for whoever follows the request; the engine does not read it."""
    is_detached: bool = False
    """It goes on when the process that submitted it is gone."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Natural-log probability of the chosen token and of the most probable ones, from the unprocessed logits."""

    logprob: float
    top: list[tuple[int, float]]
    """(token id, log probability), most probable first; as many as num_logprobs asked for."""


class PhaseTimes(msgspec.Struct, frozen=True, kw_only=True):
    """When a request moved on, in seconds of the engine's monotonic clock; None where it never got there."""

    submitted_s: float
    scheduled_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    num_preemptions: int = 0


class GenerationDelta(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The new tokens of one sample after one step; the last of a sample carries `finish_reason`."""

    request_id: str
    sample_index: int
    token_ids: list[int]
    logprobs: list[TokenLogprob] | None = None
    """One entry per token id, where asked for."""
    num_cached_tokens: int = 0
    """Prompt tokens whose KV came from the prefix cache when the sample was first scheduled."""
    finish_reason: FinishReason | None = None
    ended_by_token: bool = False
    """The last token id is the end-of-sequence or stop token: it counts as generated but is not text."""
    error: str | None = None
    times: PhaseTimes | None = None
    """Set together with finish_reason."""
    record: SampleRecord | None = None
    """Likewise."""


def final_deltas(
    request_id: str, open_samples: Iterable[int], reason: FinishReason, error: str | None = None
) -> list[GenerationDelta]:
    """A last delta, without tokens, for every sample that has not ended; in the order of the samples."""
    return [
        GenerationDelta(request_id=request_id, sample_index=index, token_ids=[], finish_reason=reason, error=error)
        for index in sorted(open_samples)
    ]
