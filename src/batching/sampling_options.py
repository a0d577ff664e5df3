"""The sampling options of a batch as one array per option: what every sampling kernel takes. No logits here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batching.sampling_noise import row_keys
from batching.step import ScheduledSequence

NUCLEUS_SLACK = 1e-6
"""top_p is reached at `top_p - NUCLEUS_SLACK`.

Nine tokens of probability 1/10 reach 0.9 in every order of summation and in float32.
"""


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Options of the rows to choose for, all arrays [rows]; `rows` are their row numbers in the logits.

    Truncation uses one order everywhere: larger logit first, lower token id first among equals.
    """

    rows: npt.NDArray[np.int64]
    temperature: npt.NDArray[np.float64]
    """0 is greedy: truncation and noise do not matter."""
    top_k: npt.NDArray[np.int64]
    """0 keeps all."""
    top_p: npt.NDArray[np.float64]
    min_p: npt.NDArray[np.float64]
    keys: npt.NDArray[np.uint32]
    """[rows, 2]: the noise keys of (seed, position of the token to choose)."""

    @property
    def is_truncating(self) -> bool:
        return bool((self.top_k > 0).any() or (self.top_p < 1.0).any() or (self.min_p > 0.0).any())

    @property
    def is_all_greedy(self) -> bool:
        return not self.temperature.any()


def collect_options(rows: Sequence[int], sequences: Sequence[ScheduledSequence]) -> RowOptions:
    """Gather the options of `sequences[row]` for each of `rows`."""
    chosen = [sequences[row] for row in rows]
    sampling = [sequence.sampling for sequence in chosen]
    return RowOptions(
        rows=np.array(rows, dtype=np.int64),
        temperature=np.array([params.temperature for params in sampling], dtype=np.float64),
        top_k=np.array([params.top_k for params in sampling], dtype=np.int64),
        top_p=np.array([params.top_p for params in sampling], dtype=np.float64),
        min_p=np.array([params.min_p for params in sampling], dtype=np.float64),
        keys=row_keys([sequence.seed for sequence in chosen], [sequence.context_len for sequence in chosen]),
    )
