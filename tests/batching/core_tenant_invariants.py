"""Invariants of the turns between tenants, as functions of a `World`; the service is counted here from its logs.

| | says | checked |
|---|---|---|
| I19 | who waits all the time is charged what it is served; who begins to wait is lifted, never set back | every call |
| I20 | whoever is admitted was of the tenant with the smallest counter | every plan |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batching.sequence import Sequence, SequenceStatus
from batching.step import SchedulerOutput

if TYPE_CHECKING:
    from tests.batching.core_world import SampleLog, World


@dataclass
class Ledger:
    """What each tenant has had and been charged, as of the last check; emptied when nothing is live."""

    counters: dict[str, float] = field(default_factory=dict)
    """Of those that are live, and of those that were: theirs at their end."""
    service: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    """(sequence, its preemptions) of everything that waits."""


def tenant_of(sequence: Sequence) -> str:
    return sequence.request.tenant.name


def admission_charge(log: SampleLog) -> float:
    """What its first admission costs the tenant of a sample."""
    num_computed = len(log.request.prompt_token_ids) - log.sequence.num_cached_tokens
    return num_computed / log.request.tenant.weight


def service_of(logs: Iterable[SampleLog]) -> dict[str, float]:
    """Tokens per weight that each tenant was served: prompts computed once, and the tokens its callers got."""
    service: dict[str, float] = {}
    for log in logs:
        is_admitted = log.sequence.scheduled_s is not None
        amount = len(log.token_ids) / log.request.tenant.weight + (admission_charge(log) if is_admitted else 0.0)
        name = log.request.tenant.name
        service[name] = service.get(name, 0.0) + amount
    return service


def i19_service_is_counted(world: World) -> None:
    shares, before = world.scheduler.shares, world.ledger
    live = {log.request.tenant.name for log in world.live}
    assert set(shares._live) == live
    if not live:
        assert shares.num_tenants == 0
        world.ledger = Ledger()
        return
    if shares.num_tenants == 1 and not before.counters:
        return  # whatever its counter is, it decides nothing; this keeps the search through all histories quick
    after = _look(world, live)
    for name in live & set(before.counters):
        served = after.service[name] - before.service[name]
        charged = after.counters[name] - before.counters[name]
        if _waited_on(name, before, after):
            assert charged == served, f"{name!r} was served {served} and charged {charged}"
        else:
            assert charged >= served, f"{name!r} was served {served} and charged {charged}"
    for name in set(after.waiting) - set(before.waiting):
        lowest = min((before.counters[other] for other in before.waiting), default=0.0)
        assert after.counters[name] >= lowest, f"{name!r} saved up while it did not wait"
        highest = max((counter for other, counter in after.counters.items() if other != name), default=0.0)
        served = after.service[name] - before.service.get(name, 0.0)
        lifted = max(highest, before.counters.get(name, 0.0))
        assert after.counters[name] <= lifted + served, f"{name!r} was lifted above everybody"
    world.ledger = after


def _look(world: World, live: set[str]) -> Ledger:
    """The present numbers; those that are not live keep what they had when they last were."""
    before, service = world.ledger, service_of(world.logs.values())
    counters = {name: counter + service[name] - before.service[name] for name, counter in before.counters.items()}
    counters |= {name: world.scheduler.shares.counter(name) for name in live}
    waiting: dict[str, set[tuple[int, int]]] = {}
    for sequence in world.scheduler.waiting:
        waiting.setdefault(tenant_of(sequence), set()).add((sequence.seq_id, sequence.num_preemptions))
    return Ledger(counters, service, waiting)


def _waited_on(name: str, before: Ledger, after: Ledger) -> bool:
    """One and the same sequence of it waited all the time."""
    return bool(before.waiting.get(name, set()) & after.waiting.get(name, set()))


def i20_turns_follow_the_counters(world: World, plan: SchedulerOutput, was_running: dict[int, int]) -> None:
    """Takes back the admissions of `plan`, last first, and finds each one to have been next.

    `was_running` is the sequences that ran before it was made, with their preemptions.
    """
    if world.scheduler.shares.num_tenants == 1:
        return
    admitted = [
        log
        for log in (world.logs[row.seq_id] for row in plan.sequences)
        if was_running.get(log.sequence.seq_id) != log.sequence.num_preemptions
    ]
    waiting = [log for log in world.live if log.sequence.status is SequenceStatus.WAITING]
    counters = {name: world.scheduler.shares.counter(name) for name in {log.request.tenant.name for log in world.live}}
    for log in reversed(admitted):
        if log.status is not SequenceStatus.RUNNING and log.sequence.num_preemptions == 0:
            counters[log.request.tenant.name] -= admission_charge(log)
        waiting.append(log)
        first = min(waiting, key=lambda other: (counters[other.request.tenant.name], other.sequence.order))
        assert log is first, f"{log.sequence.seq_id} was admitted, but {first.sequence.seq_id} was next"
