"""Triton kernels run in Triton's interpreter in this folder, unless TRITON_INTERPRET=0 asks for a real device.

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
IS_INTERPRETED = os.environ.get(VARIABLE, "1") != "0"


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


@pytest.fixture(autouse=True)
def interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is set while a kernel runs; tests for the other kind of run are skipped."""
    is_for_gpu = request.node.get_closest_marker("gpu") is not None
    if is_for_gpu and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if is_for_gpu and IS_INTERPRETED:
        pytest.skip(f"kernels are interpreted: run this with {VARIABLE}=0")
    if not is_for_gpu and not IS_INTERPRETED:
        pytest.skip(f"{VARIABLE}=0: nothing is interpreted")
    if IS_INTERPRETED:
        monkeypatch.setenv(VARIABLE, "1")
