"""The line below an answer says what the server measured, and what the terminal saw where it could not be asked."""

from __future__ import annotations

import pytest

from contracts.explanation import Explanation, Phase
from contracts.openai.common import PromptTokensDetails, Usage
from service.terminal.answer_stream import Answer
from service.terminal.figures import figures_line, show_ms, show_rate

USAGE = Usage(
    prompt_tokens=20, completion_tokens=11, total_tokens=31, prompt_tokens_details=PromptTokensDetails(cached_tokens=16)
)


def read(*, finish_reason: str = "stop") -> Answer:
    """Eleven tokens, the first after 0.25 s, the others in 2 s."""
    answer = Answer()
    answer.started_s, answer.first_s, answer.last_s = 10.0, 10.25, 12.25
    answer.usage, answer.finish_reason, answer.num_pieces = USAGE, finish_reason, 9
    return answer


def explanation(trace_url: str | None = None) -> Explanation:
    phases = [
        Phase(name="queue", sample=0, start_ms=0.0, end_ms=5.0, details={}),
        Phase(name="prefill", sample=0, start_ms=5.0, end_ms=105.0, details={}),
        Phase(name="prefill", sample=1, start_ms=5.0, end_ms=905.0, details={}),
        Phase(name="decode", sample=0, start_ms=105.0, end_ms=1105.0, details={}),
    ]
    return Explanation(
        id="chatcmpl-1",
        request_id="chat-1",
        trace_id="ab" * 16,
        trace_url=trace_url,
        model="pico",
        key="",
        submitted=0.0,
        status="completed",
        finish_reason="stop",
        queue_position=None,
        detached=False,
        total_ms=1105.0,
        queue_ms=5.0,
        ttft_ms=105.0,
        decode_ms=1000.0,
        prompt_tokens=20,
        cached_tokens=16,
        completion_tokens=11,
        preemptions=0,
        main_cause="decode",
        sentences=[],
        phases=phases,
    )


def test_server_says_where_the_time_went() -> None:
    assert figures_line(read(), explanation()) == (
        "11 tokens · 10.0 tok/s · first token 250 ms · queue 5.0 ms · prefill 100 ms · decode 1.00 s · "
        f"cached 16 of 20 prompt tokens · trace {'ab' * 16}"
    )


def test_link_goes_before_the_id() -> None:
    assert figures_line(read(), explanation("http://j/trace/1")).endswith("trace http://j/trace/1")


def test_terminal_knows_some_of_it_alone() -> None:
    assert figures_line(read(finish_reason="length"), None) == (
        "cut at the token limit · 11 tokens · 5.0 tok/s · first token 250 ms · cached 16 of 20 prompt tokens"
    )


def test_answer_that_never_came_has_no_speed() -> None:
    assert figures_line(Answer(), None) == "0 tokens"


@pytest.mark.parametrize(
    ("milliseconds", "told"),
    [(0.04, "0.0 ms"), (9.96, "10.0 ms"), (250.4, "250 ms"), (1500, "1.50 s"), (12_340, "12.3 s"), (400_000, "400 s")],
)
def test_three_digits_are_enough(milliseconds: float, told: str) -> None:
    assert show_ms(milliseconds) == told
    assert (show_rate(7.25), show_rate(1234.5)) == ("7.2", "1,234")
