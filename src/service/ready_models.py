"""Ready entries: well-known models that an operator can declare by name alone, under names that say what they are.

Nothing here is served, fetched or looked up unless it is named. Windows are cut where a model's own would need more
KV cache than the engine takes by default; sizes are those of the published checkpoints.
"""

from __future__ import annotations

import msgspec

from contracts.model_catalog import ModelProfile


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What decides how much memory a model takes."""

    num_weights: int
    """Parameters that are loaded in the type of computation."""
    other_bytes: int = 0
    """Of tensors that keep their own type."""
    num_shared: int = 0
    """Of the parameters, those of an embedding that is the output matrix as well."""
    is_half: bool
    """Stored in 16 bits, which dtype auto keeps."""
    num_kv_values: int | None
    """Numbers that one token adds to the KV cache, all layers together; None where nobody says."""
    window: int
    """The longest context of the model itself."""


class ReadyModel(msgspec.Struct, frozen=True, kw_only=True):
    """One ready entry: what to declare, and its size until the files are there."""

    profile: ModelProfile
    facts: ModelFacts


def find_ready(alias: str) -> ModelProfile | None:
    """The ready entry of this name."""
    return READY_MODELS[alias].profile if alias in READY_MODELS else None


def find_facts(model: str) -> ModelFacts | None:
    """The size of a hub name that is a ready entry's."""
    return next((ready.facts for ready in READY_MODELS.values() if ready.profile.model == model), None)


_PLAIN = "Base model; chats through the plain transcript 'gpt2'."
_BASE = "Base model; chats through the transcript 'default'."
_GATED = "Its licence must be accepted on the hub first."


def _gpt2(alias: str, organisation: str, *, num_weights: int, num_layers: int, hidden: int) -> ReadyModel:
    name = alias.replace("gpt2", "GPT-2") if alias != "distilgpt2" else "DistilGPT-2"
    return ReadyModel(
        profile=ModelProfile(
            alias=alias,
            model=f"{organisation}/{alias}",
            display_name=name,
            description=_PLAIN,
            family="gpt2",
            template="gpt2",
            max_model_len=1024,
        ),
        facts=ModelFacts(
            num_weights=num_weights,
            num_shared=50257 * hidden,
            is_half=False,
            num_kv_values=num_layers * hidden * 2,
            window=1024,
        ),
    )


def _pair(ready: ReadyModel, base: tuple[str, str], chat: tuple[str, str]) -> list[ReadyModel]:
    """The base model and the one trained to chat, each as (alias, hub name); they have the same size."""
    note = f" {_GATED}"
    kinds = [(base, "", _BASE + note, "default"), (chat, " Instruct", f"Chat model.{note}", None)]
    return [
        msgspec.structs.replace(
            ready,
            profile=msgspec.structs.replace(
                ready.profile,
                alias=alias,
                model=model,
                display_name=ready.profile.display_name + suffix,
                description=description,
                template=template,
                is_chat=True if template is None else None,
            ),
        )
        for (alias, model), suffix, description, template in kinds
    ]


def _llama(version: str, size: str, *, num_weights: int, num_shared: int, num_kv_values: int) -> list[ReadyModel]:
    alias = f"llama-{version}-{size.lower()}"
    hub_name = f"meta-llama/Llama-{version}-{size}"
    ready = ReadyModel(
        profile=ModelProfile(
            alias=alias,
            model=hub_name,
            display_name=f"Llama {version} {size}",
            family="llama3",
            max_model_len=8192,
        ),
        facts=ModelFacts(
            num_weights=num_weights,
            num_shared=num_shared,
            is_half=True,
            num_kv_values=num_kv_values,
            window=131072,
        ),
    )
    return _pair(ready, (alias, hub_name), (f"{alias}-instruct", f"{hub_name}-Instruct"))


def _gemma(version: str, size: str, facts: ModelFacts, *, base_suffix: str = "") -> list[ReadyModel]:
    alias = f"gemma-{version}-{size}"
    hub_name = f"google/{alias}"
    ready = ReadyModel(
        profile=ModelProfile(
            alias=alias,
            model=hub_name,
            display_name=f"Gemma {version} {size.upper()}",
            family=f"gemma{version}",
            max_model_len=8192,
            # Some base models of the family are stored in 32 bits, which would double their size for nothing.
            dtype="bfloat16",
        ),
        facts=facts,
    )
    return _pair(ready, (f"{alias}{base_suffix}", f"{hub_name}{base_suffix}"), (f"{alias}-it", f"{hub_name}-it"))


_ALL = [
    _gpt2("gpt2", "openai-community", num_weights=124_439_808, num_layers=12, hidden=768),
    _gpt2("gpt2-medium", "openai-community", num_weights=354_823_168, num_layers=24, hidden=1024),
    _gpt2("gpt2-large", "openai-community", num_weights=774_030_080, num_layers=36, hidden=1280),
    _gpt2("gpt2-xl", "openai-community", num_weights=1_557_611_200, num_layers=48, hidden=1600),
    _gpt2("distilgpt2", "distilbert", num_weights=81_912_576, num_layers=6, hidden=768),
    *_llama("3.2", "1B", num_weights=1_235_814_400, num_shared=128256 * 2048, num_kv_values=16 * 8 * 64 * 2),
    *_llama("3.2", "3B", num_weights=3_212_749_824, num_shared=128256 * 3072, num_kv_values=28 * 8 * 128 * 2),
    *_llama("3.1", "8B", num_weights=8_030_261_248, num_shared=0, num_kv_values=32 * 8 * 128 * 2),
    *_gemma(
        "3",
        "270m",
        ModelFacts(
            num_weights=268_098_176,
            num_shared=262144 * 640,
            is_half=True,
            num_kv_values=18 * 1 * 256 * 2,
            window=32768,
        ),
    ),
    *_gemma(
        "3",
        "1b",
        ModelFacts(
            num_weights=999_885_952,
            num_shared=262144 * 1152,
            is_half=True,
            num_kv_values=26 * 1 * 256 * 2,
            window=32768,
        ),
        base_suffix="-pt",
    ),
    *_gemma(
        "2",
        "2b",
        ModelFacts(
            num_weights=2_614_341_888,
            num_shared=256000 * 2304,
            is_half=True,
            num_kv_values=26 * 4 * 256 * 2,
            window=8192,
        ),
    ),
]

READY_MODELS = {ready.profile.alias: ready for ready in _ALL}
