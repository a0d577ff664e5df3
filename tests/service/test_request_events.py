"""Requests over HTTP as records with numbered events: followed, resumed, kept without a client, cancelled."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.async_engine import AsyncEngine
from batching.engine import EngineCore
from batching.scheduler import Scheduler
from batching.scheduler_config import SchedulerConfig
from batching.step import SampledToken, ScheduledSequence, SchedulerOutput, StepOutput
from contracts.errors import InvalidValue
from contracts.generation import TokenLogprob
from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.engine_provider import EngineProvider
from service.routes.replies import number_events
from service.routes.request_events import read_after
from service.sse import DONE, event
from tests.batching.engine_rig import PATIENCE_S, until
from tests.fakes import EOS, VOCAB_SIZE, fake_engine_info

TEXT = "Grüße, Welt… \U0001f600 ab "
DETACH = {"x-quire-detach": "keep"}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 60, "stream": True}
COMPLETION: dict[str, Any] = {"prompt": "hi", "max_tokens": 60, "stream": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "samples": {"n": 3},
    "usage": {"stream_options": {"include_usage": True}},
    "stop": {"stop": ["Welt… "]},
    "stop and samples": {"stop": [" ab", "We"], "n": 2, "stream_options": {"include_usage": True}},
    "bad end": {"max_tokens": 3},
}
BROKEN = 5
"""A prompt token whose sample fails after as many tokens."""


class TextRunner:
    """Says TEXT again and again, each sample from a place of its own. While the gate is shut, no step ends."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self._broken: set[int] = set()

    def execute(self, plan: SchedulerOutput) -> StepOutput:
        assert self.gate.wait(PATIENCE_S)
        self._broken |= {row.seq_id for row in plan.sequences if BROKEN in row.token_ids and not row.start}
        sampled = [self._sample(row) if row.is_sampling else None for row in plan.sequences]
        return StepOutput(step_id=plan.step_id, sampled=list(sampled), duration_s=0.001)

    def _sample(self, row: ScheduledSequence) -> SampledToken:
        if row.seq_id in self._broken and row.num_output_tokens == BROKEN:
            return SampledToken(token_id=0, error="broken numbers")
        said = TEXT.encode()
        token = said[(row.num_output_tokens + row.seq_id * 3) % len(said)]
        num_top = row.sampling.num_logprobs
        top = [(token - index, -0.5 * index) for index in range(num_top or 0)]
        return SampledToken(token_id=token, logprob=None if num_top is None else TokenLogprob(logprob=-0.25, top=top))


@pytest.fixture
def runner() -> TextRunner:
    return TextRunner()


@pytest.fixture
async def engine(model_path: Path, runner: TextRunner) -> AsyncIterator[AsyncEngine]:
    config = SchedulerConfig(
        num_blocks=256, block_size=16, max_model_len=1024, vocab_size=VOCAB_SIZE, eos_token_ids=frozenset({EOS})
    )
    core = EngineCore(info=fake_engine_info(model_path, max_model_len=1024), scheduler=Scheduler(config), runner=runner)
    yield AsyncEngine(core, ThreadPoolExecutor(max_workers=1))


