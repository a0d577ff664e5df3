"""From a request that names a conversation to what the engine is asked: history before the message, trimmed to fit.

Precedence is request, conversation, model, server. Plain synchronous functions, to be called in a thread like
`translate`. Knows no database and no HTTP.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from contracts.conversations import Conversation, GenerationDefaults
from contracts.errors import ContextLengthExceeded, InvalidValue, UnsupportedParameter
from contracts.openai.chat import (
    AssistantMessage,
    ChatCompletionRequest,
    Content,
    DeveloperMessage,
    Message,
    SystemMessage,
    UserMessage,
)
from service.conversations.texts import check_kept
from service.conversations.trimming import (
    STEPS_PER_LIMIT,
    max_steps,
    num_steps_over,
    num_turns_over,
    num_turns_within,
    window_step_len,
)
from service.conversations.turn_types import History, TurnMessage
from service.option_defaults import fill_in, with_preset
from service.refusals import refuse_unsupported
from service.tokenizer import TextTokenizer
from service.translate import Limits, ServedModel, TextRequest, chat_max_tokens, translate_chat

MESSAGE_OVERHEAD_TOKENS = 4
"""Of a template around one message, about; an estimate that is too low costs a second rendering."""


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request adds to its conversation."""

    system: Message | None
    """Stands in for the conversation's system prompt in this request alone."""
    messages: list[TurnMessage]
    """To be kept; the last is the user's."""


def read_posted(body: ChatCompletionRequest) -> Posted:
    """Check what is new, before it is mixed with what is kept; raises RequestErrors that name the field."""
    refuse_unsupported(body)
    if body.n is not None and body.n != 1:
        raise InvalidValue(f"'n' is {body.n}, but a conversation takes one reply. Remove it.", param="n")
    has_system = isinstance(body.messages[0], SystemMessage | DeveloperMessage)
    rest = body.messages[1:] if has_system else body.messages
    kept = [_posted_message(message, index, has_system) for index, message in enumerate(rest)]
    if not kept or kept[-1].role != "user":
        raise InvalidValue(
            "'messages' must end with a message of the user: with a conversation they are only what is new.",
            param="messages",
        )
    return Posted(system=body.messages[0] if has_system else None, messages=kept)


def _posted_message(message: Message, index: int, has_system: bool) -> TurnMessage:
    """Roles alternate, beginning with the user; nothing is kept but role and text, so nothing else may be given."""
    path = f"messages[{index + has_system}]"
    role = "user" if isinstance(message, UserMessage) else "assistant"
    if not isinstance(message, UserMessage | AssistantMessage) or (role == "user") != (index % 2 == 0):
        raise InvalidValue(
            f"'{path}.role' is '{message.__struct_config__.tag}', but with a conversation, after one system message "
            "at most, the roles user and assistant take turns, and user is first and last.",
            param=f"{path}.role",
        )
    for name in ("name", "refusal", "reasoning_content"):
        if getattr(message, name, None) is not None:
            raise UnsupportedParameter(
                f"'{path}.{name}' is given, but conversations keep role and text only. Remove it.",
                param=f"{path}.{name}",
            )
    return TurnMessage(role=role, content=check_kept(_text(message.content), f"{path}.content"))


def _text(content: Content | None) -> str:
    """The same text that the template would see."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def with_defaults(body: ChatCompletionRequest, conversation: Conversation) -> ChatCompletionRequest:
    """The request with the conversation's model and options where neither it nor its preset says anything."""
    defaults = conversation.generation or GenerationDefaults()
    body = fill_in(with_preset(body), defaults)
    if body.max_tokens is None and body.max_completion_tokens is None and body.preset is None:
        body = msgspec.structs.replace(body, max_completion_tokens=defaults.max_tokens)
    return body if body.model is not None else msgspec.structs.replace(body, model=conversation.model)


class TurnTranslator:
    """Owner: one request. Renders the prompt with more or less history until it fits."""

    def __init__(
        self,
        body: ChatCompletionRequest,
        posted: Posted,
        history: History,
        model: ServedModel,
    ) -> None:
        """`body` has its defaults already."""
        self._body = body
        self._model = model
        self._opening = _opening(posted, history.conversation)
        self._new: list[Message] = [_wire(message) for message in posted.messages]
        retried = history.retried_turn(posted.messages)
        num_turns = history.num_turns + (retried is None)
        first_turn = num_turns_over(num_turns, history.conversation.max_turns) + 1
        self._turns = history.answered_turns(first_turn)
        window_len = model.num_window_tokens
        self._reserve_len = 0 if chat_max_tokens(body) is not None else window_len // STEPS_PER_LIMIT
        """Kept free for a reply that names no limit."""
        self._room_len = window_len - (chat_max_tokens(body) or self._reserve_len)
        self._step_len = window_step_len(window_len)

    def translate(self, request_id: str, limits: Limits) -> TextRequest:
        """What to ask the engine, with as much history as the limits of turns and of the window allow.

        Raises ContextLengthExceeded where the system message and what is new do not fit alone.
        """
        whole = self._attempt(self._turns, request_id, limits)
        if whole is not None:
            return whole
        lens = [_turn_len(turn, self._model.tokenizer) for turn in self._turns]
        most = max_steps(lens, self._step_len)
        found: dict[int, TextRequest] = {}

        def fits(num_steps: int) -> bool:
            kept = self._turns[num_turns_within(lens, num_steps, self._step_len) :]
            request = self._attempt(kept, request_id, limits)
            if request is not None:
                found[num_steps] = request
            return request is not None

        least = max(1, num_steps_over(lens, self._room_len, self._step_len))
        num_steps = next((steps for steps in range(least, min(least + 2, most)) if fits(steps)), None)
        if num_steps is None:
            num_steps = bisect_left(range(most), True, lo=min(least + 2, most), key=fits)
        return found[num_steps] if num_steps in found else self._without_history(request_id, limits)

    def _attempt(self, turns: Sequence[list[TurnMessage]], request_id: str, limits: Limits) -> TextRequest | None:
        """None where it does not fit."""
        try:
            request = translate_chat(self._with(turns), self._model, request_id, limits)
        except ContextLengthExceeded:
            return None
        return request if request.num_prompt_tokens + self._reserve_len <= self._model.num_window_tokens else None

    def _without_history(self, request_id: str, limits: Limits) -> TextRequest:
        """The reply then has what is left of the window, however little."""
        return translate_chat(self._with([]), self._model, request_id, limits)

    def _with(self, turns: Sequence[list[TurnMessage]]) -> ChatCompletionRequest:
        kept = [_wire(message) for turn in turns for message in turn]
        return msgspec.structs.replace(self._body, messages=[*self._opening, *kept, *self._new])


def _opening(posted: Posted, conversation: Conversation) -> list[Message]:
    if posted.system is not None:
        return [posted.system]
    return [SystemMessage(content=conversation.system_prompt)] if conversation.system_prompt else []


def _wire(message: TurnMessage) -> Message:
    """As it was kept, so that the next turn's prompt begins with the same tokens."""
    if message.role == "user":
        return UserMessage(content=message.content)
    return AssistantMessage(content=message.content)


def _turn_len(turn: Sequence[TurnMessage], tokenizer: TextTokenizer) -> int:
    """Tokens, nearly."""
    return sum(
        len(tokenizer.encode(message.content, add_special_tokens=False)) + MESSAGE_OVERHEAD_TOKENS for message in turn
    )
