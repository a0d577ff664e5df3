"""What travels between the processes: typed messages, each in one length-prefixed MessagePack frame. Never pickle.

Worker and engine speak EngineBound and WorkerBound over a Unix socket; the supervisor and its children speak ChildBound
and SupervisorBound over an inherited socket pair. Pure: bytes in, messages out; reading and writing is the caller's.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts import errors
from contracts.engine import EngineInfo, EngineStats
from contracts.errors import QuireError
from contracts.finish_reason import FinishReason
from contracts.followed import EventSlice
from contracts.generation import GenerationDelta, GenerationRequest
from contracts.live import EngineLook
from contracts.model_catalog import ModelCatalog
from contracts.model_state import ModelTable
from contracts.records import RecordQuery, RequestRecord
from contracts.settings import Settings

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""A prompt that fills the largest body in single-digit token ids stays well below."""
_PREFIX_BYTES = 4


class BrokenFrame(Exception):
    """The peer sent what is no frame of ours: the connection cannot be trusted any further."""


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """A QuireError on its way to another process."""

    kind: str
    """Name of its class in contracts.errors; an unknown one arrives as its nearest relative there."""
    message: str
    param: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: QuireError) -> ErrorReport:
        kind = next(base.__name__ for base in type(error).__mro__ if vars(errors).get(base.__name__) is base)
        return cls(kind=kind, message=error.message, param=error.param, retry_after_s=error.retry_after_s)

    def to_error(self) -> QuireError:
        kind = vars(errors).get(self.kind)
        known = kind if isinstance(kind, type) and issubclass(kind, QuireError) else QuireError
        return known(self.message, param=self.param, retry_after_s=self.retry_after_s)


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: admit this, and answer Admitted or Refused."""

    request: GenerationRequest


class Abort(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: end a request of this worker; what is unknown or ended is ignored."""

    request_id: str
    reason: FinishReason = FinishReason.ABORT


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: end what the id names of this tenant (None: of any), whichever worker it came from."""

    any_id: str
    tenant: str | None
    reason: FinishReason = FinishReason.CANCELLED


class Follow(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: answer with Followed of the same number, once there are deltas behind the first `after`."""

    number: int
    request_id: str
    tenant: str | None
    after: int
    is_waiting: bool
    """Otherwise the answer comes at once, empty where there is nothing yet."""