@pytest.fixture
async def client(engine: AsyncEngine, runner: TextRunner, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings, engine)
    provider: EngineProvider = app.state.provider
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # Litestar narrows ASGI's own types
    async with provider.run(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        await provider.wait_until_loaded()
        yield client
        runner.gate.set()


async def send(client: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> httpx.Response:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    return await client.post(path, json=body, headers={"x-request-id": "mine", **headers})


async def events(client: httpx.AsyncClient, any_id: str = "mine", **headers: str) -> httpx.Response:
    return await client.get(f"/v1/requests/{any_id}/events", headers=headers)


async def status(client: httpx.AsyncClient, any_id: str = "mine") -> dict[str, Any]:
    told: dict[str, Any] = (await client.get(f"/v1/requests/{any_id}")).json()
    return told


def without_numbers(stream: str) -> str:
    return re.sub(r"^id: [0-9]+\n", "", stream, flags=re.MULTILINE)


def numbers_of(stream: str) -> list[int]:
    return [int(number) for number in re.findall(r"^id: ([0-9]+)$", stream, flags=re.MULTILINE)]


def text_of(stream: str) -> str:
    chunks = [msgspec.json.decode(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])


class TestReplay:
    @pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
    @pytest.mark.parametrize("body", [CHAT, COMPLETION], ids=["chat", "completions"])
    async def test_events_are_those_of_the_stream(
        self, client: httpx.AsyncClient, body: dict[str, Any], variant: dict[str, Any]
    ) -> None:
        stream = (await send(client, body | variant)).text
        again = (await events(client)).text
        assert numbers_of(stream) == []
        assert without_numbers(again) == stream
        assert numbers_of(again) == list(range(1, stream.count("data: {") + 1))

    @pytest.mark.parametrize("body", [CHAT | {"logprobs": True, "top_logprobs": 2}, COMPLETION | {"logprobs": 2}])
    async def test_log_probabilities_are_told_again(self, client: httpx.AsyncClient, body: dict[str, Any]) -> None:
        stream = (await send(client, body)).text
        assert without_numbers((await events(client)).text) == stream

    @pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
    async def test_detached_stream_has_the_same_numbers(
        self, client: httpx.AsyncClient, variant: dict[str, Any]
    ) -> None:
        stream = (await send(client, CHAT | variant, **DETACH)).text
        assert stream.endswith("data: [DONE]\n\n")
        assert numbers_of(stream)[0] == 1
        assert (await events(client)).text == stream

    async def test_one_shot_request_can_be_followed(self, client: httpx.AsyncClient) -> None:
        whole = (await send(client, COMPLETION | {"stream": False})).json()
        assert text_of((await events(client)).text) == whole["choices"][0]["text"]

    async def test_detached_one_shot_reply_is_the_usual_one(self, client: httpx.AsyncClient) -> None:
        whole = (await send(client, COMPLETION | {"stream": False}, **DETACH)).json()
        assert text_of((await events(client)).text) == whole["choices"][0]["text"]
        assert whole["usage"]["completion_tokens"] == 60

    async def test_every_number_resumes_behind_its_event(self, client: httpx.AsyncClient) -> None:
        blocks = (await send(client, CHAT | {"n": 2}, **DETACH)).text.split("\n\n")
        num_numbered = len(blocks) - 2  # [DONE], and nothing behind it
        for after in range(num_numbered + 3):
            rest = "\n\n".join(blocks[min(after, num_numbered) :])
            assert (await events(client, **{"last-event-id": str(after)})).text == rest
            assert (await client.get(f"/v1/requests/mine/events?after={after}")).text == rest

    async def test_live_request_is_followed_to_its_end(self, client: httpx.AsyncClient, runner: TextRunner) -> None:
        runner.gate.clear()
        stream = asyncio.create_task(send(client, COMPLETION))
        await until_known(client)
        following = [asyncio.create_task(events(client)) for _ in range(3)]
        await asyncio.sleep(0.02)
        runner.gate.set()
        assert {without_numbers((await one).text) for one in following} == {(await stream).text}

    async def test_failed_request_ends_with_the_error_behind_its_text(self, client: httpx.AsyncClient) -> None:
        body = COMPLETION | {"prompt": [BROKEN, 6]}
        stream = (await send(client, body)).text
        again = (await events(client)).text
        assert without_numbers(again) == stream
        assert stream.count("data: {") > 3
        assert msgspec.json.decode(stream.split("\n\n")[-2][6:])["error"]["code"] == "engine_error"
        assert "[DONE]" not in stream
        assert (await events(client, **{"last-event-id": "500"})).text == stream.split("\n\n")[-2] + "\n\n"
        assert (await status(client))["status"] == "failed"

    async def test_reply_id_and_headers(self, client: httpx.AsyncClient) -> None:
        stream = await send(client, CHAT)
        reply_id = msgspec.json.decode(stream.text.partition("\n")[0][6:])["id"]
        again = await events(client, reply_id)
        assert without_numbers(again.text) == stream.text
        assert again.headers["content-type"] == "text/event-stream; charset=utf-8"


async def until_known(client: httpx.AsyncClient, any_id: str = "mine") -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await client.get(f"/v1/requests/{any_id}")).status_code != 200:
            await asyncio.sleep(0.01)


class TestRefusals:
    async def test_unknown_is_404(self, client: httpx.AsyncClient) -> None:
        for reply in (await events(client, "nobody"), await client.delete("/v1/requests/nobody")):
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")

    @pytest.mark.parametrize("number", ["abc", "-1", "1.5", "٣", "1" * 13, "", " "])
    async def test_number_that_is_none_is_refused_by_name(self, client: httpx.AsyncClient, number: str) -> None:
        with pytest.raises(InvalidValue) as caught:
            read_after([number], [])
        assert caught.value.param == "last-event-id"
        reply = await client.get("/v1/requests/mine/events", params={"after": number})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "after")

    async def test_header_is_refused_by_name(self, client: httpx.AsyncClient) -> None:
        reply = await events(client, **{"last-event-id": "last"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "last-event-id")

    async def test_unknown_parameter_is_refused(self, client: httpx.AsyncClient) -> None:
        reply = await client.get("/v1/requests/mine/events?from=3")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "from")

    def test_header_counts_before_the_parameter(self) -> None:
        assert read_after(["7"], [("after", "3")]) == 7
        assert read_after([], [("after", "3")]) == 3
        assert read_after([], []) == 0

    async def test_given_up_events_are_410(self, client: httpx.AsyncClient, engine: AsyncEngine) -> None:
        await send(client, CHAT)
        engine._book.events.forget((await status(client))["id"])
        reply = await events(client)
        assert (reply.status_code, reply.json()["error"]["code"]) == (410, "events_gone")

    @pytest.mark.parametrize("change", [{"prompt": ["a", "b"]}, {"echo": True}])
    async def test_what_cannot_be_made_again_is_neither_followed_nor_detached(
        self, client: httpx.AsyncClient, change: dict[str, Any]
    ) -> None:
        refused = await send(client, COMPLETION | change, **DETACH)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(change)))
        await send(client, COMPLETION | change)
        reply = await events(client)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "not_resumable")
        assert reply.headers["x-should-retry"] == "false"

    @pytest.mark.parametrize("body", [CHAT, COMPLETION], ids=["chat", "completions"])
    @pytest.mark.parametrize("value", ["yes", "", "KEEP"])
    async def test_other_values_of_the_header_are_refused(
        self, client: httpx.AsyncClient, body: dict[str, Any], value: str
    ) -> None:
        reply = await send(client, body, **{"x-quire-detach": value})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "x-quire-detach")


