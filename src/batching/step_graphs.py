"""CUDA graphs of steps: the launches of a bucket are recorded once and then started together.

A bucket's first step runs eagerly, which compiles what it needs; the second is captured and every later one replayed.
All graphs share one memory pool: they run one after the other in one stream. Knows nothing of what a step computes.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import torch

from batching.step_buckets import Bucket

log = structlog.get_logger("quire.engine")


class StepGraphs:
    """Owner: the runner thread. A capture that fails is told once; its bucket runs eagerly from then on."""

    def __init__(self, *, is_enabled: bool) -> None:
        self._is_enabled = is_enabled
        self._has_run: set[Bucket] = set()
        self._is_refused: set[Bucket] = set()
        self._graphs: dict[Bucket, torch.cuda.CUDAGraph] = {}

    @property
    def num_graphs(self) -> int:
        return len(self._graphs)

    def run(self, bucket: Bucket, body: Callable[[], None]) -> None:
        """Do what `body` does. Of a bucket that can be captured it must always be the same launches and tensors."""
        graph = self._graph(bucket, body)
        if graph is None:
            body()
            self._has_run.add(bucket)
        else:
            graph.replay()

    def _graph(self, bucket: Bucket, body: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        can_capture = self._is_enabled and bucket.is_captured and bucket not in self._is_refused
        if not can_capture or bucket not in self._has_run:
            return None
        if bucket not in self._graphs:
            try:
                self._graphs[bucket] = self._captured(body)
            except RuntimeError as error:
                self._is_refused.add(bucket)
                log.warning("step_capture_failed", error=str(error), num_tokens=bucket.num_tokens)
                return None
        return self._graphs[bucket]

    def _captured(self, body: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Nothing is computed here; what other threads do meanwhile is no part of it and is not forbidden."""
        graph = torch.cuda.CUDAGraph()
        first = next(iter(self._graphs.values()), None)
        pool = None if first is None else first.pool()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            body()
        return graph
