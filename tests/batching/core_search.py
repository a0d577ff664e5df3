"""Breadth-first search through every history of a small World, up to a depth, each distinct state once.

Two histories that lead to the same books, tables and KV content have the same futures, so only one is followed; time
stands still, and counts that nothing depends on are left out of the comparison.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from batching.scheduler_config import SchedulerConfig
from contracts.generation import GenerationRequest
from tests.batching.core_world import SampleLog, World

BROKEN = frozenset({0})


@dataclass
class Reached:
    """What a search came across."""

    num_states: int = 0
    num_preemptions: int = 0
    num_cached_tokens: int = 0

    def add(self, world: World) -> None:
        self.num_states += 1
        self.num_preemptions = max(self.num_preemptions, world.scheduler.counters.num_preemptions)
        self.num_cached_tokens = max(self.num_cached_tokens, world.scheduler.counters.num_cached_tokens)


class SmallWorld(World):
    """A World whose requests come from a list, in order."""

    upcoming: list[GenerationRequest]
    can_run_out_of_memory = False

    def submit_next(self) -> None:
        self.submit(self.upcoming.pop(0))


def actions(world: SmallWorld) -> Iterator[partial[Any]]:
    """Everything that can happen next, as unbound calls: they are made on copies of this world."""
    if world.upcoming:
        yield partial(SmallWorld.submit_next)
    for request_id in sorted({log.request.request_id for log in world.live}):
        yield partial(World.abort, request_id=request_id)
    if world.plans:
        yield partial(World.finish_step)
        yield partial(World.finish_step, broken_rows=BROKEN)
        yield partial(World.fail_step)
        if world.may_begin:
            yield partial(World.begin_step)
    elif world.scheduler.has_work:
        yield partial(World.begin_step)
        yield partial(World.step)
        yield partial(World.step, broken_rows=BROKEN)
        if world.can_run_out_of_memory:
            yield partial(World.step, is_out_of_memory=True)


def _sample_state(log: SampleLog) -> Hashable:
    sequence = log.sequence
    table = sequence.block_table
    place = (sequence.status, tuple(table.block_ids), sequence.num_computed_tokens, table.num_registered)
    return (*place, tuple(sequence.token_ids), sequence.num_preemptions, log.finish_reason)


def _turns(world: SmallWorld) -> Hashable:
    """The counters of the tenants, as far as they can be told apart."""
    shares = world.scheduler.shares
    if shares.num_tenants <= 1:
        return ()
    counters = sorted((name, share.counter) for name, share in [*shares._live.items(), *shares._idle.items()])
    smallest = min(counter for _, counter in counters)
    relative = tuple((name, counter - smallest) for name, counter in counters)
    return relative, shares._last_waited.counter - smallest


def _budget(world: SmallWorld) -> Hashable:
    """A lowered budget, and how far it is from being raised."""
    budget = world.scheduler.token_budget
    return None if budget._lowered is None else (budget._lowered, budget._num_good_steps)


def state(world: SmallWorld) -> Hashable:
    """What the future depends on; sequence ids follow from the order of submission."""
    scheduler, pool = world.scheduler, world.scheduler.pool
    return (
        len(world.upcoming),
        tuple(_sample_state(log) for log in world.logs.values()),
        tuple(sequence.seq_id for sequence in scheduler._running),
        tuple(map(tuple, scheduler._in_flight._held)),
        tuple(scheduler._broken._to_clear),
        frozenset(scheduler._broken._suspects),
        tuple(tuple((row.seq_id, row.start, len(row.token_ids)) for row in plan.sequences) for plan in world.plans),
        tuple(pool._free),
        frozenset(pool._free.cached_blocks().items()),
        tuple(pool._num_refs),
        tuple(key and key.digest for key in pool._keys),
        tuple(world.model.values),
        _turns(world),
        _budget(world),
    )


def search(world: SmallWorld, depth: int) -> Reached:
    """Follow all histories of `depth` calls, and drain what each of them leads to."""
    reached, seen = Reached(), {hash(state(world))}
    _CONSTANTS.clear()
    _CONSTANTS.update((id(constant), constant) for constant in (world.config, *world.upcoming))
    frontier = [_pack(world)]
    for _ in range(depth):
        frontier = [_pack(child) for child in _new_children(frontier, seen, reached)]
    for packed in frontier:
        _unpack(packed).drain()
    return reached


def _new_children(frontier: list[bytes], seen: set[int], reached: Reached) -> Iterator[SmallWorld]:
    for packed in frontier:
        parent = _unpack(packed)
        choices = list(actions(parent))
        for number, action in enumerate(choices, start=1):
            child = parent if number == len(choices) else _unpack(packed)
            action(child)
            fingerprint = hash(state(child))
            if fingerprint not in seen:
                seen.add(fingerprint)
                reached.add(child)
                yield child


_CONSTANTS: dict[int, object] = {}
"""What the worlds of one search share, by identity: packed by number instead of again and again."""


def _constant(number: int) -> object:
    return _CONSTANTS[number]


def _reduce(value: object) -> tuple[Callable[[int], object], tuple[int]]:
    return _constant, (id(value),)


_DISPATCH = {**copyreg.dispatch_table, GenerationRequest: _reduce, SchedulerConfig: _reduce}


def _pack(world: SmallWorld) -> bytes:
    packed = io.BytesIO()
    pickler = pickle.Pickler(packed)
    pickler.dispatch_table = _DISPATCH
    pickler.dump(world)
    return packed.getvalue()


def _unpack(packed: bytes) -> SmallWorld:
    world = pickle.loads(packed)  # noqa: S301  # made a moment ago by `search`
    assert isinstance(world, SmallWorld)
    return world
