"""Seeded bugs of the block pool, the tables, the queue and admission; and all bugs together.

A mutant replaces one method: a function takes the original and returns the broken one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from batching import block_table as block_table_module
from batching.admission import Admission
from batching.block_pool import BlockPool
from batching.block_table import BlockKey, BlockTable, chain_key, root_key
from batching.sequence import Sequence
from batching.waiting_queue import WaitingQueue
from contracts.generation import GenerationRequest
from tests.batching.core_ahead_mutants import AHEAD_MUTANTS
from tests.batching.core_budget_mutants import BUDGET_MUTANTS, REPAIR_MUTANTS
from tests.batching.core_cache_mutants import CACHE_MUTANTS
from tests.batching.core_draft_mutants import DRAFT_MUTANTS
from tests.batching.core_mutant import Method, Mutant, always
from tests.batching.core_scheduler_mutants import SCHEDULER_MUTANTS
from tests.batching.core_tenant_mutants import TENANT_MUTANTS

# ---- block pool


def release_skips_the_last_block(release: Method) -> Method:
    return lambda self, block_ids: release(self, block_ids[:-1])


def release_appends_twice(release: Method) -> Method:
    def broken(self: BlockPool, block_ids: list[int]) -> list[int]:
        freed: list[int] = release(self, block_ids)
        return freed + release(self, freed[:1]) if freed and self._keys[freed[0]] is None else freed

    return broken


def release_evicts_the_beginning_first(release: Method) -> Method:
    return lambda self, block_ids: release(self, block_ids[::-1])


def acquire_takes_no_reference(_: Method) -> Method:
    def broken(self: BlockPool, block_ids: list[int]) -> None:
        for block_id in block_ids:
            if block_id in self._free:
                self._free.remove(block_id)
            self._num_refs[block_id] = 1

    return broken


def acquire_leaves_the_block_on_the_free_list(_: Method) -> Method:
    def broken(self: BlockPool, block_ids: list[int]) -> None:
        for block_id in block_ids:
            self._num_refs[block_id] += 1

    return broken


def allocate_takes(*, last: bool, is_forgetting: bool) -> Callable[[Method], Method]:
    def broken(self: BlockPool, num_blocks: int) -> list[int]:
        block_ids = []
        for _ in range(num_blocks):
            block_id = list(self._free)[-1 if last else 0]
            self._free.remove(block_id)
            self._num_refs[block_id] = 1
            if is_forgetting:
                self._forget(block_id)
            block_ids.append(block_id)
        return block_ids

    return lambda allocate: broken


def register_replaces_the_entry(_: Method) -> Method:
    def broken(self: BlockPool, block_id: int, key: BlockKey) -> None:
        self._digest_to_block[key.digest] = block_id
        self._keys[block_id] = key

    return broken


def forget_leaves_the_map(_: Method) -> Method:
    def broken(self: BlockPool, block_id: int) -> None:
        self._keys[block_id] = None

    return broken


def match_skips_gaps(_: Method) -> Method:
    def broken(self: BlockPool, keys: list[BlockKey]) -> list[int]:
        return [self._digest_to_block[key.digest] for key in keys if key.digest in self._digest_to_block]

    return broken


def match_trusts_digests(_: Method) -> Method:
    def broken(self: BlockPool, keys: list[BlockKey]) -> list[int]:
        block_ids = []
        for key in keys:
            if key.digest not in self._digest_to_block:
                break
            block_ids.append(self._digest_to_block[key.digest])
        return block_ids

    return broken


def match_trusts_the_parents(_: Method) -> Method:
    def broken(self: BlockPool, keys: list[BlockKey]) -> list[int]:
        block_ids = []
        for key in keys:
            found = self._keys[self._digest_to_block.get(key.digest, 0)]
            if found is None or (found.digest, found.token_ids) != (key.digest, key.token_ids):
                break
            block_ids.append(self._digest_to_block[key.digest])
        return block_ids

    return broken


# ---- block table and sequence


def hash_ignores_the_parent(_: Method) -> Method:
    return lambda parent, token_ids: chain_key(root_key(""), token_ids)


def salt_is_forgotten(init: Method) -> Method:
    return lambda self, block_size, salt: init(self, block_size, "")


def missing_blocks_are_off_by(off: int) -> Callable[[Method], Method]:
    return lambda missing: lambda self, num_tokens: max(0, missing(self, num_tokens) + off)


def missing_blocks_round_down(_: Method) -> Method:
    return lambda self, num_tokens: max(0, num_tokens // self.block_size - len(self.block_ids))


def clear_keeps_the_blocks(_: Method) -> Method:
    return lambda self: self.block_ids


def all_samples_have_one_seed(init: Method) -> Method:
    def broken(self: Sequence, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        self.seed = self.request.sampling.seed

    return broken


def max_len_is_one_more(_: property) -> property:
    return property(lambda self: self.num_prompt_tokens + self.request.sampling.max_tokens + 1)


# ---- waiting queue and admission


def remove_leaks_tokens(_: Method) -> Method:
    def broken(self: WaitingQueue, sequence: Sequence) -> None:
        self._waiting.pop(sequence.seq_id, None)

    return broken


def last_come_first_served(_: Method) -> Method:
    return lambda self: next(reversed(self._waiting.values()), None)


def queue_check_sees(
    *, fewer: int = 0, is_prompt_free: bool = False, num_samples: int = 0
) -> Callable[[Method], Method]:
    def change(check: Method) -> Method:
        def broken(self: Admission, request: GenerationRequest, num_waiting: int) -> None:
            prompt = [] if is_prompt_free else request.prompt_token_ids
            samples = num_samples or request.num_samples
            seen = msgspec.structs.replace(request, prompt_token_ids=prompt, num_samples=samples)
            check(self, seen, num_waiting - fewer)

        return broken

    return change


def retry_after_is_unbounded(_: property) -> property:
    return property(lambda self: float(self._waiting.num_tokens * 1000))


def known_ids_are_taken(check: Method) -> Method:
    return lambda self, request, num_waiting, *, is_known: check(self, request, num_waiting, is_known=False)


POOL_MUTANTS = [
    Mutant("release_skips_the_last_block", BlockPool, "release", release_skips_the_last_block),
    Mutant("release_appends_twice", BlockPool, "release", release_appends_twice),
    Mutant("release_evicts_the_beginning_first", BlockPool, "release", release_evicts_the_beginning_first),
    Mutant("acquire_takes_no_reference", BlockPool, "acquire", acquire_takes_no_reference),
    Mutant("acquire_leaves_the_block_free", BlockPool, "acquire", acquire_leaves_the_block_on_the_free_list),
    Mutant("allocate_keeps_the_key", BlockPool, "allocate", allocate_takes(last=False, is_forgetting=False)),
    Mutant("allocate_evicts_the_newest", BlockPool, "allocate", allocate_takes(last=True, is_forgetting=True)),
    Mutant("register_replaces_the_entry", BlockPool, "register", register_replaces_the_entry),
    Mutant("nothing_is_registered", BlockPool, "register", always(None)),
    Mutant("forget_leaves_the_map", BlockPool, "_forget", forget_leaves_the_map),
    Mutant("broken_block_stays_findable", BlockPool, "forget", always(None)),
    Mutant("match_skips_gaps", BlockPool, "match", match_skips_gaps),
    Mutant("match_trusts_digests", BlockPool, "match", match_trusts_digests),
    Mutant("match_trusts_the_parents", BlockPool, "match", match_trusts_the_parents),
    Mutant("cached_blocks_cost_nothing", BlockPool, "num_free_among", always(0)),
]
SEQUENCE_MUTANTS = [
    Mutant("hash_ignores_the_parent", block_table_module, "chain_key", hash_ignores_the_parent),
    Mutant("salt_is_forgotten", BlockTable, "__init__", salt_is_forgotten),
    Mutant("one_block_too_few", BlockTable, "num_missing_blocks", missing_blocks_are_off_by(-1)),
    Mutant("one_block_too_many", BlockTable, "num_missing_blocks", missing_blocks_are_off_by(1)),
    Mutant("missing_blocks_round_down", BlockTable, "num_missing_blocks", missing_blocks_round_down),
    Mutant("clear_keeps_the_blocks", BlockTable, "clear", clear_keeps_the_blocks),
    Mutant("all_samples_have_one_seed", Sequence, "__init__", all_samples_have_one_seed),
    Mutant("max_tokens_is_one_more", Sequence, "max_len", max_len_is_one_more),
]
QUEUE_MUTANTS = [
    Mutant("waiting_tokens_leak", WaitingQueue, "remove", remove_leaks_tokens),
    Mutant("removed_sequence_stays", WaitingQueue, "remove", always(None)),
    Mutant("last_come_first_served", WaitingQueue, "peek", last_come_first_served),
    Mutant("never_fits_is_admitted", Admission, "_check_length", always(None)),
    Mutant("queue_takes_one_more", Admission, "_check_queue", queue_check_sees(fewer=1)),
    Mutant("queue_ignores_the_prompt", Admission, "_check_queue", queue_check_sees(is_prompt_free=True)),
    Mutant("queue_counts_n_as_one", Admission, "_check_queue", queue_check_sees(num_samples=1)),
    Mutant("retry_after_is_unbounded", Admission, "retry_after_s", retry_after_is_unbounded),
    Mutant("known_ids_are_taken", Admission, "check", known_ids_are_taken),
]
CORE_MUTANTS = POOL_MUTANTS + SEQUENCE_MUTANTS + QUEUE_MUTANTS + SCHEDULER_MUTANTS
MUTANTS = [
    *(CORE_MUTANTS + TENANT_MUTANTS + CACHE_MUTANTS),
    *(BUDGET_MUTANTS + REPAIR_MUTANTS + AHEAD_MUTANTS + DRAFT_MUTANTS),
]
