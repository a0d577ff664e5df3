"""What can be said of every declared model before it is loaded: where it is, how it chats, what it would take.

Reads small files only. A model whose files are broken is a row that says so, never an error.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from contracts.errors import ModelNotUsable
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.settings import EngineSettings
from service.chat_template import read_template_source
from service.model_facts import facts_of, find_directory
from service.model_memory import DeviceMemory, estimate_memory

Location = Literal["embedded", "directory", "hub, fetched", "hub"]


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One declared model."""

    alias: str
    display_name: str
    description: str
    family: str
    model: str
    is_default: bool
    location: Location
    template: str | None
    """What chats are rendered with: a built-in name, a file, `its own`, or None."""
    is_chat: bool | None
    """None: not known until the model is fetched."""
    max_model_len: int | None
    memory_bytes: int | None
    memory: str
    """The sum behind memory_bytes, in words."""
    problem: str | None = None
    """Why it cannot be served as it is."""


def list_models(catalog: ModelCatalog, common: EngineSettings, memory: DeviceMemory) -> list[ModelRow]:
    """A row for each profile, in the catalog's order."""
    return [
        _row(profile, common, memory, is_default=profile.alias == catalog.default_alias) for profile in catalog.profiles
    ]


def _row(profile: ModelProfile, common: EngineSettings, memory: DeviceMemory, *, is_default: bool) -> ModelRow:
    problem: str | None = None
    template, is_chat = profile.template, profile.is_chat
    window, need = profile.max_model_len, None
    try:
        template, is_chat = _chat(profile)
        need = estimate_memory(profile, common, memory)
        facts = facts_of(profile)
        window = window or (None if facts is None else facts.window)
    except ModelNotUsable as error:
        problem = error.message
    return ModelRow(
        alias=profile.alias,
        display_name=profile.shown_name,
        description=profile.description,
        family=profile.family,
        model=profile.model,
        is_default=is_default,
        location=_location(profile),
        template=template,
        is_chat=is_chat,
        max_model_len=window,
        memory_bytes=None if need is None else need.total_bytes,
        memory="not known before it is fetched" if need is None else need.explain(),
        problem=problem,
    )


def _location(profile: ModelProfile) -> Location:
    if profile.is_embedded:
        return "embedded"
    if profile.model.startswith("/"):
        return "directory"
    return "hub" if find_directory(profile.model) is None else "hub, fetched"


def _chat(profile: ModelProfile) -> tuple[str | None, bool | None]:
    """The template and whether there is one; as far as that can be known now."""
    if profile.is_chat is False:
        return None, False
    if profile.template is not None:
        return profile.template, True
    directory = find_directory(profile.model, is_embedded=profile.is_embedded)
    if directory is None:
        return None, profile.is_chat
    has_template = read_template_source(directory) is not None
    if profile.is_chat and not has_template:
        raise ModelNotUsable(f"It is declared a chat model, but {directory} holds no chat template.")
    return ("its own" if has_template else None), has_template
