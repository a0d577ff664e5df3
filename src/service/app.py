"""Puts the application together: routes, error handlers, middleware, life of the engine."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from contracts.engine import Engine
from contracts.errors import QuireError
from contracts.settings import Settings
from service.engine_provider import EngineProvider, StartupHooks
from service.error_responses import handle_http_exception, handle_quire_error, handle_unexpected
from service.middleware import RequestContext
from service.openapi import render_openapi
from service.routes import chat, completions, health, models, pages
from service.routes.pages import load_pages

SETTINGS_VARIABLE = "QUIRE_SETTINGS_JSON"


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    *,
    hooks: StartupHooks | None = None,
) -> Litestar:
    """The ASGI application; without an engine it starts its own, in this process."""
    provider = EngineProvider(settings, engine, hooks if hooks is not None else StartupHooks())

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with provider.run():
            yield

    app = Litestar(
        route_handlers=[*chat.HANDLERS, *completions.HANDLERS, *models.HANDLERS, *health.HANDLERS, *pages.HANDLERS],
        lifespan=[lifespan],
        state=State({"provider": provider, "pages": load_pages(render_openapi())}),
        exception_handlers={
            QuireError: handle_quire_error,
            HTTPException: handle_http_exception,
            Exception: handle_unexpected,
        },
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
        debug=False,
    )
    # Outside Litestar's own error handling, so that a 404 has a request id and a span as well.
    app.asgi_handler = RequestContext(app.asgi_handler, settings.server.host)
    return app


def create_app_from_environment() -> Litestar:
    """The factory that granian calls in its worker; a model that cannot be loaded ends the process."""
    settings = msgspec.json.decode(os.environ[SETTINGS_VARIABLE], type=Settings)
    return create_app(settings, hooks=StartupHooks(on_failure=lambda error: os._exit(error.exit_code)))
