"""Seeded bugs of the turns between tenants, and of their limits."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from batching import placement, tenant_limits
from batching.fair_share import FairShare, Share
from batching.scheduler import Scheduler
from batching.sequence import Sequence
from batching.tenant_limits import TenantLimits, TokenBucket
from batching.waiting_queue import WaitingQueue
from contracts.errors import QuireError
from contracts.generation import FinishReason, GenerationRequest, Tenant
from tests.batching.core_mutant import Method, Mutant, always


def charge_is(change: Callable[[float, float], float]) -> Callable[[Method], Method]:
    """`change` makes the charge from tokens and weight."""

    def broken(self: FairShare, tenant: Tenant, num_tokens: int) -> None:
        self._live[tenant.name].counter += change(num_tokens, tenant.weight)

    return lambda charge: broken


def cached_prompt_is_charged(admit: Method) -> Method:
    def broken(self: Scheduler, *args: object) -> None:
        before = {sequence.seq_id for sequence in self._running}
        admit(self, *args)
        for sequence in self._running:
            if sequence.seq_id not in before and sequence.num_preemptions == 0:
                self.shares.charge(sequence.request.tenant, sequence.num_cached_tokens)

    return broken


def recomputation_is_charged(preempt: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence) -> None:
        self.shares.charge(sequence.request.tenant, sequence.num_computed_tokens)
        preempt(self, sequence)

    return broken


def lift_is(change: Callable[[Share, list[float]], float]) -> Callable[[Method], Method]:
    """`change` makes the counter of a tenant that begins to wait from its share and the counters of the others."""

    def broken(self: FairShare, name: str) -> None:
        others = [share.counter for share in self._waiting.values()] or [self._last_waited.counter]
        share = self._waiting[name] = self._live[name]
        share.counter = change(share, others)

    return lambda begin: broken


def pause_sheds_what_was_had(close: Method) -> Method:
    def broken(self: FairShare, name: str) -> None:
        close(self, name)
        self._idle.pop(name, None)

    return broken


def debts_outlive_idling(close: Method) -> Method:
    def broken(self: FairShare, name: str) -> None:
        idle, last = dict(self._idle), self._live[name]
        close(self, name)
        if not self._live:
            self._idle.update(idle)
            self._last_waited = last

    return broken


def turn_is(key: Callable[[WaitingQueue, Sequence], object]) -> Callable[[Method], Method]:
    def broken(self: WaitingQueue) -> Sequence | None:
        return min(self._waiting.values(), key=lambda sequence: key(self, sequence), default=None)  # type: ignore[arg-type,return-value]

    return lambda peek: broken


def counter_of(queue: WaitingQueue, sequence: Sequence) -> float:
    return queue.shares.counter(sequence.request.tenant.name)


# ---- limits


def refused_request_counts(admit: Method) -> Method:
    def broken(self: TenantLimits, request: GenerationRequest, now_s: float) -> None:
        try:
            admit(self, request, now_s)
        except QuireError:
            state = self._states.get(request.tenant.name)
            if state is not None and state.requests is not None:
                state.requests.take(1)
            raise

    return broken


def one_sample_is_counted(admit: Method) -> Method:
    def broken(self: TenantLimits, request: GenerationRequest, now_s: float) -> None:
        admit(self, msgspec.structs.replace(request, num_samples=1), now_s)

    return broken


def limits_come_before_the_queue(submit: Method) -> Method:
    def broken(self: Scheduler, request: GenerationRequest, now_s: float) -> None:
        self.limits.admit(request, now_s)
        admit, self.limits.admit = self.limits.admit, lambda *_: None  # type: ignore[method-assign]
        try:
            submit(self, request, now_s)
        finally:
            self.limits.admit = admit  # type: ignore[method-assign]

    return broken


def all_is_given_back(_: Method) -> Method:
    return lambda self, request_id, num_tokens: None


def first_sample_is_not_used(end: Method) -> Method:
    def broken(self: Scheduler, sequence: Sequence, reason: FinishReason) -> None:
        if sequence.sample_index == 0:
            self.limits.use(sequence.request.request_id, -sequence.num_output_tokens)
        end(self, sequence, reason)

    return broken


def concurrency_is_never_freed(close: Method) -> Method:
    def broken(self: TenantLimits, request_id: str) -> None:
        if request_id in self._grants:
            self._grants[request_id].state.num_live += 1
        close(self, request_id)

    return broken


def bucket_overflows(_: Method) -> Method:
    def broken(self: TokenBucket, per_minute: int, now_ns: int) -> None:
        self._level += max(0, now_ns - self._updated_ns) * per_minute
        self._updated_ns = now_ns

    return broken


def refill_is_in_whole_tokens(refill: Method) -> Method:
    def broken(self: TokenBucket, per_minute: int, now_ns: int) -> None:
        refill(self, per_minute, now_ns)
        self._level = self.level * 60 * 10**9

    return broken


TURN_MUTANTS = [
    Mutant("prompt_is_not_charged", FairShare, "charge", charge_is(lambda n, weight: (n == 1) / weight)),
    Mutant("output_is_not_charged", FairShare, "charge", charge_is(lambda n, weight: (n > 1) * n / weight)),
    Mutant("weight_is_ignored", FairShare, "charge", charge_is(lambda n, weight: n)),
    Mutant("weight_is_turned_round", FairShare, "charge", charge_is(lambda n, weight: n * weight)),
    Mutant("cached_prompt_is_charged", Scheduler, "_admit", cached_prompt_is_charged),
    Mutant("recomputation_is_charged", Scheduler, "_preempt", recomputation_is_charged),
    Mutant("newcomer_saved_up", FairShare, "begin_waiting", lift_is(lambda share, _: share.counter)),
    Mutant(
        "newcomer_goes_last", FairShare, "begin_waiting", lift_is(lambda share, others: max(*others, share.counter + 1))
    ),
    Mutant("newcomer_is_set_back", FairShare, "begin_waiting", lift_is(lambda _, others: min(others))),
    Mutant("pause_sheds_what_was_had", FairShare, "close", pause_sheds_what_was_had),
    Mutant("debts_outlive_idling", FairShare, "close", debts_outlive_idling),
    Mutant("requests_stay_open", FairShare, "close", always(None)),
    Mutant("tenants_are_not_told_apart", WaitingQueue, "peek", turn_is(lambda _, sequence: sequence.order)),
    Mutant(
        "largest_counter_goes_first",
        WaitingQueue,
        "peek",
        turn_is(lambda queue, sequence: (-counter_of(queue, sequence), sequence.order)),
    ),
    Mutant(
        "tie_goes_to_the_younger",
        WaitingQueue,
        "peek",
        turn_is(lambda queue, sequence: (counter_of(queue, sequence), (-sequence.order[0], sequence.order[1]))),
    ),
    Mutant("worn_sequence_is_not_protected", placement, "_is_protected", lambda _: lambda running, sequence: False),
]
LIMIT_MUTANTS = [
    Mutant("limits_are_ignored", TenantLimits, "admit", always(None)),
    Mutant("refused_request_counts", TenantLimits, "admit", refused_request_counts),
    Mutant("one_sample_is_counted", TenantLimits, "admit", one_sample_is_counted),
    Mutant("limits_come_before_the_queue", Scheduler, "submit", limits_come_before_the_queue),
    Mutant("generated_tokens_are_given_back", TenantLimits, "use", all_is_given_back),
    Mutant("first_sample_is_not_counted", Scheduler, "_end", first_sample_is_not_used),
    Mutant("unused_tokens_are_kept", TokenBucket, "give_back", always(None)),
    Mutant("concurrency_is_never_freed", TenantLimits, "close", concurrency_is_never_freed),
    Mutant("bucket_overflows", TokenBucket, "refill", bucket_overflows),
    Mutant("refill_is_in_whole_tokens", TokenBucket, "refill", refill_is_in_whole_tokens),
    Mutant("too_much_is_refused_for_a_while", tenant_limits, "_check_possible", lambda _: lambda request: 10**6),
]
TENANT_MUTANTS = TURN_MUTANTS + LIMIT_MUTANTS
