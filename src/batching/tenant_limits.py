"""What a tenant may ask for: requests and tokens a minute, and requests at once. All of a request is let in, or none.

Exact: time is whole nanoseconds of the clock that is passed in, and levels are whole numbers of 1/(60 x 10^9) tokens,
of which a limit of n a minute adds n in each nanosecond. Knows requests and tenants, no sequences.
"""

from __future__ import annotations

from contracts.errors import InvalidValue, RateLimited
from contracts.generation import GenerationRequest, Tenant

CONCURRENCY_RETRY_S = 1.0
"""When to come back while too many requests of a tenant are live: nobody knows when one of them ends."""
_MIN_SWEPT = 64
_NS_PER_S = 10**9
_UNITS = 60 * _NS_PER_S
"""In one token, or in one request."""


class TokenBucket:
    """A level that rises by `per_minute` a minute, up to one minute's worth, and starts there. Owner: _TenantState."""

    __slots__ = ("_level", "_updated_ns", "per_minute")

    def __init__(self, per_minute: int, now_ns: int) -> None:
        self.per_minute = per_minute
        self._level = per_minute * _UNITS
        self._updated_ns = now_ns

    @property
    def level(self) -> int:
        """Whole tokens that can be taken, as of the last refill."""
        return self._level // _UNITS

    @property
    def is_full(self) -> bool:
        return self._level >= self.per_minute * _UNITS

    def refill(self, per_minute: int, now_ns: int) -> None:
        """Let the level rise until now; a clock that went back counts as standing still."""
        elapsed_ns = max(0, now_ns - self._updated_ns)
        self.per_minute = per_minute
        self._level = min(per_minute * _UNITS, self._level + elapsed_ns * per_minute)
        self._updated_ns += elapsed_ns

    def wait_ns(self, amount: int) -> int:
        """Nanoseconds from the last refill until `amount`, at most a minute's worth, can be taken."""
        return max(0, -((self._level - amount * _UNITS) // self.per_minute))

    def take(self, amount: int) -> None:
        self._level -= amount * _UNITS

    def give_back(self, amount: int) -> None:
        """Undo a part of what was taken; the next refill lets what is too much flow over."""
        self._level += amount * _UNITS


class _TenantState:
    """Buckets and live requests of one tenant; a bucket exists as long as the tenant has that limit."""

    __slots__ = ("num_live", "requests", "tokens")

    def __init__(self) -> None:
        self.num_live = 0
        self.requests: TokenBucket | None = None
        self.tokens: TokenBucket | None = None

    def refill(self, tenant: Tenant, now_ns: int) -> None:
        self.requests = _refilled(self.requests, tenant.requests_per_minute, now_ns)
        self.tokens = _refilled(self.tokens, tenant.tokens_per_minute, now_ns)

    def is_as_new(self, now_ns: int) -> bool:
        """Forgetting it now would make no difference."""
        buckets = [bucket for bucket in (self.requests, self.tokens) if bucket is not None]
        for bucket in buckets:
            bucket.refill(bucket.per_minute, now_ns)
        return self.num_live == 0 and all(bucket.is_full for bucket in buckets)


class _Grant:
    """A live request of a tenant that has limits, and the tokens counted for it that it did not generate so far."""

    __slots__ = ("num_unused", "state")

    def __init__(self, state: _TenantState, num_unused: int) -> None:
        self.state = state
        self.num_unused = num_unused


class TenantLimits:
    """The limits of all tenants. Owner: the Scheduler. Life of a request: admit -> use for each sample -> close.

    A tenant is remembered only while it has live requests or has used up something within the last minute.
    """

    def __init__(self) -> None:
        self._states: dict[str, _TenantState] = {}
        self._grants: dict[str, _Grant] = {}
        self._sweep_at = _MIN_SWEPT
        self.num_refused = 0
        """Requests refused because a limit was reached."""

    @property
    def num_tenants(self) -> int:
        """Tenants that are remembered."""
        return len(self._states)

    @property
    def num_live(self) -> int:
        """Live requests of tenants that have limits."""
        return len(self._grants)

    def admit(self, request: GenerationRequest, now_s: float) -> None:
        """Count a request against every limit of its tenant, or raise and count it against none.

        Raises RateLimited with the wait after which all limits let it in, InvalidValue if they never will.
        """
        tenant = request.tenant
        if not _has_limits(tenant):
            return
        num_tokens = _check_possible(request)
        now_ns = round(now_s * _NS_PER_S)
        state = self._state(tenant.name, now_ns)
        state.refill(tenant, now_ns)
        refusals = _refusals(request, state, num_tokens)
        if refusals:
            self.num_refused += 1
            wait_ns, message = max(refusals)
            retry_after_s = wait_ns / _NS_PER_S
            raise RateLimited(f"{message} Try again in {retry_after_s:.3f} s.", retry_after_s=retry_after_s)
        if state.requests is not None:
            state.requests.take(1)
        if state.tokens is not None:
            state.tokens.take(num_tokens)
        state.num_live += 1
        self._grants[request.request_id] = _Grant(state, request.num_samples * request.sampling.max_tokens)

    def use(self, request_id: str, num_tokens: int) -> None:
        """A sample of the request ended after generating this many tokens."""
        if request_id in self._grants:
            self._grants[request_id].num_unused -= num_tokens

    def close(self, request_id: str) -> None:
        """The request ended: give back what it did not generate."""
        grant = self._grants.pop(request_id, None)
        if grant is not None:
            grant.state.num_live -= 1
            if grant.state.tokens is not None:
                grant.state.tokens.give_back(grant.num_unused)

    def close_all(self) -> None:
        """No request is live any more, whatever was said before."""
        for request_id in list(self._grants):
            self.close(request_id)

    def _state(self, name: str, now_ns: int) -> _TenantState:
        state = self._states.get(name)
        if state is None:
            if len(self._states) >= self._sweep_at:
                self._states = {name: kept for name, kept in self._states.items() if not kept.is_as_new(now_ns)}
                self._sweep_at = max(_MIN_SWEPT, 2 * len(self._states))
            state = self._states[name] = _TenantState()
        return state


def _has_limits(tenant: Tenant) -> bool:
    limits = (tenant.requests_per_minute, tenant.tokens_per_minute, tenant.max_concurrency)
    return any(limit is not None for limit in limits)


def _refilled(bucket: TokenBucket | None, per_minute: int | None, now_ns: int) -> TokenBucket | None:
    if per_minute is None:
        return None
    if bucket is None:
        return TokenBucket(per_minute, now_ns)
    bucket.refill(per_minute, now_ns)
    return bucket


def _check_possible(request: GenerationRequest) -> int:
    """The tokens that the request counts; raises InvalidValue if no wait makes room for them."""
    tenant, max_tokens = request.tenant, request.sampling.max_tokens
    num_prompt = len(request.prompt_token_ids)
    num_tokens = num_prompt + request.num_samples * max_tokens
    for name in ("requests_per_minute", "max_concurrency"):
        limit = getattr(tenant, name)
        if limit is not None and limit < 1:
            raise InvalidValue(f"{name} of this key is {limit}: it may send no requests at all")
    if tenant.tokens_per_minute is not None and num_tokens > tenant.tokens_per_minute:
        raise InvalidValue(
            f"The request counts {num_tokens} tokens ({num_prompt} in the prompt, {request.num_samples} x {max_tokens} "
            f"to generate), but tokens_per_minute of this key is {tenant.tokens_per_minute}: shorten the prompt or "
            "lower max_tokens.",
            param="max_tokens",
        )
    return num_tokens


def _refusals(request: GenerationRequest, state: _TenantState, num_tokens: int) -> list[tuple[int, str]]:
    """For each limit that is reached: how long it stays so in nanoseconds, and what to tell the caller."""
    refusals = []
    limit = request.tenant.max_concurrency
    if limit is not None and state.num_live >= limit:
        message = f"max_concurrency of this key is {limit}, and {state.num_live} of its requests wait or run."
        refusals.append((round(CONCURRENCY_RETRY_S * _NS_PER_S), message))
    if state.requests is not None and state.requests.wait_ns(1):
        message = f"requests_per_minute of this key is {state.requests.per_minute}, and 0 of them are left."
        refusals.append((state.requests.wait_ns(1), message))
    if state.tokens is not None and state.tokens.wait_ns(num_tokens):
        message = (
            f"tokens_per_minute of this key is {state.tokens.per_minute}, of which {state.tokens.level} are left, and "
            f"the request counts {num_tokens} ({len(request.prompt_token_ids)} in the prompt, {request.num_samples} x "
            f"{request.sampling.max_tokens} to generate)."
        )
        refusals.append((state.tokens.wait_ns(num_tokens), message))
    return refusals
