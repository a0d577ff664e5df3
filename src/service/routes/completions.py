"""POST /v1/completions: its events and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp

from contracts.conversations import GenerationDefaults
from contracts.openai.common import Usage
from contracts.openai.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from contracts.reply_recipe import ReplyKind
from service import message_content
from service.detokenizer import LogprobEntry, TextPiece
from service.engine_provider import ModelProvider
from service.generation_stream import GenerationStream
from service.option_defaults import NO_DEFAULTS, fill_in, with_preset
from service.routes.body import BodyDecoder, ReceivedBody
from service.routes.generation import (
    OPENAI_FRAMING,
    ChoiceText,
    Framing,
    Reply,
    ReplyForm,
    ReplyHead,
    admit,
    in_background,
    new_head,
    wait_for_model,
)
from service.routes.recipes import with_recipes
from service.routes.replies import reply_with
from service.routes.request_limits import limits_of
from service.sse import event
from service.translate import Limits, TextRequest, translate_completion

_DECODER: Final = BodyDecoder(CompletionRequest)
_ENCODER: Final = msgspec.json.Encoder()
_PLACE_OF_TEXT: Final = b'"text":""'


@dataclass(frozen=True, kw_only=True, slots=True)
class CompletionManner:
    """How a route answers a completion request."""

    new_form: Callable[[CompletionRequest, ReplyHead, Sequence[TextRequest]], ReplyForm]
    defaults: GenerationDefaults = NO_DEFAULTS
    """Of the route, where neither the request nor, for the length, the model says anything."""
    framing: Framing = OPENAI_FRAMING


@post("/v1/completions", status_code=200)
async def create_completion(request: Request[Any, Any, Any]) -> ASGIApp:
    """Continue one or several texts."""
    provider: ModelProvider = request.app.state["provider"]
    provider.check_started()
    limits = limits_of(request, provider.limits)
    received = await _DECODER.receive(request, provider.settings)
    return await answer_completion(request, received, limits, OPENAI)


async def answer_completion(
    request: Request[Any, Any, Any],
    received: ReceivedBody[CompletionRequest],
    limits: Limits,
    manner: CompletionManner,
) -> ASGIApp:
    """Answer a decoded request, in whichever manner."""
    provider: ModelProvider = request.app.state["provider"]
    body = fill_in(with_preset(received.body), manner.defaults)
    limits = msgspec.structs.replace(limits, default_max_tokens=manner.defaults.max_tokens)
    serving = provider.served(body.model) or await wait_for_model(request, provider, body.model)
    head = new_head("cmpl-", serving.model.info)
    text_requests = await in_background(received.num_bytes, translate_completion, body, serving.model, head.id, limits)
    generation = await admit(
        provider,
        serving,
        with_recipes(text_requests, ReplyKind.COMPLETION, head, has_usage=wants_usage(body)),
        GenerationStream,
    )
    return await reply_with(
        Reply(
            generation=generation,
            form=manner.new_form(body, head, text_requests),
            head=head,
            is_stream=bool(body.stream),
            extra_headers=received.reply_headers,
            content=message_content.of_completion(serving.settings, body.prompt),
            framing=manner.framing,
        ),
        request,
    )


def wants_usage(body: CompletionRequest) -> bool:
    """A last event is to count the tokens."""
    return bool(body.stream_options and body.stream_options.include_usage)


def new_form(body: CompletionRequest, head: ReplyHead, requests: Sequence[TextRequest]) -> CompletionForm:
    """The form of the reply that the body asks for."""
    return CompletionForm(
        head,
        echoes=[one.echo_text or "" for one in requests for _ in range(body.n or 1)],
        has_logprobs=body.logprobs is not None,
        has_usage=wants_usage(body),
    )


OPENAI: Final = CompletionManner(new_form=new_form)


class CompletionForm:
    """Completion events and the completion reply; an instance serves one request."""

    def __init__(self, head: ReplyHead, *, echoes: list[str], has_logprobs: bool, has_usage: bool) -> None:
        self._head = head
        self._echoes = echoes
        self._has_logprobs = has_logprobs
        self._usage: msgspec.UnsetType | None = None if has_usage else msgspec.UNSET
        self._frames: dict[int, tuple[bytes, bytes]] = {}
        self._choices: dict[int, ChoiceText] = {}
        self._num_open = 0

    def opening(self, num_choices: int) -> bytes:
        """Every choice once, in the order that clients rely on, with its prompt if that is to be echoed."""
        self._num_open = num_choices
        return b"".join(
            self._event([CompletionChoice(text=self._echoes[index], index=index)]) for index in range(num_choices)
        )

    def add_events(self, out: list[bytes], choice: int, piece: TextPiece) -> None:
        """Text and log probabilities in one event; the end of a choice in one of its own."""
        if piece.logprobs:
            logprobs = _logprobs(piece.logprobs)
            out.append(self._event([CompletionChoice(text=piece.text, index=choice, logprobs=logprobs)]))
        elif piece.text:
            before, after = self._frames.get(choice) or self._make_frame(choice)
            out += (before, _ENCODER.encode(piece.text), after)
        if piece.finish_reason is not None:
            self._num_open -= 1
            is_last = self._num_open == 0 and self._usage is msgspec.UNSET
            ended = CompletionChoice(text="", index=choice, finish_reason=piece.finish_reason)
            out.append(self._event([ended], is_last=is_last))

    def closing(self, usage: Usage) -> bytes:
        """The usage event, where it was asked for."""
        return b"" if self._usage is msgspec.UNSET else self._event([], usage, is_last=True)

    def collect(self, choice: int, piece: TextPiece) -> None:
        """Keep a piece for `body`."""
        self._choices.setdefault(choice, ChoiceText()).add(piece)

    def body(self, num_choices: int, usage: Usage) -> bytes:
        """The one-shot reply."""
        choices = [self._choice(index, self._choices[index]) for index in range(num_choices)]
        return _ENCODER.encode(self._completion(choices, usage))

    def _choice(self, index: int, text: ChoiceText) -> CompletionChoice:
        return CompletionChoice(
            text=self._echoes[index] + text.text,
            index=index,
            logprobs=_logprobs(text.logprobs) if self._has_logprobs else None,
            finish_reason=text.finish_reason,
        )

    def _completion(
        self, choices: list[CompletionChoice], usage: Usage | msgspec.UnsetType | None, *, is_last: bool = False
    ) -> Completion:
        return Completion(
            id=self._head.id,
            created=self._head.created,
            model=self._head.model,
            choices=choices,
            system_fingerprint=self._head.system_fingerprint,
            usage=usage,
            trace_id=self._head.trace_id if is_last else msgspec.UNSET,
        )

    def _event(self, choices: list[CompletionChoice], usage: Usage | None = None, *, is_last: bool = False) -> bytes:
        chunk = self._completion(choices, self._usage if usage is None else usage, is_last=is_last)
        return event(_ENCODER.encode(chunk))

    def _make_frame(self, choice: int) -> tuple[bytes, bytes]:
        """The bytes around the text of a plain event."""
        sample = self._event([CompletionChoice(text="", index=choice)])
        before, key, after = sample.partition(_PLACE_OF_TEXT)
        frame = before + key[:-2], after
        self._frames[choice] = frame
        return frame


def _logprobs(entries: list[LogprobEntry]) -> CompletionLogprobs:
    return CompletionLogprobs(
        tokens=[entry.text for entry in entries],
        token_logprobs=[entry.logprob for entry in entries],
        top_logprobs=[{top.text: top.logprob for top in entry.top} for entry in entries],
        text_offset=[entry.text_offset for entry in entries],
    )


HANDLERS = (create_completion,)
