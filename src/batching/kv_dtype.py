"""The number type of cached keys and values: what the setting means, and where float8 can be served."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from contracts.errors import ModelNotUsable

FLOAT8_MIN_CAPABILITY = (8, 9)
"""Of the GPU: older ones have no conversion from and to float8_e4m3fn."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


def kv_dtype(wanted: str, model_dtype: torch.dtype) -> torch.dtype:
    """The setting as a torch type; auto stores what the model computes in."""
    return model_dtype if wanted == "auto" else _DTYPES[wanted]


def check_kv_dtype(wanted: str, device: torch.device) -> None:
    """Raise ModelNotUsable where this machine cannot serve a cache of that type; only fp8 is not served everywhere."""
    if wanted != "fp8":
        return
    if device.type != "cuda":
        raise ModelNotUsable(
            f"--kv-dtype fp8 needs a GPU: the attention kernels of a {device.type.upper()} do not read float8; use "
            "--kv-dtype bfloat16, or leave it out"
        )
    if find_spec("triton") is None:
        raise ModelNotUsable(
            "--kv-dtype fp8 needs Triton, whose kernels alone read float8, and Triton is not installed: install it, "
            "use --kv-dtype bfloat16, or leave it out"
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < FLOAT8_MIN_CAPABILITY:
        raise ModelNotUsable(
            f"--kv-dtype fp8 needs a GPU of compute capability {_dotted(FLOAT8_MIN_CAPABILITY)} or later, and this one "
            f"has {_dotted(capability)}; use --kv-dtype bfloat16, or leave it out"
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
