"""What was not given back: compares the idle server before and after the load. Pure arithmetic over samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ops.checks import Check
from ops.soak.clients import Ending, Outcome
from ops.soak.gauges import Gauges, pick_idle_gauges
from ops.soak.processes import ProcessSample, TreeSample

S_PER_HOUR = 3600.0
MAX_SLOPE_PERCENT_PER_HOUR = 1.0
MIN_JUDGED_S = 900.0
"""The last half of a shorter run cannot show one per cent an hour; there only the rise itself is judged."""
MAX_SHORT_RISE_PERCENT = 5.0
MAX_WRONG_LISTED = 5


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """A server that serves nothing: its processes and its own numbers."""

    tree: TreeSample
    gauges: Gauges


class MemorySlope(msgspec.Struct, frozen=True, kw_only=True):
    """A straight line through the resident memory of the last half of the samples."""

    span_s: float
    mean_bytes: float
    bytes_per_hour: float

    @property
    def percent_per_hour(self) -> float:
        """Of the mean."""
        return 100.0 * self.bytes_per_hour / self.mean_bytes

    @property
    def rise_percent(self) -> float:
        """Over the span."""
        return self.percent_per_hour * self.span_s / S_PER_HOUR


def fit_slope(samples: Sequence[TreeSample]) -> MemorySlope | None:
    """The least-squares line through the last half of the time; None for fewer than three samples in it."""
    if not samples:
        return None
    middle_s = (samples[0].at_s + samples[-1].at_s) / 2
    half = [sample for sample in samples if sample.at_s >= middle_s]
    if len(half) < 3 or half[-1].at_s <= half[0].at_s:
        return None
    mean_s = sum(sample.at_s for sample in half) / len(half)
    mean_bytes = sum(sample.rss_bytes for sample in half) / len(half)
    covariance = sum((sample.at_s - mean_s) * (sample.rss_bytes - mean_bytes) for sample in half)
    variance = sum((sample.at_s - mean_s) ** 2 for sample in half)
    return MemorySlope(
        span_s=half[-1].at_s - half[0].at_s,
        mean_bytes=mean_bytes,
        bytes_per_hour=S_PER_HOUR * covariance / variance,
    )


def judge_memory(slope: MemorySlope | None) -> Check:
    """Under one per cent an hour; in a run too short for that, under five per cent in all."""
    if slope is None:
        return Check(name="memory", wanted="three samples", found="fewer", is_ok=False)
    slope_text = f"{slope.percent_per_hour:+.2f} %/h"
    if slope.span_s >= MIN_JUDGED_S:
        wanted = f"under {MAX_SLOPE_PERCENT_PER_HOUR:g} %/h over the last half"
        is_ok = slope.percent_per_hour < MAX_SLOPE_PERCENT_PER_HOUR
        return Check(name="memory", wanted=wanted, found=slope_text, is_ok=is_ok)
    return Check(
        name="memory",
        wanted=f"under {MAX_SHORT_RISE_PERCENT:g} % more in a last half of {slope.span_s:.0f} s",
        found=f"{slope.rise_percent:+.2f} % ({slope_text}, too short a run to judge that)",
        is_ok=slope.rise_percent < MAX_SHORT_RISE_PERCENT,
    )


def judge_outcomes(outcomes: Sequence[Outcome]) -> Iterator[Check]:
    """No answer may be wrong, and some must have finished."""
    wrong = [outcome.detail for outcome in outcomes if outcome.ending is Ending.WRONG]
    num_finished = sum(outcome.ending is Ending.FINISHED for outcome in outcomes)
    told = "; ".join(sorted(set(wrong))[:MAX_WRONG_LISTED])
    yield Check(name="wrong answers", wanted="0", found=f"{len(wrong)} {told}".strip(), is_ok=not wrong)
    yield Check(name="finished answers", wanted="some", found=str(num_finished), is_ok=num_finished > 0)


def compare_idle(before: Idle, after: Idle) -> Iterator[Check]:
    """Processes, descriptors and threads of each, and the server's own gauges."""
    old = {process.pid: process for process in before.tree.processes}
    new = {process.pid: process for process in after.tree.processes}
    yield Check(
        name="processes",
        wanted=f"the same {len(old)}",
        found=_describe_changes(old, new) or f"the same {len(new)}",
        is_ok=old.keys() == new.keys(),
    )
    for pid in sorted(old.keys() & new.keys()):
        for name, was, now in (
            ("file descriptors", old[pid].num_fds, new[pid].num_fds),
            ("threads", old[pid].num_threads, new[pid].num_threads),
        ):
            yield Check(
                name=f"{name} of {pid}, {old[pid].name}", wanted=f"at most {was}", found=str(now), is_ok=now <= was
            )
    for name, value in pick_idle_gauges(before.gauges).items():
        found = after.gauges.get(name)
        told = "nothing" if found is None else f"{found:g}"
        yield Check(name=name, wanted=f"{value:g}", found=told, is_ok=found == value)


def _describe_changes(old: dict[int, ProcessSample], new: dict[int, ProcessSample]) -> str:
    gone = [f"gone: {old[pid].name} ({pid})" for pid in sorted(old.keys() - new.keys())]
    come = [f"come: {new[pid].name} ({pid})" for pid in sorted(new.keys() - old.keys())]
    return ", ".join(gone + come)
