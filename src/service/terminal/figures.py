"""The line below an answer: how many tokens, how fast, and where the time went. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from contracts.explanation import Explanation
from service.terminal.answer_stream import Answer
from service.terminal.dialogue import CANCELLED

ENDINGS = {"length": "cut at the token limit", CANCELLED: "stopped"}
SEPARATOR = " · "


def figures_line(answer: Answer, explanation: Explanation | None) -> str:
    """What is known; `explanation` is what the server remembers of the request, where it could be asked."""
    return SEPARATOR.join(_parts(answer, explanation))


def _parts(answer: Answer, told: Explanation | None) -> Iterator[str]:
    if answer.finish_reason in ENDINGS:
        yield ENDINGS[answer.finish_reason]
    num_tokens = answer.num_tokens if told is None else told.completion_tokens
    yield f"{num_tokens:,} token{'' if num_tokens == 1 else 's'}"
    speed = tokens_per_s(answer, told)
    if speed is not None:
        yield f"{show_rate(speed)} tok/s"
    if answer.ttft_s is not None:
        yield f"first token {show_ms(answer.ttft_s * 1e3)}"
    if told is not None:
        yield f"queue {show_ms(told.queue_ms)}"
        yield f"prefill {show_ms(prefill_ms(told))}"
        if told.decode_ms is not None:
            yield f"decode {show_ms(told.decode_ms)}"
        yield f"cached {told.cached_tokens:,} of {told.prompt_tokens:,} prompt tokens"
    elif answer.usage is not None:
        cached = answer.usage.prompt_tokens_details.cached_tokens
        yield f"cached {cached:,} of {answer.usage.prompt_tokens:,} prompt tokens"
    trace = (told.trace_url or told.trace_id) if told is not None else answer.trace_id
    if trace:
        yield f"trace {trace}"


def tokens_per_s(answer: Answer, told: Explanation | None) -> float | None:
    """By the engine's clock where it is known, else by the terminal's."""
    if told is None or not told.decode_ms or told.completion_tokens < 2:
        return answer.tokens_per_s
    return (told.completion_tokens - 1) / told.decode_ms * 1e3


def prefill_ms(told: Explanation) -> float:
    """All chunks of the first sample."""
    return sum(
        (phase.end_ms or phase.start_ms) - phase.start_ms
        for phase in told.phases
        if phase.name == "prefill" and phase.sample == 0
    )


def show_ms(milliseconds: float) -> str:
    """Three digits are enough."""
    if milliseconds >= 100_000:
        return f"{milliseconds / 1e3:,.0f} s"
    if milliseconds >= 1000:
        return f"{milliseconds / 1e3:.1f} s" if milliseconds >= 10_000 else f"{milliseconds / 1e3:.2f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def show_rate(per_s: float) -> str:
    """The same for tokens a second."""
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.1f}"
