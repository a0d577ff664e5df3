"""A bucket runs once eagerly, is captured, and replayed; one that cannot be captured stays eager."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from batching.step_buckets import Bucket
from batching.step_graphs import StepGraphs


class FakeCapture:
    """Records what is done in which way."""

    def __init__(self, failing: set[str] | None = None) -> None:
        self.events: list[str] = []
        self._failing = failing or set()
        self.is_capturing = False

    def body(self, name: str) -> None:
        self.events.append(f"captured {name}" if self.is_capturing else f"ran {name}")

    def __call__(self, body: Callable[[], None]) -> Callable[[], None]:
        self.is_capturing = True
        body()
        self.is_capturing = False
        name = self.events[-1].removeprefix("captured ")
        if name in self._failing:
            raise RuntimeError("operation not permitted when stream is capturing")
        return lambda: self.events.append(f"replayed {name}")


def bucket(num_rows: int, *, is_captured: bool = True) -> Bucket:
    return Bucket(num_tokens=num_rows, num_rows=num_rows, has_chunks=False, is_split=False, is_captured=is_captured)


def test_first_eagerly_then_captured_then_replayed() -> None:
    capture = FakeCapture()
    graphs = StepGraphs(capture)
    for _ in range(3):
        graphs.run(bucket(1), partial(capture.body, "a"))
    assert capture.events == ["ran a", "captured a", "replayed a", "replayed a"]


def test_every_bucket_has_its_own_graph() -> None:
    capture = FakeCapture()
    graphs = StepGraphs(capture)
    for name, num_rows in (("a", 1), ("b", 2), ("b", 2), ("a", 1), ("b", 2)):
        graphs.run(bucket(num_rows), partial(capture.body, name))
    assert capture.events == ["ran a", "ran b", "captured b", "replayed b", "captured a", "replayed a", "replayed b"]


def test_a_step_that_is_not_to_be_captured_runs_eagerly() -> None:
    capture = FakeCapture()
    graphs = StepGraphs(capture)
    for _ in range(3):
        graphs.run(bucket(1, is_captured=False), partial(capture.body, "a"))
    assert capture.events == ["ran a"] * 3


def test_without_capture_everything_runs_eagerly() -> None:
    capture = FakeCapture()
    graphs = StepGraphs(None)
    for _ in range(3):
        graphs.run(bucket(1), partial(capture.body, "a"))
    assert capture.events == ["ran a"] * 3


def test_a_failed_capture_is_told_once_and_its_bucket_stays_eager() -> None:
    capture = FakeCapture({"a"})
    graphs = StepGraphs(capture)
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            graphs.run(bucket(1), partial(capture.body, "a"))
        graphs.run(bucket(2), partial(capture.body, "b"))
        graphs.run(bucket(2), partial(capture.body, "b"))
    assert capture.events == ["ran a", "captured a", "ran a", "ran a", "ran a", "ran b", "captured b", "replayed b"]
    assert [(entry["event"], entry["num_rows"]) for entry in logs] == [("step_capture_failed", 1)]


def test_an_eager_step_that_raises_is_not_taken_for_compiled() -> None:
    capture = FakeCapture()
    graphs = StepGraphs(capture)
    failures: list[str] = []

    def fail() -> None:
        raise ValueError("no room")

    try:
        graphs.run(bucket(1), fail)
    except ValueError as error:
        failures.append(str(error))
    graphs.run(bucket(1), partial(capture.body, "a"))
    assert failures == ["no room"]
    assert capture.events == ["ran a"]


def test_first_run_and_capture_of_a_size_are_told_as_preparation() -> None:
    capture = FakeCapture({"b"})
    graphs = StepGraphs(capture)
    told: list[bool] = []

    def body(name: str) -> None:
        told.append(graphs.is_preparing)
        capture.body(name)

    counts = []
    for name, num_rows in (("a", 1), ("a", 1), ("a", 1), ("b", 2), ("b", 2), ("b", 2)):
        graphs.run(bucket(num_rows), partial(body, name))
        counts.append(graphs.num_prepared)
    assert counts == [1, 2, 2, 3, 4, 4]
    assert not graphs.is_preparing
    assert told.count(False) == 1, "the step of the bucket whose capture has failed, once that is known"
