"""Puts the application together: routes, error handlers, middleware, life of the engine."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from contracts.engine import Engine
from contracts.errors import QuireError
from contracts.settings import EngineSettings, Settings
from service.compat.dialects import dialect_handlers, read_dialects
from service.conversations.access import Conversations
from service.engine_provider import EngineProvider, ModelProvider, OnProgress, StartupHooks, start_engine_in_process
from service.error_responses import handle_client_gone, handle_http_exception, handle_quire_error, handle_unexpected
from service.http_errors import ClientGone
from service.key_store import KeyStore
from service.live_feed import LiveFeeds
from service.mailboxes import Mailboxes
from service.middleware import RequestContext
from service.openapi import list_endpoints, render_openapi
from service.routes import (
    chat,
    completions,
    conversations,
    health,
    jaeger,
    live,
    metrics,
    models,
    pages,
    presets,
    request_events,
    requests,
)
from service.routes.pages import Pages, load_pages


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    *,
    hooks: StartupHooks | None = None,
) -> Litestar:
    """The ASGI application; without an engine it starts its own, in this process, while it answers /health."""
    if engine is None:
        return build_app(settings, EngineProvider(settings, start_engine_in_process, hooks or StartupHooks()))

    async def hand_over(engine_settings: EngineSettings, on_progress: OnProgress) -> Engine:
        return engine

    provider = EngineProvider(settings, hand_over, hooks or StartupHooks())
    return build_app(settings, provider, is_loaded_first=True)


def build_app(
    settings: Settings,
    provider: ModelProvider,
    *,
    is_loaded_first: bool = False,
    mailboxes: Mailboxes | None = None,
) -> Litestar:
    """The application around a provider; `is_loaded_first` makes it wait for the engine before it answers at all.

    `mailboxes` are shared with other workers; without them this application is the only one. Raises SettingsError for
    keys, names, origins or dialects that cannot be used.
    """
    dialects = read_dialects(settings.server.compat)
    keys = KeyStore.open(settings.server)
    kept = Conversations.of(settings.server)

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with keys.watch(), provider.run():
            if is_loaded_first:
                await provider.wait_until_loaded()
            try:
                yield
            finally:
                await kept.close()

    app = Litestar(
        route_handlers=_handlers(dialects),
        lifespan=[lifespan],
        state=State(
            {
                "provider": provider,
                "conversations": kept,
                "mailboxes": mailboxes or Mailboxes.alone(),
                "live": LiveFeeds(provider),
                "pages": _pages(dialects),
                "started_s": time.monotonic(),
            }
        ),
        exception_handlers={
            QuireError: handle_quire_error,
            HTTPException: handle_http_exception,
            ClientGone: handle_client_gone,
            Exception: handle_unexpected,
        },
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
        debug=False,
    )
    # Outside Litestar's own error handling, so that a 404 has a request id and a span as well.
    app.asgi_handler = RequestContext(app.asgi_handler, settings.server, keys, provider.gate)
    return app


@lru_cache(maxsize=4)
def _pages(dialects: tuple[str, ...]) -> Pages:
    """They are the same in every application of a process."""
    return load_pages(render_openapi(dialects), list_endpoints(dialects))


def _handlers(dialects: tuple[str, ...]) -> list[Any]:
    """Every route."""
    return [
        *chat.HANDLERS,
        *completions.HANDLERS,
        *conversations.HANDLERS,
        *models.HANDLERS,
        *requests.HANDLERS,
        *request_events.HANDLERS,
        *jaeger.HANDLERS,
        *health.HANDLERS,
        *metrics.HANDLERS,
        *live.HANDLERS,
        *pages.HANDLERS,
        *presets.HANDLERS,
        *dialect_handlers(dialects),
    ]
