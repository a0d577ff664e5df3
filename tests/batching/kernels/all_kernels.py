"""Imports every kernel module, so that one place decides how they are decorated."""

from batching.kernels import (
    gated_activation_triton,
    narrow_triton,
    rms_norm_triton,
    rope_kv_write_triton,
    sampler_triton,
    step_input_triton,
)
from tests.batching.kernels import noise_kernels

KERNEL_MODULES = (
    gated_activation_triton,
    narrow_triton,
    rms_norm_triton,
    rope_kv_write_triton,
    sampler_triton,
    step_input_triton,
    noise_kernels,
)
