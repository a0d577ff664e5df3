"""Clients that leave in every phase, by the hundred, through all processes: nothing of them is left anywhere.

Also what else many clients at once may not disturb: equal request ids, and the truth of health.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.system.leaver import Leaver, leave_all
from tests.system.process_tree import open_files
from tests.system.quire_process import READY, QuireProcess, running_quire, write_tiny_model
from tests.system.stream_client import StreamClient, is_idle, until_begun, until_stats

MAX_NUM_SEQS = 8
SETTLED_S = 0.3
FREED_WITHIN_S = 10.0
NUM_EACH = 12
"""Clients of each form in each phase; times 6 phases times 3 forms."""
FORMS: list[dict[str, Any]] = [{"stream": True}, {"stream": False}, {"stream": True, "n": 4}]
LONG_PROMPT = [token % 250 for token in range(6000)]
"""Two dozen chunks of prefill."""
LONG_TEXT = "tell me more " * 4000
"""Above what is tokenised in the event loop."""


@pytest.fixture(scope="module")
def quire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """Two workers before an engine with a small batch and small chunks."""
    directory = tmp_path_factory.mktemp("q")
    model = write_tiny_model(directory / "model", max_position_embeddings=100_000)
    sizes = {
        "max-num-seqs": MAX_NUM_SEQS,
        "max-num-batched-tokens": 256,
        "max-prefill-tokens-while-decoding": 128,
        "kv-cache-memory": "128MiB",
        "num-threads": 1,
        "workers": 2,
    }
    flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    with running_quire(directory, "serve", str(model), "--port", "0", "--dtype", "float32", *flags) as quire:
        quire.wait_for(READY)
        yield quire


async def settled_files(quire: QuireProcess) -> dict[int, list[str]]:
    """What each process has open once the last connection of whoever asked before is closed on both sides."""
    files: dict[int, list[str]] = {}
    while files != (files := {pid: open_files(pid) for pid in quire.pids()}):
        await asyncio.sleep(SETTLED_S)
    return files


@pytest.fixture
async def nothing_is_left(quire: QuireProcess) -> AsyncIterator[None]:
    """Compares before and after the test: processes, their open files, blocks, running and waiting requests."""
    for form in FORMS * 4:  # whatever a worker opens with its first request is open before
        await StreamClient(quire.address, **form, max_tokens=2).run()
    await until_stats(quire.address, is_idle)
    before = await settled_files(quire)
    yield
    stats = await until_stats(quire.address, is_idle)
    assert stats["num_failed"] == 0
    deadline_s = time.monotonic() + FREED_WITHIN_S
    while (after := {pid: open_files(pid) for pid in quire.pids()}) != before and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    assert after == before


@asynccontextmanager
async def full_batch(quire: QuireProcess) -> AsyncIterator[None]:
    """Others fill every place of the batch meanwhile, and are not disturbed."""
    holders = [StreamClient(quire.address) for _ in range(MAX_NUM_SEQS)]
    tasks = [asyncio.create_task(holder.run()) for holder in holders]
    await until_begun(holders)
    yield
    assert [task.done() for task in tasks] == [False] * MAX_NUM_SEQS
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def send_all(quire: QuireProcess, num_each: int, **body: Any) -> list[Leaver]:
    """Clients of every form, their requests sent."""
    leavers = [Leaver(quire.address, **(form | body)) for _ in range(num_each) for form in FORMS]
    await asyncio.gather(*(leaver.send() for leaver in leavers))
    return leavers


async def leave_after(leavers: list[Leaver], draw: random.Random, longest_s: float) -> None:
    """Each leaves at a random moment."""

    async def leave(leaver: Leaver, delay_s: float, is_abrupt: bool) -> None:
        await asyncio.sleep(delay_s)
        leaver.leave(abruptly=is_abrupt)

    await asyncio.gather(*(leave(leaver, draw.uniform(0.0, longest_s), draw.random() < 0.5) for leaver in leavers))


async def leave_while_queued(quire: QuireProcess, num_each: int) -> None:
    async with full_batch(quire):
        leavers = await send_all(quire, num_each)
        await until_stats(quire.address, lambda stats: stats["num_waiting"] == num_each * (1 + 1 + 4))
        leave_all(leavers)
        await until_stats(quire.address, lambda stats: stats["num_waiting"] == 0)


async def leave_while_tokenising(quire: QuireProcess, num_each: int) -> None:
    for _ in range(num_each):
        leavers = await send_all(quire, 1, prompt=LONG_TEXT)
        await leave_after(leavers, random.Random(0), 0.02)


async def leave_in_the_first_chunk(quire: QuireProcess, num_each: int) -> None:
    for _ in range(num_each):
        leavers = await send_all(quire, 1, prompt=LONG_PROMPT)
        await leave_after(leavers, random.Random(1), 0.05)


async def leave_between_chunks(quire: QuireProcess, num_each: int) -> None:
    draw = random.Random(2)
    for _ in range(num_each):
        leavers = await send_all(quire, 1, prompt=LONG_PROMPT)
        await leave_after(leavers, draw, 0.5)


async def leave_while_decoding(quire: QuireProcess, num_each: int) -> None:
    for _ in range(num_each):
        leavers = await send_all(quire, 1)
        await asyncio.gather(leavers[0].read_until(b"data: {"), leavers[2].read_until(b"data: {"))
        await leave_after(leavers, random.Random(3), 0.1)


async def leave_after_the_last_token(quire: QuireProcess, num_each: int) -> None:
    for _ in range(num_each):
        leavers = await send_all(quire, 1, max_tokens=3)
        ends = (b"data: [DONE]\n\n", b'"finish_reason":"length"', b"data: [DONE]")
        await asyncio.gather(*(leaver.read_until(end) for leaver, end in zip(leavers, ends, strict=True)))
        leave_all(leavers)


PHASES: list[Callable[[QuireProcess, int], Awaitable[None]]] = [
    leave_while_queued,
    leave_while_tokenising,
    leave_in_the_first_chunk,
    leave_between_chunks,
    leave_while_decoding,
    leave_after_the_last_token,
]


@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize(
    "leave",
    [*PHASES[:1], *(pytest.param(phase, marks=pytest.mark.slow) for phase in PHASES[1:-1]), *PHASES[-1:]],
    ids=lambda phase: phase.__name__,
)
async def test_leaving_leaves_nothing(
    quire: QuireProcess, leave: Callable[[QuireProcess, int], Awaitable[None]]
) -> None:
    await leave(quire, NUM_EACH)


@pytest.mark.slow
@pytest.mark.usefixtures("nothing_is_left")
@pytest.mark.parametrize("leave", PHASES, ids=lambda phase: phase.__name__)
async def test_leaving_a_thousand_times_leaves_nothing(
    quire: QuireProcess, leave: Callable[[QuireProcess, int], Awaitable[None]]
) -> None:
    for _ in range(1000 // (3 * NUM_EACH) + 1):
        await leave(quire, NUM_EACH)


# ---- identity and truth


@pytest.mark.usefixtures("nothing_is_left")
async def test_equal_request_ids_are_served_independently(quire: QuireProcess) -> None:
    body = {"prompt": [1, 2, 3], "max_tokens": 30, "seed": 7, "ignore_eos": True}
    async with httpx.AsyncClient(headers={"x-request-id": "the-same"}, timeout=60) as client:
        url = f"{quire.address}/v1/completions"
        replies = await asyncio.gather(*(client.post(url, json=body) for _ in range(6)))
    assert [reply.status_code for reply in replies] == [200] * 6
    assert {reply.headers["x-request-id"] for reply in replies} == {"the-same"}
    assert len({reply.json()["id"] for reply in replies}) == 6
    assert len({reply.json()["choices"][0]["text"] for reply in replies}) == 1


@pytest.mark.usefixtures("nothing_is_left")
async def test_health_is_true_and_quick_under_load(quire: QuireProcess) -> None:
    """The numbers are those of the clients; no probe waits for the engine, or gives it anything to do."""
    async with full_batch(quire):
        leavers = await send_all(quire, 6)
        before = await until_stats(quire.address, lambda stats: stats["num_waiting"] == 6 * (1 + 1 + 4))
        assert before["num_running"] == MAX_NUM_SEQS
        times_s = []
        async with httpx.AsyncClient(base_url=quire.address) as client:
            for path in ("/healthz", "/readyz", "/health", "/stats") * 10:
                began_s = time.perf_counter()
                assert (await client.get(path)).status_code == 200
                times_s.append(time.perf_counter() - began_s)
            health = (await client.get("/health")).json()
        assert statistics.median(times_s) < 0.1
        assert (health["running"], health["waiting"]) == (MAX_NUM_SEQS, 36)
        after = await until_stats(quire.address, lambda stats: stats["num_steps"] > before["num_steps"])
        assert after["num_requests"] == before["num_requests"]
        leave_all(leavers)
