"""Whatever dies, hangs or is told to stop: every request ends with a word, the rest goes on, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from tests.system import paced_engine
from tests.system.conftest import running_paced
from tests.system.process_tree import listening_ports, listening_unix_paths
from tests.system.quire_process import READY, QuireProcess, running_quire, write_tiny_model
from tests.system.stream_client import (
    Ending,
    StreamClient,
    is_idle,
    status_of,
    until_begun,
    until_ready,
    until_stats,
)

ENDED_WITHIN_S = 5.0
GONE_WITHIN_S = 3.0
TWO_ENGINES_S = 60.0
"""In which a request that ends every engine it meets has met two, on any machine."""
SIZES = ("--kv-cache-memory", "128MiB", "--dtype", "float32", "--num-threads", "1", "--workers", "2")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny, but with a window that no stream fills."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=100_000)


@pytest.fixture(scope="module")
def two_workers(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """A server with the tiny model; for tests that let it go on."""
    with running_quire(tmp_path_factory.mktemp("q"), "serve", str(model), "--port", "0", *SIZES) as quire:
        quire.wait_for(READY)
        yield quire


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """A server with the paced engine; for tests that let it go on."""
    with running_paced(tmp_path_factory.mktemp("q")) as quire:
        yield quire


@asynccontextmanager
async def running(clients: list[StreamClient]) -> AsyncIterator[list[asyncio.Task[Ending]]]:
    """All of them under way with some text; whoever has not ended is cut at the end."""
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        await until_begun(clients)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def endings_within(tasks: list[asyncio.Task[Ending]], limit_s: float) -> list[Ending]:
    async with asyncio.timeout(limit_s):
        return await asyncio.gather(*tasks)


async def check_serves(address: str) -> None:
    """A new request is answered in full, and leaves nothing behind."""
    ending = await StreamClient(address, max_tokens=5).run()
    assert (ending.status, ending.is_done) == (200, True)
    await until_stats(address, is_idle)


def num_ready_workers(quire: QuireProcess) -> int:
    """How often a worker has become ready since the start."""
    lines = [msgspec.json.decode(line) for line in quire.errors.splitlines() if line.startswith("{")]
    return sum(line["event"] == "process_ready" and line["process"].startswith("worker") for line in lines)


def wait_until_gone(condition: Callable[[], object], within_s: float = GONE_WITHIN_S) -> None:
    deadline_s = time.monotonic() + within_s
    while condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


# ---- the engine


@pytest.mark.parametrize(
    ("server", "signum"),
    [
        pytest.param("one_worker", signal.SIGKILL, marks=pytest.mark.slow),
        ("two_workers", signal.SIGKILL),
        pytest.param("two_workers", signal.SIGSTOP, marks=pytest.mark.slow),
    ],
)
async def test_lost_engine_ends_every_request_soon_and_is_replaced(
    request: pytest.FixtureRequest, server: str, signum: signal.Signals
) -> None:
    quire: QuireProcess = request.getfixturevalue(server)
    address = quire.address
    begun = [StreamClient(address, n=1 + index % 2) for index in range(8)]
    one_shot = [StreamClient(address, stream=False) for _ in range(4)]
    async with running(begun) as tasks:
        tasks += [asyncio.create_task(client.run()) for client in one_shot]
        await until_stats(address, lambda stats: stats["num_running"] == 16)
        lost_s = time.monotonic()
        os.kill(quire.engine_pid, signum)
        endings = await endings_within(tasks, 3 * ENDED_WITHIN_S)
        async with httpx.AsyncClient() as client:
            probes = [await status_of(client, f"{address}{path}") for path in ("/readyz", "/healthz", "/health")]
            refused = await StreamClient(address).run()
    assert [ending.error_code for ending in endings] == ["engine_dead"] * 12
    assert [ending.status for ending in endings] == [200] * 8 + [503] * 4
    assert {ending.headers["x-should-retry"] for ending in endings[8:]} == {"true"}
    assert max(ending.ended_s for ending in endings) - lost_s < ENDED_WITHIN_S
    assert probes == [503, 200, 200]
    assert (refused.status, refused.error_code) == (503, "engine_dead")
    assert int(refused.headers["retry-after"]) >= 1
    await until_ready(address)
    await check_serves(address)


@pytest.mark.slow
async def test_hung_step_is_ended_by_the_watchdog(paced: Callable[..., QuireProcess]) -> None:
    """The engine's event loop still turns then: nobody else would notice. The request that hangs it hangs two."""
    quire = paced("--step-timeout-s", "0.5")
    first_pid = quire.engine_pid
    clients = [StreamClient(quire.address) for _ in range(3)]
    async with running(clients) as tasks:
        hung_s = time.monotonic()
        tasks.append(asyncio.create_task(StreamClient(quire.address, prompt=[paced_engine.HANG]).run()))
        endings = await endings_within(tasks, TWO_ENGINES_S)
    assert [ending.error_code for ending in endings[:3]] == ["engine_dead"] * 3
    assert max(ending.ended_s for ending in endings[:3]) - hung_s < ENDED_WITHIN_S
    assert endings[3].error_code in {"engine_dead", "engine_error"}  # the latter if a second engine came soon
    await until_ready(quire.address)
    await check_serves(quire.address)
    assert quire.engine_pid != first_pid
    assert "step_hung" in quire.errors
    assert "exit status 70" in quire.errors
    assert "in execute" in quire.errors  # the stack says where it stood


