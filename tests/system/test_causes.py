"""A request that was made slow on purpose is explained by `quire why` with the true cause, over real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.conftest import running_paced
from tests.system.quire_process import CLI, QuireProcess

START = [sys.executable, *CLI]


def ask_why(quire: QuireProcess, *arguments: str) -> str:
    """What the command prints."""
    command = [*START, "why", *arguments, "--base-url", quire.address]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


async def send(quire: QuireProcess, request_id: str, num_tokens: int = 3, key: str = "", **body: Any) -> None:
    """One request to its end."""
    asked = {"prompt": [ord(request_id[0])] * num_tokens, "max_tokens": 40, "ignore_eos": True} | body
    headers = {"x-request-id": request_id} | ({"authorization": f"Bearer {key}"} if key else {})
    async with httpx.AsyncClient(timeout=60) as client:
        reply = await client.post(f"{quire.address}/v1/completions", json=asked, headers=headers)
    assert reply.status_code == 200


async def send_all(quire: QuireProcess, *requests: dict[str, Any]) -> None:
    """One after another, 0.1 s apart, all at the same time."""
    tasks = []
    for request in requests:
        tasks.append(asyncio.create_task(send(quire, **request)))
        await asyncio.sleep(0.1)
    await asyncio.gather(*tasks)


@pytest.mark.slow
async def test_full_batch_is_named(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--max-num-seqs", "1")
    await send_all(quire, {"request_id": "a"}, {"request_id": "b"})
    told = ask_why(quire, "b")
    assert "Most of the time: decode." in told or "Most of the time: waiting: the batch was full." in told
    assert "because as many sequences ran as --max-num-seqs allows" in told
    assert ask_why(quire, "--slowest", "1").splitlines()[0].endswith("(b)")


@pytest.mark.slow
async def test_long_prompt_of_another_is_named(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--max-num-batched-tokens", "256", "--max-prefill-tokens-while-decoding", "64")
    await send_all(
        quire,
        {"request_id": "a", "max_tokens": 200},
        {"request_id": "l", "num_tokens": 3000, "max_tokens": 1},
        {"request_id": "c", "max_tokens": 5},
    )
    assert "because the token budget of the steps went to others" in ask_why(quire, "c")
    assert "prefill tokens of other requests ran in these steps" in ask_why(quire, "a")
    assert "Prefill took" in (long := ask_why(quire, "l"))
    assert "tokens in 47 chunks" in long


async def test_exhausted_blocks_and_preemption_are_named(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACED_NUM_BLOCKS", "8")
        with running_paced(tmp_path) as quire:
            await send_all(
                quire,
                {"request_id": "a", "num_tokens": 30, "max_tokens": 60},
                {"request_id": "b", "num_tokens": 30, "max_tokens": 60},
                {"request_id": "c", "num_tokens": 60, "max_tokens": 5},
            )
            assert "because the KV blocks were exhausted" in (told := ask_why(quire, "c"))
            assert "Most blocks were held by cmpl-" in told
            assert "Preempted by cmpl-" in ask_why(quire, "b")


@pytest.mark.slow
async def test_higher_priority_of_another_is_named(paced: Callable[..., QuireProcess]) -> None:
    quire = paced("--max-num-seqs", "1")
    await send_all(quire, {"request_id": "a"}, {"request_id": "b", "max_tokens": 2, "priority": 9}, {"request_id": "c"})
    assert "because its turn went to later requests of higher priority" in ask_why(quire, "b")


@pytest.mark.slow
async def test_fair_share_of_another_key_is_named(tmp_path: Path) -> None:
    heavy, light = "heavy-key-0123456789", "light-key-0123456789"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_API_KEYS", f"heavy={heavy},light={light}")
        with running_paced(tmp_path, "--max-num-seqs", "1") as quire:
            await send_all(
                quire,
                {"request_id": "a", "key": heavy},
                {"request_id": "b", "key": heavy, "max_tokens": 2},
                {"request_id": "c", "key": light},
            )
            told = ask_why(quire, "b", "--api-key", heavy)
    assert "because its turn went to other keys, which had had less than their share" in told


@pytest.mark.slow
async def test_records_survive_the_http_worker(paced: Callable[..., QuireProcess]) -> None:
    quire = paced()
    await send(quire, "a")
    (pid,) = quire.worker_pids
    subprocess.run(["kill", "-9", str(pid)], check=True)
    async with httpx.AsyncClient() as client, asyncio.timeout(30):
        while True:
            try:
                reply = await client.get(f"{quire.address}/v1/requests/a")
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if reply.status_code == 200:
                break
    assert reply.json()["completion_tokens"] == 40
    assert quire.worker_pids != [pid]
