"""What the live view shows: one look into the engine, and how it travels on to whoever watches.

`EngineLook` is the engine's own, made only when a worker asks; `LiveView` is the JSON of GET /v1/live, the same without
what the caller may not see. Never a token or a text.
"""

from __future__ import annotations

from typing import Literal

import msgspec

EMPTY, CACHED, LEAVING, FIRST_HOLDER = 0, 1, 2, 3
"""What a block is: free without content; free, but its content can be found again; held until the step in flight is
over by a sequence that has ended; and, from FIRST_HOLDER on, held by the running sequence of this place."""
MAX_CELLS = 65_536
"""Blocks that a look describes: the first ones."""
MAX_WAITING_TOLD = 64
"""Waiting sequences that a look names; the rest is counted."""


class RunningLook(msgspec.Struct, frozen=True, array_like=True):
    """One sequence of the batch."""

    seq_id: int
    request_id: str
    sample_index: int
    tenant: str
    is_decoding: bool
    num_prompt_tokens: int
    num_cached_tokens: int
    num_computed_tokens: int
    num_output_tokens: int
    max_tokens: int
    num_blocks: int
    num_preemptions: int
    age_s: float
    """Since its submission."""


class WaitingLook(msgspec.Struct, frozen=True, array_like=True):
    """One sequence of the queue."""

    seq_id: int
    request_id: str
    sample_index: int
    tenant: str
    num_prompt_tokens: int
    is_preempted: bool
    age_s: float


class LiveCounters(msgspec.Struct, frozen=True, kw_only=True):
    """Since the engine's start; the difference between two looks is what happened between them."""

    num_steps: int
    num_requests: int
    num_ended: int
    num_preemptions: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_scheduled_seqs: int
    step_time_s: float
    first_token_s: float
    """Sum over the requests that have ended of their times to the first token."""
    num_first_tokens: int
    inter_token_s: float
    """Sum over the tokens behind a first one of the time since the one before."""
    num_inter_tokens: int


class EngineLook(msgspec.Struct, frozen=True, kw_only=True):
    """The engine between two turns of its loop. Seconds of the machine's monotonic clock."""

    at_s: float
    cells: bytes
    """For each of the first MAX_CELLS blocks what it is, as 16 bits in the machine's order."""
    shared: list[int]
    """Blocks that are held several times, in order."""
    running: list[RunningLook]
    """In the order in which they keep their blocks; the cells count by it."""
    waiting: list[WaitingLook]
    """The first MAX_WAITING_TOLD, in turn."""
    num_waiting: int
    num_blocks: int
    num_free_blocks: int
    num_cached_blocks: int
    counters: LiveCounters
    took_s: float
    """What making it cost the engine's loop: whoever asks again waits a multiple of it."""


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence of the batch."""

    seq: int
    """Its number in the engine; the same from look to look."""
    request: str | None
    """Null where it is another key's."""
    sample: int
    key: str | None
    phase: Literal["prefill", "decode"]
    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int
    output_tokens: int
    max_tokens: int
    num_blocks: int
    num_preemptions: int
    age_s: float


class LiveWaiting(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence of the queue."""

    seq: int
    request: str | None
    sample: int
    key: str | None
    prompt_tokens: int
    is_preempted: bool
    age_s: float


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """One event of GET /v1/live."""

    model: str
    at: float
    """Seconds of a clock that never jumps; only differences mean something."""
    period_s: float
    """About how long until the next one."""
    block_size: int
    """Tokens of a block."""
    num_blocks: int
    num_free_blocks: int
    num_cached_blocks: int
    runs: list[int]
    """What the blocks are, in their order: pairs of what and how many. 0 is empty, 1 cached, 2 about to be free, and
    3 + i held by running[i]. Of a pool of more than 65,536 blocks the first ones."""
    shared: list[int]
    """Blocks that several sequences hold: pairs of a first one and how many."""
    running: list[LiveRow]
    waiting: list[LiveWaiting]
    """The first 64, in turn."""
    num_waiting: int
    max_num_seqs: int
    counters: LiveCounters
