"""Projections of one input become one product, with one copy of the weights, and only where that changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from batching.attention import select_backend
from batching.attention.paged_layer import LayerProbe
from batching.engine import allocate_cache, describe, scheduler_config
from batching.forward import GenericForward, is_whole
from batching.fused_projections import FirstProjection, LaterProjection, fuse_projections
from batching.model_loader import LoadedModel, load_model, no_progress
from batching.model_runner import ModelRunner
from batching.sampler import Sampler
from batching.scheduler import Scheduler
from tests.batching.real_engine import engine_settings, greedy_request, run_all
from tests.batching.tiny_models import FAMILIES, TinyModels, make_config, make_model, save

NUM_TOKENS = 8
NUM_GROUPS = {
    **dict.fromkeys(FAMILIES, 4),
    **dict.fromkeys(["gpt2", "phi3", "phi3_longrope", "gpt_neox"], 0),
    **dict.fromkeys(["opt", "mixtral", "qwen3_moe", "gpt_oss", "starcoder2", "glm4", "phi"], 2),
    "smollm3": 6,
}
"""Of the tiny models: each layer has q, k, v and gate, up; some families have fused matrices or experts instead."""


def load(tiny_models: TinyModels, family: str, **settings: Any) -> LoadedModel:
    path = tiny_models.reference(family).path
    return load_model(engine_settings(path, **({"max_model_len": 128} | settings)), no_progress)


def tokens_of(loaded: LoadedModel, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy continuations of one batch by transformers' forward pass."""
    settings = engine_settings(loaded.path, max_model_len=128)
    pool = allocate_cache(settings, loaded)
    forward = GenericForward(loaded, pool, select_backend(loaded.device))
    runner = ModelRunner(forward, pool, Sampler(loaded.vocab_size, frozenset(), loaded.device))
    scheduler = Scheduler(scheduler_config(settings, describe(settings, loaded, pool)))
    requests = [greedy_request(str(i), prompt, max_tokens=NUM_TOKENS) for i, prompt in enumerate(prompts)]
    outcome = run_all(scheduler, runner, requests)
    return [outcome.text(request.request_id) for request in requests]


def storage_bytes(model: torch.nn.Module) -> int:
    """Of all storages that parameters, and the joined matrices, live in."""
    tensors = [*model.parameters(), *(m._joined.weight for m in model.modules() if isinstance(m, FirstProjection))]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_model_continues_as_transformers_does(tiny_models: TinyModels, family: str) -> None:
    reference = tiny_models.reference(family)
    loaded = load(tiny_models, family)
    assert fuse_projections(loaded.model) == NUM_GROUPS[family]
    prompts = reference.prompts[::2]
    assert tokens_of(loaded, prompts) == [output[:NUM_TOKENS] for output in reference.outputs[::2]]


