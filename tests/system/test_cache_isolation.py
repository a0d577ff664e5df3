"""Prefix blocks of a real engine are shared under one key and by nobody else, and nobody's flood washes them away.

That the time of an answer tells nothing either is tested on what makes the time: the tokens that each step computes
until the first token (S65). `ops.bench.cache_timing` measures the time itself.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.engine_provider import EngineProvider
from tests.batching.real_engine import engine_settings
from tests.system.quire_process import write_tiny_model

KEYS = {"a": "sk-of-a-0123456789", "b": "sk-of-b-0123456789"}
PROMPT = "A prompt of several blocks, which nobody else shall find. " * 2
NUM_PROMPTS = 40
STEP_TOKENS = 24
"""A step computes no more of a prompt."""
SMALL_STEPS = {"max_num_batched_tokens": STEP_TOKENS, "max_num_seqs": STEP_TOKENS, "kv_cache_memory": "16MiB"}
"""All prompts of both keys stay in the cache: it is for 24 sequences of 512 tokens."""
SMALL_CACHE = "256KiB"
"""512 tokens of the tiny model."""
NUM_FLOOD = 40


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("isolation") / "tiny")


async def clients_of(model_path: Path, server: ServerSettings, **limits: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(engine=engine_settings(model_path, max_model_len=None, **limits), server=server)
    app = create_app(settings)
    provider: EngineProvider = app.state.provider
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await provider.wait_until_loaded()
        yield client


def two_keys() -> ServerSettings:
    return ServerSettings(api_keys=",".join(f"{label}={key}" for label, key in KEYS.items()))


@pytest.fixture
async def keyed(model_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async for client in clients_of(model_path, two_keys()):
        yield client


@pytest.fixture
async def in_small_steps(model_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async for client in clients_of(model_path, two_keys(), **SMALL_STEPS):
        yield client


@pytest.fixture
async def with_small_cache(model_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async for client in clients_of(model_path, two_keys(), kv_cache_memory=SMALL_CACHE):
        yield client


@pytest.fixture
async def open_to_all(model_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async for client in clients_of(model_path, ServerSettings()):
        yield client


async def num_cached(client: httpx.AsyncClient, label: str, prompt: str = PROMPT, request_id: str = "r") -> int:
    body = {"prompt": prompt, "max_tokens": 1}
    headers = {"authorization": f"Bearer {KEYS[label]}", "x-request-id": request_id}
    reply = await client.post("/v1/completions", json=body, headers=headers, timeout=60)
    cached: int = reply.raise_for_status().json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return cached


async def test_another_key_finds_nothing_of_a_prompt(keyed: httpx.AsyncClient) -> None:
    found = [await num_cached(keyed, label) for label in ("a", "b", "a", "b")]
    assert found[:2] == [0, 0]
    assert found[2] == found[3] >= len(PROMPT) // 2


async def test_without_keys_the_prompt_is_shared(open_to_all: httpx.AsyncClient) -> None:
    assert [await num_cached(open_to_all, label) > 0 for label in ("a", "b")] == [False, True]


# ---- what makes the time to the first token


def draw_prompts() -> list[str]:
    """Of different lengths, and with nothing in common."""
    rng = random.Random(65)
    return ["".join(rng.choices(string.ascii_letters, k=rng.randint(STEP_TOKENS, 200))) for _ in range(NUM_PROMPTS)]


async def work_of(client: httpx.AsyncClient, label: str, prompt: str, request_id: str) -> tuple[int, ...]:
    """Send a prompt; the tokens that each step computed of it until the first token came."""
    await num_cached(client, label, prompt, request_id)
    headers = {"authorization": f"Bearer {KEYS[label]}"}
    reply = await client.get(f"/v1/requests/{request_id}", headers=headers)
    phases = reply.raise_for_status().json()["phases"]
    return tuple(phase["details"]["tokens"] for phase in phases if phase["name"] == "prefill")


async def test_prompts_of_another_key_take_the_work_of_new_ones(in_small_steps: httpx.AsyncClient) -> None:
    """The two distributions are equal, so no test of samples can tell them apart; those of a repetition are not."""
    prompts = draw_prompts()
    cold, other, again = [
        [await work_of(in_small_steps, label, prompt, f"{kind}{number}") for number, prompt in enumerate(prompts)]
        for kind, label in (("cold", "a"), ("other", "b"), ("again", "a"))
    ]
    assert len(Counter(map(len, cold))) > 5, "prompts of many lengths take different numbers of steps"
    assert other == cold
    assert Counter(again).keys().isdisjoint(cold)
    assert {len(steps) for steps in again} == {1}


# ---- floods


@pytest.mark.parametrize(("flooder", "is_kept"), [("b", True), ("a", False)], ids=["of_another", "of_its_own"])
async def test_conversation_survives_the_flood_of_another_key_only(
    with_small_cache: httpx.AsyncClient, flooder: str, is_kept: bool
) -> None:
    await num_cached(with_small_cache, "a")
    for number in range(NUM_FLOOD):
        assert await num_cached(with_small_cache, flooder, f"{number:03d} {PROMPT}") == 0
    assert (await num_cached(with_small_cache, "a") > len(PROMPT) // 2) == is_kept
