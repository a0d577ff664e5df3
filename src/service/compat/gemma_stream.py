"""Connect-then-submit streaming: a client listens under an id of its own; what it posts anywhere is answered there."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.compat.gemma_stream import MAX_CLIENT_ID_LEN, EndEvent, SubmitReply, SubmitRequest
from contracts.conversations import GenerationDefaults
from contracts.errors import QuireError
from contracts.openai.chat import ChatCompletionRequest, UserMessage
from service.compat.decoding import begin, not_blank, provider_of, receive, refuse_detached
from service.compat.forms import TokenForm, named_event
from service.error_responses import INTERNAL_ERROR, encode_error
from service.http_errors import InternalError, SchemaError
from service.mailboxes import Mailbox, Mailboxes
from service.routes.body import BodyDecoder, ReceivedBody
from service.routes.chat import start_chat
from service.routes.conversation_chat import ChatManner
from service.routes.conversations import owner_of
from service.routes.generation import Framing, Outcome, Reply, reply_events
from service.sse import EventStreamReply
from service.translate import Limits

_SUBMIT: Final = BodyDecoder(SubmitRequest)
_JOBS: Final = msgspec.msgpack.Decoder(SubmitRequest)
_CONNECTED: Final = b": connected\n\n"
_DEFAULTS: Final = GenerationDefaults(temperature=0.7, top_k=50, top_p=0.95, max_tokens=1024)


class EndFraming(Framing):
    """Every stream ends with the event `end`; one that failed has the event `error` before it."""

    done = named_event("end", msgspec.json.encode(EndEvent(message="Stream finished")))

    def error(self, error: QuireError) -> bytes:
        """The last events of a stream that failed."""
        end = named_event("end", msgspec.json.encode(EndEvent(message="Stream failed")))
        return named_event("error", encode_error(error)) + end


FRAMING: Final = EndFraming()
_log = structlog.get_logger("service.generation")
_MANNER: Final = ChatManner(new_form=lambda body, head, history: TokenForm(), defaults=_DEFAULTS, framing=FRAMING)


@get("/api/v1/chat/stream/{client_id:str}")
async def listen(request: Request[Any, Any, Any], client_id: FromPath[str]) -> ASGIApp:
    """Wait for one prompt under this id, and stream the answer to it."""
    limits = begin(request)
    refuse_detached(limits)
    if len(client_id) > MAX_CLIENT_ID_LEN:
        raise SchemaError(
            f"The client id has {len(client_id)} characters, at most {MAX_CLIENT_ID_LEN}.", param="client_id"
        )
    mailboxes: Mailboxes = request.app.state["mailboxes"]
    listener = Listener(request, mailboxes, await mailboxes.open(owner_of(request), client_id), limits)
    return EventStreamReply(listener.events(), listener.close)


@post("/api/v1/chat/submit", status_code=202)
async def submit(request: Request[Any, Any, Any]) -> Response[SubmitReply]:
    """Give a prompt to whoever listens under the id; 202 once the worker there has it."""
    limits = begin(request)
    refuse_detached(limits)
    body = (await receive(request, _SUBMIT)).body
    not_blank(body.prompt, "prompt")
    mailboxes: Mailboxes = request.app.state["mailboxes"]
    await mailboxes.post(owner_of(request), body.client_id, msgspec.msgpack.encode(body))
    return Response(SubmitReply(), status_code=202, headers={"cache-control": "no-store"})


class Listener:
    """Owner of one listening connection: its mailbox, and the generation that answers what comes."""

    def __init__(self, request: Request[Any, Any, Any], mailboxes: Mailboxes, mailbox: Mailbox, limits: Limits) -> None:
        self._request = request
        self._mailboxes = mailboxes
        self._mailbox = mailbox
        self._limits = limits
        self._outcome: Outcome | None = None

    async def events(self) -> AsyncIterator[bytes]:
        """A comment at once, so that the client knows that it may post; then the answer."""
        yield _CONNECTED
        try:
            job = await self._mailbox.take()
            self._request.scope["state"]["started_s"] = time.perf_counter()
            reply = await self._start(job)
        except QuireError as error:
            yield FRAMING.error(error)
            return
        except Exception:  # top handler of a reply whose 200 has been sent
            _log.exception("request_failed")
            yield FRAMING.error(InternalError(INTERNAL_ERROR))
            return
        self._outcome = Outcome(self._request, reply)
        async with aclosing(reply_events(reply, self._outcome)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                yield batch

    def close(self) -> None:
        """Listen no longer, and free the engine's side; may be called again."""
        self._mailboxes.close(self._mailbox)
        if self._outcome is not None:
            self._outcome.close()

    async def _start(self, job: bytes) -> Reply:
        provider = provider_of(self._request)
        chat = to_chat(_JOBS.decode(job))
        received = ReceivedBody(body=chat, num_bytes=len(job), reply_headers=[])
        return await start_chat(provider, await provider.serving_for(None), received, self._limits, _MANNER)


def to_chat(job: SubmitRequest) -> ChatCompletionRequest:
    """The prompt, below the text that it asks about where there is one."""
    text = f"Context: {job.context}\n\nQuestion: {job.prompt}" if job.context else job.prompt
    return ChatCompletionRequest(messages=[UserMessage(content=text)], stream=True)


HANDLERS = (listen, submit)
