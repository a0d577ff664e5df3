"""What one run measures: everything that a part needs to know, written to a file for the process that runs it."""

from __future__ import annotations

import time

import msgspec

from contracts.settings import EngineSettings
from ops.bench.gpu.floors import Machine
from ops.bench.gpu.model_sizes import MODELS, ModelSize
from ops.bench.gpu.workload import WorkloadSize

SOFT_SHARE = 0.85
"""Of a part's time, after which it begins nothing more."""


UNKNOWN_MACHINE = Machine(name="unknown device", copy_bytes_per_s=1.0, flops_per_s=1.0)
"""Until it is measured; floors that come from it are not shown."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How large the measurements are; a toy's are small."""

    workload: WorkloadSize = WorkloadSize()
    contexts: tuple[int, ...] = (512, 2048, 8192, 32_768)
    batches: tuple[int, ...] = (1, 16, 256)
    num_http_requests: int = 500
    http_prompt_len: int = 512
    http_output_len: int = 128
    stream_prompt_len: int = 128
    stream_output_len: int = 512
    copy_bytes: int = 4 * 1024**3
    matrix_size: int = 8192
    batched_tokens: int = 8192


TOY_SIZES = Sizes(
    workload=WorkloadSize(num_requests=6, shortest=8, longest=24),
    contexts=(32, 128),
    batches=(1, 4),
    num_http_requests=8,
    http_prompt_len=16,
    http_output_len=8,
    stream_prompt_len=16,
    stream_output_len=16,
    copy_bytes=32 * 1024**2,
    matrix_size=256,
    batched_tokens=256,
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    model_name: str
    directory: str
    """Of the checkpoint."""
    device: str
    kv_dtype: str = "auto"
    machine: Machine = UNKNOWN_MACHINE
    sizes: Sizes = Sizes()
    is_tuning: bool = False
    has_torch_ops: bool = False
    """The runner of a GPU with its operations in plain torch, so that it can run on a CPU."""
    time_limit_s: float = 240.0

    @property
    def model(self) -> ModelSize:
        return MODELS[self.model_name]

    @property
    def kv_item_bytes(self) -> int:
        return 1 if self.kv_dtype == "fp8" else 2

    def deadline_s(self) -> float:
        """On the monotonic clock, for a part that begins now."""
        return time.monotonic() + SOFT_SHARE * self.time_limit_s


def engine_settings(plan: Plan, *, max_num_seqs: int, max_model_len: int) -> EngineSettings:
    """The engine as it is measured."""
    asked = {
        "model": plan.directory,
        "device": plan.device,
        "dtype": "bfloat16",
        "max_num_seqs": max_num_seqs,
        "max_model_len": max_model_len,
        "max_num_batched_tokens": plan.sizes.batched_tokens,
        "max_prefill_tokens_while_decoding": plan.sizes.batched_tokens,
        "offline": True,
        "kv_dtype": plan.kv_dtype,
    }
    return msgspec.convert(asked, EngineSettings)
