"""The permanent device rows of running requests, and the packed differences that keep them up to date.

Everything that a step needs to know of a request stands in one int32 tensor, the arena, at words that belong to the
request's row from admission to its end. The host sends what changed as pairs (word, value); 64-bit and float32 numbers
travel as their bits. Sampled tokens are written on the device and never make the way there and back.

Arena of R rows, each part starting where the one before it ends:

| part | words | content |
|---|---|---|
| records | R x RECORD_WORDS | lengths and sampling parameters, at the offsets below |
| tokens | R x max_len | token ids, prompt and output |
| blocks | R x max_blocks | block table |
| edit_ids | R x max_edits | token ids of logit_bias, and of endings that min_tokens forbids |
| edit_values | R x max_edits | float32 bits of what is added; -inf only counts before min_tokens tokens |

Knows nothing of scheduling: which row belongs to whom is decided elsewhere.
"""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from batching.step import ScheduledSequence

IntArray = npt.NDArray[np.int32]

RECORD_WORDS = 24
NUM_TOKENS = 0
"""Known tokens: prompt and output so far."""
NUM_COMPUTED = 1
"""Tokens whose K and V are in the cache."""
PROMPT_LEN = 2
MASK_ROW = 3
"""Row of the packed bit masks that the next token must obey; NO_MASK for none."""
TEMPERATURE = 4
TOP_P = 6
MIN_P = 8
PRESENCE_PENALTY = 10
FREQUENCY_PENALTY = 12
"""The five above are float64: two words, low word first, at an even offset."""
SEED = 14
"""64 bits, as the float64 numbers."""
REPETITION_PENALTY = 16
"""float32."""
TOP_K = 17
MIN_TOKENS = 18
NUM_EDITS = 19
NUM_LOGPROBS = 20
"""How many of the most probable tokens are wanted; NO_LOGPROBS where not even the chosen one's is."""

NO_MASK = -1
NO_LOGPROBS = -1
NO_WORD = -1
"""Pads a packed difference."""
MAX_WORDS = 2**31 - 1
_RECORD = struct.Struct("=4i5dQf4i12x")
"""A record in the order of the offsets above."""


