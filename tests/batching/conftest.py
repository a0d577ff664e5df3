"""Fixtures of the engine tests: tiny checkpoints and their references, built once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.batching.kernels.triton_child import Run, triton_process
from tests.batching.tiny_models import TinyModels


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Tiny random checkpoints by family name."""
    return TinyModels(tmp_path_factory.mktemp("tiny_models"))


@pytest.fixture(scope="session")
def interpret() -> Iterator[Run]:
    """Calls functions where Triton's kernels are interpreted."""
    with triton_process() as run:
        yield run
