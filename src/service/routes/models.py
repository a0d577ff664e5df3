"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from litestar import Request, get
from litestar.params import FromPath

from contracts.errors import ModelNotFound, clip
from contracts.openai.models import ModelCard, ModelList
from service.engine_provider import EngineProvider, Serving


@get("/v1/models", sync_to_thread=False)
def list_models(request: Request[Any, Any, Any]) -> ModelList:
    """Every served model."""
    provider: EngineProvider = request.app.state["provider"]
    return ModelList(data=[_card(provider.serving)])


@get("/v1/models/{model_id:path}", sync_to_thread=False)
def retrieve_model(request: Request[Any, Any, Any], model_id: FromPath[str]) -> ModelCard:
    """One model; its id may hold slashes, plain or as %2F."""
    provider: EngineProvider = request.app.state["provider"]
    card = _card(provider.serving)
    name = model_id.lstrip("/")
    if name != card.id.lstrip("/"):
        raise ModelNotFound(f"Model '{clip(name)}' is not served here; use '{card.id}'.", param="model")
    return card


def _card(serving: Serving) -> ModelCard:
    info = serving.engine.info
    return ModelCard(
        id=info.model_name,
        created=serving.created,
        root=info.model_name,
        max_model_len=info.max_model_len,
        architecture=info.architecture,
        dtype=info.dtype,
        num_parameters=info.num_parameters,
    )


HANDLERS = (list_models, retrieve_model)
