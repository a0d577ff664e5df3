"""GET /v1/live: the engine at work, as events, a few of them a second for as long as somebody reads.

Needs the scope 'metrics', as /stats does. A key sees the ids of its own requests, one with the scope 'admin' all; what
others hold of the blocks and the batch is counted and has no name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.types import ASGIApp

from contracts.errors import InvalidValue, clip
from contracts.live import LiveRow, LiveView, LiveWaiting, RunningLook, WaitingLook
from service.engine_provider import ModelProvider
from service.http_errors import NotFound
from service.live_feed import LiveFeed, LiveFeeds, LiveLook
from service.routes.requests import visible_tenant
from service.sse import EventStreamReply, event

_ENCODER: Final = msgspec.json.Encoder()
_NOT_LOADED: Final = "The model '{}' is not loaded: there is nothing to watch. Load it, or ask it something, first."


@get("/v1/live")
async def watch_engine(request: Request[Any, Any, Any]) -> ASGIApp:
    """Looks at one model's engine: the default's, or that of `?model=`."""
    provider: ModelProvider = request.app.state["provider"]
    name = read_model(list(request.query_params.multi_items()))
    provider.check_started()
    alias = provider.table.default_alias if name is None else provider.catalog.find(name).alias
    if provider.seen(alias) is None:
        raise NotFound(_NOT_LOADED.format(clip(alias)))
    feeds: LiveFeeds = request.app.state["live"]
    return EventStreamReply(_events(feeds.feed(alias), alias, visible_tenant(request)), lambda: None)


def read_model(parameters: list[tuple[str, str]]) -> str | None:
    """What `?model=NAME` names; raises InvalidValue that names the parameter."""
    for name, _ in parameters:
        if name != "model":
            raise InvalidValue(f"The parameter '{clip(name)}' is not known here; there is model.", param=name)
    return parameters[-1][1] if parameters else None


async def _events(feed: LiveFeed, alias: str, tenant: str | None) -> AsyncIterator[bytes]:
    async with aclosing(feed.watch()) as looks:  # type: ignore[type-var]  # an async generator, as its name says
        async for look in looks:
            yield event(_ENCODER.encode(view_of(look, alias, tenant)))


def view_of(live: LiveLook, alias: str, tenant: str | None) -> LiveView:
    """What a caller sees who may see the requests of `tenant`, or, with None, of everybody."""
    look = live.look
    return LiveView(
        model=alias,
        at=round(look.at_s, 4),
        period_s=round(live.period_s, 3),
        block_size=live.info.block_size,
        num_blocks=look.num_blocks,
        num_free_blocks=look.num_free_blocks,
        num_cached_blocks=look.num_cached_blocks,
        runs=live.runs,
        shared=live.shared,
        running=[_row(one, is_shown=tenant in (None, one.tenant)) for one in look.running],
        waiting=[_waiting(one, is_shown=tenant in (None, one.tenant)) for one in look.waiting],
        num_waiting=look.num_waiting,
        max_num_seqs=live.info.max_num_seqs,
        counters=look.counters,
    )


def _row(one: RunningLook, *, is_shown: bool) -> LiveRow:
    return LiveRow(
        seq=one.seq_id,
        request=one.request_id if is_shown else None,
        sample=one.sample_index,
        key=one.tenant if is_shown else None,
        phase="decode" if one.is_decoding else "prefill",
        prompt_tokens=one.num_prompt_tokens,
        cached_tokens=one.num_cached_tokens,
        computed_tokens=one.num_computed_tokens,
        output_tokens=one.num_output_tokens,
        max_tokens=one.max_tokens,
        num_blocks=one.num_blocks,
        num_preemptions=one.num_preemptions,
        age_s=round(one.age_s, 3),
    )


def _waiting(one: WaitingLook, *, is_shown: bool) -> LiveWaiting:
    return LiveWaiting(
        seq=one.seq_id,
        request=one.request_id if is_shown else None,
        sample=one.sample_index,
        key=one.tenant if is_shown else None,
        prompt_tokens=one.num_prompt_tokens,
        is_preempted=one.is_preempted,
        age_s=round(one.age_s, 3),
    )


HANDLERS = (watch_engine,)
