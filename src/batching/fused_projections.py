"""One product for the projections of a transformers module that read the same input, without touching its source.

q_proj, k_proj and v_proj (or gate_proj and up_proj) give way to modules that share one matrix: the one that is called
first computes them all and keeps the other parts until they are asked for. A probe decides which projections may be
joined, and another one takes it all back where the logits are not the same. Knows nothing of devices and steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import structlog
import torch
from torch.nn import functional

from batching.attention.reference import AttentionVariant, attend_sequence
from batching.kv_cache import LayerCache, LayerShape
from batching.probe import TOLERANCE, relative_difference

log = structlog.get_logger("quire.engine")

JOINED_NAMES = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
PROBE_IDS = (1, 5, 2, 7, 3)
"""Token ids of the probe: every vocabulary has them."""


class JoinedProduct:
    """The shared matrix `[sum of out, in]` of some projections, and the parts that were computed and not yet asked for.

    Owner: the projections that share it, used by one thread. Invariant: the parts are those of `_input`, the very
    tensor that the first projection was called with.
    """

    def __init__(self, linears: list[torch.nn.Linear]) -> None:
        self.weight = torch.cat([linear.weight.data for linear in linears])
        self.bias: torch.Tensor | None = None
        if any(linear.bias is not None for linear in linears):
            self.bias = torch.cat([_bias_or_zeros(linear) for linear in linears])
        self._lens = [linear.out_features for linear in linears]
        self._input: torch.Tensor | None = None
        self._parts: dict[int, torch.Tensor] = {}

    def rows(self, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The rows of weight or bias that belong to each projection, as views."""
        return torch.split(tensor, self._lens)

    def compute(self, x: torch.Tensor) -> torch.Tensor:
        """The first projection of x `[..., in]`; the others are kept for take()."""
        first, *others = torch.split(functional.linear(x, self.weight, self.bias), self._lens, dim=-1)
        self._input = x
        self._parts = dict(enumerate(others, start=1))
        return first

    def take(self, index: int, x: torch.Tensor) -> torch.Tensor | None:
        """The kept part of exactly this tensor, once; None where there is none. The last one lets go of the input."""
        if x is not self._input:
            return None
        part = self._parts.pop(index, None)
        if not self._parts:
            self._input = None
        return part


class FirstProjection(torch.nn.Module):
    """Takes the place of the projection that is called first: computes all of them."""

    def __init__(self, linear: torch.nn.Linear, joined: JoinedProduct) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._joined = joined

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x `[..., in]` -> `[..., out]`."""
        return self._joined.compute(x)


class LaterProjection(torch.nn.Module):
    """Takes the place of another one: returns what was kept for this very input, and computes for any other."""

    def __init__(self, linear: torch.nn.Linear, joined: JoinedProduct, index: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._joined = joined
        self._index = index

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x `[..., in]` -> `[..., out]`."""
        kept = self._joined.take(self._index, x)
        return functional.linear(x, self.weight, self.bias) if kept is None else kept


class Group(NamedTuple):
    """Projections of one parent module, in the order in which it calls them."""

    parent: torch.nn.Module
    names: list[str]
    linears: list[torch.nn.Linear]


@torch.no_grad()
def fuse_projections(model: torch.nn.Module) -> int:
    """Join what can be joined in a gated model and return the number of joined groups; 0 leaves it as it was.

    The weights of a group come to stand one after the other, and each projection keeps its own as a view: there is no
    second copy, the parameters stay the ones they were, and a model that then says something else is taken apart
    again.
    """
    with _DirectAttention(model):
        groups, expected = _find_groups(model)
        for group in groups:
            _join(group)
        difference = _difference_now(model, expected) if groups else 0.0
    if not difference <= TOLERANCE.get(expected.dtype, TOLERANCE[torch.bfloat16]):
        for group in groups:
            _separate(group)
        log.warning("fused_projections_rejected", difference=difference, num_groups=len(groups))
        return 0
    return len(groups)


def _join(group: Group) -> None:
    joined = JoinedProduct(group.linears)
    _point_at(joined, group.linears)
    if joined.weight.is_cuda:
        torch.cuda.empty_cache()  # else the matrices given up stay reserved: the next, larger one has no use of them
    for index, (name, linear) in enumerate(zip(group.names, group.linears, strict=True)):
        member = LaterProjection(linear, joined, index) if index else FirstProjection(linear, joined)
        setattr(group.parent, name, member)


