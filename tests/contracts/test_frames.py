"""Frames carry every message of ours unchanged, however the bytes are cut, and nothing else."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from contracts import errors, frames
from contracts.engine import EngineInfo, EngineStats
from contracts.errors import MAX_MESSAGE_LEN, OverloadError, QuireError, StartupError
from contracts.followed import EventSlice
from contracts.frames import (
    Abort,
    Admitted,
    Alive,
    AskLook,
    AskRecords,
    Beat,
    BrokenFrame,
    Cancel,
    ChildBound,
    CloseMailbox,
    DeliverJob,
    Deltas,
    Drain,
    EngineBound,
    EngineReady,
    ErrorReport,
    Failed,
    Follow,
    Followed,
    FrameReader,
    Hello,
    JobPosted,
    JobTaken,
    LaunchEngine,
    LaunchWorker,
    Looked,
    MailboxCount,
    MailboxOpened,
    MailboxReplaced,
    Message,
    ModelOrder,
    Models,
    OpenMailbox,
    OrderDone,
    PostJob,
    Progress,
    Records,
    Refused,
    Submit,
    SupervisorBound,
    Tally,
    Unfollow,
    UseModel,
    WorkerBound,
    WorkerReady,
    encode_frame,
)
from contracts.generation import FinishReason, GenerationDelta, GenerationRequest, PhaseTimes, Tenant, TokenLogprob
from contracts.live import EngineLook, LiveCounters, RunningLook, WaitingLook
from contracts.model_catalog import ModelCatalog, ModelProfile, ProfileSampling
from contracts.model_state import ModelPhase, ModelState, ModelTable
from contracts.records import (
    BlockHolder,
    Chunk,
    RecordQuery,
    RequestRecord,
    SampleRecord,
    StepShare,
    Wait,
    WaitCause,
)
from contracts.sampling import SamplingDefaults, SamplingParams
from contracts.settings import EngineSettings, ServerSettings, Settings

texts = st.text(max_size=20)
counts = st.integers(0, 2**32)
token_ids = st.lists(st.integers(0, 2**31 - 1), max_size=20)
seconds = st.floats(allow_nan=False, allow_infinity=False)
logprobs = st.floats(max_value=0.0, allow_nan=False)

requests = st.builds(
    GenerationRequest,
    request_id=texts,
    prompt_token_ids=token_ids,
    sampling=st.builds(
        SamplingParams,
        seed=st.integers(-(2**63), 2**63 - 1),
        logit_bias=st.lists(st.tuples(counts, seconds), max_size=3).map(tuple),
        stop_token_ids=st.lists(counts, max_size=3).map(tuple),
        num_logprobs=st.none() | st.integers(0, 20),
    ),
    timeout_s=st.none() | seconds,
    tenant=st.builds(Tenant, name=texts, weight=seconds, max_concurrency=st.none() | counts),
    reply_recipe=st.binary(max_size=20),
    is_detached=st.booleans(),
)
deltas = st.builds(
    GenerationDelta,
    request_id=texts,
    sample_index=st.integers(0, 7),
    token_ids=token_ids,
    logprobs=st.none()
    | st.lists(
        st.builds(TokenLogprob, logprob=logprobs, top=st.lists(st.tuples(counts, logprobs), max_size=3)), max_size=3
    ),
    finish_reason=st.none() | st.sampled_from(FinishReason),
    error=st.none() | texts,
    times=st.none() | st.builds(PhaseTimes, submitted_s=seconds, finished_s=st.none() | seconds),
)
infos = st.builds(
    EngineInfo,
    **dict.fromkeys(("model_name", "model_path", "architecture", "device", "dtype", "fingerprint"), texts),
    **dict.fromkeys(("vocab_size", "max_model_len", "block_size", "num_blocks", "max_num_seqs"), counts),
    **dict.fromkeys(("max_num_batched_tokens", "num_parameters"), counts),
    eos_token_ids=token_ids,
    sampling_defaults=st.builds(SamplingDefaults, temperature=seconds),
)
stats = st.builds(
    EngineStats,
    **{name: counts for name in EngineStats.__struct_fields__ if name.startswith("num_")},
    step_time_s=seconds,
    is_alive=st.booleans(),
    is_draining=st.booleans(),
)
reports = st.builds(ErrorReport, kind=texts, message=texts, param=st.none() | texts, retry_after_s=st.none() | seconds)
settings = st.builds(
    Settings,
    engine=st.builds(EngineSettings, model=texts, seed=st.none() | counts),
    server=st.builds(ServerSettings, host=texts, api_keys=st.none() | texts),
)

queries = st.builds(
    RecordQuery,
    any_id=st.none() | texts,
    tenant=st.none() | texts,
    latest_submitted_s=st.none() | st.floats(0, 1e6),
    limit=st.integers(0, 100),
)
counts = st.integers(0, 2**31)
waits = st.builds(
    Wait,
    seconds,
    st.none() | seconds,
    st.dictionaries(st.sampled_from(WaitCause), seconds),
    counts,
    counts,
    st.lists(st.builds(BlockHolder, texts, counts, texts), max_size=2),
    st.none() | texts,
    texts,
    counts,
)
samples = st.builds(
    SampleRecord,
    submitted_s=seconds,
    observed_s=seconds,
    waits=st.lists(waits, max_size=2),
    chunks=st.lists(st.builds(Chunk, seconds, seconds, counts, counts, counts), max_size=2),
    decode=st.builds(StepShare, counts, counts, counts, seconds),
    sample_index=counts,
    num_waits=counts,
    num_chunks=counts,
    num_prompt_tokens=counts,
    num_cached_tokens=counts,
    num_output_tokens=counts,
    num_preemptions=counts,
    error=st.none() | texts,
)
records = st.builds(
    RequestRecord,
    num_samples=counts,
    samples=st.lists(samples, max_size=2),
    reply_recipe=st.binary(max_size=20),
    is_detached=st.booleans(),
    queue_position=st.none() | counts,
)
profiles = st.builds(
    ModelProfile,
    alias=texts,
    model=texts,
    is_chat=st.none() | st.booleans(),
    memory_bytes=st.none() | counts,
    sampling=st.builds(ProfileSampling, temperature=st.none() | st.floats(0, 2), max_tokens=st.none() | st.just(7)),
)
catalogs = st.builds(ModelCatalog, profiles=st.lists(profiles, max_size=3).map(tuple), default_alias=texts)
states = st.builds(
    ModelState,
    alias=texts,
    phase=st.sampled_from(ModelPhase),
    stage=texts,
    fraction=st.none() | st.floats(0, 1),
    error=texts,
    socket_path=texts,
    memory_bytes=st.none() | counts,
    load_s=st.none() | seconds,
)
tables = st.builds(
    ModelTable, default_alias=texts, models=st.lists(states, max_size=4).map(tuple), has_started=st.booleans()
)
rows = st.builds(RunningLook, counts, texts, counts, texts, st.booleans(), *[counts] * 7, seconds)
looks = st.builds(
    EngineLook,
    at_s=seconds,
    cells=st.binary(max_size=20),
    shared=st.lists(counts, max_size=3),
    running=st.lists(rows, max_size=2),
    waiting=st.lists(st.builds(WaitingLook, counts, texts, counts, texts, counts, st.booleans(), seconds), max_size=2),
    num_waiting=counts,
    num_blocks=counts,
    num_free_blocks=counts,
    num_cached_blocks=counts,
    counters=st.builds(
        LiveCounters,
        **{name: seconds if name.endswith("_s") else counts for name in LiveCounters.__struct_fields__},
    ),
    took_s=seconds,
)
STRATEGIES: dict[type, SearchStrategy[Message]] = {
    Submit: st.builds(Submit, requests),
    Abort: st.builds(Abort, texts, st.sampled_from(FinishReason)),
    Cancel: st.builds(Cancel, texts, st.none() | texts, st.sampled_from(FinishReason)),
    Follow: st.builds(Follow, counts, texts, st.none() | texts, counts, st.booleans()),
    Unfollow: st.builds(Unfollow, counts),
    Followed: st.builds(
        Followed,
        counts,
        st.none() | st.builds(EventSlice, st.lists(deltas, max_size=3), st.booleans()),
        st.none() | reports,
    ),
    AskLook: st.builds(AskLook, counts),
    Looked: st.builds(Looked, counts, st.none() | looks, st.none() | reports),
    AskRecords: st.builds(AskRecords, st.integers(0, 2**31), queries),
    Tally: st.builds(Tally, st.integers(0, 2**31)),
    Records: st.builds(Records, st.integers(0, 2**31), st.lists(records, max_size=3)),
    Hello: st.builds(Hello, infos, stats),
    Admitted: st.builds(Admitted, texts),
    Refused: st.builds(Refused, texts, reports),
    Deltas: st.builds(Deltas, st.lists(deltas, max_size=4)),
    Beat: st.builds(Beat, stats),
    LaunchEngine: st.builds(LaunchEngine, settings, texts),
    LaunchWorker: st.builds(LaunchWorker, settings, texts, texts, catalogs, tables),
    Drain: st.builds(Drain, seconds, seconds),
    Progress: st.builds(Progress, texts, st.none() | seconds),
    EngineReady: st.builds(EngineReady, infos),
    WorkerReady: st.just(WorkerReady()),
    Failed: st.builds(Failed, reports),
    Alive: st.builds(Alive, counts),
    UseModel: st.builds(UseModel, texts),
    ModelOrder: st.builds(
        ModelOrder, counts, st.sampled_from(["load", "unload", "default"]), texts, st.none() | seconds
    ),
    Models: st.builds(Models, tables),
    OrderDone: st.builds(OrderDone, counts, st.none() | reports),
    OpenMailbox: st.builds(OpenMailbox, counts, texts, texts),
    CloseMailbox: st.builds(CloseMailbox, counts, texts, texts),
    PostJob: st.builds(PostJob, counts, texts, texts, st.binary(max_size=20)),
    JobTaken: st.builds(JobTaken, texts, counts, st.none() | reports),
    MailboxOpened: st.builds(MailboxOpened, counts),
    MailboxReplaced: st.builds(MailboxReplaced, counts),
    DeliverJob: st.builds(DeliverJob, counts, texts, counts, st.binary(max_size=20)),
    JobPosted: st.builds(JobPosted, counts, st.none() | reports),
    MailboxCount: st.builds(MailboxCount, counts),
}
messages = st.one_of(list(STRATEGIES.values()))
UNIONS = [EngineBound, WorkerBound, ChildBound, SupervisorBound]
OURS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, QuireError) and kind.__module__ == errors.__name__
]


def test_every_message_type_is_tested_and_travels_one_way() -> None:
    kinds = [kind for union in UNIONS for kind in get_args(union)]
    assert len(kinds) == len(set(kinds))
    assert set(kinds) == set(STRATEGIES) == set(get_args(Message))


@given(message=messages)
def test_message_arrives_as_it_was_sent(message: Message) -> None:
    assert FrameReader(Message).feed(encode_frame(message)) == [message]


@given(sent=st.lists(messages, max_size=6), data=st.data())
def test_cutting_the_bytes_changes_nothing(sent: list[Message], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(message) for message in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    reader = FrameReader(Message)
    received = [
        message for start, end in pairwise([0, *cuts, len(stream)]) for message in reader.feed(stream[start:end])
    ]
    assert received == sent


def test_single_bytes_are_enough() -> None:
    sent: list[Message] = [Abort("a"), Abort("b" * 300)]
    reader = FrameReader(EngineBound)
    stream = b"".join(encode_frame(message) for message in sent)
    assert [message for byte in stream for message in reader.feed(bytes([byte]))] == sent


def test_minus_infinity_is_a_log_probability() -> None:
    delta = GenerationDelta(
        request_id="a", sample_index=0, token_ids=[1], logprobs=[TokenLogprob(logprob=-math.inf, top=[(1, -math.inf)])]
    )
    assert FrameReader(WorkerBound).feed(encode_frame(Deltas([delta]))) == [Deltas([delta])]


@pytest.mark.parametrize("union", UNIONS)
@given(noise=st.binary(max_size=200))
@example(noise=b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
@example(noise=b"\x00\x00\x00\x00")
@example(noise=b"\x00\x00\x00\x05\xdd\xff\xff\xff\xff")
def test_noise_is_a_broken_frame_or_the_beginning_of_one(union: object, noise: bytes) -> None:
    reader = FrameReader(union)
    try:
        received = reader.feed(noise)
    except BrokenFrame:
        return
    assert all(isinstance(message, get_args(union)) for message in received)


@given(message=messages, payload=st.binary(max_size=100), place=st.floats(0, 1))
def test_garbled_frame_is_a_broken_frame_or_a_message(message: Message, payload: bytes, place: float) -> None:
    """Bytes written over a good frame's payload never raise anything else, and never hang."""
    frame = bytearray(encode_frame(message))
    start = 4 + int(place * (len(frame) - 4))
    frame[start : start + len(payload)] = payload[: len(frame) - start]
    try:
        received = FrameReader(Message).feed(bytes(frame))
    except BrokenFrame:
        return
    assert len(received) == 1


