"""The LLM Serving API below /api/v1: its models, and what the service is."""

from __future__ import annotations

import re
from typing import Any, Final

from litestar import Request, Response, get, post

from contracts.compat.llm_serving import (
    LoadReply,
    ModelInfo,
    ModelOverview,
    ModelSummary,
    ServiceInfo,
    SwitchRequest,
)
from contracts.errors import InvalidValue, ModelNotFound
from contracts.openai.models import ModelCard
from service.compat.decoding import not_blank, provider_of, receive
from service.engine_provider import ModelProvider
from service.http_errors import ClientGone
from service.routes.body import BodyDecoder
from service.routes.models import card_of, cards, obey
from service.routes.pages import package_version
from service.sse import run_until_disconnect

ENDPOINTS: Final = {
    "generation": {"generate": "/api/v1/generate", "load_model": "/api/v1/load-model"},
    "chat": {
        "chat": "/api/v1/chat",
        "new_conversation": "/api/v1/chat/new",
        "list_models": "/api/v1/chat/models",
        "switch_model": "/api/v1/chat/switch-model",
        "get_conversation": "/api/v1/chat/conversation/{id}",
    },
    "system": {"health": "/api/v1/health", "model_info": "/api/v1/model-info"},
}
_SWITCH: Final = BodyDecoder(SwitchRequest)
_NO_STORE: Final = {"cache-control": "no-store"}
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
_GB: Final = 10**9


@get("/api/v1", sync_to_thread=False)
def describe_service(request: Request[Any, Any, Any]) -> Response[ServiceInfo]:
    """What the service is and where to go."""
    overview = overview_of(provider_of(request))
    info = ServiceInfo(
        message="Quire: LLM serving with chat",
        version=package_version(),
        current_model=overview.current_model,
        chat_models=overview.chat_models,
        endpoints=ENDPOINTS,
    )
    return Response(info, headers=_NO_STORE)


@get("/api/v1/chat/models", sync_to_thread=False)
def list_models(request: Request[Any, Any, Any]) -> Response[ModelOverview]:
    """Every declared model."""
    return Response(overview_of(provider_of(request)), headers=_NO_STORE)


@get("/api/v1/model-info", sync_to_thread=False)
def show_model(request: Request[Any, Any, Any]) -> Response[ModelInfo]:
    """The default model, loaded or not."""
    provider = provider_of(request)
    card = card_of(provider, provider.table.default_alias)
    device = provider.serving.engine.info.device if provider.is_loaded else ""
    info = ModelInfo(
        model_name=card.id,
        model_type=card.architecture or card.family,
        model_size="" if card.num_parameters is None else f"{card.num_parameters / 1e6:.1f}M parameters",
        device=device,
        max_length=card.max_model_len,
        loaded=provider.is_loaded,
    )
    return Response(info, headers=_NO_STORE)


@post("/api/v1/chat/switch-model", status_code=200)
async def switch_model(request: Request[Any, Any, Any]) -> Response[LoadReply]:
    """Load a declared model and make it the default; where it cannot be loaded, the old one stays."""
    wanted = not_blank((await receive(request, _SWITCH)).body.model_name, "model_name")
    provider = provider_of(request)
    provider.check_started()
    try:
        alias = provider.catalog.find(wanted).alias
    except ModelNotFound as error:
        raise InvalidValue(error.message, param="model_name") from None
    if alias == provider.table.default_alias and provider.is_loaded:
        return _loaded(provider, alias, f"Already using model: {alias}")
    if await run_until_disconnect(request.receive, obey(provider, "default", alias, None)) is None:
        raise ClientGone
    return _loaded(provider, alias, f"Successfully switched to {alias}")


@post("/api/v1/load-model", status_code=200)
async def load_model(request: Request[Any, Any, Any]) -> Response[LoadReply]:
    """Load the default model, where it is not; a body is not looked at."""
    provider = provider_of(request)
    provider.check_started()
    alias = provider.table.default_alias
    if provider.is_loaded:
        return _loaded(provider, alias, "Model already loaded")
    await provider.order("load", alias)
    return _loaded(provider, alias, "Model loaded successfully")


def overview_of(provider: ModelProvider) -> ModelOverview:
    """Every declared model, and which is the default."""
    every = [(card, model_id_of(provider, card.id)) for card in cards(provider)]
    return ModelOverview(
        models=[_summary(card, model_id) for card, model_id in every],
        chat_models=[card.id for card, _ in every if card.kind == "chat"],
        current_model=provider.table.default_alias,
    )


def model_id_of(provider: ModelProvider, alias: str) -> str:
    """Its name on the hub; where it is a directory its alias, as nobody outside needs to know where it lies."""
    model = provider.catalog.find(alias).model
    return model if _HUB_NAME.fullmatch(model) else alias


def _summary(card: ModelCard, model_id: str) -> ModelSummary:
    return ModelSummary(
        name=card.id,
        display_name=card.display_name,
        model_id=model_id,
        supports_chat=card.kind == "chat",
        description=card.description,
        memory_requirement="unknown" if card.memory_bytes is None else f"{card.memory_bytes / _GB:.1f}GB",
        max_length=card.max_model_len,
    )


def _loaded(provider: ModelProvider, alias: str, message: str) -> Response[LoadReply]:
    reply = LoadReply(
        message=message,
        model_name=alias,
        model_id=model_id_of(provider, alias),
        load_time=provider.table.get(alias).load_s,
    )
    return Response(reply, headers=_NO_STORE)


HANDLERS = (describe_service, list_models, show_model, switch_model, load_model)
