"""GET /v1/requests, /v1/requests/{id} and its /timeline: why requests took as long as they did. DELETE ends one.

A key sees and ends its own requests; one with the scope 'admin' all.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from litestar import MediaType, Request, Response, delete, get
from litestar.params import FromPath

from contracts.errors import InvalidValue, RequestNotFound, clip
from contracts.explanation import Explanation, ExplanationList
from contracts.records import RecordQuery, RequestRecord
from service.all_records import AllRecords
from service.api_keys import ApiKey
from service.clocks import unix_offset_ns
from service.engine_provider import ModelProvider
from service.timeline import draw_timeline
from service.why import explain

MAX_LIMIT = 100
DEFAULT_LIMIT = 20
ORDERS = ("newest", "slowest")
_HEADERS = {"cache-control": "no-store"}


@get("/v1/requests")
async def list_requests(request: Request[Any, Any, Any]) -> Response[ExplanationList]:
    """The requests that live, and the last ones that ended."""
    found = await find_explanations(request, read_query(list(request.query_params.multi_items())))
    return Response(ExplanationList(data=found), headers=_HEADERS)


@get("/v1/requests/{any_id:str}")
async def retrieve_request(request: Request[Any, Any, Any], any_id: FromPath[str]) -> Response[Explanation]:
    """One, by the id of its reply, its x-request-id or its trace id."""
    return Response(await find_explanation(request, any_id), headers=_HEADERS)


@delete("/v1/requests/{any_id:str}", status_code=200)
async def cancel_request(request: Request[Any, Any, Any], any_id: FromPath[str]) -> Response[Explanation]:
    """End all that the id names and that waits or runs; of what has ended, nothing is changed."""
    provider: ModelProvider = request.app.state["provider"]
    provider.check_started()
    for serving in provider.all_serving():
        serving.engine.cancel(any_id, visible_tenant(request))
    return Response(await find_explanation(request, any_id), headers=_HEADERS)


@get("/v1/requests/{any_id:str}/timeline", media_type=MediaType.TEXT)
async def draw_request(request: Request[Any, Any, Any], any_id: FromPath[str]) -> Response[str]:
    """The same as text."""
    text = draw_timeline(await find_explanation(request, any_id))
    return Response(text, media_type=MediaType.TEXT, headers=_HEADERS)


def read_query(parameters: list[tuple[str, str]]) -> RecordQuery:
    """What `?limit=5&order=slowest` asks for; raises InvalidValue that names the parameter."""
    limit, order = str(DEFAULT_LIMIT), "newest"
    for name, value in parameters:
        if name == "limit":
            limit = value
        elif name == "order":
            order = value
        else:
            raise InvalidValue(
                f"The parameter '{clip(name)}' is not known here; there are limit and order.", param=name
            )
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= MAX_LIMIT):
        raise InvalidValue(f"The limit is '{clip(limit)}', but needs a number from 1 to {MAX_LIMIT}.", param="limit")
    if order not in ORDERS:
        raise InvalidValue(f"The order is '{clip(order)}'; there are {' and '.join(ORDERS)}.", param="order")
    return RecordQuery(limit=int(limit), is_slowest_first=order == "slowest")


async def find_explanations(request: Request[Any, Any, Any], query: RecordQuery) -> list[Explanation]:
    """Those of the requests meant that the caller may see."""
    return await _explain(request, await find_records(request, query))


async def find_explanation(request: Request[Any, Any, Any], any_id: str) -> Explanation:
    """One, by any of its ids; raises RequestNotFound."""
    records = await find_records(request, RecordQuery(any_id=any_id, limit=1))
    if not records:
        raise no_such_request(any_id)
    return (await _explain(request, records))[0]


def no_such_request(any_id: str) -> RequestNotFound:
    """What to answer when nothing is found."""
    return RequestNotFound(
        f"No request '{clip(any_id)}' is remembered: it is none of yours, it never reached the engine, or it is "
        "older than the last thousand."
    )


async def find_records(request: Request[Any, Any, Any], query: RecordQuery) -> list[RequestRecord]:
    """Those of the records meant that the caller may see."""
    provider: ModelProvider = request.app.state["provider"]
    return await AllRecords(provider).records(msgspec.structs.replace(query, tenant=visible_tenant(request)))


async def _explain(request: Request[Any, Any, Any], records: list[RequestRecord]) -> list[Explanation]:
    """In a thread, as a hundred records with all their chunks are milliseconds of work."""
    provider: ModelProvider = request.app.state["provider"]
    is_all_shown = visible_tenant(request) is None
    return await asyncio.to_thread(tell, records, is_all_shown=is_all_shown, jaeger_url=provider.settings.jaeger_url)


def visible_tenant(request: Request[Any, Any, Any]) -> str | None:
    """Whose requests the key of this request may see; None: everybody's."""
    api_key: ApiKey = request.scope["state"]["api_key"]
    return None if "admin" in api_key.scopes else api_key.tenant.name


def tell(records: list[RequestRecord], *, is_all_shown: bool, jaeger_url: str | None) -> list[Explanation]:
    """The explanations of the records, in their order."""
    offset_s = unix_offset_ns() / 1e9
    told = [explain(record, offset_s, is_all_shown=is_all_shown) for record in records]
    return [with_link(one, jaeger_url) for one in told]


def with_link(explanation: Explanation, jaeger_url: str | None) -> Explanation:
    """Add the address of the trace's page, where there is a trace and a Jaeger."""
    if jaeger_url is None or explanation.trace_id is None:
        return explanation
    return msgspec.structs.replace(explanation, trace_url=f"{jaeger_url.rstrip('/')}/trace/{explanation.trace_id}")


HANDLERS = (list_requests, retrieve_request, cancel_request, draw_request)
