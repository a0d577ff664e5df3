"""The supervisor starts, watches, restarts and drains its children; here they follow scripts."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.engine import EngineInfo
from contracts.errors import NotEnoughMemory, StartupError
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.settings import EngineSettings, ServerSettings, Settings
from service import process_keeper, restart_policy, supervisor
from service.listen_address import ListenAddress
from service.process_keeper import describe_status
from service.supervisor import Supervisor, SupervisorHooks
from tests.service import scripted_child

PATIENCE_S = 30.0
SILENT_S = 1.5
"""After which a child counts as hung: three beats."""


class Stage:
    """A supervisor over scripted children, its notes and what its hooks were told."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._notes = directory / "notes"
        self.ready: list[EngineInfo] = []
        self.progress: list[str] = []
        self.draining: list[float] = []
        self.running: asyncio.Task[None] | None = None

    def start(self, engine: str = "serve", worker: str = "serve", **server: Any) -> None:
        """Run a supervisor whose children follow these scripts."""
        options: dict[str, Any] = {"host": worker, "engine_timeout_s": SILENT_S} | server
        settings = Settings(
            engine=EngineSettings(model=engine),
            server=ServerSettings(**options),
        )
        hooks = SupervisorHooks(
            on_ready=self.ready.append,
            on_progress=lambda stage, fraction: self.progress.append(stage),
            on_draining=self.draining.append,
        )
        profiles = (
            ModelProfile(alias=scripted_child.FIRST_ALIAS, model=engine),
            ModelProfile(alias="other", model="serve", memory_bytes=1),
        )
        catalog = ModelCatalog(profiles=profiles, default_alias=scripted_child.FIRST_ALIAS)
        self.supervisor = Supervisor(settings, catalog, ListenAddress(ip="127.0.0.1", port=1), hooks)
        self.supervisor.fleet.engine_module = "tests.service.scripted_child"
        for keeper in self.supervisor.workers:
            keeper.module = "tests.service.scripted_child"
        self.running = asyncio.create_task(self.supervisor.run())

    async def wait(self) -> None:
        """Until the supervisor has ended; raises what it raises."""
        assert self.running is not None
        await asyncio.wait_for(self.running, PATIENCE_S)

    async def until(self, condition: Callable[[], bool]) -> None:
        """While the supervisor runs."""
        assert self.running is not None
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not self.running.done()
                await asyncio.sleep(0.02)

    @property
    def notes(self) -> list[str]:
        """What the children have noted, without process ids."""
        return [line.rpartition(" ")[0] for line in self._lines]

    @property
    def pids(self) -> list[int]:
        return [int(line.rpartition(" ")[2]) for line in self._lines]

    @property
    def _lines(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    def check_nothing_is_left(self) -> None:
        """No process and no directory."""
        assert [pid for pid in self.pids if Path(f"/proc/{pid}").exists()] == []
        assert list((self._directory / "t").iterdir()) == []


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    monkeypatch.setenv(scripted_child.NOTES_VARIABLE, str(tmp_path / "notes"))
    monkeypatch.setattr(restart_policy, "DELAYS_S", (0.0, 0.05, 0.1))
    return Stage(tmp_path)


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Left as they were."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def test_readiness_is_told_once_when_all_are_ready(stage: Stage) -> None:
    stage.start(workers=3)
    await stage.until(lambda: bool(stage.ready))
    assert sorted(stage.notes) == ["engine started", *["worker started"] * 3]
    assert set(stage.progress) == {"thinking"}
    stop()
    await stage.wait()
    assert stage.ready == [scripted_child.INFO]
    stage.check_nothing_is_left()


async def test_workers_are_drained_before_the_engine(stage: Stage) -> None:
    stage.start(workers=2, drain_timeout_s=7.0)
    await stage.until(lambda: bool(stage.ready))
    stop()
    await stage.wait()
    assert stage.notes[-3:] == ["worker ordered Drain", "worker ordered Drain", "engine ordered Drain"]
    assert stage.draining == [7.0]
    stage.check_nothing_is_left()


async def test_child_that_does_not_leave_is_ended(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_GRACE_S", 0.2)
    stage.start(engine="deaf", worker="deaf", drain_delay_s=0.1, drain_timeout_s=0.1)
    await stage.until(lambda: bool(stage.ready))
    stop()
    await asyncio.wait_for(stage.wait(), 5.0)
    stage.check_nothing_is_left()


async def test_signal_while_loading_ends_everything_without_an_error(stage: Stage) -> None:
    stage.start(worker="load")
    await stage.until(lambda: "engine started" in stage.notes)
    stop()
    await asyncio.wait_for(stage.wait(), 5.0)
    assert not stage.ready
    assert not stage.draining
    stage.check_nothing_is_left()


@pytest.mark.parametrize(("engine", "worker"), [("refuse", "serve"), ("serve", "refuse")])
async def test_child_that_cannot_start_ends_all_with_its_own_error(stage: Stage, engine: str, worker: str) -> None:
    stage.start(engine=engine, worker=worker)
    with pytest.raises(NotEnoughMemory, match=r"There is no memory\."):
        await stage.wait()
    assert stage.ready == []
    stage.check_nothing_is_left()


async def test_child_that_ends_while_starting_ends_all(stage: Stage) -> None:
    stage.start(engine="die")
    with pytest.raises(StartupError, match=r"The engine ended while starting \(exit status 3\)\."):
        await stage.wait()
    stage.check_nothing_is_left()


async def test_crash_loop_is_given_up_with_a_reason(stage: Stage) -> None:
    stage.start(engine="crash")
    with pytest.raises(StartupError, match=r"The engine ended 4 times in a row, .* the last time: exit status 1"):
        await stage.wait()
    assert stage.notes.count("engine started") == 4
    assert stage.notes.count("worker started") == 1
    stage.check_nothing_is_left()


@pytest.mark.parametrize("role", ["engine", "worker"])
async def test_killed_child_is_replaced_and_the_others_stay(stage: Stage, role: str) -> None:
    stage.start()
    await stage.until(lambda: bool(stage.ready))
    os.kill(stage.pids[stage.notes.index(f"{role} started")], signal.SIGKILL)
    await stage.until(lambda: stage.notes.count(f"{role} started") == 2)
    assert len(stage.notes) == 3
    stop()
    await stage.wait()
    assert len(stage.ready) == 1
    stage.check_nothing_is_left()


async def test_silent_child_is_replaced(stage: Stage) -> None:
    stage.start(engine="hang")
    began_s = time.monotonic()
    await stage.until(lambda: stage.notes.count("engine started") == 2)
    assert time.monotonic() - began_s < 5 * SILENT_S
    stop()
    await stage.wait()
    stage.check_nothing_is_left()


async def test_stopped_child_is_replaced(stage: Stage) -> None:
    stage.start()
    await stage.until(lambda: bool(stage.ready))
    os.kill(stage.pids[stage.notes.index("engine started")], signal.SIGSTOP)
    await stage.until(lambda: stage.notes.count("engine started") == 2)
    stop()
    await stage.wait()
    stage.check_nothing_is_left()


@pytest.mark.slow
async def test_supervisor_that_stood_still_blames_nobody(stage: Stage) -> None:
    stage.start()
    await stage.until(lambda: bool(stage.ready))
    time.sleep(SILENT_S + 1.0)  # in the loop's own thread
    await asyncio.sleep(1.0)
    assert sorted(stage.notes) == ["engine started", "worker started"]
    stop()
    await stage.wait()


async def test_signal_ends_the_pause_before_a_restart(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_policy, "DELAYS_S", (60.0,))
    stage.start()
    await stage.until(lambda: bool(stage.ready))
    os.kill(stage.pids[stage.notes.index("engine started")], signal.SIGKILL)
    await asyncio.sleep(0.5)
    stop()
    await asyncio.wait_for(stage.wait(), 5.0)
    stage.check_nothing_is_left()


@pytest.mark.slow
async def test_pause_before_a_restart_is_not_mistaken_for_silence(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart_policy, "DELAYS_S", (2 * SILENT_S,))
    hung: list[str] = []
    monkeypatch.setattr(process_keeper.log, "error", lambda event, **data: hung.append(event))
    stage.start()
    await stage.until(lambda: bool(stage.ready))
    os.kill(stage.pids[stage.notes.index("engine started")], signal.SIGKILL)
    await stage.until(lambda: stage.notes.count("engine started") == 2)
    stop()
    await stage.wait()
    assert hung == ["process_ended"]


@pytest.mark.parametrize(
    ("status", "words"), [(3, "exit status 3"), (-11, "killed by SIGSEGV"), (-9, "killed by SIGKILL, perhaps")]
)
def test_exit_status_is_told_in_words(status: int, words: str) -> None:
    assert describe_status(status).startswith(words)


async def test_engines_that_were_loaded_later_are_drained_as_well(stage: Stage) -> None:
    stage.start()
    await stage.until(lambda: bool(stage.ready))
    await stage.supervisor.fleet.load("other")
    stop()
    await stage.wait()
    assert stage.notes[-3] == "worker ordered Drain"
    assert sorted(stage.notes[-2:]) == ["engine of other ordered Drain", "engine ordered Drain"]
    stage.check_nothing_is_left()


async def test_signal_while_another_model_loads_calls_it_off(stage: Stage) -> None:
    stage.start()
    await stage.until(lambda: bool(stage.ready))
    loading = asyncio.create_task(stage.supervisor.fleet.load("other"))
    await stage.until(lambda: "engine of other started" in stage.notes)
    stop()
    await stage.wait()
    await asyncio.gather(loading, return_exceptions=True)
    stage.check_nothing_is_left()
