"""Turns samples into token ids with a mask of the tokens that are learned, and into batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from ops.pico.corpus.conversation import Conversation, Sample
from ops.pico.tokenizer import CONTEXT_LEN, END_OF_TEXT, TURN_END, TURN_START

IGNORED = -100
_CHUNK_SAMPLES = 1536


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one sample; `is_learned[i]` says whether token i carries loss."""

    token_ids: list[int]
    is_learned: list[bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """`input_ids` and `targets`: [rows, len] int64; targets are next tokens or `IGNORED`."""

    input_ids: torch.Tensor
    targets: torch.Tensor
    num_tokens: int


class SampleEncoder:
    """Encodes samples exactly as the chat template and the server will."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._end_of_text = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        self._turn_start = tokenizer.convert_tokens_to_ids(TURN_START)
        self._turn_end = tokenizer.convert_tokens_to_ids(TURN_END)
        self._newline = self._ids("\n")
        self._headers = {role: self._ids(f"{role}\n") for role in ("system", "user", "assistant")}

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, sample: Sample) -> Encoded:
        """Ids of a conversation (answers learned) or of a document (all learned)."""
        if isinstance(sample, Conversation):
            return self._conversation(sample)
        ids = [*self._ids(sample.text), self._end_of_text]
        return Encoded(ids[:CONTEXT_LEN], [True] * min(len(ids), CONTEXT_LEN))

    def _conversation(self, sample: Conversation) -> Encoded:
        ids: list[int] = []
        is_learned: list[bool] = []
        for turn in sample.turns:
            header = [self._turn_start, *self._headers[turn.role]]
            content = [*self._ids(turn.content), self._turn_end]
            ids += [*header, *content, *self._newline]
            is_learned += [False] * len(header)
            is_learned += [turn.role == "assistant"] * len(content)
            is_learned += [False] * len(self._newline)
        return Encoded(ids[:CONTEXT_LEN], is_learned[:CONTEXT_LEN])


def collate(rows: list[Encoded]) -> Batch:
    """Pads rows on the right; padding is ignored by the loss and, being last, by attention."""
    longest = max(len(row.token_ids) for row in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    targets = torch.full((len(rows), longest), IGNORED, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids = torch.tensor(row.token_ids)
        input_ids[i, : len(ids)] = ids
        learned = torch.tensor(row.is_learned)
        targets[i, : len(ids) - 1] = torch.where(learned[1:], ids[1:], IGNORED)
    return Batch(input_ids, targets, sum(len(row.token_ids) for row in rows))


def _grouped(rows: list[Encoded], batch_tokens: int) -> Iterator[list[Encoded]]:
    """Rows of similar length, at most `batch_tokens` with padding."""
    group: list[Encoded] = []
    for row in sorted(rows, key=lambda row: len(row.token_ids)):
        if group and (len(group) + 1) * len(row.token_ids) > batch_tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def batches(samples: Iterator[Sample], encoder: SampleEncoder, batch_tokens: int, seed: int) -> Iterator[Batch]:
    """Batches of rows of similar length, in random order within each chunk of samples."""
    rng = Random(seed)
    while chunk := [encoder.encode(sample) for sample in islice(samples, _CHUNK_SAMPLES)]:
        groups = list(_grouped(chunk, batch_tokens))
        rng.shuffle(groups)
        yield from (collate(group) for group in groups)
