"""Compiles every kernel for an H200 to machine code, on a machine without one: python -m with TRITON_INTERPRET=0.

The interpreter forgives what the compiler refuses (types that change in a loop, names of one branch). Here the
launches of the tables are taken as they come, compiled for sm_90 by Triton and its ptxas, and not run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from batching.kernels import step_input_triton
from batching.kernels.sampler_buffers import SamplerBuffers
from tests.batching.kernels import layer_cases, sampler_tables, step_input_cases
from tests.batching.kernels.all_kernels import KERNEL_MODULES
from tests.batching.kernels.sampler_tables import SamplerCase

H200 = GPUTarget("cuda", 90, 32)
CPU = torch.device("cpu")
TYPES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.int64: "i64",
    torch.int32: "i32",
}
LAUNCH_OPTIONS = {"num_warps", "num_stages"}


class CompiledNotRun:
    """Stands where a kernel stood: kernel[grid](...) compiles it for these arguments."""

    def __init__(self, kernel: Any, note: Callable[[str], None]) -> None:
        self._kernel = kernel
        self._note = note
        self._seen: set[str] = set()

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return self._compile

    def _compile(self, *args: Any, **options: Any) -> None:
        launch = {name: options.pop(name) for name in LAUNCH_OPTIONS & set(options)}
        values = dict(zip(self._kernel.arg_names, args, strict=False)) | options
        constants = {param.name for param in self._kernel.params if param.is_constexpr}
        # As Triton does at a launch: a 1 is a constant, and None too.
        constants |= {name for name, value in values.items() if value is None or (type(value) is int and value == 1)}
        signature = {name: "constexpr" if name in constants else type_of(values[name]) for name in values}
        ordered = {name: signature[name] for name in self._kernel.arg_names}
        constexprs = {name: values[name] for name in constants}
        key = f"{ordered} {constexprs} {launch}"
        if key in self._seen:
            return
        self._seen.add(key)
        compiled = triton.compile(ASTSource(self._kernel, ordered, constexprs), target=H200, options=launch)
        self._note(f"{self._kernel.__name__}: {len(compiled.asm['cubin'])} bytes, {compiled.metadata.shared} shared")


def type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"*{TYPES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


def stand_in(note: Callable[[str], None]) -> int:
    """Replace every kernel that is launched; returns how many there are."""
    found = 0
    for module in KERNEL_MODULES:
        for name, kernel in list(vars(module).items()):
            if name.startswith("_") and name.endswith("_kernel") and isinstance(kernel, triton.JITFunction):
                setattr(module, name, CompiledNotRun(kernel, note))
                found += 1
    return found


def launch_all() -> None:
    """Launch what the tables launch; the comparisons see nothing sensible and are not made."""
    for norm_case in layer_cases.NORM_CASES:
        layer_cases.launch_norm(norm_case, CPU)
    for activation_case in layer_cases.ACTIVATION_CASES:
        layer_cases.launch_activation(activation_case, CPU)
    for rope_case in layer_cases.ROPE_CASES:
        layer_cases.launch_rope(rope_case, CPU)
    plan_case = step_input_cases.PLAN_CASES[4]
    planned, inputs = step_input_cases.make_planned(plan_case, CPU), step_input_cases.make_inputs(plan_case, CPU)
    tables = step_input_cases.make_tables(CPU)
    step_input_triton.apply_differences(tables, planned.packed)
    step_input_triton.build_inputs(tables, planned.plan, inputs)
    step_input_triton.commit_tokens(tables, planned.plan, inputs, inputs.logit_rows)
    for sampler_case in (
        SamplerCase(3, 50),
        SamplerCase(3, 50, torch.bfloat16, has_masks=True),
        SamplerCase(2, 151936, torch.bfloat16),
        SamplerCase(2, 32003),
    ):
        buffers = sampler_tables.run_kernels(sampler_case, CPU)
        assert isinstance(buffers, SamplerBuffers)


def main() -> None:
    print(stand_in(print), "kernels")  # noqa: T201
    launch_all()


if __name__ == "__main__":
    main()
