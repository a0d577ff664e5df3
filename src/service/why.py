"""Turns the engine's record of a request into phases, sentences and a cause. Pure; knows neither HTTP nor terminals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from contracts.explanation import Explanation, Phase
from contracts.finish_reason import FinishReason
from contracts.records import RequestRecord, SampleRecord, Wait, WaitCause

_CAUSE_NAMES = {
    WaitCause.STEP: "a step in flight",
    WaitCause.BLOCKS: "KV blocks exhausted",
    WaitCause.BATCH: "the batch was full",
    WaitCause.BUDGET: "the token budget",
    WaitCause.SHARE: "the fair share of other keys",
    WaitCause.PRIORITY: "requests of higher priority",
    WaitCause.SIBLING: "sample 0 of the same request",
}
_CAUSE_WORDS = {
    WaitCause.STEP: "while the step that was running when it came ended",
    WaitCause.BLOCKS: "because the KV blocks were exhausted",
    WaitCause.BATCH: "because as many sequences ran as --max-num-seqs allows",
    WaitCause.BUDGET: "because the token budget of the steps went to others",
    WaitCause.SHARE: "because its turn went to other keys, which had had less than their share",
    WaitCause.PRIORITY: "because its turn went to later requests of higher priority",
    WaitCause.SIBLING: "for sample 0 of its request, whose prompt it shares",
}
MIN_SHARE_TOLD = 0.01
"""Of a wait, below which a cause is not worth a sentence."""


ANOTHER = "a request of another key"


def explain(record: RequestRecord, unix_offset_s: float, *, is_all_shown: bool = True) -> Explanation:
    """Everything that can be said of one request; `record` has at least one sample.

    `unix_offset_s` added to a time of the record gives Unix time. Without `is_all_shown`, requests of other tenants
    have no ids.
    """
    if not is_all_shown:
        record = with_own_ids_only(record)
    origin_s = record.submitted_s
    first = min(record.samples, key=lambda sample: sample.sample_index)
    end_s = max(sample.latest_s for sample in record.samples)
    queue_s = sum(_seconds(wait, first) for wait in first.waits)
    first_tokens_s = [sample.first_token_s for sample in record.samples if sample.first_token_s is not None]
    first_token_s = min(first_tokens_s, default=None)
    return Explanation(
        id=record.request_id,
        request_id=record.client_request_id,
        trace_id=record.trace_id or None,
        model=record.model,
        key=record.tenant,
        submitted=round(origin_s + unix_offset_s, 6),
        status=status_of(record),
        finish_reason=_ending_of(record) if record.is_finished else None,
        queue_position=record.queue_position,
        detached=record.is_detached,
        total_ms=_ms(end_s - origin_s),
        queue_ms=_ms(queue_s),
        ttft_ms=None if first_token_s is None else _ms(first_token_s - origin_s),
        decode_ms=None if first_token_s is None else _ms(end_s - first_token_s),
        prompt_tokens=first.num_prompt_tokens,
        cached_tokens=first.num_cached_tokens,
        completion_tokens=sum(sample.num_output_tokens for sample in record.samples),
        preemptions=sum(sample.num_preemptions for sample in record.samples),
        main_cause=main_cause(first),
        sentences=list(sentences(record, first)),
        phases=[phase for sample in record.samples for phase in phases(sample, origin_s)],
    )


def with_own_ids_only(record: RequestRecord) -> RequestRecord:
    """The record without the ids of other tenants' requests."""
    replace = msgspec.structs.replace
    samples = []
    for sample in record.samples:
        waits = []
        for wait in sample.waits:
            holders = [
                holder if holder.tenant == record.tenant else replace(holder, request_id=ANOTHER)
                for holder in wait.holders
            ]
            is_foreign = wait.preempted_by is not None and wait.preempter_tenant != record.tenant
            waits.append(replace(wait, holders=holders, preempted_by=ANOTHER if is_foreign else wait.preempted_by))
        samples.append(replace(sample, waits=waits))
    return replace(record, samples=samples)


Status = Literal["queued", "running", "completed", "failed", "cancelled"]


def status_of(record: RequestRecord) -> Status:
    """What it does, or how it ended: one sample that failed or was cut off makes the whole of it so."""
    if not record.is_finished:
        return "queued" if record.is_waiting else "running"
    reasons = {sample.finish_reason for sample in record.samples}
    if reasons & {FinishReason.ERROR, FinishReason.LOST, FinishReason.DEADLINE}:
        return "failed"
    return "cancelled" if reasons & {FinishReason.ABORT, FinishReason.CANCELLED} else "completed"


def _ending_of(record: RequestRecord) -> str:
    reasons = {sample.finish_reason.value for sample in record.samples if sample.finish_reason is not None}
    return ", ".join(sorted(reasons))


