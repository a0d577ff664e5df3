"""What is measured of the attention kernels is attention: interpreted, they say what plain torch says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ops.bench.gpu.attention_case import AttentionCase, CaseShape
from ops.bench.gpu.attention_part import list_shapes
from ops.bench.gpu.model_sizes import MODELS
from ops.bench.gpu.plan import Plan
from tests.batching.kernels.triton_child import WITHOUT_TRITON, Run, has_triton, triton_process

CPU = torch.device("cpu")
SHAPES = (
    CaseShape(batch=3, context_len=40, is_decode=True),
    CaseShape(batch=2, context_len=600, is_decode=True),
    CaseShape(batch=2, context_len=40, is_decode=False),
)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    if not has_triton():
        pytest.skip(WITHOUT_TRITON)
    with triton_process() as run:
        yield run


def difference(shape: CaseShape) -> float:
    """The largest one between the kernels' result and that of torch, for the same numbers."""
    outs = []
    for is_paged in (True, False):
        torch.manual_seed(0)
        case = AttentionCase(MODELS["toy"], shape, CPU, torch.float32, is_paged=is_paged)
        outs.append(case.attend(0).clone())
    assert outs[0].abs().max() > 0.1
    return float((outs[0] - outs[1]).abs().max())


@pytest.mark.parametrize("shape", SHAPES, ids=["decode", "split decode", "prompt"])
def test_kernels_are_given_the_batch_that_torch_is_given(shape: CaseShape, run: Run) -> None:
    assert run(difference, shape) < 1e-5


def test_case_larger_than_the_memory_is_refused_before_anything_is_made() -> None:
    shape = CaseShape(batch=2**20, context_len=2**20, is_decode=True)
    with pytest.raises(MemoryError, match="GB are free"):
        AttentionCase(MODELS["toy"], shape, CPU, torch.float32, is_paged=False)


def test_every_decode_is_measured_and_prompts_as_far_as_a_step_holds_them() -> None:
    shapes = list_shapes(Plan(model_name="qwen3-0.6b", directory="", device="cpu"))
    decodes = [(shape.batch, shape.context_len) for shape in shapes if shape.is_decode]
    prompts = [(shape.batch, shape.context_len) for shape in shapes if not shape.is_decode]
    assert len(decodes) == 12
    assert prompts == [(1, 512), (16, 512), (1, 2048), (16, 2048), (1, 8192), (1, 32_768)]
