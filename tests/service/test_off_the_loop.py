"""Work that grows with what a caller sends runs beside the event loop, which goes on serving others (S11, S23)."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from service import translate
from service.routes.body import MAX_INLINE_BODY_BYTES, BodyDecoder
from service.tokenizer import TextTokenizer
from tests.fakes import FakeEngine, say
from tests.fakes_text import byte_level_tokenizer

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGE = {"role": "user", "content": "hi"}


def spy_on(patch: pytest.MonkeyPatch, owner: object, name: str) -> list[threading.Thread]:
    """The threads in which a function is called, as they come."""
    threads: list[threading.Thread] = []
    function: Callable[..., Any] = getattr(owner, name)

    def spied(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread())
        return function(*args, **kwargs)

    patch.setattr(owner, name, spied)
    return threads


@pytest.fixture
def engine(engine: FakeEngine) -> FakeEngine:
    return FakeEngine(engine.info.model_path, say("Hello."), max_model_len=10_000_000)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "extra",
    [
        {"logit_bias": {str(number): 1 for number in range(100_000)}},
        {"logit_bias": {str(number): 1 for number in range(10_000)}},
        {"tools": [{"type": "function"}] * 10_000},
        {"messages": [MESSAGE] * 100_000},
        {"messages": [MESSAGE] * 10_000},
    ],
    ids=["logit_bias", "fewer logit_bias", "tools", "messages", "fewer messages"],
)
async def test_huge_collection_is_decoded_and_refused_in_a_thread(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    """S11"""
    threads = spy_on(monkeypatch, BodyDecoder, "decode")
    more_threads = spy_on(monkeypatch, translate, "refuse_unsupported")
    reply = await client.post(CHAT, json={"messages": [MESSAGE], **extra})
    assert reply.status_code == 400
    assert len(threads) == 1
    assert threading.main_thread() not in threads + more_threads


async def test_long_text_is_rendered_and_tokenised_in_a_thread(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S23"""
    threads = spy_on(monkeypatch, TextTokenizer, "encode")
    text = "one two " * MAX_INLINE_BODY_BYTES
    chat = await client.post(CHAT, json={"messages": [{"role": "user", "content": text}]})
    completion = await client.post(COMPLETIONS, json={"prompt": text})
    assert (chat.status_code, completion.status_code) == (200, 200)
    assert len(threads) == 2
    assert threading.main_thread() not in threads


@pytest.fixture
def brief_slices() -> Iterator[None]:
    """A thread that wants the interpreter hands it over again at once, so that turns before and after do not count."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.usefixtures("brief_slices")
async def test_event_loop_turns_while_a_long_text_is_tokenised() -> None:
    """S23: the library lets go of the interpreter for the time of its work."""
    tokenizer = byte_level_tokenizer()
    started_s = time.perf_counter()
    num_turns = await turns_during(lambda: tokenizer.encode("one two three " * 40_000, add_special_tokens=False))
    elapsed_s = time.perf_counter() - started_s
    assert num_turns > 0.15 * await turns_during(lambda: time.sleep(elapsed_s))


async def turns_during(work: Callable[[], object]) -> int:
    """Turns of the event loop while a thread works."""
    num_turns = 0
    thread = asyncio.create_task(asyncio.to_thread(work))
    while not thread.done():
        num_turns += 1
        await asyncio.sleep(0)
    return num_turns
