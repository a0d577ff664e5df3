"""A server for tests that are about processes and clients, not about the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.fakes import write_byte_model
from tests.system.quire_process import READY, QuireProcess, running_quire

PACED = ("-m", "tests.system.faulty_quire", "tests.system.paced_engine")


@contextmanager
def running_paced(directory: Path, *flags: str) -> Iterator[QuireProcess]:
    """A server that is ready and whose engine is real but for the model: paced steps, and faults on demand."""
    model = write_byte_model(directory / "model")
    (model / "config.json").write_text("{}")
    with running_quire(directory, "serve", str(model), "--port", "0", *flags, python=PACED) as quire:
        quire.wait_for(READY)
        yield quire


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[Callable[..., QuireProcess]]:
    """Starts such a server, once, for a test that ends it."""
    with ExitStack() as stack:
        yield lambda *flags: stack.enter_context(running_paced(tmp_path, *flags))
