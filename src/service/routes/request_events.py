"""GET /v1/requests/{id}/events: the events of a request from the first or any later one on, live or ended.

A key follows its own requests; one with the scope 'admin' follows all.
"""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, get
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.errors import InvalidValue, clip
from contracts.records import RecordQuery
from contracts.reply_recipe import ReplyKind, ReplyRecipe
from service.engine_provider import ModelProvider
from service.generation_stream import GenerationStream
from service.routes.chat import ChatForm
from service.routes.completions import CompletionForm
from service.routes.generation import Reply, ReplyForm, ReplyHead
from service.routes.recipes import followed_request, head_of, read_recipe
from service.routes.replies import follow_reply
from service.routes.requests import find_records, no_such_request, visible_tenant

LAST_EVENT_HEADER: Final = "last-event-id"
AFTER_PARAMETER: Final = "after"
MAX_NUMBER_DIGITS = 12


@get("/v1/requests/{any_id:str}/events")
async def follow_request(request: Request[Any, Any, Any], any_id: FromPath[str]) -> ASGIApp:
    """One, by the id of its reply, its x-request-id or its trace id; the newest that it names."""
    after = read_after(request.headers.getall(LAST_EVENT_HEADER, []), list(request.query_params.multi_items()))
    provider: ModelProvider = request.app.state["provider"]
    records = await find_records(request, RecordQuery(any_id=any_id, limit=1))
    serving = provider.seen(records[0].model) if records else None
    if not records or serving is None:  # unloaded just now, with all that its engine remembered
        raise no_such_request(any_id)
    recipe = read_recipe(records[0])
    generation = await GenerationStream.follow(
        serving.engine, serving.model.tokenizer, followed_request(records[0], recipe), visible_tenant(request)
    )
    head = head_of(recipe, records[0])
    form = form_of(recipe, head, records[0].num_samples)
    return follow_reply(Reply(generation=generation, form=form, head=head, is_stream=True), after=after)


def read_after(headers: list[str], parameters: list[tuple[str, str]]) -> int:
    """The number of the last event that the caller has; the header, which browsers renew, counts before `after`.

    Raises InvalidValue that names what is wrong.
    """
    given = [(LAST_EVENT_HEADER, value) for value in headers]
    for name, value in parameters:
        if name != AFTER_PARAMETER:
            raise InvalidValue(
                f"The parameter '{clip(name)}' is not known here; there is {AFTER_PARAMETER}.", param=name
            )
        given.append((name, value))
    numbers = [_read_number(name, value) for name, value in given]
    return numbers[0] if numbers else 0


def _read_number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= MAX_NUMBER_DIGITS):
        raise InvalidValue(
            f"{name} is '{clip(value)}', but needs the number of the last event that came, or 0.", param=name
        )
    return int(value)


def form_of(recipe: ReplyRecipe, head: ReplyHead, num_choices: int) -> ReplyForm:
    """What made the JSON of the reply, made again."""
    if recipe.kind is ReplyKind.CHAT:
        return ChatForm(head, has_logprobs=recipe.wants_logprobs, has_usage=recipe.has_usage)
    return CompletionForm(
        head, echoes=[""] * num_choices, has_logprobs=recipe.wants_logprobs, has_usage=recipe.has_usage
    )


HANDLERS = (follow_request,)
