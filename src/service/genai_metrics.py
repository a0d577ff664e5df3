"""The metrics of the GenAI conventions, recorded once for each request; without --otlp-metrics all of it does nothing.

`/metrics` is made from the engine's own sums and knows more; these are for collectors that are pushed to.
"""

from __future__ import annotations

import functools

import msgspec
from opentelemetry import metrics

from contracts.generation import PhaseTimes
from service import genai

DURATION_BOUNDS_S = [0.01 * 2**power for power in range(14)]
FIRST_TOKEN_BOUNDS_S = [
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
]
PER_TOKEN_BOUNDS_S = [
    *(0.001, 0.0025, 0.005, 0.0075),
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
]
"""The conventions begin at 0.01, which is too coarse for small models."""
TOKEN_BOUNDS = [4**power for power in range(14)]
_SCOPE = "quire.requests"


class RequestFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the metrics need of one request."""

    operation: str
    model: str
    total_s: float
    prompt_tokens: int
    completion_tokens: int
    times: PhaseTimes | None
    error_type: str | None


class _Instruments:
    """Made on first use: by then the provider is installed, if there will be one."""

    def __init__(self) -> None:
        meter = metrics.get_meter(_SCOPE)
        make = meter.create_histogram
        self.duration = make(
            "gen_ai.server.request.duration",
            "s",
            "Whole requests.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDS_S,
        )
        self.first_token = make(
            "gen_ai.server.time_to_first_token",
            "s",
            "From submission to the first token.",
            explicit_bucket_boundaries_advisory=FIRST_TOKEN_BOUNDS_S,
        )
        self.per_token = make(
            "gen_ai.server.time_per_output_token",
            "s",
            "Between tokens, after the first one.",
            explicit_bucket_boundaries_advisory=PER_TOKEN_BOUNDS_S,
        )
        self.tokens = make(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of a request, by type.",
            explicit_bucket_boundaries_advisory=TOKEN_BOUNDS,
        )


@functools.cache
def _instruments() -> _Instruments:
    return _Instruments()


def record(figures: RequestFigures) -> None:
    """Count one request that has ended."""
    instruments = _instruments()
    attributes = {
        genai.OPERATION_NAME: figures.operation,
        genai.PROVIDER_NAME: genai.PROVIDER,
        genai.REQUEST_MODEL: figures.model,
        genai.RESPONSE_MODEL: figures.model,
    }
    ended = attributes if figures.error_type is None else {**attributes, genai.ERROR_TYPE: figures.error_type}
    instruments.duration.record(figures.total_s, ended)
    instruments.tokens.record(figures.prompt_tokens, {**attributes, genai.KIND_OF_TOKENS: "input"})
    instruments.tokens.record(figures.completion_tokens, {**attributes, genai.KIND_OF_TOKENS: "output"})
    times = figures.times
    if times is None or times.first_token_s is None:
        return
    instruments.first_token.record(times.first_token_s - times.submitted_s, attributes)
    if times.finished_s is not None and figures.completion_tokens > 1:
        seconds = (times.finished_s - times.first_token_s) / (figures.completion_tokens - 1)
        instruments.per_token.record(seconds, attributes)