def main_cause(sample: SampleRecord) -> str:
    """The largest part of its time."""
    parts: dict[str, float] = {}
    for wait in sample.waits:
        for cause, seconds in wait.seconds.items():
            name = f"{'preempted' if wait.preempted_by else 'waiting'}: {_CAUSE_NAMES[cause]}"
            parts[name] = parts.get(name, 0.0) + seconds
    parts["prefill"] = sum(chunk.ended_s - chunk.began_s for chunk in sample.chunks)
    parts["decode"] = _decode_s(sample)
    name, seconds = max(parts.items(), key=lambda part: part[1])
    return name if seconds > 0.0 else "nothing took time"


def phases(sample: SampleRecord, origin_s: float) -> Iterator[Phase]:
    """In the order of their beginnings; a phase ends where the next of its sample begins, or before."""
    found: list[Phase] = []
    for wait in sample.waits:
        details: dict[str, int | float | str] = {
            f"{cause.value}_ms": _ms(seconds) for cause, seconds in wait.seconds.items()
        }
        details |= {"ahead": wait.num_ahead, "overtaken_by": wait.num_overtaken_by}
        if wait.holders:
            details["holders"] = ", ".join(f"{holder.request_id}: {holder.num_blocks}" for holder in wait.holders)
        if wait.preempted_by is not None:
            details |= {"preempted_by": wait.preempted_by, "lost_tokens": wait.num_lost_tokens}
        name = "queue" if wait.preempted_by is None else "preempted"
        end_s = _end_of(wait, sample)
        end = None if end_s is None else end_s - origin_s
        found.append(_phase(name, sample, wait.began_s - origin_s, end, details))
    for chunk in sample.chunks:
        details = {
            "tokens": chunk.num_tokens,
            "batch_size": chunk.num_rows,
            "prefill_tokens_of_others": chunk.num_other_prefill_tokens,
        }
        found.append(_phase("prefill", sample, chunk.began_s - origin_s, chunk.ended_s - origin_s, details))
    found += _decode_phases(sample, origin_s)
    yield from sorted(found, key=lambda phase: phase.start_ms)


def _decode_phases(sample: SampleRecord, origin_s: float) -> Iterator[Phase]:
    """From the first token to the end, cut where it was preempted and computed again; the first has the numbers."""
    first_s = sample.first_token_s
    if first_s is None or not sample.decode.num_steps:
        return
    share = sample.decode
    details: dict[str, int | float | str] = {
        "steps": share.num_steps,
        "mean_batch_size": round(share.num_rows / share.num_steps, 1),
        "step_ms": _ms(share.step_s / share.num_steps),
        "prefill_tokens_of_others": share.num_prefill_tokens,
    }
    begin_s: float | None = first_s
    for away_s, back_s in _stays_away(sample, first_s):
        if begin_s is not None and away_s > begin_s:
            yield _phase("decode", sample, begin_s - origin_s, away_s - origin_s, details)
            details = {}
        begin_s = back_s
    end_s = sample.finished_s
    if begin_s is not None and (end_s is None or end_s > begin_s):
        yield _phase("decode", sample, begin_s - origin_s, None if end_s is None else end_s - origin_s, details)


def _stays_away(sample: SampleRecord, first_s: float) -> list[tuple[float, float | None]]:
    """Since the first token: each wait with the chunks that are computed again after it, between which none decodes."""
    parts = [(wait.began_s, _end_of(wait, sample), True) for wait in sample.waits if wait.began_s >= first_s]
    parts += [(chunk.began_s, chunk.ended_s, False) for chunk in sample.chunks if chunk.began_s >= first_s]
    stays: list[tuple[float, float | None]] = []
    for began_s, ended_s, is_wait in sorted(parts, key=lambda part: part[0]):
        if is_wait or not stays:
            stays.append((began_s, ended_s))
        else:
            stays[-1] = (stays[-1][0], ended_s)
    return stays


def sentences(record: RequestRecord, sample: SampleRecord) -> Iterator[str]:
    """What a person wants to hear, the whole first."""
    yield _summary(record, sample)
    if record.queue_position is not None:
        yield f"To be let into the batch before it: {record.queue_position}."
    for wait in sample.waits:
        yield from _tell_wait(wait, sample, record.request_id)
    if sample.num_waits > len(sample.waits):
        yield f"It waited {sample.num_waits} times in all."
    yield from _tell_prefill(sample)
    yield from _tell_decode(sample)
    if sample.error is not None:
        yield "The engine failed on it; the server's log says how."


