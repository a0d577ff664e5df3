"""The models that an operator has declared: what each name in the API stands for, and how it is to be served.

Owns the types alone; service.model_catalog reads them from flags and files, and nobody else makes them. A name that
is not in the catalog cannot be served, whatever a client writes.
"""

from __future__ import annotations

import difflib
from typing import Annotated

import msgspec
from msgspec import Meta

from contracts.errors import ModelNotFound, clip
from contracts.openai.common import MaxTokens, MinP, RepetitionPenalty, Temperature, TopP
from contracts.sampling import SamplingDefaults
from contracts.settings import EMBEDDED_MODEL, EngineSettings


class ProfileSampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a request to the model gets where it says nothing; None leaves the wish of the checkpoint itself."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: MinP | None = None
    repetition_penalty: RepetitionPenalty | None = None
    max_tokens: MaxTokens | None = None
    """None: what the window leaves, for a chat; 16 for a completion, as OpenAI has it."""

    def over(self, own: SamplingDefaults) -> SamplingDefaults:
        """The checkpoint's own defaults with these in front."""
        wishes = {name: getattr(self, name) for name in own.__struct_fields__}
        return msgspec.structs.replace(own, **{name: value for name, value in wishes.items() if value is not None})


class ModelProfile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One declared model, checked; immutable, so that it may travel to every process."""

    alias: str
    """Its name in the API."""
    model: str
    """The embedded model's name, an absolute local directory, or a hub name."""
    display_name: str = ""
    """For people; empty: the alias."""
    description: str = ""
    family: str = ""
    """gpt2, llama3, gemma2 and so on; empty where nobody said."""
    template: str | None = None
    """Name of a built-in template or the absolute path of a .jinja file; None: the checkpoint's own, if any."""
    is_chat: bool | None = None
    """None: it is one if it has a template. False: /v1/completions alone."""
    max_model_len: int | None = None
    """Longest prompt plus output in tokens; None: the checkpoint's own."""
    dtype: str | None = None
    """auto, float32 or bfloat16; None: as the settings say."""
    kv_cache_memory: str | None = None
    """A size such as 512MiB; None: as the settings say, else from free memory."""
    sampling: ProfileSampling = ProfileSampling()
    memory_bytes: int | None = None
    """What loading it takes, all in all, as the operator says; None: estimated."""

    @property
    def shown_name(self) -> str:
        """What a list of models calls it."""
        return self.display_name or self.alias

    @property
    def is_embedded(self) -> bool:
        """The weights are in the package."""
        return self.model == EMBEDDED_MODEL

    def engine_settings(self, common: EngineSettings) -> EngineSettings:
        """The settings of an engine for this model: what the profile leaves open is as in `common`.

        Not so the window, for the one in `common` is MODEL's: the profile of MODEL holds it already.
        """
        given = {"dtype": self.dtype, "kv_cache_memory": self.kv_cache_memory}
        return msgspec.structs.replace(
            common,
            model=self.model,
            served_model_name=self.alias,
            max_model_len=self.max_model_len,
            **{name: value for name, value in given.items() if value is not None},
        )


class ModelCatalog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every model that may be served, in the order of declaration. Invariant: aliases are distinct, the default's
    is among them.
    """

    profiles: tuple[ModelProfile, ...]
    default_alias: str
    """Serves the requests that name no model."""

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(profile.alias for profile in self.profiles)

    @property
    def default(self) -> ModelProfile:
        return self.find(None)

    def get(self, alias: str) -> ModelProfile | None:
        """The profile of exactly this alias, else None."""
        return next((profile for profile in self.profiles if profile.alias == alias), None)

    def find(self, name: str | None) -> ModelProfile:
        """What serves a request for `name`, the default where it is None; raises ModelNotFound with what there is."""
        profile = self.get(self.default_alias if name is None else name)
        if profile is None:
            near = difflib.get_close_matches((name or "")[:128], self.aliases, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ModelNotFound(
                f"The model '{clip(name or '')}' is not served here. Served: {', '.join(self.aliases)}.{hint}",
                param="model",
            )
        return profile
