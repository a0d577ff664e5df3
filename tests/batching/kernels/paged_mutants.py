"""Seeded bugs of the paged attention kernels: one line of their source, changed; and the cases that look for them."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.batching.kernels.paged_cases import CASES, Case, error

BATTERY = [
    CASES["chunks in a window"],
    CASES["padding with sinks in a window"],
    CASES["decodes"],
    CASES["padding"],
    CASES["mixed with everything"],
    CASES["float8 behind bfloat16"],
    CASES["three heads for one"],
    CASES["blocks of 64"],
]
"""Few enough to run for every bug, and different enough to find each."""


@dataclass(frozen=True)
class SourceMutant:
    """A bug: `right` stands in the source once."""

    name: str
    right: str
    wrong: str


MUTANTS = [
    SourceMutant("a window is one too long", "> position[:, None] - window)", ">= position[:, None] - window)"),
    SourceMutant(
        "sums are not rescaled", "row_sum = row_sum * rescale + tl.sum(weights, 1)", "row_sum += tl.sum(weights, 1)"
    ),
    SourceMutant(
        "a block edge is off by one",
        "tl.load(table + column // block_size,",
        "tl.load(table + (column + 1) // block_size,",
    ),
    SourceMutant(
        "slots behind the end are read", "(column >= begin) & (column < end)", "(column >= begin) & (column <= end)"
    ),
    SourceMutant(
        "the scale is applied twice",
        "scores = scores * (score_scale * LOG2E)",
        "scores = scores * (score_scale * score_scale * LOG2E)",
    ),
    SourceMutant("sinks are dropped", "row_sum = row_sum * share + tl.exp2(sink - top)", "row_sum = row_sum * share"),
    SourceMutant("a window is one too short", "> position[:, None] - window)", "> position[:, None] - window + 1)"),
    SourceMutant("a window begins too late", "first_query - window + 1, 0)", "first_query - window + 2, 0)"),
    SourceMutant("splits of a window begin too late", "query_len - window + 1, 0) //", "query_len + 1, 0) //"),
    SourceMutant("a row does not see its own token", "<= position[:, None])", "< position[:, None])"),
    SourceMutant("a row sees the next token", "<= position[:, None])", "<= position[:, None] + 1)"),
    SourceMutant("values are not rescaled", "mixed * rescale[:, None], input_precision", "mixed, input_precision"),
    SourceMutant("an empty tile is not a number", 'tl.where(new_max == float("-inf"), 0.0, new_max)', "new_max"),
    SourceMutant(
        "the last slot is not read", "(column >= begin) & (column < end)", "(column >= begin) & (column < end - 1)"
    ),
    SourceMutant("the scale of values is applied twice", "(v_scale / row_sum)", "(v_scale * v_scale / row_sum)"),
    SourceMutant("softcap is in other units", "scores = softcap * LOG2E *", "scores = softcap *"),
    SourceMutant("sinks are in other units", ".to(tl.float32) * LOG2E", ".to(tl.float32)"),
    SourceMutant("all heads take the first one's sink", "tl.load(sinks + head,", "tl.load(sinks + head * 0,"),
    SourceMutant("tiles of a chunk lie too far apart", "// block_q - seq) * block_q", "// block_q - seq) * block_m"),
    SourceMutant(
        "a split overlaps the next",
        "tl.minimum(end, split_start + split_len)",
        "tl.minimum(end, split_start + split_len + 1)",
    ),
    SourceMutant("the last split is forgotten", "split < num_splits", "split < num_splits - 1"),
    SourceMutant("parts are not rescaled", "tl.sum(weights * sums, 0)", "tl.sum(sums, 0)"),
    SourceMutant("tiles of chunks are missing", "+ self.num_seqs\n", "\n"),
    SourceMutant("padding is divided by nothing", "tl.where(row_sum == 0.0, 1.0, row_sum)", "row_sum"),
]
USUAL_MUTANTS = MUTANTS[:6]


def first_failure(folder: str, mutant: SourceMutant | None) -> Case | None:
    """The first case of the battery that the kernels, with one bug or none, get wrong; written to `folder`."""
    kernels = _module(Path(folder), mutant)
    return next((case for case in BATTERY if not _is_right(kernels, case)), None)


def _is_right(kernels: Any, case: Case) -> bool:
    try:
        return error(kernels, case) <= 1.0
    except RuntimeError:  # what the interpreter makes of an error in a kernel
        return False


def _module(folder: Path, mutant: SourceMutant | None) -> Any:
    import batching.kernels.paged_attention as original

    source = Path(original.__file__).read_text("utf-8")
    if mutant is not None:
        if source.count(mutant.right) != 1:
            raise ValueError(f"{mutant.right!r} stands {source.count(mutant.right)} times in the source, not once")
        source = source.replace(mutant.right, mutant.wrong)
    path = folder / "mutated_paged_attention.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