class RowShape(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows there are and what each can hold."""

    num_rows: int
    max_len: int
    max_blocks: int
    max_edits: int

    @property
    def first_token_word(self) -> int:
        return self.num_rows * RECORD_WORDS

    @property
    def first_block_word(self) -> int:
        return self.first_token_word + self.num_rows * self.max_len

    @property
    def first_edit_id_word(self) -> int:
        return self.first_block_word + self.num_rows * self.max_blocks

    @property
    def first_edit_value_word(self) -> int:
        return self.first_edit_id_word + self.num_rows * self.max_edits

    @property
    def num_words(self) -> int:
        return self.first_edit_value_word + self.num_rows * self.max_edits


class RowTables:
    """The arena and its parts as views. Owner: the runner thread, from start to end."""

    __slots__ = ("arena", "blocks", "edit_ids", "edit_values", "records", "shape", "tokens")

    def __init__(self, shape: RowShape, device: torch.device) -> None:
        """Raises ValueError where the arena would have more words than an int32 can name."""
        if shape.num_words > MAX_WORDS:
            raise ValueError(f"{shape} needs {shape.num_words} words, at most {MAX_WORDS}: use fewer or shorter rows.")
        self.shape = shape
        self.arena = torch.zeros(shape.num_words, dtype=torch.int32, device=device)
        rows = shape.num_rows
        self.records = self.arena[: shape.first_token_word].view(rows, RECORD_WORDS)
        self.tokens = self.arena[shape.first_token_word : shape.first_block_word].view(rows, shape.max_len)
        self.blocks = self.arena[shape.first_block_word : shape.first_edit_id_word].view(rows, shape.max_blocks)
        edits = self.arena[shape.first_edit_id_word :].view(2, rows, shape.max_edits)
        self.edit_ids = edits[0]
        self.edit_values = edits[1].view(torch.float32)


class Differences:
    """What changed since the last step, gathered on the host. Owner: whoever plans the step; empty after `packed`."""

    def __init__(self, shape: RowShape) -> None:
        self._shape = shape
        self._words: list[npt.NDArray[np.int64]] = []
        self._values: list[IntArray] = []

    def record(self, row: int, offset: int, values: npt.ArrayLike) -> None:
        """Words of the record of `row` from `offset` on."""
        self._write(row * RECORD_WORDS + offset, values)

    def tokens(self, row: int, position: int, token_ids: npt.ArrayLike) -> None:
        self._write(self._shape.first_token_word + row * self._shape.max_len + position, token_ids)

    def blocks(self, row: int, index: int, block_ids: npt.ArrayLike) -> None:
        self._write(self._shape.first_block_word + row * self._shape.max_blocks + index, block_ids)

    def edits(self, row: int, edits: list[tuple[int, float]]) -> None:
        """All edits of a row; NUM_EDITS in its record says how many count. ValueError where there are too many."""
        if len(edits) > self._shape.max_edits:
            raise ValueError(f"{len(edits)} edited token ids, at most {self._shape.max_edits} fit into a row.")
        first = row * self._shape.max_edits
        values = np.array([value for _, value in edits], np.float32).view(np.int32)
        self._write(self._shape.first_edit_id_word + first, [token_id for token_id, _ in edits])
        self._write(self._shape.first_edit_value_word + first, values)

    def _write(self, word: int, values: npt.ArrayLike) -> None:
        array = np.asarray(values, np.int32)
        self._words.append(word + np.arange(array.size, dtype=np.int64))
        self._values.append(array.reshape(-1))

    def packed(self, capacity: int) -> IntArray:
        """`[2, capacity] int32`: words and values, each word once (the last write counts), padded with NO_WORD.

        ValueError where there is more than `capacity`; then nothing is lost.
        """
        words = np.concatenate([np.zeros(0, np.int64), *self._words])[::-1]
        values = np.concatenate([np.zeros(0, np.int32), *self._values])[::-1]
        unique, last = np.unique(words, return_index=True)
        if unique.size > capacity:
            raise ValueError(f"{unique.size} words changed, at most {capacity} fit into one difference.")
        packed = np.full((2, capacity), NO_WORD, np.int32)
        packed[0, : unique.size] = unique
        packed[1, : unique.size] = values[last]
        self._words.clear()
        self._values.clear()
        return packed


def pack_record(
    sequence: ScheduledSequence, *, num_tokens: int, prompt_len: int, num_edits: int, mask_row: int = NO_MASK
) -> IntArray:
    """`[RECORD_WORDS] int32`: the record of a request; its tokens, blocks and edits are written beside it."""
    sampling = sequence.sampling
    packed = _RECORD.pack(
        num_tokens,
        sequence.start,
        prompt_len,
        mask_row,
        sampling.temperature,
        sampling.top_p,
        sampling.min_p,
        sampling.presence_penalty,
        sampling.frequency_penalty,
        sequence.seed & (2**64 - 1),
        sampling.repetition_penalty,
        # Beyond the vocabulary top_k keeps everything, as 0 does.
        min(sampling.top_k, 2**31 - 1),
        sampling.min_tokens,
        num_edits,
        NO_LOGPROBS if sampling.num_logprobs is None else sampling.num_logprobs,
    )
    return np.frombuffer(packed, np.int32)


class RecordNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a record that are wider than a word or no integers."""

    temperature: float
    top_p: float
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    seed: int
    repetition_penalty: float


def unpack_record(words: IntArray) -> RecordNumbers:
    """What pack_record has packed into words `[RECORD_WORDS] int32`."""
    doubles = words[TEMPERATURE:SEED].copy().view(np.float64).tolist()
    return RecordNumbers(
        temperature=doubles[0],
        top_p=doubles[1],
        min_p=doubles[2],
        presence_penalty=doubles[3],
        frequency_penalty=doubles[4],
        seed=int(words[SEED:REPETITION_PENALTY].copy().view(np.uint64)[0]),
        repetition_penalty=float(words[REPETITION_PENALTY : REPETITION_PENALTY + 1].copy().view(np.float32)[0]),
    )


def edits_of(sequence: ScheduledSequence, eos_token_ids: frozenset[int]) -> list[tuple[int, float]]:
    """logit_bias, and -inf for what min_tokens forbids: (token id, what is added to its logit)."""
    sampling = sequence.sampling
    if sampling.min_tokens == 0:
        return list(sampling.logit_bias)
    endings = set(sampling.stop_token_ids)
    if not sampling.ignore_eos:
        endings |= eos_token_ids
    return [*sampling.logit_bias, *((token_id, float("-inf")) for token_id in sorted(endings))]
