"""What the engine remembers of a request: when it moved on, why it waited, whom it shared its steps with.

Never a token or a text. Times are seconds of the machine's monotonic clock, as in PhaseTimes.
"""

from __future__ import annotations

import enum

import msgspec

from contracts.finish_reason import FinishReason

MAX_WAITS, MAX_CHUNKS, MAX_STEP_LINKS = 16, 64, 16
"""Entries that a record keeps of each; the rest is counted."""
MAX_ANSWERED = 100
"""Records in one answer."""


class WaitCause(enum.Enum):
    """Why a sequence that waited was not let into the batch at a step."""

    STEP = "step"
    """Nothing was in its way but the step that was running when it came."""
    BLOCKS = "blocks"
    """The free KV blocks did not suffice for the one that was next."""
    BATCH = "batch"
    """max_num_seqs sequences were running."""
    BUDGET = "budget"
    """The step's tokens went to decodes and to prompts that had begun."""
    SHARE = "share"
    """The place that was its turn by arrival went to another tenant, which had had less than its share."""
    PRIORITY = "priority"
    """The place that was its turn by arrival went to a later request of higher priority."""
    SIBLING = "sibling"
    """Sample 0 of its request had not computed the prompt that they share."""


class BlockHolder(msgspec.Struct, frozen=True, array_like=True):
    """Who had the blocks that another waited for."""

    request_id: str
    num_blocks: int
    tenant: str = ""


class Wait(msgspec.Struct, frozen=True, array_like=True):
    """One stay in the waiting queue: the first, or one after a preemption."""

    began_s: float
    ended_s: float | None
    """None: it ended or still waits without having been admitted."""
    seconds: dict[WaitCause, float]
    """How long each cause kept it out; the sum is the whole stay."""
    num_ahead: int
    """Sequences that waited when it came."""
    num_overtaken_by: int = 0
    """Sequences admitted meanwhile beyond those ahead: of higher priority, or of a tenant with a smaller share."""
    holders: list[BlockHolder] = []
    """The largest ones, when blocks were short last."""
    preempted_by: str | None = None
    """Request that took its place; None for the first wait."""
    preempter_tenant: str = ""
    num_lost_tokens: int = 0
    """Computed before the preemption, to be computed again."""


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """One part of a prompt (or of what is recomputed), in one step."""

    began_s: float
    ended_s: float
    num_tokens: int
    num_rows: int
    """Sequences in the step."""
    num_other_prefill_tokens: int


class StepShare(msgspec.Struct, frozen=True, array_like=True):
    """The steps in which a sequence decoded, summed."""

    num_steps: int = 0
    num_rows: int = 0
    """Sequences in them, itself included: divided by num_steps, the mean batch size."""
    num_prefill_tokens: int = 0
    """Of other requests."""
    step_s: float = 0.0
    """In the model and the sampler."""


class StepLink(msgspec.Struct, frozen=True, array_like=True):
    """A step that it took part in and that has a span of its own."""

    at_s: float
    """Within the step."""
    trace_id: str
    span_id: str
    """Hex digits: 32 and 16."""


class SampleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One sample, from submission to its end or to now."""

    sample_index: int
    submitted_s: float
    waits: list[Wait]
    chunks: list[Chunk]
    num_waits: int
    num_chunks: int
    decode: StepShare
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    num_preemptions: int
    first_token_s: float | None = None
    finished_s: float | None = None
    observed_s: float
    """When the record was made."""
    finish_reason: FinishReason | None = None
    error: str | None = None
    step_links: list[StepLink] = []

    @property
    def latest_s(self) -> float:
        return self.observed_s if self.finished_s is None else self.finished_s


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the engine: what `quire why` tells."""

    request_id: str
    client_request_id: str
    """x-request-id of the HTTP request; several engine requests share it when there are several prompts."""
    traceparent: str
    tenant: str
    num_samples: int
    samples: list[SampleRecord]
    model: str = ""
    """Name of the model that serves it; an engine, which has but one, leaves it out."""
    reply_recipe: bytes = b""
    """As the request brought it."""
    is_detached: bool = False
    queue_position: int | None = None
    """Sequences that will be let into the batch before its first one; None when it does not wait."""

    @property
    def is_finished(self) -> bool:
        return len(self.samples) == self.num_samples and all(s.finish_reason is not None for s in self.samples)

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty where there is no trace."""
        parts = self.traceparent.split("-")
        return parts[1] if len(parts) == 4 else ""

    @property
    def is_waiting(self) -> bool:
        """None of its samples has a place in the batch."""
        return not self.is_finished and all(one.waits and one.waits[-1].ended_s is None for one in self.samples)

    @property
    def submitted_s(self) -> float:
        return min(sample.submitted_s for sample in self.samples)


def total_s(record: RequestRecord) -> float:
    """Until the last thing that is known of it."""
    return max(sample.latest_s for sample in record.samples) - record.submitted_s


class RecordQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are wanted; all conditions hold together."""

    any_id: str | None = None
    """The engine's request id (the reply's id, with -0, -1, ... behind it where there are several prompts, or without
    for all of these), the x-request-id, or the trace id."""
    tenant: str | None = None
    """None: of all."""
    is_slowest_first: bool = False
    """Longest total time first; else newest first."""
    latest_submitted_s: float | None = None
    """Only those submitted by then: the next page of a long answer that has the newest first."""
    limit: int = 20
