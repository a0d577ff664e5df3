"""Makes spans of some of the engine's steps, after the fact, linked with the requests that shared them.

A step belongs to no request: each span is the root of a trace of its own. The requests' records remember it, so that
their spans link back. Knows no exporter; without one nobody makes a StepSpans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry import trace
from opentelemetry.context import Context

from batching.scheduler import Scheduler
from batching.step import SchedulerOutput
from contracts.generation import GenerationRequest
from contracts.records import StepLink

MAX_LINKS = 128
"""What the SDK keeps of a span's links."""
SLOW_FACTOR = 5.0
"""A step that takes so many times the mean of the last ones gets a span whatever its number."""
MIN_SLOW_S = 0.02
MIN_SLOW_PAUSE_S = 1.0
"""Between two spans for slowness."""
_SMOOTHING = 0.05
_SCOPE = "quire.engine"


class StepSpans:
    """Owner: the AsyncEngine, which tells it of every step between execution and commit.

    `every`: one of so many steps gets a span. `unix_offset_ns` gives what to add to the monotonic clock.
    """

    def __init__(self, every: int, unix_offset_ns: Callable[[], int]) -> None:
        self._every = every
        self._unix_offset_ns = unix_offset_ns
        self._mean_s: float | None = None
        self._last_slow_s = -MIN_SLOW_PAUSE_S

    def observe(self, plan: SchedulerOutput, scheduler: Scheduler, began_s: float, ended_s: float) -> None:
        """Make a span of this step, which has been computed and is not committed, if it is one that gets one."""
        is_slow = self._is_slow(began_s, ended_s)
        if not is_slow and plan.step_id % self._every:
            return
        requests = scheduler.journal.requests_in(plan)
        offset_ns = self._unix_offset_ns()
        span = trace.get_tracer(_SCOPE).start_span(
            "engine step",
            Context(),
            links=links_to(requests.values()),
            start_time=int(began_s * 1e9) + offset_ns,
            attributes={
                "quire.step_id": plan.step_id,
                "quire.batch_size": len(plan.sequences),
                "quire.decodes": plan.num_decodes,
                "quire.tokens": plan.num_tokens,
                "quire.prefill_tokens": plan.num_tokens - plan.num_decodes,
                "quire.requests": len(requests),
                "quire.waiting": scheduler.num_waiting,
                "quire.free_blocks": scheduler.pool.num_free_blocks,
                "quire.is_slow": is_slow,
            },
        )
        span.end(int(ended_s * 1e9) + offset_ns)
        context = span.get_span_context()
        if context.is_valid:
            link = StepLink((began_s + ended_s) / 2, f"{context.trace_id:032x}", f"{context.span_id:016x}")
            scheduler.journal.link_step(plan, link)

    def _is_slow(self, began_s: float, ended_s: float) -> bool:
        duration_s = ended_s - began_s
        mean_s = duration_s if self._mean_s is None else self._mean_s
        self._mean_s = mean_s + _SMOOTHING * (duration_s - mean_s)
        is_slow = duration_s > max(MIN_SLOW_S, SLOW_FACTOR * mean_s)
        if not is_slow or ended_s - self._last_slow_s < MIN_SLOW_PAUSE_S:
            return False
        self._last_slow_s = ended_s
        return True


def links_to(requests: Iterable[GenerationRequest]) -> list[trace.Link]:
    """One to each request's server span, as far as there is room."""
    links: dict[str, trace.Link] = {}
    for request in requests:
        context = span_context(request.traceparent)
        if context is not None and len(links) < MAX_LINKS:
            links.setdefault(request.traceparent, trace.Link(context, {"quire.response_id": request.request_id}))
    return list(links.values())


def span_context(traceparent: str) -> trace.SpanContext | None:
    """What a W3C trace context names; None for an empty one."""
    parts = traceparent.split("-")
    if len(parts) != 4:
        return None
    return trace.SpanContext(int(parts[1], 16), int(parts[2], 16), True, trace.TraceFlags(int(parts[3], 16)))
