"""RuvonInference: /completions with 20 tokens by default, and the queue under its names."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.compat.ruvon import CachedCompletionRequest, RequestStatus
from contracts.conversations import GenerationDefaults
from contracts.errors import InvalidValue
from contracts.explanation import Explanation
from contracts.openai.completions import CompletionRequest
from service.compat.decoding import as_schema_error, begin, receive_curl, with_body
from service.routes.body import BodyDecoder
from service.routes.completions import CompletionManner, answer_completion, new_form
from service.routes.health import Stats, all_stats
from service.routes.requests import find_explanation, find_explanations, read_query

DEFAULT_TOKENS: Final = 20
_DECODER: Final = BodyDecoder(CachedCompletionRequest)
_NO_STORE: Final = {"cache-control": "no-store"}
_SERVER_DECIDES: Final = ("use_cache", "attention_implementation")
_STATUS: Final = {
    "queued": "queued",
    "running": "processing",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "failed",
}
_MANNER: Final = CompletionManner(new_form=new_form, defaults=GenerationDefaults(max_tokens=DEFAULT_TOKENS))


@post("/completions", status_code=200)
async def complete(request: Request[Any, Any, Any]) -> ASGIApp:
    """As /v1/completions; what the server decides by itself is named in a header of the reply."""
    limits = begin(request)
    received = await receive_curl(request, _DECODER)
    body = received.body
    ignored = ", ".join(name for name in _SERVER_DECIDES if getattr(body, name) is not None)
    headers = [(b"x-quire-ignored-fields", ignored.encode())] if ignored else []
    asked: CompletionRequest = msgspec.structs.replace(body, top_p=1.0 if body.top_p == 0 else body.top_p)
    return await answer_completion(request, with_body(received, asked, headers), limits, _MANNER)


@get("/queue", sync_to_thread=False)
def show_queue(request: Request[Any, Any, Any]) -> Response[Stats]:
    """The same as /stats."""
    return Response(all_stats(request), headers=_NO_STORE)


@get("/queue/recent")
async def list_recent(request: Request[Any, Any, Any]) -> Response[list[RequestStatus]]:
    """The requests that ended last, the newest first; `?limit=20`."""
    try:
        query = read_query(list(request.query_params.multi_items()))
    except InvalidValue as error:
        raise as_schema_error(error) from None
    ended = [one for one in await find_explanations(request, query) if one.finish_reason is not None]
    return Response([to_status(one) for one in ended], headers=_NO_STORE)


@get("/requests/{any_id:str}")
async def show_status(request: Request[Any, Any, Any], any_id: FromPath[str]) -> Response[RequestStatus]:
    """One request."""
    return Response(to_status(await find_explanation(request, any_id)), headers=_NO_STORE)


def to_status(told: Explanation) -> RequestStatus:
    """A record in older words: seconds, and four states."""
    has_begun = told.status != "queued"
    has_ended = told.finish_reason is not None
    queue_s, total_s = told.queue_ms / 1000, told.total_ms / 1000
    is_failed = _STATUS[told.status] == "failed"
    return RequestStatus(
        id=told.id,
        status=_STATUS[told.status],  # type: ignore[arg-type]
        created_at=told.submitted,
        started_at=told.submitted + queue_s if has_begun else None,
        completed_at=told.submitted + total_s if has_ended else None,
        wait_time=queue_s if has_begun else None,
        processing_time=total_s - queue_s if has_ended else None,
        total_time=total_s,
        error=told.finish_reason if is_failed else None,
    )


HANDLERS = (complete, show_queue, list_recent, show_status)
