"""The form service: a form becomes events of plain text; an echo; a stream that shows whether a proxy buffers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.types import ASGIApp

from contracts.compat.fastapi_llm import PromptData
from contracts.conversations import GenerationDefaults
from contracts.errors import clip
from contracts.openai.completions import CompletionRequest
from service.compat.decoding import (
    MULTIPART,
    URL_ENCODED,
    begin,
    content_type_of,
    provider_of,
    read_form,
    receive,
    refuse_detached,
)
from service.compat.forms import NAMED_ERRORS, TextForm, text_event
from service.http_errors import SchemaError, UnsupportedMediaType
from service.routes.body import BodyDecoder, ReceivedBody
from service.routes.completions import CompletionManner, answer_completion
from service.sse import EventStreamReply

PROMPT_FIELDS: Final = ("prompt", "prompt_form", "message")
DEFAULT_TOKENS: Final = 256
EXAMPLE_TOKENS: Final = ("hello", ", ", "this ", "is ", "a ", "streamed ", "response.")
EXAMPLE_PAUSE_S: Final = 0.2
"""Long enough to see whether something on the way holds events back."""
_ECHO: Final = BodyDecoder(PromptData)
_MANNER: Final = CompletionManner(
    new_form=lambda body, head, requests: TextForm(),
    defaults=GenerationDefaults(max_tokens=DEFAULT_TOKENS),
    framing=NAMED_ERRORS,
)


@post("/completion", status_code=200)
async def complete_form(request: Request[Any, Any, Any]) -> ASGIApp:
    """Continue the text of a form; events of bare text."""
    limits = begin(request)
    refuse_detached(limits)
    if content_type_of(request) not in (URL_ENCODED, MULTIPART):
        raise UnsupportedMediaType(
            "/completion takes a form with the field 'prompt'. Send JSON to /completions or /v1/completions."
        )
    fields = await read_form(request, provider_of(request).settings)
    prompt = prompt_of(fields)
    received = ReceivedBody(
        body=CompletionRequest(prompt=prompt, stream=True), num_bytes=len(prompt.encode()), reply_headers=[]
    )
    return await answer_completion(request, received, limits, _MANNER)


def prompt_of(fields: dict[str, str]) -> str:
    """The one field that a form has; raises SchemaError."""
    unknown = next((name for name in fields if name not in PROMPT_FIELDS), None)
    if unknown is not None:
        raise SchemaError(
            f"The form has the field '{clip(unknown)}', which is not known; there is 'prompt'.", param=clip(unknown)
        )
    if len(fields) != 1:
        raise SchemaError(
            f"The form has {len(fields)} fields, but needs one of {', '.join(PROMPT_FIELDS)}.", param=PROMPT_FIELDS[0]
        )
    ((name, prompt),) = fields.items()
    if not prompt.strip():
        raise SchemaError(f"'{name}' is empty. Send some text.", param=name)
    return prompt


@post("/prompt_data", status_code=200)
async def echo_prompt(request: Request[Any, Any, Any]) -> Response[PromptData]:
    """The same back, once it was understood."""
    received = await receive(request, _ECHO)
    return Response(received.body, headers={"cache-control": "no-store"})


@get("/stream-example", sync_to_thread=False)
def stream_example(request: Request[Any, Any, Any]) -> ASGIApp:
    """Seven events one after the other: they come one by one unless something on the way buffers."""
    return EventStreamReply(_example(), lambda: None)


async def _example() -> AsyncIterator[bytes]:
    for token in EXAMPLE_TOKENS:
        yield text_event(token)
        await asyncio.sleep(EXAMPLE_PAUSE_S)


HANDLERS = (complete_form, echo_prompt, stream_example)
