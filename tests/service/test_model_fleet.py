"""The fleet loads, drains, evicts and gives up models; their engines are processes that follow scripts."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import NotEnoughMemory, StartupError
from contracts.frames import Drain
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.model_state import ModelPhase
from contracts.settings import CatalogSettings, ServerSettings, Settings
from service import model_fleet, restart_policy
from service.model_fleet import CALLED_OFF, FleetHooks, ModelFleet
from tests.service import scripted_child

PATIENCE_S = 30.0
MIB = 1024 * 1024
READY, UNLOADED, LOADING = ModelPhase.READY, ModelPhase.UNLOADED, ModelPhase.LOADING
DRAINING, FAILED = ModelPhase.DRAINING, ModelPhase.FAILED


class Harbour:
    """A fleet of models of 10 MiB each, what it has told, and what its engines have noted. Owner: the fixture."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.fatal: list[StartupError] = []
        self.history: list[tuple[str, ModelPhase, str]] = []
        """Alias, phase and stage, whenever one of them changed."""

    async def start(self, first: str = "serve", *, sizes: dict[str, int] | None = None, **others: str) -> ModelFleet:
        """A fleet whose first model is ready; keywords name scripts by alias, sizes are in MiB."""
        scripts = {scripted_child.FIRST_ALIAS: first} | others
        profiles = tuple(
            ModelProfile(alias=alias, model=script, memory_bytes=(sizes or {}).get(alias, 10) * MIB)
            for alias, script in scripts.items()
        )
        self.fleet = ModelFleet(
            Settings(catalog=self.limits, server=ServerSettings(engine_timeout_s=60.0)),
            ModelCatalog(profiles=profiles, default_alias=scripted_child.FIRST_ALIAS),
            self._directory,
            FleetHooks(on_change=self._note, on_fatal=self.fatal.append),
        )
        self.fleet.engine_module = "tests.service.scripted_child"
        self.fleet.launch()
        await self.until(first=READY)
        return self.fleet

    limits = CatalogSettings(max_loaded_memory="1GiB")

    def _note(self) -> None:
        now = [(state.alias, state.phase, state.stage) for state in self.fleet.table.models]
        known = {alias: (alias, phase, stage) for alias, phase, stage in self.history}
        self.history += [entry for entry in now if known.get(entry[0]) != entry]

    def phase(self, alias: str) -> ModelPhase:
        return self.fleet.table.get(alias).phase

    def error(self, alias: str) -> str:
        return self.fleet.table.get(alias).error

    async def until(self, condition: Callable[[], bool] = lambda: True, **phases: ModelPhase) -> None:
        """All models named are in these phases, and the condition holds."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition() or any(self.phase(alias) is not phase for alias, phase in phases.items()):
                await asyncio.sleep(0.01)

    def phases_of(self, alias: str) -> list[ModelPhase]:
        """In order, without repetitions."""
        phases = [phase for name, phase, _ in self.history if name == alias]
        return [phase for phase, before in zip(phases, [None, *phases], strict=False) if phase is not before]

    @property
    def notes(self) -> list[str]:
        """What the engines have noted, without process ids."""
        return [line.rpartition(" ")[0] for line in self._lines]

    def pid_of(self, alias: str) -> int:
        """Of the engine that was started last for the model."""
        lines = [line for line in self._lines if line.startswith(f"engine of {alias} started ")]
        return int(lines[-1].rpartition(" ")[2])

    def check_nothing_runs(self) -> None:
        pids = [int(line.rpartition(" ")[2]) for line in self._lines]
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
        assert list(self._directory.glob("*.sock")) == []

    @property
    def _lines(self) -> list[str]:
        notes = self._directory / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    async def close(self) -> None:
        """As the supervisor does it at the end."""
        self.fleet.close()
        for keeper in self.fleet.keepers:
            keeper.retire()
            keeper.kill()
        await asyncio.gather(*self.fleet.running)


@pytest.fixture
async def harbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harbour]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    monkeypatch.setenv(scripted_child.NOTES_VARIABLE, str(tmp_path / "notes"))
    monkeypatch.setattr(restart_policy, "DELAYS_S", (0.0, 0.05, 0.1))
    monkeypatch.setattr(model_fleet, "SETTLE_S", 0.0)
    harbour = Harbour(tmp_path)
    before = asyncio.all_tasks()
    yield harbour
    await harbour.close()
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()
    harbour.check_nothing_runs()


# ---- loading


async def test_first_use_loads_and_tells_the_stages(harbour: Harbour) -> None:
    fleet = await harbour.start(b="serve")
    assert harbour.phase("b") is UNLOADED
    fleet.use("b")
    await harbour.until(b=READY)
    stages = [stage for alias, _, stage in harbour.history if alias == "b"]
    assert stages == ["", "waiting for its turn", "making room", "starting the process", "thinking", ""]
    state = fleet.table.get("b")
    assert (state.error, state.memory_bytes) == ("", 10 * MIB)
    assert state.socket_path != fleet.table.get("first").socket_path
    assert state.load_s is not None
    assert state.load_s > 0


async def test_many_loads_at_once_start_one_process(harbour: Harbour) -> None:
    fleet = await harbour.start(b="slow")
    loads = [asyncio.create_task(fleet.load("b")) for _ in range(20)]
    for _ in range(20):
        fleet.use("b")
        await asyncio.sleep(0.01)
    await asyncio.gather(*loads, fleet.load("b"), fleet.set_default("b"))
    assert harbour.notes.count("engine of b started") == 1


async def test_load_goes_on_when_whoever_wanted_it_has_left(harbour: Harbour) -> None:
    fleet = await harbour.start(b="slow")
    load = asyncio.create_task(fleet.load("b"))
    await harbour.until(b=LOADING)
    load.cancel()
    await harbour.until(b=READY)


async def test_unknown_name_loads_nothing(harbour: Harbour) -> None:
    fleet = await harbour.start()
    fleet.use("/etc/passwd")
    orders: list[Callable[[str], Any]] = [fleet.load, fleet.unload, fleet.set_default]
    with pytest.raises(KeyError):
        await orders[0]("org/model")
    with pytest.raises(KeyError):
        await orders[1]("org/model")
    with pytest.raises(KeyError):
        await orders[2]("org/model")
    assert harbour.notes == ["engine started"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("refuse", "There is no memory."),
        ("die", "The engine of b ended while starting (exit status 3)."),
    ],
)
async def test_failed_load_says_why_and_leaves_the_others(harbour: Harbour, script: str, reason: str) -> None:
    fleet = await harbour.start(b=script, c="serve")
    await fleet.load("c")
    with pytest.raises(StartupError) as failure:
        await fleet.load("b")
    assert failure.value.message == harbour.error("b") == reason
    assert [state.phase for state in fleet.table.models] == [READY, FAILED, READY]
    assert fleet.table.default_alias == "first"
    assert harbour.fatal == []
    assert sorted(harbour.notes) == ["engine of b started", "engine of c started", "engine started"]


async def test_process_that_cannot_be_made_fails_the_load_alone(
    harbour: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await harbour.start(b="serve")
    with monkeypatch.context() as patch:
        patch.setattr("sys.executable", "/nowhere/python")
        with pytest.raises(StartupError, match="could not be started"):
            await fleet.load("b")
    assert (harbour.phase("b"), harbour.phase("first"), harbour.fatal) == (FAILED, READY, [])
    await fleet.load("b")
    assert harbour.phase("b") is READY


async def test_unforeseen_error_in_a_load_is_told(harbour: Harbour, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await harbour.start(b="serve")

    def break_down(*args: object) -> None:
        raise ValueError("negative head count")

    with monkeypatch.context() as patch:
        patch.setattr(model_fleet, "estimate_memory", break_down)
        with pytest.raises(StartupError, match="ValueError: negative head count"):
            await fleet.load("b")
    assert harbour.phase("b") is FAILED
    assert "negative head count" in harbour.error("b")
    await fleet.load("b")
    assert harbour.phase("b") is READY


async def test_requests_try_a_failed_model_again_only_later_but_an_order_does_at_once(
    harbour: Harbour, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fleet = await harbour.start(b="broken")
    fleet.use("b")
    await harbour.until(b=FAILED)
    fleet.use("b")
    await asyncio.sleep(0.2)
    assert harbour.notes.count("engine of b started") == 1
    with pytest.raises(NotEnoughMemory):
        await fleet.load("b")
    assert harbour.notes.count("engine of b started") == 2
    monkeypatch.setattr(model_fleet, "RETRY_FAILED_S", 0.3)
    await asyncio.sleep(0.35)
    (tmp_path / scripted_child.MENDED).touch()
    fleet.use("b")
    await harbour.until(b=READY)
    assert harbour.error("b") == ""


# ---- unloading


async def test_unload_drains_and_the_next_use_loads_again(harbour: Harbour) -> None:
    fleet = await harbour.start(b="serve")
    await fleet.load("b")
    path = fleet.table.get("b").socket_path
    await fleet.unload("b")
    assert harbour.notes[-1] == "engine of b ordered Drain"
    state = fleet.table.get("b")
    assert (state.phase, state.socket_path, state.memory_bytes, state.error) == (UNLOADED, "", None, "")
    fleet.use("b")
    await harbour.until(b=READY)
    assert fleet.table.get("b").socket_path != path
    assert harbour.phases_of("b") == [UNLOADED, LOADING, READY, DRAINING, UNLOADED, LOADING, READY]


async def test_default_may_be_unloaded_and_a_request_brings_it_back(harbour: Harbour) -> None:
    fleet = await harbour.start()
    await fleet.unload("first")
    assert (harbour.phase("first"), harbour.fatal) == (UNLOADED, [])
    assert fleet.table.has_started
    fleet.use("first")
    await harbour.until(first=READY)


async def test_unload_of_what_is_not_loaded_changes_nothing(harbour: Harbour) -> None:
    fleet = await harbour.start(b="serve")
    await fleet.unload("b")
    assert harbour.phase("b") is UNLOADED


async def test_unload_of_a_failed_model_forgets_the_failure(harbour: Harbour) -> None:
    fleet = await harbour.start(b="refuse")
    with pytest.raises(NotEnoughMemory):
        await fleet.load("b")
    await fleet.unload("b")
    assert (harbour.phase("b"), harbour.error("b")) == (UNLOADED, "")


async def test_unload_while_loading_calls_the_load_off(harbour: Harbour) -> None:
    fleet = await harbour.start(b="load")
    load = asyncio.create_task(fleet.load("b"))
    await harbour.until(lambda: "engine of b started" in harbour.notes)
    await asyncio.wait_for(fleet.unload("b"), 5.0)
    with pytest.raises(StartupError, match="unloaded while it was being loaded"):
        await load
    assert (harbour.phase("b"), harbour.error("b")) == (UNLOADED, CALLED_OFF)
    assert not Path(f"/proc/{harbour.pid_of('b')}").exists()
    assert DRAINING not in harbour.phases_of("b")


async def test_unload_while_room_is_made_calls_the_load_off(harbour: Harbour) -> None:
    harbour.limits = CatalogSettings(max_loaded_models=1, max_loaded_memory="1GiB")
    fleet = await harbour.start(first="busy", b="serve")
    load = asyncio.create_task(fleet.load("b"))
    await harbour.until(first=DRAINING, b=LOADING)
    await asyncio.wait_for(fleet.unload("b"), 5.0)
    with pytest.raises(StartupError, match="unloaded while it was being loaded"):
        await load
    assert harbour.phase("b") is UNLOADED
    assert "engine of b started" not in harbour.notes


async def test_second_unload_hurries_the_first(harbour: Harbour) -> None:
    fleet = await harbour.start(b="busy")
    await fleet.load("b")
    slow = asyncio.create_task(fleet.unload("b"))
    await harbour.until(b=DRAINING)
    await asyncio.sleep(0.2)
    assert not slow.done()
    await asyncio.wait_for(fleet.unload("b", 0.0), 5.0)
    await slow
    assert harbour.phase("b") is UNLOADED


async def test_unload_gives_what_runs_its_time(harbour: Harbour) -> None:
    fleet = await harbour.start(b="busy")
    await fleet.load("b")
    began_s = time.monotonic()
    await fleet.unload("b", 0.5)
    assert 0.5 <= time.monotonic() - began_s < 5.0


async def test_load_of_a_model_that_drains_waits_and_holds_up_no_other(harbour: Harbour) -> None:
    fleet = await harbour.start(b="busy", c="serve")
    await fleet.load("b")
    unload = asyncio.create_task(fleet.unload("b"))
    await harbour.until(b=DRAINING)
    again = asyncio.create_task(fleet.load("b"))
    await asyncio.wait_for(fleet.load("c"), 10.0)
    assert not again.done()
    await asyncio.wait_for(fleet.unload("b", 0.0), 5.0)  # calls that load off as well
    await unload
    with pytest.raises(StartupError, match="unloaded"):
        await again
    fleet.use("b")
    await harbour.until(b=READY)


async def test_use_of_a_model_that_drains_loads_it_afterwards(harbour: Harbour) -> None:
    fleet = await harbour.start(b="busy")
    await fleet.load("b")
    unload = asyncio.create_task(fleet.unload("b", 0.5))
    await harbour.until(b=DRAINING)
    fleet.use("b")
    await unload
    await harbour.until(b=READY)
    assert harbour.notes.count("engine of b started") == 2


# ---- room


async def test_least_recently_used_goes_first(harbour: Harbour) -> None:
    harbour.limits = CatalogSettings(max_loaded_memory="35MiB")
    fleet = await harbour.start(b="serve", c="serve", d="serve", e="serve")
    await fleet.load("b")
    await fleet.load("c")
    fleet.use("b")
    await fleet.load("d")
    assert [harbour.phase(alias) for alias in "bcd"] == [READY, UNLOADED, READY]
    await fleet.load("e")
    assert [harbour.phase(alias) for alias in "bcde"] == [UNLOADED, UNLOADED, READY, READY]
    assert harbour.phase("first") is READY


async def test_busy_model_ends_what_it_does_before_it_goes(harbour: Harbour) -> None:
    harbour.limits = CatalogSettings(max_loaded_models=1, max_loaded_memory="1GiB")
    fleet = await harbour.start(first="busy", b="serve")
    load = asyncio.create_task(fleet.load("b"))
    await harbour.until(first=DRAINING)
    await asyncio.sleep(0.3)
    assert harbour.notes.count("engine of b started") == 0
    fleet.keepers[0].drain(Drain(0.0, 0.0))
    await load
    assert (harbour.phase("first"), harbour.phase("b")) == (UNLOADED, READY)


async def test_idle_model_goes_before_a_busy_one(harbour: Harbour) -> None:
    harbour.limits = CatalogSettings(max_loaded_models=3, max_loaded_memory="1GiB")
    fleet = await harbour.start(b="busy", c="serve", d="serve")
    await fleet.load("b")
    await fleet.load("c")
    await asyncio.sleep(0.6)  # the engine says how much it does
    await fleet.load("d")
    assert [harbour.phase(alias) for alias in "bcd"] == [READY, UNLOADED, READY]


async def test_model_that_never_fits_is_refused_before_anything_is_drained(harbour: Harbour) -> None:
    harbour.limits = CatalogSettings(max_loaded_memory="35MiB")
    fleet = await harbour.start(b="serve", huge="serve", sizes={"huge": 36})
    await fleet.load("b")
    with pytest.raises(NotEnoughMemory) as refusal:
        await fleet.load("huge")
    assert "'huge' needs 36.0 MiB as declared; the budget has 35.0 MiB left" in refusal.value.message
    assert "--max-loaded-memory" in refusal.value.message
    assert harbour.error("huge") == refusal.value.message
    assert sorted(harbour.notes) == ["engine of b started", "engine started"]
    assert DRAINING not in harbour.phases_of("first") + harbour.phases_of("b")


async def test_loads_at_once_wait_for_each_other_where_only_one_fits(harbour: Harbour) -> None:
    harbour.limits = CatalogSettings(max_loaded_models=1, max_loaded_memory="1GiB")
    fleet = await harbour.start(b="slow", c="slow", d="slow")
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(fleet.load(alias) for alias in "bcd"))
    assert [harbour.error(alias) for alias in "bcd"] == ["", "", ""]
    assert [FAILED in harbour.phases_of(alias) for alias in "bcd"] == [False] * 3
    await harbour.until(first=UNLOADED, b=UNLOADED, c=UNLOADED, d=READY)


@pytest.mark.slow
async def test_model_that_was_waited_for_is_used_before_it_goes(
    harbour: Harbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_fleet, "SETTLE_S", 2.0)
    monkeypatch.setattr(model_fleet, "STAY_S", 0.3)
    harbour.limits = CatalogSettings(max_loaded_models=1, max_loaded_memory="1GiB")
    fleet = await harbour.start(b="serve", c="serve")
    fleet.use("b")
    await harbour.until(b=READY)
    ready_s = time.monotonic()
    fleet.use("c")
    await asyncio.sleep(0.4)
    assert harbour.phase("b") is READY
    fleet.use("b")
    await harbour.until(b=UNLOADED)
    assert 0.7 <= time.monotonic() - ready_s < 2.0
    await harbour.until(c=READY)
    ready_s = time.monotonic()
    fleet.use("b")
    await harbour.until(c=UNLOADED)
    assert time.monotonic() - ready_s >= 1.9


# ---- the default


async def test_default_is_loaded_first_and_moves_then(harbour: Harbour) -> None:
    fleet = await harbour.start(b="slow")
    moving = asyncio.create_task(fleet.set_default("b"))
    await harbour.until(b=LOADING)
    assert fleet.table.default_alias == "first"
    await moving
    assert (fleet.table.default_alias, harbour.phase("b"), harbour.phase("first")) == ("b", READY, READY)


async def test_default_that_cannot_be_loaded_leaves_the_old_one(harbour: Harbour) -> None:
    fleet = await harbour.start(b="refuse")
    with pytest.raises(NotEnoughMemory):
        await fleet.set_default("b")
    assert (fleet.table.default_alias, harbour.phase("first")) == ("first", READY)


# ---- engines that end


async def test_killed_engine_is_replaced_at_the_same_place(harbour: Harbour) -> None:
    fleet = await harbour.start(b="serve")
    await fleet.load("b")
    before = fleet.table
    os.kill(harbour.pid_of("b"), signal.SIGKILL)
    await harbour.until(lambda: harbour.notes.count("engine of b started") == 2)
    assert fleet.table == before
    assert harbour.notes.count("engine started") == 1


async def test_crash_loop_of_a_model_loaded_later_is_its_own(harbour: Harbour) -> None:
    fleet = await harbour.start(b="crash")
    fleet.use("b")
    await harbour.until(b=FAILED)
    assert "The engine of b ended 4 times in a row" in harbour.error("b")
    assert (harbour.phase("first"), harbour.fatal) == (READY, [])


async def test_crash_loop_of_the_launch_model_is_the_end(harbour: Harbour) -> None:
    await harbour.start(first="crash")
    await harbour.until(lambda: bool(harbour.fatal))
    assert "The engine ended 4 times in a row" in harbour.fatal[0].message


async def test_crash_loop_of_the_launch_model_is_its_own_once_another_is_the_default(harbour: Harbour) -> None:
    fleet = await harbour.start(first="crash", b="serve")
    await fleet.set_default("b")
    await harbour.until(first=FAILED)
    assert (harbour.phase("b"), harbour.fatal) == (READY, [])


# ---- the end


async def test_closed_fleet_calls_loads_off_and_takes_no_more(harbour: Harbour) -> None:
    fleet = await harbour.start(b="load", c="serve")
    loads = [asyncio.create_task(fleet.load(alias)) for alias in "bc"]
    await harbour.until(lambda: "engine of b started" in harbour.notes)
    await harbour.close()
    outcomes = await asyncio.gather(*loads, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {StartupError, type(None)}
    with pytest.raises(StartupError, match="stopping"):
        await fleet.load("b")
    fleet.use("b")
    await asyncio.sleep(0.1)
    assert harbour.notes.count("engine of b started") == 1
