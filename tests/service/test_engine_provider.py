"""Whatever goes wrong while a model loads is told once, and the server does not go on saying that it starts."""

from __future__ import annotations

import pytest

from contracts.engine import Engine
from contracts.errors import EngineDead, NotEnoughMemory, StartupError
from contracts.settings import EngineSettings, Settings
from service.engine_provider import EngineProvider, OnProgress, StartupHooks


@pytest.mark.parametrize(
    ("raised", "exit_code", "message"),
    [
        (NotEnoughMemory("Weights need 4 GiB, 2 GiB are free."), 4, "Weights need 4 GiB, 2 GiB are free."),
        (RuntimeError("CUDA error"), 3, "The model could not be loaded: RuntimeError: CUDA error."),
        (KeyError("lm_head"), 3, "The model could not be loaded: KeyError: 'lm_head'."),
    ],
)
async def test_failure_to_load_is_told_and_the_status_is_dead(raised: Exception, exit_code: int, message: str) -> None:
    told: list[StartupError] = []

    async def fail(settings: EngineSettings, on_progress: OnProgress) -> Engine:
        raise raised

    provider = EngineProvider(Settings(), fail, StartupHooks(on_failure=told.append))
    async with provider.run():
        await provider.wait_until_loaded()
        assert provider.status == "dead"
        with pytest.raises(EngineDead):
            _ = provider.serving
    assert [error.exit_code for error in told] == [exit_code]
    assert told[0].message.startswith(message)