@given(size=st.integers(1001, 2**32 - 1))
def test_length_over_the_limit_is_refused_before_anything_is_kept(size: int) -> None:
    with pytest.raises(BrokenFrame, match=f"{size} bytes is over the limit of 1000"):
        FrameReader(EngineBound, max_bytes=1000).feed(size.to_bytes(4, "big"))


@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
def test_deep_nesting_is_a_broken_frame(opening: bytes, depth: int) -> None:
    payload = opening * depth
    with pytest.raises(BrokenFrame):
        FrameReader(EngineBound).feed(len(payload).to_bytes(4, "big") + payload)


@pytest.mark.parametrize(
    ("union", "message"),
    [(EngineBound, Alive()), (WorkerBound, Abort("a")), (ChildBound, WorkerReady()), (SupervisorBound, Abort("a"))],
)
def test_message_of_another_direction_is_a_broken_frame(union: object, message: Message) -> None:
    with pytest.raises(BrokenFrame):
        FrameReader(union).feed(encode_frame(message))


def test_messages_before_the_broken_one_of_an_earlier_read_are_kept() -> None:
    reader = FrameReader(EngineBound)
    assert reader.feed(encode_frame(Abort("a"))) == [Abort("a")]
    with pytest.raises(BrokenFrame):
        reader.feed(b"\xff\xff\xff\xff")