def _point_at(joined: JoinedProduct, linears: list[torch.nn.Linear]) -> None:
    """Let the parameters be views of the joined ones, so that their own memory is given back."""
    for linear, weight in zip(linears, joined.rows(joined.weight), strict=True):
        linear.weight.data = weight
    if joined.bias is not None:
        for linear, bias in zip(linears, joined.rows(joined.bias), strict=True):
            if linear.bias is not None:
                linear.bias.data = bias


def _separate(group: Group) -> None:
    """The plain modules again; their parameters stay views of the joined ones, which are rows of them."""
    for name, linear in zip(group.names, group.linears, strict=True):
        setattr(group.parent, name, linear)


def _bias_or_zeros(linear: torch.nn.Linear) -> torch.Tensor:
    bias: torch.Tensor | None = linear.bias
    return linear.weight.new_zeros(linear.out_features) if bias is None else bias.data


def _find_groups(model: torch.nn.Module) -> tuple[list[Group], torch.Tensor]:
    """The groups whose projections one forward pass calls once each with one and the same tensor; and its logits."""
    candidates = [(parent, names) for parent in model.modules() for names in JOINED_NAMES if _may_join(parent, names)]
    shared = _shared_parameters(model)
    watched = {id(child): child for parent, names in candidates for child in _children(parent, names)}
    calls: list[tuple[int, torch.Tensor]] = []

    def note(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        calls.append((id(module), inputs[0] if inputs else torch.empty(0)))

    hooks = [module.register_forward_pre_hook(note) for module in watched.values()]
    try:
        logits = _probe_logits(model)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for parent, names in candidates:
        children = _children(parent, names)
        id_to_name = {id(child): name for name, child in zip(names, children, strict=True)}
        own = [(id_to_name[module_id], x) for module_id, x in calls if module_id in id_to_name]
        order = [name for name, _ in own]
        is_once = sorted(order) == sorted(names) and all(x is own[0][1] for _, x in own)
        is_alone = not any(id(parameter) in shared for child in children for parameter in child.parameters())
        if is_once and is_alone:
            found.append(Group(parent, order, [getattr(parent, name) for name in order]))
    return found, logits


def _may_join(parent: torch.nn.Module, names: tuple[str, ...]) -> bool:
    children = _children(parent, names)
    if len(children) < len(names) or any(type(child) is not torch.nn.Linear for child in children):
        return False
    kinds = {(child.in_features, child.weight.dtype, child.weight.device) for child in children}
    return len(kinds) == 1


def _children(parent: torch.nn.Module, names: tuple[str, ...]) -> list[Any]:
    own = dict(parent.named_children())
    return [own[name] for name in names if name in own]


def _shared_parameters(model: torch.nn.Module) -> set[int]:
    """Ids of the parameters that stand at more than one place: joining would leave the other place a copy."""
    counts = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    return {parameter_id for parameter_id, count in counts.items() if count > 1}


def _difference_now(model: torch.nn.Module, expected: torch.Tensor) -> float:
    """Infinite where the model does not run any more: it may look at its projections in a way of its own."""
    try:
        return relative_difference(_probe_logits(model), expected)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return float("inf")


def _probe_logits(model: torch.nn.Module) -> torch.Tensor:
    """Logits of a few tokens `[tokens, vocab]`, attention included."""
    device = next(model.parameters()).device
    ids = torch.tensor([PROBE_IDS], device=device)
    positions = torch.arange(len(PROBE_IDS), device=device)[None]
    logits: torch.Tensor = model(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
    return logits


class _AttendAtOnce:
    """Hangs on an attention module while a probe runs: attention over the tokens of the probe, and no cache."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, variant: AttentionVariant) -> torch.Tensor:
        shape = LayerShape(num_kv_heads=k.shape[0], k_dim=k.shape[2], v_dim=v.shape[2])
        cache = LayerCache(shape, 1, k.shape[1], k)
        cache.k[0], cache.v[0] = k, v
        block = torch.zeros(1, dtype=torch.int64, device=k.device)
        return attend_sequence(q, cache, block, k.shape[1], variant)


class _DirectAttention:
    """A context within which the gated attention modules of a model attend without a cache."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._modules: list[Any] = list(self._gated(model))
        self._hung = [module.paged_layer for module in self._modules]

    def __enter__(self) -> None:
        for module in self._modules:
            module.paged_layer = _AttendAtOnce()

    def __exit__(self, *_: object) -> None:
        for module, layer in zip(self._modules, self._hung, strict=True):
            module.paged_layer = layer

    @staticmethod
    def _gated(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
        return (module for module in model.modules() if hasattr(module, "paged_layer"))
