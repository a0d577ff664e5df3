"""Seeded bugs of the order in which free blocks are handed out."""

from __future__ import annotations

import math
from collections.abc import Callable

from batching import free_list
from batching.block_pool import BlockPool
from batching.block_table import BlockKey
from batching.free_list import FreeList, Holder, Turn
from contracts.generation import Tenant
from tests.batching.core_mutant import Method, Mutant, always


def tenants_have_one_list(register: Method) -> Method:
    def broken(self: BlockPool, block_id: int, key: BlockKey, tenant: Tenant) -> None:
        register(self, block_id, key)

    return broken


def load_is(change: Callable[[int, float], float]) -> Callable[[Method], Method]:
    """`change` makes the place in the queue from blocks and weight."""

    def broken(self: Holder) -> Turn:
        stamp = next(iter(self.block_to_stamp.values()))
        self.queued = (change(len(self.block_to_stamp), self.tenant.weight), stamp, self.tenant.name)
        return self.queued

    return lambda next_turn: broken


def use_keeps_the_place_in_the_queue(use: Method) -> Method:
    def broken(self: FreeList, holder: Holder) -> None:
        known = holder.queued is not None and holder.tenant.name not in self._changed
        use(self, holder)
        if known:
            del self._changed[holder.tenant.name]

    return broken


def use_does_not_renew_the_claim(use: Method) -> Method:
    def broken(self: FreeList, holder: Holder) -> None:
        used_s = holder.used_s
        use(self, holder)
        holder.used_s = used_s

    return broken


def use_does_not_count_as_last(_: Method) -> Method:
    def broken(self: FreeList, holder: Holder) -> None:
        holder.used_s = self.now_s
        self._changed[holder.tenant.name] = holder

    return broken


def newest_block_goes_first(pop: Method) -> Method:
    def broken(self: FreeList, holder: Holder, num_blocks: int) -> list[int]:
        for block_id in list(holder.block_to_stamp)[:-1]:
            holder.block_to_stamp.move_to_end(block_id)
        block_ids: list[int] = pop(self, holder, num_blocks)
        return block_ids

    return broken


def weight_stays_as_it_was(add: Method) -> Method:
    def broken(self: FreeList, block_ids: list[int], tenant: Tenant) -> None:
        holder = self._holders.get(tenant.name)
        add(self, block_ids, tenant if holder is None else holder.tenant)

    return broken


CACHE_MUTANTS = [
    Mutant("tenants_have_one_list", BlockPool, "register", tenants_have_one_list),
    Mutant("cache_of_the_smallest_goes", Holder, "next_turn", load_is(lambda num_blocks, weight: num_blocks / weight)),
    Mutant("weight_of_a_cache_is_ignored", Holder, "next_turn", load_is(lambda num_blocks, weight: -num_blocks)),
    Mutant("oldest_cache_goes", Holder, "next_turn", load_is(lambda num_blocks, weight: 0.0)),
    Mutant("use_keeps_the_place_in_the_queue", FreeList, "_use", use_keeps_the_place_in_the_queue),
    Mutant("use_does_not_renew_the_claim", FreeList, "_use", use_does_not_renew_the_claim),
    Mutant("use_does_not_count_as_last", FreeList, "_use", use_does_not_count_as_last),
    Mutant("newest_block_of_a_tenant_goes_first", FreeList, "_pop_of", newest_block_goes_first),
    Mutant("weight_stays_as_it_was", FreeList, "_add_cached", weight_stays_as_it_was),
    Mutant("forgotten_block_stays_cached", FreeList, "empty", always(None)),
    Mutant("claims_never_end", free_list, "CLAIM_S", lambda _: math.inf),
    Mutant("claims_end_at_once", free_list, "CLAIM_S", lambda _: -1.0),
    Mutant("pool_is_not_told_the_time", BlockPool, "begin_step", always(None)),
    Mutant("largest_loses_all_at_once", free_list, "_MAX_AT_ONCE", lambda _: 1),
]
