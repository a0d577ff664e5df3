"""Whether the model that was asked for can exist at all, told before anything heavy is imported."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from contracts.errors import ModelNotUsable
from contracts.settings import EMBEDDED_MODEL, EngineSettings

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REMEDY = "Name a directory that holds config.json, or a hub name such as organisation/model."


def check_model_exists(settings: EngineSettings) -> None:
    """Raise ModelNotUsable for a directory without a model, or a name that cannot be on the hub.

    A hub name passes unless the hub may not be asked; whether the hub has it shows when it is loaded.
    """
    model = settings.model
    if model == EMBEDDED_MODEL:
        _check_embedded()
        return
    directory = Path(model).expanduser()
    if model and directory.is_dir():
        if not (directory / "config.json").is_file():
            raise ModelNotUsable(f"The directory {model} holds no config.json. {_REMEDY}")
        return
    if model and directory.exists():
        raise ModelNotUsable(f"{model} is a file, not a model directory. {_REMEDY}")
    if not _HUB_NAME.fullmatch(model):
        raise ModelNotUsable(f"There is no model directory {model!r}. {_REMEDY}")
    if settings.offline and not _is_cached(model):
        raise ModelNotUsable(
            f"There is no directory {model}, the hub's local cache does not hold it, and the hub may not be asked "
            "(--offline or HF_HUB_OFFLINE=1). Allow it with --no-offline, or name a directory."
        )


def _check_embedded() -> None:
    spec = find_spec("batching.pico")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not any((Path(place) / "weights" / "config.json").is_file() for place in places):
        raise ModelNotUsable(
            f"The embedded model {EMBEDDED_MODEL} is not in this installation. Install Quire again from a complete "
            "wheel or checkout, or name another model."
        )


def _is_cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)
