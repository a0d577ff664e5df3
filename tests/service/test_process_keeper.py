"""A keeper tells each child what is so when it begins to listen, and says why no child could be made."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from contracts.errors import StartupError
from contracts.frames import Drain, EngineReady, LaunchEngine, SupervisorBound
from contracts.settings import EngineSettings, Settings
from service.process_keeper import ProcessKeeper
from tests.service import scripted_child

PATIENCE_S = 20.0


class Place:
    """A keeper of scripted engines whose script may be changed at any time."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.told: list[SupervisorBound] = []
        self.is_ready = asyncio.Event()
        self.keeper = ProcessKeeper("engine", "tests.service.scripted_child", self._launch, 60.0, self._take)

    def _launch(self) -> LaunchEngine:
        engine = EngineSettings(model=self.script, served_model_name=scripted_child.FIRST_ALIAS)
        return LaunchEngine(Settings(engine=engine), "/nowhere/engine.sock", 0.0)

    def _take(self, keeper: ProcessKeeper, message: SupervisorBound) -> None:
        self.told.append(message)
        if isinstance(message, EngineReady):
            keeper.note_ready()
            self.is_ready.set()


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    monkeypatch.setenv(scripted_child.NOTES_VARIABLE, str(tmp_path / "notes"))
    return tmp_path / "notes"


async def test_child_is_told_what_has_changed_while_it_was_made() -> None:
    place = Place("die")
    running = asyncio.create_task(place.keeper.run())
    await asyncio.sleep(0)  # the process is being made
    place.script = "serve"
    async with asyncio.timeout(PATIENCE_S):
        await place.is_ready.wait()
        place.keeper.drain(Drain(0.0, 0.0))
        await running


async def test_process_that_cannot_be_made_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    num_open = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StartupError, match=r"The engine could not be started: .*No such file.* memory, processes or"):
        await Place("serve").keeper.run()
    assert len(list(Path("/proc/self/fd").iterdir())) == num_open


@pytest.mark.parametrize("script", ["load", "serve"])
async def test_keeper_retired_while_its_child_is_made_ends_it(notes: Path, script: str) -> None:
    place = Place(script)
    running = asyncio.create_task(place.keeper.run())
    await asyncio.sleep(0)
    place.keeper.drain(Drain(0.0, 60.0))
    await asyncio.wait_for(running, PATIENCE_S)
    assert place.keeper.child is None


async def test_child_that_does_not_serve_yet_is_not_asked_to_drain(notes: Path) -> None:
    place = Place("load")
    running = asyncio.create_task(place.keeper.run())
    async with asyncio.timeout(PATIENCE_S):
        while not place.told:
            await asyncio.sleep(0.02)
        place.keeper.drain(Drain(0.0, 60.0))
        await running
    assert "ordered" not in notes.read_text()
