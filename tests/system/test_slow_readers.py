"""Readers that do not read cost themselves only: the engine lets go of them, and no process grows without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import paced_engine
from tests.system.leaver import Leaver, leave_all
from tests.system.quire_process import QuireProcess
from tests.system.stream_client import StreamClient, is_idle, stats_of, until_stats

MAX_UNREAD_BYTES = 2**20
"""Of each stream, in the worker's memory; what the kernel holds is not counted."""
FILLED_WITHIN_S = 600.0
"""What hundreds of readers leave unread is a gigabyte, most of it in the kernel, and made a token at a time."""
OTHER_BYTES = 50 * 2**20
"""What a worker may grow by in a test for other reasons."""


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def check_lazy_readers(quire: QuireProcess, num_readers: int) -> None:
    """They are ended while they are still connected; one who reads gets everything meanwhile."""
    await StreamClient(quire.address, max_tokens=5, logprobs=20).run()
    before = {pid: rss_bytes(pid) for pid in quire.worker_pids}
    prompt = [paced_engine.HASTE]
    lazy = [Leaver(quire.address, stream=True, logprobs=20, prompt=prompt) for _ in range(num_readers)]
    try:
        await asyncio.gather(*(reader.send(receive_buffer_bytes=2048) for reader in lazy))
        for reader in lazy:
            reader.stop_reading()
        other = asyncio.create_task(StreamClient(quire.address, max_tokens=1000).run())
        await until_stats(quire.address, lambda stats: stats["num_aborted"] == num_readers, FILLED_WITHIN_S)
        assert (await other).is_done
        stats = await until_stats(quire.address, is_idle)
        assert stats["num_failed"] == 0
        for pid, old in before.items():
            assert rss_bytes(pid) - old < num_readers * MAX_UNREAD_BYTES + OTHER_BYTES
        assert quire.errors.count("slow_reader_dropped") == num_readers
    finally:
        leave_all(lazy)
    assert (await StreamClient(quire.address, max_tokens=5).run()).is_done
    assert (await stats_of(quire.address))["num_aborted"] == num_readers


@pytest.mark.parametrize(
    "num_readers", [pytest.param(20, marks=pytest.mark.slow), pytest.param(500, marks=pytest.mark.slow)]
)
async def test_readers_that_do_not_read_cost_themselves_only(
    paced: Callable[..., QuireProcess], num_readers: int
) -> None:
    await check_lazy_readers(paced("--max-num-seqs", "512"), num_readers)