@pytest.mark.slow
async def test_loop_that_dies_ends_its_process_and_is_replaced(paced: Callable[..., QuireProcess]) -> None:
    quire = paced()
    clients = [StreamClient(quire.address) for _ in range(3)]
    async with running(clients) as tasks:
        died_s = time.monotonic()
        tasks.append(asyncio.create_task(StreamClient(quire.address, prompt=[paced_engine.END]).run()))
        endings = await endings_within(tasks, 4 * ENDED_WITHIN_S)
    assert [ending.error_code for ending in endings] == ["engine_dead"] * 4
    assert max(ending.ended_s for ending in endings) - died_s < ENDED_WITHIN_S
    await until_ready(quire.address)
    await check_serves(quire.address)
    assert "exit status 72" in quire.errors


def test_engine_that_always_crashes_ends_the_command_with_a_reason(tmp_path: Path) -> None:
    python = ("-m", "tests.system.faulty_quire", "tests.service.scripted_child")
    arguments = ["serve", "crash", "--served-model-name", str(tmp_path), "--port", "0", "--no-offline"]
    with running_quire(tmp_path, *arguments, python=python) as quire:
        assert quire.process.wait(30) == 1
        last = quire.errors.splitlines()[-1]
        assert last.startswith("Error: The engine ended 4 times in a row")
        assert last.endswith("the last time: exit status 1. The log above says more.")
        assert "Traceback" not in quire.errors
        quire.wait_until_nothing_is_left()


# ---- a worker


async def test_killed_worker_costs_its_own_requests_only(two_workers: QuireProcess) -> None:
    quire = two_workers
    address, before, num_ready = quire.address, quire.worker_pids, num_ready_workers(quire)
    clients = [StreamClient(address) for _ in range(12)]
    async with running(clients) as tasks:
        os.kill(before[0], signal.SIGKILL)
        cut, going_on = await asyncio.wait(tasks, timeout=2.0)
        endings = [task.result() for task in cut]
        assert {ending.is_cut for ending in endings} == {True}
        assert 0 < len(going_on) < 12
        num_events = [client.num_events for client in clients]
        await until_stats(address, lambda stats: stats["num_running"] == len(going_on))
        later = [client.num_events for client in clients]
        assert sum(now > then for now, then in zip(later, num_events, strict=True)) == len(going_on)
    await until_stats(address, is_idle)
    assert before[0] not in quire.worker_pids
    wait_until_gone(lambda: num_ready_workers(quire) < num_ready + 1, within_s=30)
    await asyncio.gather(*(check_serves(address) for _ in range(8)))


def test_tree_listens_on_one_port_and_one_private_socket(two_workers: QuireProcess) -> None:
    quire = two_workers
    (directory,) = quire.socket_directories
    assert listening_ports(quire.pids()) == [httpx.URL(quire.address).port] * 2  # one socket for each worker
    assert listening_unix_paths(quire.pids()) == [str(directory / "engine-1.sock")]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "engine-1.sock").stat().st_mode & 0o777 == 0o600
    assert len(quire.pids()) == 1 + 1 + 2


# ---- the supervisor


