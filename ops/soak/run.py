"""One soak of one server: warm it up, look at it idle, load it, let it go idle, look again.

Knows nothing of how the server was started or how results are shown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from ops.checks import Check
from ops.soak.clients import Outcome, SoakClients
from ops.soak.gauges import Gauges, count_preemptions, is_idle, read_gauges
from ops.soak.processes import TreeSample, sample_tree
from ops.soak.traffic import plan_soak_request
from ops.soak.verdict import Idle, MemorySlope, compare_idle, fit_slope, judge_memory, judge_outcomes

POLL_S = 0.5
ANNOUNCE_INTERVAL_S = 60.0


class SoakTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The server that is loaded."""

    base_url: str
    pid: int
    model: str
    api_key: str | None = None

    @property
    def root_url(self) -> str:
        """Where /health and /stats are."""
        return self.base_url.removesuffix("/v1")


class SoakPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how hard."""

    duration_s: float
    warm_up_s: float
    num_clients: int = 24
    interval_s: float = 5.0
    settle_timeout_s: float = 60.0
    quiet_s: float = 2.0
    """How long an idle server is left alone before it is looked at, so that closed connections are really closed."""
    seed: int = 0
    vocab_size: int = 4000


class SoakResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen, and what it means."""

    checks: list[Check]
    outcomes: list[Outcome]
    samples: list[TreeSample]
    before: Idle
    after: Idle
    slope: MemorySlope | None
    num_preemptions: float | None
    """During the load; None where the server does not tell."""

    @property
    def is_clean(self) -> bool:
        """Every check held."""
        return all(check.is_ok for check in self.checks)


async def run_soak(target: SoakTarget, plan: SoakPlan, announce: Callable[[str], None]) -> SoakResult:
    """Run the whole soak. Raises httpx.HTTPError when the server tells nothing of itself."""
    announce(f"warming up for {plan.warm_up_s:.0f} s")
    await _load(target, plan, plan.warm_up_s, plan.seed + 1)
    before = await wait_until_idle(target, plan, None)
    announce(f"loading for {plan.duration_s:.0f} s")
    samples: list[TreeSample] = []
    sampling = asyncio.create_task(_sample(target.pid, plan.interval_s, samples, announce))
    try:
        outcomes = await _load(target, plan, plan.duration_s, plan.seed)
    finally:
        sampling.cancel()
    announce("waiting until it is idle")
    after = await wait_until_idle(target, plan, before)
    slope = fit_slope([sample for sample in samples if sample.at_s <= samples[0].at_s + plan.duration_s])
    return SoakResult(
        checks=[*judge_outcomes(outcomes), *compare_idle(before, after), judge_memory(slope)],
        outcomes=outcomes,
        samples=samples,
        before=before,
        after=after,
        slope=slope,
        num_preemptions=_count_new_preemptions(before.gauges, after.gauges),
    )


async def wait_until_idle(target: SoakTarget, plan: SoakPlan, wanted: Idle | None) -> Idle:
    """The server once nothing runs there, or what is left of it when the time is over.

    With `wanted` the wait also ends as soon as everything was given back: closing takes a moment.
    """
    stop_at_s = time.monotonic() + plan.settle_timeout_s
    while True:
        gauges = await asyncio.to_thread(read_gauges, target.root_url, target.api_key)
        if is_idle(gauges):
            await asyncio.sleep(plan.quiet_s)
            idle = await _look(target)
            if wanted is None or all(check.is_ok for check in compare_idle(wanted, idle)):
                return idle
        if time.monotonic() > stop_at_s:
            return await _look(target)
        await asyncio.sleep(POLL_S)


async def _look(target: SoakTarget) -> Idle:
    """Processes and gauges; the connection that asks for the gauges is closed before the processes are sampled."""
    gauges = await asyncio.to_thread(read_gauges, target.root_url, target.api_key)
    await asyncio.sleep(POLL_S)
    return Idle(tree=sample_tree(target.pid, time.monotonic()), gauges=gauges)


async def _load(target: SoakTarget, plan: SoakPlan, duration_s: float, seed: int) -> list[Outcome]:
    clients = SoakClients(
        target.base_url,
        target.api_key,
        lambda index: plan_soak_request(seed, index, target.model, plan.vocab_size),
    )
    try:
        await clients.run(plan.num_clients, duration_s)
    finally:
        await clients.close()
    return clients.outcomes


async def _sample(pid: int, interval_s: float, samples: list[TreeSample], announce: Callable[[str], None]) -> None:
    """Sample the processes until cancelled, and say so now and then."""
    announced_s = float("-inf")
    while True:
        sample = sample_tree(pid, time.monotonic())
        samples.append(sample)
        if sample.at_s - announced_s >= ANNOUNCE_INTERVAL_S:
            announced_s = sample.at_s
            announce(
                f"{len(sample.processes)} processes, {sample.rss_bytes / 2**20:,.0f} MiB, "
                f"{sample.num_fds} descriptors, {sample.num_threads} threads"
            )
        await asyncio.sleep(interval_s)


def _count_new_preemptions(before: Gauges, after: Gauges) -> float | None:
    old, new = count_preemptions(before), count_preemptions(after)
    return None if old is None or new is None else new - old
