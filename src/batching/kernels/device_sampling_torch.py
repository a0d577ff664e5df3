"""The sampler over the rows of batching.row_tables in plain torch: what sampler_triton does, on any device.

Reads the options back from the records and computes with the sampler's own operations. It asks the device for numbers
at every turn, so it serves tests and machines without Triton.
"""

from __future__ import annotations

import torch

from batching import row_tables
from batching.kernels.sampler_buffers import BROKEN_LOGITS, CHOSEN, MAX_TOP_LOGPROBS, NOTHING_LEFT, SamplerBuffers
from batching.kernels.sampling_torch import TorchSampling
from batching.logits_processing import process_logits
from batching.row_tables import RowTables
from batching.sampling_options import collect_options
from batching.step import ScheduledSequence
from contracts.sampling import SamplingParams

_KERNEL = TorchSampling()


def sample(
    logits: torch.Tensor,
    rows: torch.Tensor,
    num_sampling: torch.Tensor,
    tables: RowTables,
    masks: torch.Tensor | None,
    buffers: SamplerBuffers,
) -> None:
    """As sampler_triton.sample; ValueError for masks, which nothing sends yet."""
    if masks is not None:
        raise ValueError("masks are not applied by the sampler in torch.")
    num_rows = logits.shape[0]
    buffers.results[:, :num_rows] = 0
    used = [row for row in rows.tolist() if row >= 0]
    if not used:
        return
    raw = logits[: len(used), : buffers.vocab_size]
    is_sound = _KERNEL.argmax(raw)[1]
    buffers.status[: len(used)] = torch.tensor([CHOSEN if sound else BROKEN_LOGITS for sound in is_sound])
    sequences = [read_row(tables, row) for row in used[: int(num_sampling)]]
    if sequences:
        _choose(raw[: len(sequences)], sequences, buffers)
        _logprobs(raw, sequences, buffers)


def _choose(raw: torch.Tensor, sequences: list[ScheduledSequence], buffers: SamplerBuffers) -> None:
    edited = raw.float().clone()
    process_logits(edited, sequences, frozenset())
    token_ids, is_usable = _KERNEL.choose(edited, collect_options(range(len(sequences)), sequences))
    for index, (token_id, usable) in enumerate(zip(token_ids, is_usable, strict=True)):
        if buffers.status[index] == CHOSEN and not usable:
            buffers.status[index] = NOTHING_LEFT
        buffers.token_ids[index] = token_id if buffers.status[index] == CHOSEN else 0


def _logprobs(raw: torch.Tensor, sequences: list[ScheduledSequence], buffers: SamplerBuffers) -> None:
    asking = [
        index
        for index, sequence in enumerate(sequences)
        if sequence.sampling.num_logprobs is not None and buffers.status[index] == CHOSEN
    ]
    if not asking:
        return
    buffers.top_ids[asking], buffers.top_logprobs[asking] = -1, float("-inf")
    chosen, top_ids, top_logprobs = _KERNEL.logprobs(raw[asking], buffers.token_ids[asking].tolist(), MAX_TOP_LOGPROBS)
    buffers.logprobs[asking] = torch.tensor(chosen, device=raw.device)
    for place, index in enumerate(asking):
        num_top = min(sequences[index].sampling.num_logprobs or 0, len(top_ids[place]))
        buffers.top_ids[index, :num_top] = torch.tensor(top_ids[place][:num_top], dtype=torch.int32)
        buffers.top_logprobs[index, :num_top] = torch.tensor(top_logprobs[place][:num_top])


def read_row(tables: RowTables, row: int) -> ScheduledSequence:
    """A row as the sampler sees it: options, seed, position and, where penalties need it, the history.

    Endings that min_tokens forbids are its stop token ids; what else would end it is unknown here.
    """
    words = tables.records[row].cpu().numpy()
    numbers = row_tables.unpack_record(words)
    known, prompt_len = int(words[row_tables.NUM_TOKENS]), int(words[row_tables.PROMPT_LEN])
    num_edits, num_logprobs = int(words[row_tables.NUM_EDITS]), int(words[row_tables.NUM_LOGPROBS])
    edit_ids = tables.edit_ids[row, :num_edits].tolist()
    pairs = list(zip(edit_ids, tables.edit_values[row, :num_edits].tolist(), strict=True))
    sampling = SamplingParams(
        temperature=numbers.temperature,
        top_k=int(words[row_tables.TOP_K]),
        top_p=numbers.top_p,
        min_p=numbers.min_p,
        repetition_penalty=numbers.repetition_penalty,
        presence_penalty=numbers.presence_penalty,
        frequency_penalty=numbers.frequency_penalty,
        logit_bias=tuple(pair for pair in pairs if pair[1] != float("-inf")),
        min_tokens=int(words[row_tables.MIN_TOKENS]),
        stop_token_ids=tuple(token_id for token_id, value in pairs if value == float("-inf")),
        num_logprobs=None if num_logprobs == row_tables.NO_LOGPROBS else num_logprobs,
    )
    history = tables.tokens[row, :known].tolist() if sampling.has_penalties else []
    return ScheduledSequence(
        seq_id=row,
        token_ids=[0],
        start=known - 1,
        block_ids=[],
        is_sampling=True,
        sampling=sampling,
        seed=numbers.seed,
        num_output_tokens=known - prompt_len,
        prompt_token_ids=history[:prompt_len],
        output_token_ids=history[prompt_len:],
    )
