"""Seeded bugs of drafts and their verification."""

from __future__ import annotations

from typing import Any

import msgspec

from batching import scheduler as scheduler_module
from batching.sequence import Sequence
from batching.step import SampledToken, ScheduledSequence
from tests.batching.core_mutant import Method, Mutant, always


def draft_is_accepted(decide: Any) -> Any:
    """`decide` says whether, from the row, its sequence and what it sampled."""
    return lambda original: decide


def any_draft_after_a_true_one(row: ScheduledSequence, sequence: Sequence, sampled: SampledToken | None) -> bool:
    return len(sequence.token_ids) == row.start + 1


def the_right_token_anywhere(row: ScheduledSequence, sequence: Sequence, sampled: SampledToken | None) -> bool:
    return sequence.token_ids[-1:] == row.token_ids


def rows_are(change: Any) -> Any:
    def broken_by(plan: Method) -> Method:
        def broken(self: Sequence, num_drafts: int) -> list[ScheduledSequence]:
            return [msgspec.structs.replace(row, **change(row)) for row in plan(self, num_drafts)]

        return broken

    return broken_by


def draws_one_too_many(plan: Method) -> Method:
    return lambda self, num_drafts: plan(self, num_drafts + 1)


DRAFT_MUTANTS = [
    Mutant(
        "any_draft_is_accepted", scheduler_module, "is_accepted", draft_is_accepted(lambda row, sequence, token: True)
    ),
    Mutant("draft_is_taken_for_true", scheduler_module, "is_accepted", draft_is_accepted(any_draft_after_a_true_one)),
    Mutant(
        "draft_is_true_in_a_wrong_place", scheduler_module, "is_accepted", draft_is_accepted(the_right_token_anywhere)
    ),
    Mutant("no_draft_is_accepted", scheduler_module, "is_accepted", always(False)),
    Mutant("nothing_is_drafted", scheduler_module, "is_drafting", always(False)),
    Mutant("draft_starts_late", Sequence, "plan_drafts", rows_are(lambda row: {"start": row.start + 1})),
    Mutant("drafts_have_a_seed_of_their_own", Sequence, "plan_drafts", rows_are(lambda row: {"seed": row.seed ^ 1})),
    Mutant("one_draft_too_many", Sequence, "plan_drafts", draws_one_too_many),
]