class TestDetached:
    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_request_outlives_its_client(
        self, client: httpx.AsyncClient, runner: TextRunner, engine: AsyncEngine, is_stream: bool
    ) -> None:
        runner.gate.clear()
        request = asyncio.create_task(send(client, COMPLETION | {"stream": is_stream}, **DETACH))
        await until_known(client)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert (await status(client))["detached"]
        runner.gate.set()
        assert (await events(client)).text.endswith("data: [DONE]\n\n")
        assert (await status(client))["finish_reason"] == "length"
        assert engine.stats().num_free_blocks == engine.stats().num_blocks

    async def test_attached_request_ends_with_its_client(self, client: httpx.AsyncClient, runner: TextRunner) -> None:
        runner.gate.clear()
        request = asyncio.create_task(send(client, COMPLETION))
        await until_known(client)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        told = await status(client)
        assert (told["status"], told["finish_reason"], told["detached"]) == ("cancelled", "abort", False)
        assert '"code":"request_cancelled"' in (await events(client)).text

    async def test_stop_string_ends_a_request_whose_client_is_gone(
        self, client: httpx.AsyncClient, runner: TextRunner
    ) -> None:
        runner.gate.clear()
        request = asyncio.create_task(send(client, COMPLETION | {"stop": "Welt", "max_tokens": 900}, **DETACH))
        await until_known(client)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        runner.gate.set()
        assert (await events(client)).text.endswith("data: [DONE]\n\n")
        told = await status(client)
        assert (told["status"], told["finish_reason"]) == ("completed", "stop")
        assert told["completion_tokens"] < 100

    async def test_200_abandoned_requests_leave_nothing(
        self, client: httpx.AsyncClient, runner: TextRunner, engine: AsyncEngine
    ) -> None:
        runner.gate.clear()
        requests = [asyncio.create_task(send(client, CHAT | {"max_tokens": 20}, **DETACH)) for _ in range(200)]
        await until(lambda: engine.stats().num_requests == 200)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        runner.gate.set()
        await until(lambda: engine.stats().num_finished == 200)
        assert engine.stats().num_free_blocks == engine.stats().num_blocks
        assert (engine._sinks, engine._followers) == ({}, {})
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "quire-keeper"])


