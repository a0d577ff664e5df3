"""Random rows for the device sampler, and what batching.sampler in plain torch chooses for the same ones."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from batching import row_tables
from batching.kernels import sampler_triton
from batching.kernels.sampler_buffers import BROKEN_LOGITS, NOTHING_LEFT, SamplerBuffers
from batching.kernels.sampling_torch import TorchSampling
from batching.row_tables import Differences, RowShape, RowTables
from batching.sampler import EDITED_ERROR, RAW_ERROR, Sampler
from batching.step import SampledToken, ScheduledSequence
from contracts.generation import TokenLogprob
from contracts.sampling import SamplingParams

EOS = frozenset({1})
CPU = torch.device("cpu")
MAX_LEN = 24
STATUS_OF_ERROR = {
    RAW_ERROR: BROKEN_LOGITS,
    EDITED_ERROR: NOTHING_LEFT,
}
TEMPERATURES = (0.0, 1e-6, 0.02, 0.7, 1.0, 2.0, 100.0, 1e4)


@dataclass(frozen=True)
class SamplerCase:
    num_rows: int
    vocab_size: int
    dtype: torch.dtype = torch.float32
    shape: str = "normal"
    seed: int = 0
    has_edits: bool = True
    has_masks: bool = False


CASES = (
    SamplerCase(9, 50),
    SamplerCase(5, 300, torch.bfloat16, seed=1),
    SamplerCase(5, 97, torch.float16, "tied", seed=2),
    SamplerCase(4, 64, shape="equal", seed=3),
    SamplerCase(4, 130, shape="masked", seed=4),
    SamplerCase(8, 70, shape="broken", seed=5),
    SamplerCase(6, 99, has_masks=True, seed=6),
    SamplerCase(7, 9, shape="flat", seed=11),
    SamplerCase(2, 1, seed=7),
    SamplerCase(2, 2, seed=8),
    SamplerCase(2, 4097, shape="tied", seed=9, has_edits=False),
    SamplerCase(2, 9001, torch.bfloat16, seed=10),
)
SLOW_CASES = (
    *(SamplerCase(150, 40, shape=shape, seed=20 + i) for i, shape in enumerate(("normal", "tied", "equal", "masked"))),
    *(SamplerCase(150, 500, dtype, "normal", seed=30 + i) for i, dtype in enumerate((torch.float32, torch.bfloat16))),
    SamplerCase(150, 33, has_masks=True, seed=40),
    SamplerCase(150, 60, shape="broken", seed=41),
    *(SamplerCase(400, 25, seed=50 + i) for i in range(3)),
    SamplerCase(12, 32003, torch.bfloat16, seed=43),
    SamplerCase(4, 32003, shape="equal", seed=44, has_edits=False),
    SamplerCase(3, 151936, torch.bfloat16, seed=45),
)
"""2,400 rows: about ten minutes in the interpreter, a moment on a device."""


def make_logits(case: SamplerCase) -> torch.Tensor:
    """Wider from row to row, with three padding columns that would always win."""
    generator = torch.Generator().manual_seed(case.seed)
    logits = torch.randn(case.num_rows, case.vocab_size + 3, generator=generator)
    logits *= torch.linspace(0.3, 8.0, case.num_rows)[:, None]
    if case.shape == "tied":
        logits = (logits * 0.5).round()
    if case.shape == "equal":
        logits = torch.zeros_like(logits)
    if case.shape == "flat":
        logits *= 0.02
    if case.shape in {"masked", "broken"}:
        logits[torch.rand(logits.shape, generator=generator) < 0.7] = float("-inf")
    if case.shape == "broken":
        logits[0::4, 3] = float("nan")
        logits[1::4, 3] = float("inf")
        logits[2::4] = float("-inf")
    logits[:, case.vocab_size :] = 1000.0
    return logits.to(case.dtype)


def make_rows(case: SamplerCase) -> list[ScheduledSequence]:
    draw = random.Random(case.seed)
    return [make_row(draw, case) for _ in range(case.num_rows)]


def make_row(draw: random.Random, case: SamplerCase) -> ScheduledSequence:
    """A decoding row whose history is as long as its position says."""
    prompt = [draw.randrange(case.vocab_size + 2) for _ in range(draw.randrange(1, 12))]
    output = [draw.randrange(min(case.vocab_size, 6)) for _ in range(draw.randrange(8))]
    known = prompt + output
    return ScheduledSequence(
        seq_id=0,
        token_ids=known[-1:],
        start=len(known) - 1,
        block_ids=[0],
        is_sampling=True,
        sampling=make_params(draw, case),
        seed=draw.getrandbits(64),
        num_output_tokens=len(output),
        prompt_token_ids=prompt,
        output_token_ids=output,
    )


def make_params(draw: random.Random, case: SamplerCase) -> SamplingParams:
    edits = draw.random() < 0.6 and case.has_edits
    vocab_size = case.vocab_size
    biased = draw.sample(range(vocab_size), min(vocab_size, 3)) if edits and draw.random() < 0.5 else []
    return SamplingParams(
        temperature=draw.choice(TEMPERATURES),
        top_k=draw.choice((0, 0, 1, 2, 7, vocab_size // 2, vocab_size + 5)),
        top_p=draw.choice((1.0, 1.0, 0.9, 0.5, 0.1, 1e-7)),
        min_p=draw.choice((0.0, 0.0, 0.05, 0.5, 1.0)),
        repetition_penalty=draw.choice((1.0, 1.3, 0.7)) if edits else 1.0,
        presence_penalty=draw.choice((0.0, 0.4, -1.5)) if edits else 0.0,
        frequency_penalty=draw.choice((0.0, 0.3, -0.7)) if edits else 0.0,
        logit_bias=tuple((token_id, draw.choice((-100.0, 1.5, 100.0))) for token_id in biased),
        min_tokens=draw.choice((0, 3)) if edits else 0,
        stop_token_ids=(4,),
        num_logprobs=draw.choice((None, 0, 5, 20)),
    )


def make_masks(case: SamplerCase) -> torch.Tensor | None:
    """`[2, vocab_size] bool`: what two grammars allow; the second allows one token."""
    if not case.has_masks:
        return None
    allowed = torch.rand(2, case.vocab_size, generator=torch.Generator().manual_seed(case.seed)) < 0.2
    allowed[0, 5] = True
    allowed[1] = False
    allowed[1, case.vocab_size - 1] = True
    return allowed


def packed_bits(allowed: torch.Tensor) -> torch.Tensor:
    """`[M, V] bool` as `[M, ceil(V / 32)] int32`."""
    num_words = -(-allowed.shape[1] // 32)
    padded = torch.nn.functional.pad(allowed, (0, num_words * 32 - allowed.shape[1])).view(len(allowed), num_words, 32)
    words = (padded.long() << torch.arange(32)).sum(dim=-1)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def mask_row_of(case: SamplerCase, index: int) -> int:
    return index % 3 - 1 if case.has_masks else row_tables.NO_MASK


def make_tables(case: SamplerCase, rows: list[ScheduledSequence], device: torch.device) -> RowTables:
    """Row i of the logits has the record i + 2."""
    edits = [row_tables.edits_of(row, EOS) for row in rows]
    shape = RowShape(
        num_rows=len(rows) + 2, max_len=MAX_LEN, max_blocks=1, max_edits=max((len(part) for part in edits), default=0)
    )
    differences = Differences(shape)
    for index, (row, part) in enumerate(zip(rows, edits, strict=True)):
        known = [*(row.prompt_token_ids or []), *(row.output_token_ids or [])]
        record = row_tables.pack_record(
            row,
            num_tokens=len(known),
            prompt_len=len(row.prompt_token_ids or []),
            num_edits=len(part),
            mask_row=mask_row_of(case, index),
        )
        differences.record(index + 2, 0, record)
        differences.tokens(index + 2, 0, known)
        differences.edits(index + 2, part)
    tables = RowTables(shape, device)
    words, values = torch.from_numpy(differences.packed(shape.num_words)).to(device)
    tables.arena[words[words >= 0].long()] = values[words >= 0]
    return tables


def run_kernels(case: SamplerCase, device: torch.device) -> SamplerBuffers:
    """Results of the kernels; one row of padding stands at the end, and the buffers are full of a former step."""
    rows = make_rows(case)
    logits = torch.nn.functional.pad(make_logits(case), (0, 0, 0, 1)).to(device)
    buffers = SamplerBuffers(case.num_rows + 2, case.vocab_size, device)
    for name in SamplerBuffers.__slots__:
        if isinstance(tensor := getattr(buffers, name), torch.Tensor):
            tensor.fill_(77)
    allowed = make_masks(case)
    indexes = torch.tensor([*range(2, case.num_rows + 2), -1], dtype=torch.int32, device=device)
    sampler_triton.sample(
        logits,
        indexes,
        torch.tensor([case.num_rows], dtype=torch.int32, device=device),
        make_tables(case, rows, device),
        None if allowed is None else packed_bits(allowed).to(device),
        buffers,
    )
    return buffers


def reference_tokens(case: SamplerCase) -> list[SampledToken]:
    logits, rows, allowed = make_logits(case), make_rows(case), make_masks(case)
    if allowed is not None:
        for index in range(case.num_rows):
            if mask_row_of(case, index) >= 0:
                logits[index, : case.vocab_size].masked_fill_(~allowed[mask_row_of(case, index)], float("-inf"))
    return Sampler(case.vocab_size, EOS, CPU, TorchSampling()).sample(logits, rows)


def chosen_by_reference(case: SamplerCase) -> list[tuple[int, int]]:
    """(token id, status) of each row."""
    tokens, rows = reference_tokens(case), make_rows(case)
    messages = {
        (index, error.format(position=row.context_len)): status
        for error, status in STATUS_OF_ERROR.items()
        for index, row in enumerate(rows)
    }
    return [
        (token.token_id, 0 if token.error is None else messages[index, token.error])
        for index, token in enumerate(tokens)
    ]


def chosen_by_kernels(buffers: SamplerBuffers, case: SamplerCase) -> list[tuple[int, int]]:
    pairs = zip(buffers.token_ids.tolist(), buffers.status.tolist(), strict=True)
    return list(pairs)[: case.num_rows]


def logprobs_of_kernels(buffers: SamplerBuffers, case: SamplerCase) -> list[TokenLogprob | None]:
    """As the sampler tells them: without tokens of probability 0, None where the row did not ask or failed."""
    found: list[TokenLogprob | None] = []
    for index, row in enumerate(make_rows(case)):
        num_top = row.sampling.num_logprobs
        if num_top is None or buffers.status[index] != 0:
            found.append(None)
            continue
        pairs = zip(buffers.top_ids[index].tolist(), buffers.top_logprobs[index].tolist(), strict=True)
        top = [pair for pair in list(pairs)[:num_top] if pair[1] != float("-inf")]
        found.append(TokenLogprob(logprob=buffers.logprobs[index].item(), top=top))
    return found


def reference_logprobs(buffers: SamplerBuffers, case: SamplerCase) -> list[TokenLogprob | None]:
    """Of the raw logits, which masks and edits leave alone, for the tokens that the kernels chose."""
    logits = make_logits(case)[:, : case.vocab_size]
    chosen, top_ids, tops = TorchSampling().logprobs(logits, buffers.token_ids[: case.num_rows].tolist(), 20)
    found: list[TokenLogprob | None] = []
    for index, row in enumerate(make_rows(case)):
        num_top = row.sampling.num_logprobs
        pairs = list(zip(top_ids[index], tops[index], strict=True))[:num_top]
        top = [pair for pair in pairs if pair[1] != float("-inf")]
        asks = num_top is not None and buffers.status[index] == 0
        found.append(TokenLogprob(logprob=chosen[index], top=top) if asks else None)
    return found


def numbers_of(logprobs: list[TokenLogprob | None]) -> list[float]:
    found = [entry for entry in logprobs if entry is not None]
    return [number for entry in found for number in (entry.logprob, *(logprob for _, logprob in entry.top))]


def ids_of(logprobs: list[TokenLogprob | None]) -> list[list[int] | None]:
    return [None if entry is None else [token_id for token_id, _ in entry.top] for entry in logprobs]