def test_message_over_the_limit_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(ValueError, match=r"Abort frame of [0-9]+ bytes is over the limit of 100"):
        encode_frame(Abort("x" * 101))


@pytest.mark.parametrize("kind", OURS)
def test_error_arrives_as_the_same_class_with_all_it_says(kind: type[QuireError]) -> None:
    error = kind("The value is 7, the limit 5; lower it.", param="n", retry_after_s=2.5)
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(ErrorReport.of(error)), type=ErrorReport).to_error()
    assert type(arrived) is kind
    assert (arrived.message, arrived.param, arrived.retry_after_s) == (error.message, "n", 2.5)
    assert (arrived.status, arrived.code, arrived.should_retry) == (kind.status, kind.code, kind.should_retry)


def test_startup_error_keeps_its_exit_code() -> None:
    codes = {kind: kind.exit_code for kind in OURS if issubclass(kind, StartupError)}
    arrived = [ErrorReport.of(kind("why")).to_error() for kind in codes]
    assert [getattr(error, "exit_code", None) for error in arrived] == list(codes.values())
    assert len(codes) == 6


def test_error_of_a_class_from_elsewhere_arrives_as_its_nearest_relative() -> None:
    class Local(OverloadError):
        """Known to this process alone."""

    assert type(ErrorReport.of(Local("later", retry_after_s=1.0)).to_error()) is OverloadError


@pytest.mark.parametrize("kind", ["", "os", "annotations", "clip", "MAX_MESSAGE_LEN", "Exception", "__name__"])
def test_report_that_names_no_error_arrives_as_one(kind: str) -> None:
    assert type(ErrorReport(kind=kind, message="a").to_error()) is QuireError


def test_longest_message_is_not_cut_again() -> None:
    error = QuireError("x" * 10_000)
    assert ErrorReport.of(error).to_error().message == error.message
    assert len(error.message) == MAX_MESSAGE_LEN
