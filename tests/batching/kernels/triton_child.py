"""A process of its own for Triton: its interpreter is switched on for a whole process, before Triton is imported.

What runs there is named by its function and gets its arguments by value, so that the tests read as if it ran here.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")
Run = Callable[..., Any]

WITHOUT_TRITON = "Triton is not installed: `pip install triton` also runs its kernels on a CPU, in its interpreter"


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@contextmanager
def triton_process(*, is_interpreting: bool) -> Iterator[Run]:
    """Call functions in one child: `run(function, *arguments)` returns or raises what the function does there."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, _prepare, (is_interpreting,)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def _prepare(is_interpreting: bool) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TRITON_INTERPRET"] = "1" if is_interpreting else "0"
    if is_interpreting:
        _mend_loops()


def _mend_loops() -> None:
    """Triton before 3.9 bounds loops by int() of an array of one number, which numpy refuses from 2.4 on."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_mend(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: self.handle.data.item()

    interpreter._patch_lang_tensor = patch_and_mend
