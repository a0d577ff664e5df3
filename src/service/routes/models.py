"""/v1/models: what may be served and what is loaded; load, unload and the choice of the default.

An id may hold slashes, plain or as %2F. What changes something needs the scope 'admin' (service.authorization).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import Request, Response, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from contracts.errors import QuireError
from contracts.model_catalog import ModelProfile
from contracts.model_state import ModelPhase, ModelState
from contracts.openai.models import LoadProgress, ModelCard, ModelKind, ModelList, NoOptions, UnloadOptions
from service.engine_provider import ModelProvider, OrderVerb, Serving
from service.error_responses import encode_error
from service.http_errors import ClientGone, NotFound
from service.routes.body import BodyDecoder, has_body
from service.sse import DONE, EventStreamReply, end_tasks, event, run_until_disconnect

_HEADERS: Final = {"cache-control": "no-store"}
_ENCODER: Final = msgspec.json.Encoder()
_UNLOAD: Final = BodyDecoder(UnloadOptions)
_NO_OPTIONS: Final = BodyDecoder(NoOptions)
VERBS: Final[dict[str, OrderVerb]] = {"load": "load", "unload": "unload", "default": "default"}


@get("/v1/models", sync_to_thread=False)
def list_models(request: Request[Any, Any, Any]) -> Response[ModelList]:
    """Every declared model."""
    provider: ModelProvider = request.app.state["provider"]
    provider.check_started()
    return Response(ModelList(data=cards(provider)), headers=_HEADERS)


@get("/v1/models/{model_id:path}", sync_to_thread=False)
def retrieve_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> Response[ModelCard]:
    """One model."""
    provider: ModelProvider = request.app.state["provider"]
    provider.check_started()
    return Response(card_of(provider, model_id.lstrip("/")), headers=_HEADERS)


@post("/v1/models/{model_id:path}", status_code=200)
async def order_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> ASGIApp:
    """POST .../load, .../unload or .../default. A load whose caller accepts text/event-stream tells its stages."""
    provider: ModelProvider = request.app.state["provider"]
    name, _, word = model_id.strip("/").rpartition("/")
    verb = VERBS.get(word)
    if verb is None or not name:
        raise NotFound("There is no such POST below /v1/models; there are load, unload and default.")
    options = await _read_options(request, provider, verb)
    provider.check_started()
    alias = provider.catalog.find(name).alias
    if verb != "unload" and "text/event-stream" in request.headers.get("accept", ""):
        return EventStreamReply(_stages(provider, verb, alias), lambda: None)
    order = obey(provider, verb, alias, options.timeout_s)
    if await run_until_disconnect(request.receive, order) is None:
        raise ClientGone
    return JsonReply(_ENCODER.encode(card_of(provider, alias)))


async def _read_options(request: Request[Any, Any, Any], provider: ModelProvider, verb: OrderVerb) -> UnloadOptions:
    """What the body says, where there is one; only an unload can be told anything."""
    if not has_body(request):
        return UnloadOptions()
    if verb == "unload":
        return (await _UNLOAD.receive(request, provider.settings)).body
    await _NO_OPTIONS.receive(request, provider.settings)
    return UnloadOptions()


class JsonReply:
    """One JSON body, as an ASGI reply: a handler returns either always an ASGI application or never."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(self._body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


async def obey(provider: ModelProvider, verb: OrderVerb, alias: str, timeout_s: float | None) -> bool:
    """Return True once the order is obeyed; raises as `order` does."""
    await provider.order(verb, alias, timeout_s)
    return True


async def _stages(provider: ModelProvider, verb: OrderVerb, alias: str) -> AsyncIterator[bytes]:
    """The card at every change until the model is ready; an error event where it cannot be."""
    order = asyncio.create_task(provider.order(verb, alias))
    changes = provider.changes(alias)
    step = asyncio.create_task(anext(changes, None))
    try:
        while not order.done():
            await asyncio.wait({order, step}, return_when=asyncio.FIRST_COMPLETED)
            if step.done() and not order.done():
                yield event(_ENCODER.encode(card_of(provider, alias)))
                if step.result() is None:  # nothing changes any more
                    await asyncio.wait({order})
                else:
                    step = asyncio.create_task(anext(changes, None))
        order.result()
        yield event(_ENCODER.encode(card_of(provider, alias))) + DONE
    except QuireError as error:
        yield event(encode_error(error))
    finally:
        await end_tasks(order, step)


def cards(provider: ModelProvider) -> list[ModelCard]:
    """Of every declared model, in the order of declaration."""
    return [card_of(provider, profile.alias) for profile in provider.catalog.profiles]


def card_of(provider: ModelProvider, name: str) -> ModelCard:
    """Of one; raises ModelNotFound."""
    profile = provider.catalog.find(name)
    table = provider.table
    serving = next((one for one in provider.all_serving() if one.model.names[0] == profile.alias), None)
    is_default = profile.alias == table.default_alias
    return _card(profile, table.get(profile.alias), serving, is_default=is_default)


def _card(profile: ModelProfile, state: ModelState, serving: Serving | None, *, is_default: bool) -> ModelCard:
    info = None if serving is None else serving.engine.info
    is_loading = state.phase is ModelPhase.LOADING
    return ModelCard(
        id=profile.alias,
        created=0 if serving is None else serving.created,
        root=profile.alias,
        state=state.phase,
        is_default=is_default,
        display_name=profile.shown_name,
        description=profile.description,
        family=profile.family,
        kind=_kind(profile, serving),
        progress=LoadProgress(stage=state.stage, fraction=state.fraction) if is_loading else None,
        error=state.error or None,
        memory_bytes=state.memory_bytes,
        load_s=state.load_s,
        max_model_len=profile.max_model_len if info is None else info.max_model_len,
        architecture=None if info is None else info.architecture,
        dtype=profile.dtype if info is None else info.dtype,
        num_parameters=None if info is None else info.num_parameters,
        sampling_defaults=None if serving is None else serving.model.info.sampling_defaults,
    )


def _kind(profile: ModelProfile, serving: Serving | None) -> ModelKind | None:
    if serving is not None:
        return "base" if serving.model.template is None else "chat"
    if profile.is_chat is None:
        return "chat" if profile.template is not None or profile.is_embedded else None
    return "chat" if profile.is_chat else "base"


HANDLERS = (list_models, retrieve_model, order_model)
