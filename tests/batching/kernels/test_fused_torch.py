"""The references of the fused kernels are what transformers computes, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.phi3.modeling_phi3 import apply_rotary_pos_emb

from batching.kernels import fused_torch
from batching.kernels.fused_torch import NormKind


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("norm_class", "is_offset"), [(LlamaRMSNorm, False), (Gemma2RMSNorm, True)])
def test_norms_are_those_of_transformers(norm_class: Any, is_offset: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 64, generator=generator).to(dtype), torch.randn(64, generator=generator).to(dtype)
    module = norm_class(64, eps=1e-5).to(dtype)
    module.weight.data.copy_(weight)

    found, total = fused_torch.add_rms_norm(x, x, weight, NormKind(eps=1e-5, is_offset=is_offset))

    assert torch.equal(total, x + x)
    assert torch.equal(found, module(x + x).detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("half", [4, 8])
def test_rotation_is_that_of_transformers_for_whole_and_partial_heads(half: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(5, 3, 16, generator=generator).to(dtype)
    angles = torch.randn(5, half, generator=generator)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    found = fused_torch.rotate(heads, cos, sin)

    doubled = torch.cat([cos, cos], dim=-1)[None], torch.cat([sin, sin], dim=-1)[None]
    wanted, _ = apply_rotary_pos_emb(heads.transpose(0, 1)[None], heads.transpose(0, 1)[None], *doubled)
    assert torch.equal(found, wanted[0].transpose(0, 1))
