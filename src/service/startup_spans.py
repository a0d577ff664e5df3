"""Tells the start of an engine as a trace: process, import, and every stage of loading; made when it is over."""

from __future__ import annotations

import time
from itertools import pairwise

from opentelemetry import trace
from opentelemetry.context import Context

from contracts.engine import EngineInfo
from service.clocks import unix_offset_ns

_SCOPE = "quire.engine"
IMPORTING = "importing"
PROCESS = "starting the process"


class StartupLog:
    """Notes when each stage began; a stage ends where the next one begins. Any thread may call `begin`.

    `launched_s`: when the process was launched, on the machine's monotonic clock.
    """

    def __init__(self, launched_s: float) -> None:
        self._begun: list[tuple[str, float]] = [(PROCESS, launched_s)]
        self._ended_s: float | None = None

    def begin(self, stage: str) -> None:
        """A stage begins, unless it is the one that is under way."""
        if self._begun[-1][0] != stage:
            self._begun.append((stage, time.monotonic()))

    def end(self) -> None:
        """The last stage is over: requests are served."""
        self._ended_s = time.monotonic()

    def stages(self) -> list[tuple[str, float, float]]:
        """Name, beginning and end of each, in order."""
        ended_s = time.monotonic() if self._ended_s is None else self._ended_s
        marks = [*self._begun, ("", ended_s)]
        return [(name, began_s, later_s) for (name, began_s), (_, later_s) in pairwise(marks)]

    def emit(self, info: EngineInfo) -> None:
        """Make the spans: one for the start, one below it for each stage."""
        stages = self.stages()
        offset_ns = unix_offset_ns()
        tracer = trace.get_tracer(_SCOPE)
        root = tracer.start_span(
            "engine start",
            Context(),
            start_time=int(stages[0][1] * 1e9) + offset_ns,
            attributes={
                "gen_ai.request.model": info.model_name,
                "quire.device": info.device,
                "quire.dtype": info.dtype,
                "quire.parameters": info.num_parameters,
                "quire.kv_blocks": info.num_blocks,
            },
        )
        context = trace.set_span_in_context(root, Context())
        for name, began_s, ended_s in stages:
            end_ns = (
                int(ended_s * 1e9) + offset_ns - 1000
            )  # phases that touch are passed over by Jaeger's critical path
            if end_ns > (start_ns := int(began_s * 1e9) + offset_ns):
                tracer.start_span(name, context, start_time=start_ns).end(end_ns)
        root.end(int(stages[-1][2] * 1e9) + offset_ns)