class TestCancel:
    @pytest.mark.parametrize("any_id", ["mine", "reply", "trace"])
    @pytest.mark.parametrize("options", [{}, DETACH], ids=["attached", "detached"])
    async def test_stream_ends_with_its_error(
        self, client: httpx.AsyncClient, runner: TextRunner, engine: AsyncEngine, any_id: str, options: dict[str, str]
    ) -> None:
        runner.gate.clear()
        trace = "0af7651916cd43dd8448eb211c80319c"
        traced = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        request = asyncio.create_task(send(client, COMPLETION | {"n": 2}, **options, **traced))
        await until_known(client)
        known = await status(client)
        ids = {"mine": "mine", "reply": known["id"], "trace": known["trace_id"] or "mine"}
        told = await client.delete(f"/v1/requests/{ids[any_id]}")
        assert (told.status_code, told.json()["status"], told.json()["finish_reason"]) == (
            200,
            "cancelled",
            "cancelled",
        )
        stream = (await request).text
        assert '"code":"request_cancelled"' in stream.split("\n\n")[-2]
        assert "[DONE]" not in stream
        runner.gate.set()
        await until(lambda: engine.stats().num_free_blocks == engine.stats().num_blocks)
        assert engine.stats().num_steps <= 2
        assert (await client.delete("/v1/requests/mine")).json()["finish_reason"] == "cancelled"

    async def test_one_shot_reply_is_409(self, client: httpx.AsyncClient, runner: TextRunner) -> None:
        runner.gate.clear()
        request = asyncio.create_task(send(client, CHAT | {"stream": False}))
        await until_known(client)
        await client.delete("/v1/requests/mine")
        reply = await request
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "request_cancelled")
        assert reply.headers["x-should-retry"] == "false"

    async def test_what_has_ended_stays_as_it_is(self, client: httpx.AsyncClient) -> None:
        await send(client, CHAT)
        reply = await client.delete("/v1/requests/mine")
        assert (reply.status_code, reply.json()["status"], reply.json()["finish_reason"]) == (
            200,
            "completed",
            "length",
        )

    async def test_all_prompts_of_a_reply_end_together(
        self, client: httpx.AsyncClient, runner: TextRunner, engine: AsyncEngine
    ) -> None:
        runner.gate.clear()
        request = asyncio.create_task(send(client, COMPLETION | {"prompt": ["a", "b", "c"]}))
        await until(lambda: engine.stats().num_requests == 3)
        reply_id = (await status(client))["id"].rpartition("-")[0]
        assert (await client.delete(f"/v1/requests/{reply_id}")).status_code == 200
        assert "request_cancelled" in (await request).text
        runner.gate.set()
        await until(lambda: engine.stats().num_aborted == 3)

    async def test_status_goes_from_queued_to_running(
        self, client: httpx.AsyncClient, runner: TextRunner, engine: AsyncEngine
    ) -> None:
        runner.gate.clear()
        requests = []
        for name in ("a", "b", "c"):
            requests.append(asyncio.create_task(send(client, CHAT, **{"x-request-id": name})))
            await until_known(client, name)
            await until(lambda: engine.stats().num_running == 1)
        told = [await status(client, name) for name in ("a", "b", "c")]
        assert [(one["status"], one["queue_position"]) for one in told] == [
            ("running", None),
            ("queued", 0),
            ("queued", 1),
        ]
        runner.gate.set()
        await asyncio.gather(*requests)
        listed = (await client.get("/v1/requests")).json()["data"]
        assert [(one["status"], one["queue_position"]) for one in listed] == [("completed", None)] * 3


class TestOwners:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        path = tmp_path / "keys.toml"
        scopes = {"alice": '["infer"]', "bob": '["infer"]', "root": '["infer", "admin"]'}
        path.write_text(
            "".join(f'[[keys]]\nlabel = "{n}"\nkey = "{n}-0123456789abcdef"\nscopes = {s}\n' for n, s in scopes.items())
        )
        path.chmod(0o600)
        return Settings(server=ServerSettings(api_keys_file=str(path)))

    @pytest.mark.parametrize(("name", "expected"), [("alice", 200), ("root", 200), ("bob", 404)])
    async def test_others_are_not_followed_and_not_cancelled(
        self, client: httpx.AsyncClient, runner: TextRunner, name: str, expected: int
    ) -> None:
        runner.gate.clear()
        alice = {"authorization": "Bearer alice-0123456789abcdef"}
        who = {"authorization": f"Bearer {name}-0123456789abcdef"}
        request = asyncio.create_task(send(client, COMPLETION, **alice))
        async with asyncio.timeout(PATIENCE_S):
            while (await client.get("/v1/requests/mine", headers=alice)).status_code != 200:
                await asyncio.sleep(0.01)
        assert (await client.delete("/v1/requests/mine", headers=who)).status_code == expected
        runner.gate.set()
        assert ("request_cancelled" in (await request).text) == (expected == 200)
        assert (await events(client, **who)).status_code == expected


@given(
    payloads=st.lists(st.sampled_from([b'{"a":"id: 3"}', b'{"b":"\\n\\n"}', b'{"choices":[]}']), max_size=12),
    cuts=st.sets(st.integers(0, 12)),
    after=st.integers(0, 14),
)
async def test_numbers_do_not_depend_on_how_events_come_together(
    payloads: list[bytes], cuts: set[int], after: int
) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut <= len(payloads)), len(payloads)]

    async def batches() -> AsyncIterator[bytes]:
        for start, end in pairwise(edges):
            yield b"".join(event(payload) for payload in payloads[start:end])
        yield DONE

    got = b"".join([batch async for batch in number_events(batches(), after)])
    expected = [b"id: %d\n%b" % (number, event(payload)) for number, payload in enumerate(payloads, start=1)]
    assert got == b"".join(expected[after:]) + DONE
