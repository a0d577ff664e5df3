"""What chat and text completions share: from admitted requests to the bytes of a reply, and the line in the log.

Knows the life of a reply; the JSON of each API comes from a `ReplyForm`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec
import structlog
from litestar import Request
from litestar.types import Receive, Scope, Send

from contracts.engine import EngineInfo
from contracts.errors import DeadlineExceeded, NoRoom, QuireError, ShuttingDown
from contracts.generation import PhaseTimes
from contracts.openai.common import Usage
from service import genai, genai_metrics
from service.detokenizer import LogprobEntry, TextPiece
from service.engine_provider import ModelProvider, Serving
from service.error_responses import INTERNAL_ERROR, encode_error
from service.generation_stream import ChoicePiece, GenerationStream
from service.http_errors import ClientGone, InternalError
from service.message_content import MessageContent
from service.request_spans import RequestSpan, SpanHead, current_trace_id
from service.routes.request_limits import limits_of
from service.sse import DONE, event, run_until_disconnect
from service.translate import TextRequest

MAX_INLINE_BODY_BYTES = 4 * 1024
"""Up to here templating and tokenising run on the event loop: about 0.25 us per byte, so that the loop stops for at
most 1 ms; a thread costs 0.1 ms each time (one core of a shared 2-core x86 machine, November 2026)."""

HTTP_OK, CLIENT_LEFT = 200, 499
LOADING_RETRY_AFTER_S = 5.0

P = ParamSpec("P")
T = TypeVar("T")
G = TypeVar("G", bound=GenerationStream)
_log = structlog.get_logger("service.generation")


class ReplyHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every chunk of a reply repeats."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    trace_id: str | msgspec.UnsetType = msgspec.UNSET
    """For the last event of a stream."""


class ChoiceText:
    """What one choice of a one-shot reply has said so far."""

    __slots__ = ("_texts", "finish_reason", "logprobs")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.logprobs: list[LogprobEntry] = []
        self.finish_reason = ""

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def add(self, piece: TextPiece) -> None:
        """Take what comes next; the last piece says how the choice ended."""
        self._texts.append(piece.text)
        self.logprobs += piece.logprobs
        self.finish_reason = piece.finish_reason or self.finish_reason


class ReplyForm(Protocol):
    """The JSON of one API; made for one reply."""

    def opening(self, num_choices: int) -> bytes:
        """Events before any text."""
        ...

    def add_events(self, out: list[bytes], choice: int, piece: TextPiece) -> None:
        """Append the events of one piece."""
        ...

    def closing(self, usage: Usage) -> bytes:
        """Events between the last choice and the end."""
        ...

    def collect(self, choice: int, piece: TextPiece) -> None:
        """Remember a piece for `body`."""
        ...

    def body(self, num_choices: int, usage: Usage) -> bytes:
        """The whole reply as JSON."""
        ...


class Framing:
    """How a stream ends, well or not; OpenAI's way."""

    done: bytes = DONE

    def error(self, error: QuireError) -> bytes:
        """The last events of a stream that failed."""
        return event(encode_error(error))


OPENAI_FRAMING = Framing()


class ReplyEnd(Protocol):
    """What becomes of a reply; told by whoever sends it."""

    status: int | None
    """HTTP status, or the one that an error inside the stream stands for; None: the client left."""

    def begin_sending(self, pieces: Sequence[ChoicePiece]) -> None:
        """These are about to be sent."""
        ...

    def close(self) -> None:
        """It is over, however; may be called again."""
        ...


def new_head(prefix: str, info: EngineInfo) -> ReplyHead:
    """A fresh id, the current time, and the trace that this request is in."""
    return ReplyHead(
        id=f"{prefix}{secrets.token_hex(16)}",
        created=int(time.time()),
        model=info.model_name,
        system_fingerprint=info.fingerprint,
        trace_id=current_trace_id() or msgspec.UNSET,
    )