@pytest.mark.parametrize("family", ["llama", "qwen2", "opt"])
def test_weights_are_not_copied(tiny_models: TinyModels, family: str) -> None:
    """Parameters stay what they were, as rows of the joined matrices."""
    loaded = load(tiny_models, family)
    before = {name: parameter.clone() for name, parameter in loaded.model.named_parameters()}
    num_bytes = sum(parameter.nbytes for parameter in loaded.model.parameters())
    fuse_projections(loaded.model)
    after = dict(loaded.model.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert is_whole(loaded)
    assert abs(storage_bytes(loaded.model) - num_bytes) < 0.01 * num_bytes


def test_tied_embeddings_stay_one_tensor(tmp_path: Any) -> None:
    path = save(make_model(make_config("llama", tie_word_embeddings=True), 0), tmp_path)
    loaded = load_model(engine_settings(path), no_progress)
    assert fuse_projections(loaded.model) == 4
    model: Any = loaded.model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_bfloat16_is_fused_and_nothing_is_left_hanging(tiny_models: TinyModels) -> None:
    loaded = load(tiny_models, "llama", dtype="bfloat16")
    assert fuse_projections(loaded.model) == 4
    joined = [m._joined for m in loaded.model.modules() if isinstance(m, FirstProjection)]
    assert [(product._input, product._parts) for product in joined] == [(None, {})] * 4
    assert all(isinstance(layer.module.paged_layer, LayerProbe) for layer in loaded.layers)


class Toy(torch.nn.Module):
    """Three projections of one input, combined by a function; the logits tell them apart."""

    def __init__(self, combine: Callable[[Any, torch.Tensor], list[torch.Tensor]], *biases: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(10, 8)
        names = ("q_proj", "k_proj", "v_proj")
        for name, size, bias in zip(names, (12, 4, 6), biases or (False, False, False), strict=True):
            setattr(self, name, torch.nn.Linear(8, size, bias=bias))
        self._combine = combine
        self.requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> Any:
        x = self.embedding(input_ids) * (1 + position_ids[..., None])
        return SimpleNamespace(logits=torch.cat(self._combine(self, x), dim=-1))

    def logits(self, scale: float = 1.0) -> torch.Tensor:
        ids = torch.arange(4)[None]
        found: torch.Tensor = self(ids, ids * scale, use_cache=False).logits
        return found


def in_order(toy: Any, x: torch.Tensor) -> list[torch.Tensor]:
    return [toy.q_proj(x), toy.k_proj(x), toy.v_proj(x)]


def backwards(toy: Any, x: torch.Tensor) -> list[torch.Tensor]:
    return [toy.v_proj(x), toy.k_proj(x), toy.q_proj(x)]


def key_of_another(toy: Any, x: torch.Tensor) -> list[torch.Tensor]:
    return [toy.q_proj(x), toy.k_proj(x + 1), toy.v_proj(x)]


def twice(toy: Any, x: torch.Tensor) -> list[torch.Tensor]:
    return [toy.q_proj(x), toy.k_proj(x), toy.v_proj(x), toy.q_proj(x)]


def without_value(toy: Any, x: torch.Tensor) -> list[torch.Tensor]:
    return [toy.q_proj(x), toy.k_proj(x)]


def changed_between(toy: Any, x: torch.Tensor) -> list[torch.Tensor]:
    return [toy.q_proj(x), toy.k_proj(x.add_(1.0)), toy.v_proj(x)]


def looking_closely(toy: Any, x: torch.Tensor) -> list[torch.Tensor]:
    assert callable(toy.q_proj.reset_parameters)
    return in_order(toy, x)


def kinds_of(toy: Toy) -> list[type]:
    return [type(getattr(toy, name)) for name in ("q_proj", "k_proj", "v_proj")]


@pytest.mark.parametrize("biases", [(), (True, True, True), (True, False, True), (False, False, True)], ids=str)
@pytest.mark.parametrize(
    ("combine", "kinds"),
    [
        (in_order, [FirstProjection, LaterProjection, LaterProjection]),
        (backwards, [LaterProjection, LaterProjection, FirstProjection]),
    ],
)
def test_any_order_and_any_biases_give_the_same(
    combine: Callable[..., Any], kinds: list[type], biases: tuple[bool, ...]
) -> None:
    toy = Toy(combine, *biases)
    expected = toy.logits(), toy.logits(scale=3.0)
    assert fuse_projections(toy) == 1
    assert kinds_of(toy) == kinds
    torch.testing.assert_close((toy.logits(), toy.logits(scale=3.0)), expected)


@pytest.mark.parametrize("combine", [key_of_another, twice, without_value, changed_between, looking_closely])
def test_what_is_not_one_product_stays_as_it_was(combine: Callable[..., Any]) -> None:
    """Also where only the logits after fusing, or the failure to get any, tell."""
    toy = Toy(combine)
    expected = toy.logits()
    num_bytes = sum(parameter.nbytes for parameter in toy.parameters())
    assert fuse_projections(toy) == 0
    assert kinds_of(toy) == [torch.nn.Linear] * 3
    torch.testing.assert_close(toy.logits(), expected)
    assert storage_bytes(toy) == num_bytes


def test_projection_called_with_another_input_later_computes_it_for_real() -> None:
    toy: Any = Toy(in_order, True, True, True)
    x, y = torch.randn(2, 3, 8).unbind()
    expected = toy.k_proj(y), toy.v_proj(x), toy.k_proj(x)
    fuse_projections(toy)
    toy.q_proj(x)
    torch.testing.assert_close((toy.k_proj(y), toy.v_proj(x), toy.k_proj(x)), expected)
    torch.testing.assert_close(toy.k_proj(x), expected[2])
    assert toy.q_proj._joined._input is None


class OtherLinear(torch.nn.Linear):
    """A product with a meaning of its own, such as a quantised one."""


@pytest.mark.parametrize(
    "change",
    [
        lambda toy: setattr(toy, "k_proj", OtherLinear(8, 4)),
        lambda toy: setattr(toy.k_proj, "weight", toy.other.weight),
        lambda toy: toy.k_proj.double(),
        lambda toy: delattr(toy, "v_proj"),
    ],
    ids=["another class", "tied elsewhere", "another type", "missing"],
)
def test_only_plain_products_of_their_own_weights_are_joined(change: Callable[[Any], object]) -> None:
    toy: Any = Toy(lambda toy, x: [toy.q_proj(x), toy.k_proj(x.to(toy.k_proj.weight.dtype)).float()])
    toy.other = torch.nn.Linear(8, 4)
    change(toy)
    assert fuse_projections(toy) == 0
    assert not [module for module in toy.modules() if isinstance(module, FirstProjection | LaterProjection)]