def _summary(record: RequestRecord, sample: SampleRecord) -> str:
    total_ms = _ms(max(one.latest_s for one in record.samples) - record.submitted_s)
    ended = f"Ended ({_ending_of(record)}) after" if record.is_finished else f"Still {status_of(record)} after"
    tokens = sum(one.num_output_tokens for one in record.samples)
    samples = f" in {record.num_samples} samples" if record.num_samples > 1 else ""
    cached = f", {sample.num_cached_tokens} of them from the prefix cache" if sample.num_cached_tokens else ""
    return (
        f"{ended} {_told(total_ms)}: {sample.num_prompt_tokens} prompt tokens{cached}, {tokens} generated{samples}. "
        f"Most of the time: {main_cause(sample)}."
    )


def _tell_wait(wait: Wait, sample: SampleRecord, own_id: str) -> Iterator[str]:
    total_s = _seconds(wait, sample)
    if wait.preempted_by is not None:
        # The youngest gives way, also where it is itself the one, or the sample of one, that misses a block.
        by_another = f"by {wait.preempted_by}, which needed its blocks"
        reason = "as no block was left for its own request" if wait.preempted_by == own_id else by_another
        yield (
            f"Preempted {reason}: {wait.num_lost_tokens} computed tokens were lost, and it waited "
            f"{_told(_ms(total_s))} for its place."
        )
    parts = [
        f"{_told(_ms(seconds))} {_CAUSE_WORDS[cause]}"
        for cause, seconds in sorted(wait.seconds.items(), key=lambda part: -part[1])
        if seconds > MIN_SHARE_TOLD * total_s
    ]
    if parts:
        yield f"{'Of this' if wait.preempted_by else 'Waited'} {', '.join(parts)}."
    if wait.holders:
        told = ", ".join(f"{holder.request_id} ({holder.num_blocks})" for holder in wait.holders)
        yield f"Most blocks were held by {told}."
    if wait.num_ahead:
        yield f"Ahead of it in the queue: {wait.num_ahead}."
    if wait.num_overtaken_by:
        yield f"Let in before it though they came later: {wait.num_overtaken_by}."


def _tell_prefill(sample: SampleRecord) -> Iterator[str]:
    chunks = sample.chunks
    if not chunks:
        return
    seconds = sum(chunk.ended_s - chunk.began_s for chunk in chunks)
    tokens = sum(chunk.num_tokens for chunk in chunks)
    others = sum(chunk.num_other_prefill_tokens for chunk in chunks)
    rows = max(chunk.num_rows for chunk in chunks)
    parts = f"{sample.num_chunks} chunks" if sample.num_chunks > 1 else "one chunk"
    shared = f", beside up to {rows - 1} other sequences" if rows > 1 else ""
    and_others = f" and {others} prefill tokens of theirs" if others else ""
    yield f"Prefill took {_told(_ms(seconds))} for {tokens} tokens in {parts}{shared}{and_others}."


def _tell_decode(sample: SampleRecord) -> Iterator[str]:
    share = sample.decode
    if not share.num_steps:
        return
    step_ms = _ms(_decode_s(sample) / share.num_steps)
    model_ms = _ms(share.step_s / share.num_steps)
    others = (
        f"; {share.num_prefill_tokens} prefill tokens of other requests ran in these steps"
        if share.num_prefill_tokens
        else ""
    )
    told = f"{share.num_steps} steps of {_told(step_ms)} ({_told(model_ms)} of it in the model)"
    shared = f"shared by {share.num_rows / share.num_steps:.1f} sequences on average"
    yield f"Decoding took {_told(_ms(_decode_s(sample)))}: {told}, {shared}{others}."


def _decode_s(sample: SampleRecord) -> float:
    """From the first token to the end, without the stays in the queue and the recomputing between."""
    if sample.first_token_s is None:
        return 0.0
    first_s = sample.first_token_s
    away_s = sum(_seconds(wait, sample) for wait in sample.waits if wait.began_s >= first_s)
    again_s = sum(chunk.ended_s - chunk.began_s for chunk in sample.chunks if chunk.began_s >= first_s)
    return max(0.0, sample.latest_s - first_s - away_s - again_s)


def _seconds(wait: Wait, sample: SampleRecord) -> float:
    end_s = _end_of(wait, sample)
    return (sample.observed_s if end_s is None else end_s) - wait.began_s


def _end_of(wait: Wait, sample: SampleRecord) -> float | None:
    return sample.finished_s if wait.ended_s is None else wait.ended_s


def _phase(
    name: str, sample: SampleRecord, start_s: float, end_s: float | None, details: dict[str, int | float | str]
) -> Phase:
    return Phase(
        name=name,
        sample=sample.sample_index,
        start_ms=_ms(start_s),
        end_ms=None if end_s is None else _ms(end_s),
        details=details,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _told(milliseconds: float) -> str:
    """For people: 3 digits are enough."""
    if milliseconds >= 10_000:
        return f"{milliseconds / 1e3:,.1f} s"
    return f"{milliseconds:,.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
