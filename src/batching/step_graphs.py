"""Steps captured as CUDA graphs: the launches of a bucket are recorded once and then started together.

A bucket's first step runs eagerly, which compiles what it needs; the second is captured and every later one replayed.
Knows nothing of what a step computes.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import torch

from batching.step_buckets import Bucket

log = structlog.get_logger("quire.engine")

Body = Callable[[], None]
Capture = Callable[[Body], Callable[[], None]]
"""Records what a body launches, without computing it, and gives what launches it again. RuntimeError where it fails."""


class StepGraphs:
    """Owner: the runner thread. A capture that fails is told once; its bucket runs eagerly from then on."""

    def __init__(self, capture: Capture | None) -> None:
        """Without `capture` everything runs eagerly."""
        self._capture = capture
        self._has_run: set[Bucket] = set()
        self._is_refused: set[Bucket] = set()
        self._replays: dict[Bucket, Callable[[], None]] = {}
        self.is_preparing = False
        """A bucket is captured or runs for the first time, which may compile for seconds. Any thread may read it."""
        self.num_prepared = 0
        """How often that was so."""

    def run(self, bucket: Bucket, body: Body) -> None:
        """Do what `body` does. In a bucket that can be captured it must always be the same launches and tensors."""
        self.is_preparing = not self._is_prepared(bucket)
        self.num_prepared += self.is_preparing
        try:
            replay = self._replay(bucket, body)
            if replay is not None:
                replay()
                return
            body()
            self._has_run.add(bucket)
        finally:
            self.is_preparing = False

    def _is_prepared(self, bucket: Bucket) -> bool:
        if bucket in self._replays:
            return True
        may_capture = self._capture is not None and bucket.is_captured and bucket not in self._is_refused
        return bucket in self._has_run and not may_capture

    def _replay(self, bucket: Bucket, body: Body) -> Callable[[], None] | None:
        if bucket in self._replays:
            return self._replays[bucket]
        is_ready = bucket.is_captured and bucket in self._has_run and bucket not in self._is_refused
        if self._capture is None or not is_ready:
            return None
        try:
            replay = self._replays[bucket] = self._capture(body)
        except RuntimeError as error:
            self._is_refused.add(bucket)
            log.warning("step_capture_failed", error=str(error), num_tokens=bucket.num_tokens, num_rows=bucket.num_rows)
            return None
        return replay


class CudaCapture:
    """Captures into one memory pool: the graphs run one after the other, in one stream."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, body: Body) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        try:
            # What other threads ask of the device meanwhile is no part of the graph and is not forbidden.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                body()
        except RuntimeError:
            # The pool still counts as being recorded to, and would refuse the next capture.
            self._pool = torch.cuda.graph_pool_handle()
            raise
        return graph.replay