async def in_background(num_bytes: int, translate: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `translate` here if the body is short, else in a thread."""
    if num_bytes <= MAX_INLINE_BODY_BYTES:
        return translate(*args, **kwargs)
    return await asyncio.to_thread(translate, *args, **kwargs)


async def wait_for_model(request: Request[Any, Any, Any], provider: ModelProvider, name: str | None) -> Serving:
    """The model that a request names, once it is loaded; the body must have been read.

    Raises ClientGone when its client does not wait so long, DeadlineExceeded when the request may not.
    """
    timeout_s = limits_of(request, provider.limits).request_timeout_s
    serving = await run_until_disconnect(request.receive, load_within(provider, name, timeout_s))
    if serving is None:
        raise ClientGone
    return serving


async def load_within(
    provider: ModelProvider, name: str | None, timeout_s: float | None, *, after: Serving | None = None
) -> Serving:
    """The model of this name, once it is loaded, another one than `after`; raises as `serving_for`, and
    DeadlineExceeded when that takes too long."""
    try:
        async with asyncio.timeout(timeout_s):
            return await provider.serving_for(name, after=after)
    except TimeoutError:
        raise DeadlineExceeded(
            f"The model was not loaded within the request's time limit of {timeout_s:g} s; try again later.",
            retry_after_s=LOADING_RETRY_AFTER_S,
        ) from None


async def admit(provider: ModelProvider, serving: Serving, requests: Sequence[TextRequest], kind: type[G]) -> G:
    """Hand the prompts to the engine; errors of admission still become HTTP statuses.

    Where the engine has just begun to drain, because its model is being unloaded, the next one is waited for.
    """
    while True:
        try:
            return await _submit(serving, requests, kind)
        except ShuttingDown:
            if provider.status == "draining":
                raise
            name, timeout_s = serving.model.names[0], requests[0].generation.timeout_s
            following = await load_within(provider, name, timeout_s, after=serving)
            if following is serving:
                raise
            serving = following


async def _submit(serving: Serving, requests: Sequence[TextRequest], kind: type[G]) -> G:
    try:
        return await kind.submit(serving.engine, serving.model.tokenizer, requests)
    except NoRoom as refusal:
        if len(requests) == 1:  # else the room may have gone to its own other prompts
            serving.gate.shut(refusal)
        raise


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What makes one reply."""

    generation: GenerationStream
    form: ReplyForm
    head: ReplyHead
    is_stream: bool
    extra_headers: Sequence[tuple[bytes, bytes]] = ()
    content: MessageContent | None = None
    """Collects the texts for the request's span; None unless that is switched on."""
    framing: Framing = OPENAI_FRAMING


async def reply_events(reply: Reply, outcome: ReplyEnd) -> AsyncIterator[bytes]:
    """Batches of events: all that is ready at a wake-up is one batch, so that it goes out in one send."""
    generation, form = reply.generation, reply.form
    yield form.opening(generation.num_choices)
    try:
        while pieces := await generation.take():
            out: list[bytes] = []
            for choice, piece in pieces:
                form.add_events(out, choice, piece)
            outcome.begin_sending(pieces)
            yield b"".join(out)
    except QuireError as error:
        outcome.status = error.status
        yield reply.framing.error(error)
        return
    except Exception:  # top handler of a reply whose 200 has been sent
        _log.exception("request_failed")
        outcome.status = 500
        yield reply.framing.error(InternalError(INTERNAL_ERROR))
        return
    yield form.closing(generation.usage()) + reply.framing.done
    outcome.status = 200


class JsonReply:
    """Owner of one one-shot reply: waits for the whole text, or for the client to leave."""

    def __init__(self, reply: Reply, outcome: ReplyEnd) -> None:
        self._reply = reply
        self._outcome = outcome

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry. Raises what the generation raises; nothing has been sent by then."""
        try:
            body = await run_until_disconnect(receive, self._collect())
            if body is not None:
                await self._send(send, body)
        except QuireError as error:
            self._outcome.status = error.status
            raise
        finally:
            self._outcome.close()

    async def _send(self, send: Send, body: bytes) -> None:
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *self._reply.extra_headers,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _collect(self) -> bytes:
        generation, form = self._reply.generation, self._reply.form
        collected: list[ChoicePiece] = []
        while pieces := await generation.take():
            collected += pieces
        for choice, piece in collected:
            form.collect(choice, piece)
        self._outcome.status = 200
        self._outcome.begin_sending(collected)
        return form.body(generation.num_choices, generation.usage())


class Outcome:
    """Ends a generation once and writes its `request_finished` line: numbers and names, never text."""

    def __init__(self, request: Request[Any, Any, Any], reply: Reply) -> None:
        self._path = str(request.scope.get("path_template") or request.url.path)
        self._generation = reply.generation
        self._head = reply.head
        self._is_stream = reply.is_stream
        self._content = reply.content
        self._started_s: float = request.scope["state"]["started_s"]
        self._is_closed = False
        self._operation = genai.OPERATIONS.get(self._path, self._path)
        self._span = RequestSpan(self._operation)
        self._first_text_s: float | None = None
        self.status: int | None = None
        """HTTP status, or the one that an error inside the stream stands for; None: the client left."""

    def begin_sending(self, pieces: Sequence[ChoicePiece]) -> None:
        """These are about to be sent."""
        if self._first_text_s is None:
            self._first_text_s = time.perf_counter() - self._started_s
            self._span.begin_sending()
        if self._content is not None:
            for choice, piece in pieces:
                self._content.add(choice, piece)

    def close(self) -> None:
        """Free the engine's side; may be called again."""
        if self._is_closed:
            return
        self._is_closed = True
        self._generation.close()
        status = self.status if self.status is not None else CLIENT_LEFT
        self._span.end(
            self._generation,
            SpanHead(
                response_id=self._head.id,
                model=self._head.model,
                is_stream=self._is_stream,
                first_text_s=self._first_text_s if self._is_stream else None,
                content={} if self._content is None else self._content.attributes(),
                error_type=None if status == HTTP_OK else str(status),
            ),
        )
        usage = self._generation.usage()
        times = self._generation.times
        total_s = time.perf_counter() - self._started_s
        genai_metrics.record(
            genai_metrics.RequestFigures(
                operation=self._operation,
                model=self._head.model,
                total_s=total_s,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                times=times,
                error_type=None if status == HTTP_OK else str(status),
            )
        )
        _log.info(
            "request_finished",
            path=self._path,
            response_id=self._head.id,
            model=self._head.model,
            stream=self._is_stream,
            status=status,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.prompt_tokens_details.cached_tokens,
            queue_ms=_elapsed_ms(times, "scheduled_s"),
            ttft_ms=_elapsed_ms(times, "first_token_s"),
            total_ms=round(total_s * 1000, 3),
            finish_reason=",".join(self._generation.finish_reasons) or None,
        )


def _elapsed_ms(times: PhaseTimes | None, phase: str) -> float | None:
    moment_s: float | None = None if times is None else getattr(times, phase)
    return None if times is None or moment_s is None else round((moment_s - times.submitted_s) * 1000, 3)