class Unfollow(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: the answer to this Follow is not wanted any longer."""

    number: int


class Followed(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker."""

    number: int
    part: EventSlice | None
    error: ErrorReport | None = None
    """Set where there is no part."""


class AskRecords(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: answer with Records of the same number."""

    number: int
    query: RecordQuery


class Records(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker."""

    number: int
    records: list[RequestRecord]


class AskLook(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: answer with Looked of the same number; asked a few times a second while somebody watches."""

    number: int


class Looked(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker."""

    number: int
    look: EngineLook | None
    error: ErrorReport | None = None
    """Set where there is no look."""


class Tally(msgspec.Struct, frozen=True, tag=True):
    """Worker to engine: what it has done without asking, since it last said so."""

    num_refused_unread: int


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker, first of all."""

    info: EngineInfo
    stats: EngineStats


class Admitted(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker: deltas of this request will follow."""

    request_id: str


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker: nothing of this request was admitted."""

    request_id: str
    error: ErrorReport


class Deltas(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker: all that one step has brought for this worker's requests."""

    deltas: list[GenerationDelta]


class Beat(msgspec.Struct, frozen=True, tag=True):
    """Engine to worker, every BEAT_S and whenever the engine becomes idle: the event loop is alive."""

    stats: EngineStats


class LaunchEngine(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to a new engine process."""

    settings: Settings
    socket_path: str
    launched_s: float
    """On the machine's monotonic clock."""


class LaunchWorker(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to a new worker process; `settings.server.port` is the port to listen on."""

    settings: Settings
    directory: str
    """Where the engines' sockets are."""
    ip: str
    catalog: ModelCatalog
    table: ModelTable


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to child: take no more after the delay, let what runs end, then leave."""

    delay_s: float
    timeout_s: float


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Child to supervisor: a stage of loading, and how much of it is done (0 to 1) where that is known."""

    stage: str
    fraction: float | None


class EngineReady(msgspec.Struct, frozen=True, tag=True):
    """Engine to supervisor: requests are served."""

    info: EngineInfo


class WorkerReady(msgspec.Struct, frozen=True, tag=True):
    """Worker to supervisor: it listens, and serves from the engine."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Child to supervisor: it cannot start, and starting it again would not help."""

    error: ErrorReport


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Child to supervisor, every BEAT_S: its event loop turns."""

    num_requests: int = 0
    """Of an engine: waiting and running."""


class UseModel(msgspec.Struct, frozen=True, tag=True):
    """Worker to supervisor: a request wants this model; the table will say when it is there."""

    alias: str


class ModelOrder(msgspec.Struct, frozen=True, tag=True):
    """Worker to supervisor: an operator wants this; answered by OrderDone of the same number."""

    number: int
    verb: Literal["load", "unload", "default"]
    alias: str
    timeout_s: float | None = None
    """Of an unload: how long requests may still run; None: until they end."""


class Models(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to worker: how the models are now, whenever that changes."""

    table: ModelTable


class OrderDone(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to worker: what became of an order."""

    number: int
    error: ErrorReport | None


class OpenMailbox(msgspec.Struct, frozen=True, tag=True):
    """Worker to supervisor: a client of this owner listens here under that id; answered by MailboxOpened."""

    number: int
    owner: str
    """Label of the key; never the key."""
    client_id: str


class CloseMailbox(msgspec.Struct, frozen=True, tag=True):
    """Worker to supervisor: it does not any longer."""

    number: int
    owner: str
    client_id: str


class PostJob(msgspec.Struct, frozen=True, tag=True):
    """Worker to supervisor: give this to whoever listens; answered by JobPosted of the same number."""

    number: int
    owner: str
    client_id: str
    job: bytes


class JobTaken(msgspec.Struct, frozen=True, tag=True):
    """Worker to supervisor: what became of a DeliverJob, with its return address."""

    place: str
    number: int
    error: ErrorReport | None


class MailboxOpened(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to worker: jobs for it will come."""

    number: int


class MailboxReplaced(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to worker: the same client listens elsewhere now."""

    number: int


class DeliverJob(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to worker: for the mailbox of that number; answered by JobTaken."""

    mailbox: int
    place: str
    """Who posted it,"""
    number: int
    """and under which number."""
    job: bytes


class JobPosted(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to worker: the job was taken, or why not."""

    number: int
    error: ErrorReport | None


class MailboxCount(msgspec.Struct, frozen=True, tag=True):
    """Supervisor to worker: how many clients listen, at all workers together; soon after that changes."""

    num_open: int


BEAT_S = 0.5

EngineBound = Submit | Abort | Cancel | Follow | Unfollow | AskRecords | AskLook | Tally
WorkerBound = Hello | Admitted | Refused | Deltas | Beat | Records | Followed | Looked
MailboxNews = MailboxOpened | MailboxReplaced | DeliverJob | JobPosted | MailboxCount
MailboxOrder = OpenMailbox | CloseMailbox | PostJob | JobTaken
ChildBound = LaunchEngine | LaunchWorker | Drain | Models | OrderDone | MailboxNews
SupervisorBound = Progress | EngineReady | WorkerReady | Failed | Alive | UseModel | ModelOrder | MailboxOrder
Message = EngineBound | WorkerBound | ChildBound | SupervisorBound

_ENCODER = msgspec.msgpack.Encoder()


def encode_frame(message: Message) -> bytes:
    """Length (4 bytes, big-endian) and MessagePack. Raises ValueError above MAX_FRAME_BYTES."""
    frame = bytearray(_PREFIX_BYTES)
    _ENCODER.encode_into(message, frame, _PREFIX_BYTES)
    size = len(frame) - _PREFIX_BYTES
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a {type(message).__name__} frame of {size} bytes is over the limit of {MAX_FRAME_BYTES}")
    frame[:_PREFIX_BYTES] = size.to_bytes(_PREFIX_BYTES, "big")
    return bytes(frame)


class FrameReader:
    """Cuts a byte stream into messages of the given union. Owner: one connection."""

    def __init__(self, message_type: object, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(message_type)
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are complete now. Raises BrokenFrame for anything else than our frames."""
        buffer = self._buffer
        buffer += data
        messages = []
        start = 0
        while len(buffer) - start >= _PREFIX_BYTES:
            size = int.from_bytes(buffer[start : start + _PREFIX_BYTES], "big")
            if size > self._max_bytes:
                raise BrokenFrame(f"a frame of {size} bytes is over the limit of {self._max_bytes}")
            end = start + _PREFIX_BYTES + size
            if len(buffer) < end:
                break
            messages.append(self._decode(bytes(buffer[start + _PREFIX_BYTES : end])))
            start = end
        del buffer[:start]
        return messages

    def _decode(self, payload: bytes) -> Message:
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise BrokenFrame(str(error)) from error
