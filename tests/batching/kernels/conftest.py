"""Where there is no CUDA device, or TRITON_INTERPRET=1 asks for it, the fused kernels run in Triton's interpreter.

Triton reads the variable when a function is decorated, and transformers may have imported Triton long before. So its
own library of decorated functions and our kernels are loaded here with the variable set, and nowhere else is it seen.
"""

from __future__ import annotations

import importlib
import os
import sys

import pytest
import torch

from batching.kernels.triton_support import why_unavailable

VARIABLE = "TRITON_INTERPRET"
IS_INTERPRETED = os.environ.get(VARIABLE, "0" if torch.cuda.is_available() else "1") != "0"


def decorate_for_the_interpreter() -> None:
    """Load triton.language, again where it is loaded already, with the variable set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "1")
        is_loaded = "triton.language" in sys.modules
        language = importlib.import_module("triton.language")
        if is_loaded:
            importlib.reload(importlib.import_module("triton.language.standard"))
            importlib.reload(language)
        importlib.import_module("tests.batching.kernels.all_kernels")


if IS_INTERPRETED and why_unavailable() is None:
    decorate_for_the_interpreter()


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of interpreted kernels: the variable is set while one runs; skips where kernels are compiled."""
    if not IS_INTERPRETED:
        pytest.skip(f"kernels are compiled for the device here: run this with {VARIABLE}=1")
    monkeypatch.setenv(VARIABLE, "1")


@pytest.fixture
def device_kernels() -> None:
    """For tests of compiled kernels on a CUDA device."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if IS_INTERPRETED:
        pytest.skip(f"kernels are interpreted: run this without {VARIABLE}=1")
