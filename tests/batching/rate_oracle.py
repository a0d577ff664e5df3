"""A plain, slow account of tenants' limits: every event is kept, and every question replays them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from contracts.errors import InvalidValue, QuireError, RateLimited
from contracts.generation import GenerationRequest

Event = tuple[Fraction, int]
"""(when, change of what is left)"""
NANOSECOND = Fraction(1, 10**9)


def level(per_minute: int, events: Iterable[Event], now_s: Fraction) -> Fraction:
    """What is left now of a minute's worth that refills continuously."""
    left, then = Fraction(per_minute), Fraction(0)
    for when, change in [*events, (now_s, 0)]:
        left = min(Fraction(per_minute), left + (when - then) * per_minute / 60)
        left = min(Fraction(per_minute), left + change)
        then = when
    return left


def num_tokens(request: GenerationRequest) -> int:
    return len(request.prompt_token_ids) + request.num_samples * request.sampling.max_tokens


@dataclass
class Account:
    """All that one tenant did."""

    requests: list[Event] = field(default_factory=list)
    tokens: list[Event] = field(default_factory=list)
    live: set[str] = field(default_factory=set)


def has_limits(request: GenerationRequest) -> bool:
    tenant = request.tenant
    return any((tenant.requests_per_minute, tenant.tokens_per_minute, tenant.max_concurrency))


@dataclass
class RateOracle:
    """Of tenants whose limits, if any, never change."""

    accounts: dict[str, Account] = field(default_factory=dict)

    def account(self, request: GenerationRequest) -> Account:
        return self.accounts.setdefault(request.tenant.name, Account())

    def admitted(self, request: GenerationRequest, now_s: float) -> None:
        if not has_limits(request):
            return
        account, now = self.account(request), Fraction(now_s)
        account.requests.append((now, -1))
        account.tokens.append((now, -num_tokens(request)))
        account.live.add(request.request_id)

    def ended(self, request: GenerationRequest, num_generated: int, now_s: float) -> None:
        if not has_limits(request):
            return
        account = self.account(request)
        unused = request.num_samples * request.sampling.max_tokens - num_generated
        account.tokens.append((Fraction(now_s), unused))
        account.live.remove(request.request_id)

    def is_possible(self, request: GenerationRequest) -> bool:
        limit = request.tenant.tokens_per_minute
        return limit is None or num_tokens(request) <= limit

    def is_let_in(self, request: GenerationRequest, now: Fraction) -> bool:
        """Whether no limit stands in the way at that time, if nothing else happens until then."""
        tenant, account = request.tenant, self.account(request)
        if tenant.max_concurrency is not None and len(account.live) >= tenant.max_concurrency:
            return False
        if tenant.requests_per_minute is not None and level(tenant.requests_per_minute, account.requests, now) < 1:
            return False
        per_minute = tenant.tokens_per_minute
        return per_minute is None or level(per_minute, account.tokens, now) >= num_tokens(request)

    def expected_refusal(self, request: GenerationRequest, now_s: float) -> type[QuireError] | None:
        if not has_limits(request):
            return None
        if not self.is_possible(request):
            return InvalidValue
        return None if self.is_let_in(request, Fraction(now_s)) else RateLimited

    def check_wait(self, request: GenerationRequest, now_s: float, retry_after_s: float | None) -> None:
        """The wait is exact to the nanosecond, unless it is for another request to end."""
        assert retry_after_s is not None
        assert 0.0 < retry_after_s <= 120.0
        limit = request.tenant.max_concurrency
        if limit is None or len(self.account(request).live) < limit:
            then = Fraction(now_s) + Fraction(retry_after_s)
            assert self.is_let_in(request, then + NANOSECOND), f"{retry_after_s} s are too short"
            assert not self.is_let_in(request, then - 2 * NANOSECOND), f"{retry_after_s} s are too long"
