"""Which free block goes next, said slowly: one list of everything, counted anew for each decision."""

from __future__ import annotations

import random

from batching.free_list import CLAIM_S, FreeList
from contracts.generation import Tenant

NUM_BLOCKS = 40
NUM_CALLS = 120
TENANTS = [Tenant(name=name, weight=weight) for name, weight in [("a", 1.0), ("b", 1.0), ("c", 2.0), ("d", 0.5)]]
HEAVIER = Tenant(name="a", weight=3.0)
"""The first one, after its key was given another weight."""


class PlainFreeList:
    """The calls of a FreeList."""

    def __init__(self, num_blocks: int) -> None:
        self.now_s = 0.0
        self.empty_blocks = list(range(num_blocks))
        self.cached: list[tuple[int, Tenant]] = []
        """Least recently used first."""
        self.uses: list[tuple[str, float]] = []
        """(tenant, when), in order."""
        self.weights: dict[str, float] = {}
        """As each tenant's last was."""

    def add(self, block_ids: list[int], tenant: Tenant | None) -> None:
        for block_id in block_ids:
            if tenant is None:
                self.empty_blocks.insert(0, block_id)
            else:
                self.cached.append((block_id, tenant))
                self.uses.append((tenant.name, self.now_s))
                self.weights[tenant.name] = tenant.weight

    def remove(self, block_id: int) -> None:
        if block_id in self.empty_blocks:
            self.empty_blocks.remove(block_id)
        else:
            self.uses.append((self._take(block_id), self.now_s))

    def empty(self, block_id: int) -> None:
        self._take(block_id)
        self.empty_blocks.insert(0, block_id)

    def _take(self, block_id: int) -> str:
        found = next(entry for entry in self.cached if entry[0] == block_id)
        self.cached.remove(found)
        return found[1].name

    def blocks_of(self, name: str) -> list[int]:
        return [block_id for block_id, tenant in self.cached if tenant.name == name]

    def load(self, name: str) -> float:
        """Blocks per weight."""
        return len(self.blocks_of(name)) / self.weights[name]

    def next_tenant(self) -> tuple[str, int]:
        """Who gives up blocks next, and at most how many at once."""
        names = sorted({tenant.name for _, tenant in self.cached})
        last_use = {name: max(index for index, use in enumerate(self.uses) if use[0] == name) for name in names}
        longest_unused = min(names, key=lambda name: last_use[name])
        if self.now_s - self.uses[last_use[longest_unused]][1] > CLAIM_S:
            return longest_unused, len(self.blocks_of(longest_unused))
        order = [block_id for block_id, _ in self.cached]
        name = min(names, key=lambda name: (-self.load(name), order.index(self.blocks_of(name)[0])))
        return name, max(1, len(self.blocks_of(name)) // 16)

    def pop(self, num_blocks: int) -> list[int]:
        block_ids: list[int] = []
        while len(block_ids) < num_blocks:
            if self.empty_blocks:
                block_ids.append(self.empty_blocks.pop(0))
                continue
            name, num_at_once = self.next_tenant()
            for block_id in self.blocks_of(name)[: min(num_at_once, num_blocks - len(block_ids))]:
                self._take(block_id)
                block_ids.append(block_id)
        return block_ids


def play_all(seeds: range, num_blocks: int = NUM_BLOCKS) -> int:
    """Returns the number of blocks handed out."""
    return sum(play_free_list(seed, num_blocks) for seed in seeds)


def play_free_list(seed: int, num_blocks: int = NUM_BLOCKS) -> int:
    """Make random calls on a free list and on the plain one; raises where they disagree, and returns as above."""
    rng = random.Random(seed)
    free, plain = FreeList(num_blocks), PlainFreeList(num_blocks)
    tenants = TENANTS[: rng.randint(1, 4)]
    held: list[int] = []
    num_popped = 0
    for number in range(NUM_CALLS):
        if number == NUM_CALLS // 2:
            tenants[0] = HEAVIER
        free.now_s = plain.now_s = plain.now_s + rng.choice([0.0, 0.0, 1.0, 150.0, CLAIM_S])
        choice = rng.random()
        if choice < 0.45 and len(free):
            num_wanted = rng.randint(1, len(free))
            popped = free.pop(num_wanted)
            assert popped == plain.pop(num_wanted)
            held += popped
            num_popped += num_wanted
        elif choice < 0.8 and held:
            returned = [held.pop(rng.randrange(len(held))) for _ in range(rng.randint(1, len(held)))]
            tenant = rng.choice([None, *tenants, *tenants])
            free.add(returned, tenant)
            plain.add(returned, tenant)
        elif choice < 0.9 and plain.cached:
            block_id = rng.choice(plain.cached)[0]
            free.remove(block_id)
            plain.remove(block_id)
            held.append(block_id)
        elif plain.cached:
            block_id = rng.choice(plain.cached)[0]
            free.empty(block_id)
            plain.empty(block_id)
        assert list(free) == [*plain.empty_blocks, *(block_id for block_id, _ in plain.cached)]
        assert free.cached_blocks() == {block_id: tenant.name for block_id, tenant in plain.cached}
    return num_popped