async def test_nothing_survives_a_killed_supervisor(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--workers", "2")
    async with running([StreamClient(quire.address) for _ in range(4)]) as tasks:
        assert len(quire.pids()) == 4
        quire.process.kill()
        quire.process.wait()
        wait_until_gone(lambda: quire.pids() or quire.socket_directories)
        endings = await endings_within(tasks, ENDED_WITHIN_S)
    assert {ending.is_cut for ending in endings} == {True}


@pytest.mark.slow
async def test_nothing_survives_a_supervisor_killed_while_there_is_no_engine(
    paced: Callable[..., QuireProcess],
) -> None:
    quire = paced()
    engine_pid = quire.engine_pid
    os.kill(engine_pid, signal.SIGSTOP)  # it can clean up no more
    quire.process.kill()
    quire.process.wait()
    wait_until_gone(lambda: quire.worker_pids or quire.socket_directories)
    os.kill(engine_pid, signal.SIGCONT)
    wait_until_gone(quire.pids)


# ---- starts that fail


def damage_weights(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def damage_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "no-such-architecture"}')


def damage_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "flags", "exit_code"),
    [
        (damage_weights, [], 3),
        pytest.param(damage_config, [], 3, marks=pytest.mark.slow),
        pytest.param(damage_tokenizer, [], 3, marks=pytest.mark.slow),
        pytest.param(lambda model: None, ["--kv-cache-memory", "1KiB"], 4, marks=pytest.mark.slow),
    ],
    ids=["weights", "config", "tokenizer", "memory"],
)
def test_start_that_fails_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[Path], None], flags: list[str], exit_code: int
) -> None:
    model = write_tiny_model(tmp_path / "model")
    damage(model)
    with running_quire(tmp_path, "serve", str(model), "--port", "0", *flags) as quire:
        assert quire.process.wait(60) == exit_code
        assert quire.errors.splitlines()[-1].startswith("Error: ")
        assert "Traceback" not in quire.errors
        quire.wait_until_nothing_is_left()


def test_taken_port_is_told_before_anything_is_started(tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with running_quire(tmp_path, "serve", str(model), "--port", port) as quire:
            assert quire.process.wait(30) == 5
            assert quire.errors.startswith(f"Error: Port {port} on 127.0.0.1 is in use")
            quire.wait_until_nothing_is_left()


# ---- stopping


@pytest.mark.slow
async def test_drain_delay_takes_readiness_before_it_refuses(paced: Callable[..., QuireProcess]) -> None:
    """The signal goes to every process, as service managers send it to all of a unit."""
    quire = paced("--drain-delay-s", "1.5", "--drain-timeout-s", "30", "--workers", "2")
    address = quire.address
    async with running([StreamClient(address, max_tokens=500) for _ in range(6)]) as tasks:
        for pid in quire.pids():
            os.kill(pid, signal.SIGTERM)
        async with httpx.AsyncClient() as client, asyncio.timeout(1.0):
            while await status_of(client, f"{address}/readyz") != 503:
                await asyncio.sleep(0.02)
            assert await status_of(client, f"{address}/healthz") == 200
        taken = await StreamClient(address, max_tokens=3).run()
        assert (taken.status, taken.is_done) == (200, True)
        await asyncio.sleep(1.7)
        refused = [await StreamClient(address, stream=is_stream).run() for is_stream in (True, False)]
        endings = await endings_within(tasks, 30)
    assert [(ending.status, ending.error_code) for ending in refused] == [(503, "shutting_down")] * 2
    assert [int(ending.headers["retry-after"]) >= 1 for ending in refused] == [True, True]
    assert [ending.is_done for ending in endings] == [True] * 6
    assert quire.process.wait(10) == 0
    assert "Traceback" not in quire.errors
    quire.wait_until_nothing_is_left()


@pytest.mark.slow
async def test_drain_timeout_ends_what_still_runs_with_a_word(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--drain-timeout-s", "1")
    clients = [StreamClient(quire.address, n=1 + index % 2) for index in range(4)]
    one_shot = StreamClient(quire.address, stream=False)
    async with running(clients) as tasks:
        tasks.append(asyncio.create_task(one_shot.run()))
        await asyncio.sleep(0.3)
        stopped_s = time.monotonic()
        quire.process.send_signal(signal.SIGTERM)
        endings = await endings_within(tasks, 30)
    assert [ending.error_code for ending in endings] == ["shutting_down"] * 5
    assert [ending.status for ending in endings] == [200] * 4 + [503]
    assert min(ending.ended_s for ending in endings) - stopped_s > 0.9
    assert quire.process.wait(10) == 0
    assert time.monotonic() - stopped_s < 1 + 5
    assert "Traceback" not in quire.errors
    quire.wait_until_nothing_is_left()


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
async def test_second_signal_ends_everything_at_once(
    paced: Callable[..., QuireProcess], signum: signal.Signals
) -> None:
    quire = paced()
    async with running([StreamClient(quire.address) for _ in range(2)]):
        quire.process.send_signal(signum)
        async with httpx.AsyncClient() as client, asyncio.timeout(5):
            while await status_of(client, f"{quire.address}/readyz") != 503:
                await asyncio.sleep(0.02)
        began_s = time.monotonic()
        quire.process.send_signal(signum)
        assert await asyncio.to_thread(quire.process.wait, 5) == 128 + signum
        assert time.monotonic() - began_s < 2
        wait_until_gone(lambda: quire.pids() or quire.socket_directories)
