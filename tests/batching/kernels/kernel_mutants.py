"""Seeded bugs in the kernels: a text of one kernel module changed, and the tables that must notice it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch

from batching.kernels import gated_activation_triton as activation_triton
from batching.kernels import rms_norm_triton, rope_kv_write_triton, sampler_triton, step_input_triton
from batching.kernels.step_input_torch import build_inputs
from tests.batching.kernels import layer_cases, sampler_tables, step_input_cases
from tests.batching.kernels.sampler_tables import SamplerCase

CPU = torch.device("cpu")


@dataclass(frozen=True)
class KernelMutant:
    """One bug: `right` in the text of `module` becomes `wrong`; `notices` is true where a table sees a difference."""

    name: str
    module: ModuleType
    right: str
    wrong: str
    notices: Callable[[], bool]
    is_slow: bool = False

    def load(self, folder: Path) -> ModuleType:
        """The module with the bug, from a file of its own, which Triton's interpreter reads again."""
        text = Path(self.module.__file__ or "").read_text("utf-8")
        if text.count(self.right) < 1:
            raise ValueError(f"{self.name}: {self.right!r} stands nowhere in {self.module.__name__}.")
        path = folder / f"{self.module.__name__.rpartition('.')[2]}_mutant.py"
        path.write_text(text.replace(self.right, self.wrong), "utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        mutant = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(mutant)
        return mutant


def norm_differs() -> bool:
    return any(layer_cases.check_norm(case, CPU) > 8 for case in layer_cases.NORM_CASES)


def norm_rounds_elsewhere() -> bool:
    """Only in the narrow dtypes: the norm was taken of a sum that was not rounded."""
    narrow = [case for case in layer_cases.NORM_CASES if case.dtype is torch.bfloat16]
    return any(layer_cases.check_norm(case, CPU) > 1 for case in narrow)


def activation_differs() -> bool:
    return any(layer_cases.check_activation(case, CPU) > 8 for case in layer_cases.ACTIVATION_CASES)


def rope_differs() -> bool:
    return any(layer_cases.check_rope(case, CPU) > 8 for case in layer_cases.ROPE_CASES)


def inputs_differ() -> bool:
    return any(_inputs_differ(case) for case in step_input_cases.PLAN_CASES)


def _inputs_differ(case: step_input_cases.PlanCase) -> bool:
    planned = step_input_cases.make_planned(case, CPU)
    tables = step_input_cases.make_tables(CPU, case.shape)
    inputs, wanted = step_input_cases.make_inputs(case, CPU), step_input_cases.make_inputs(case, CPU)
    words, values = planned.packed
    tables.arena[words[words >= 0].long()] = values[words >= 0]
    KERNELS[step_input_triton].build_inputs(tables, planned.plan, inputs)
    build_inputs(tables, planned.plan, wanted)
    return step_input_cases.as_lists(inputs) != step_input_cases.as_lists(wanted)


TOKEN_CASES = (
    SamplerCase(5, 64, shape="equal", seed=3),
    SamplerCase(14, 9, shape="flat", seed=11),
    SamplerCase(6, 99, has_masks=True, seed=6),
    SamplerCase(12, 50),
)


def tokens_differ() -> bool:
    return any(_tokens_differ(case) for case in TOKEN_CASES)


def _tokens_differ(case: SamplerCase) -> bool:
    buffers = sampler_tables.run_kernels(case, CPU)
    return sampler_tables.chosen_by_kernels(buffers, case) != sampler_tables.chosen_by_reference(case)


KERNELS: dict[ModuleType, ModuleType] = {}
"""The module that stands in for each while a bug lives; see test_kernel_mutations."""

MUTANTS = (
    KernelMutant("the mean is taken over the tile", rms_norm_triton, "/ width + eps", "/ tile + eps", norm_differs),
    KernelMutant("1 + w is w", rms_norm_triton, "normed * (1.0 + weight)", "normed * weight", norm_differs),
    KernelMutant(
        "the residual is not written",
        rms_norm_triton,
        "rounded, mask=is_inside",
        "rounded, mask=columns < 0",
        norm_differs,
    ),
    KernelMutant(
        "up is read from the gate",
        activation_triton,
        "gate_start + size + columns",
        "gate_start + columns",
        activation_differs,
    ),
    KernelMutant(
        "erf and tanh are taken for each other",
        activation_triton,
        'activation == "gelu_tanh"',
        'activation == "gelu"',
        activation_differs,
    ),
    KernelMutant(
        "the second half turns the other way",
        rope_kv_write_triton,
        "_product(second, cos, dtype) + _product",
        "_product(second, cos, dtype) - _product",
        rope_differs,
    ),
    KernelMutant(
        "the token's number is its position",
        rope_kv_write_triton,
        "tl.load(positions_ptr + token).to(tl.int64) * half",
        "token * half",
        rope_differs,
    ),
    KernelMutant(
        "values are kept at the scale of keys",
        rope_kv_write_triton,
        "scales_ptr + 1, is_fp8",
        "scales_ptr, is_fp8",
        rope_differs,
    ),
    KernelMutant(
        "heads of a block are mixed up", rope_kv_write_triton, "* num_kv_heads + kv_head)", "+ kv_head)", rope_differs
    ),
    KernelMutant(
        "the first token of a row belongs to none",
        step_input_triton,
        "starts[None, :] <= token",
        "starts[None, :] < token",
        inputs_differ,
    ),
    KernelMutant(
        "padding is written to the first block", step_input_triton, "other=trash_block", "other=0", inputs_differ
    ),
    KernelMutant(
        "rows that are only checked sample",
        step_input_triton,
        "is_used & (context_len == known)",
        "is_used",
        inputs_differ,
    ),
    KernelMutant(
        "the parts of a row begin behind them",
        step_input_triton,
        "tl.cumsum(num_parts, axis=0) - num_parts",
        "tl.cumsum(num_parts, axis=0)",
        inputs_differ,
    ),
    KernelMutant(
        "a context that just fills a split leaves parts",
        step_input_triton,
        "(num_splits > 1)",
        "(num_splits > 0)",
        inputs_differ,
    ),
    KernelMutant(
        "one more of equal tokens is kept",
        sampler_triton,
        "rank == nth)",
        "rank == nth + 1)",
        tokens_differ,
        is_slow=True,
    ),
    KernelMutant(
        "the noise is that of the position before",
        sampler_triton,
        "tl.load(record_ptr + _NUM_TOKENS))",
        "tl.load(record_ptr + _NUM_TOKENS) - 1)",
        tokens_differ,
    ),
    KernelMutant(
        "min_p takes back what top_k cut",
        sampler_triton,
        "cut_key = tl.maximum(key, cut_key)",
        "cut_key = key",
        tokens_differ,
        is_slow=True,
    ),
    KernelMutant(
        "the prompt counts as output",
        sampler_triton,
        "is_known & (position >= prompt_len)",
        "is_known",
        tokens_differ,
        is_slow=True,
    ),
    KernelMutant(
        "endings stay forbidden after min_tokens",
        sampler_triton,
        "tl.int32) >= missing",
        "tl.int32) > missing + 100",
        tokens_differ,
        is_slow=True,
    ),
    KernelMutant(
        "masks are read from their highest bit",
        sampler_triton,
        "word >> (token_id % 32)",
        "word >> (31 - token_id % 32)",
        tokens_differ,
        is_slow=True,
    ),
    KernelMutant(
        "rows whose best score is low choose nothing",
        sampler_triton,
        "tl.constexpr(-3.5)",
        "tl.constexpr(3.5)",
        tokens_differ,
        is_slow=True,
    ),
    KernelMutant(
        "top_p is of the whole row, not of what top_k kept",
        sampler_triton,
        "total = _mass(source, cut_key, cut_id, cut_key,",
        "total = _mass(source, -_INFINITE, _LAST, -_INFINITE,",
        tokens_differ,
        is_slow=True,
    ),
)
