"""A process of its own for Triton: its interpreter is switched on for a whole process, before Triton is imported.

What runs there is named by its function and gets its arguments by value, so that the tests read as if it ran here.
The compiler needs no device: a stand-in for the driver names the architecture.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")
Run = Callable[..., Any]

WITHOUT_TRITON = "Triton is not installed: `pip install triton` also runs its kernels on a CPU, in its interpreter"


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@contextmanager
def triton_process(folder: Path | None = None) -> Iterator[Run]:
    """Call functions in one child: `run(function, *arguments)` returns or raises what the function does there.

    Kernels are interpreted, or compiled where a folder for what the compiler keeps is named.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _prepare, (folder,)) as pool:
        yield lambda function, *arguments, **options: pool.submit(function, *arguments, **options).result()


def _prepare(folder: Path | None) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TRITON_INTERPRET"] = "1" if folder is None else "0"
    if folder is None:
        _mend_loops()
    else:
        os.environ["TRITON_CACHE_DIR"] = str(folder)


def _mend_loops() -> None:
    """Triton before 3.9 bounds loops by int() of an array of one number, which numpy refuses from 2.4 on."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patch_and_mend


class DriverStandIn:
    """What Triton asks its driver before it compiles."""

    def __init__(self, compute_capability: int) -> None:
        self._compute_capability = compute_capability

    def get_current_device(self) -> int:
        return self._compute_capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._compute_capability, 32)


class CompileOnly:
    """Stands in for a kernel: compiles it for each launch and launches nothing."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self.compiled: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            self.compiled.append(self._kernel.warmup(*arguments, grid=grid, **options))

        return launch
