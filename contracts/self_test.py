"""What `quire doctor` asks of a process that computes, and what comes back, a JSON line for each message."""

from __future__ import annotations

import msgspec

from contracts.settings import EngineSettings


class SelfTestOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Standard input of `python -m batching.self_test`."""

    settings: EngineSettings
    prompts: list[list[int]]
    """Token ids; empty: look at torch alone and load nothing."""
    max_tokens: int


class TorchFacts(msgspec.Struct, frozen=True, kw_only=True, tag="torch"):
    """What torch sees; comes first, whatever happens to the model."""

    version: str
    cuda_build: str | None
    """The CUDA release that torch was built for; None: a build for CPUs alone."""
    num_gpus: int
    gpu_name: str | None
    device: str
    """Where the model would run."""
    cpu_capability: str
    """The widest vectors that torch uses."""
    num_cores: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sequence first differs from transformers' own."""

    prompt_index: int
    position: int
    """Of the token among the generated ones."""
    expected_token_id: int
    token_id: int
    logit_gap: float
    """Transformers' logit of its own choice less that of the other token."""
    tolerance: float
    """A smaller gap is a tie as far as rounding goes: both tokens are right."""

    @property
    def is_tie(self) -> bool:
        return self.logit_gap <= self.tolerance


class EqualityReport(msgspec.Struct, frozen=True, kw_only=True, tag="equality"):
    """Greedy continuations by both sides."""

    num_prompts: int
    num_tokens: int
    """Of the reference, all prompts together."""
    num_equal_tokens: int
    differences: list[Difference]
    """The first of each sequence that has one."""
    mean_batch_size: float
    """Sequences in a step of the engine."""
    dtype: str
    forward: str
    """The forward pass that the engine chose."""
    reference_s: float
    load_s: float
    engine_s: float


class KernelReport(msgspec.Struct, frozen=True, kw_only=True, tag="kernels"):
    """The compiled kernels of the CPU."""

    num_used: int
    num_from_cache: int
    num_compiled: int
    """Compiled just now, because the cache on disk did not have them."""
    problem: str | None = None
    """Why there are none."""


class SelfTestFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The last message where the model cannot be served."""

    message: str


SelfTestMessage = TorchFacts | EqualityReport | KernelReport | SelfTestFailed
