"""Models are loaded, switched, unloaded and lost under load: no stream breaks, no answer is wrong, nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import openai
import pytest

from tests.batching.tiny_models import make_config, make_model, save
from tests.fakes import VOCAB_SIZE, write_byte_model
from tests.system.conftest import PACED
from tests.system.paced_engine import BROKEN, FIRST_ALIAS, num_skipped_letters
from tests.system.process_tree import open_files
from tests.system.quire_process import READY, QuireProcess, running_quire, write_tiny_model
from tests.system.stream_client import StreamClient, until_begun, until_ready

PATIENCE_S = 180.0
PROMPT = [1, 2, 3]
SWITCH_WITHIN_S = 90.0
"""On the slowest machine: a drain, and an import of torch."""
NUM_TOKENS = 60
"""Of one stream: 0.6 s of the paced engine."""


class Answer(NamedTuple):
    """What one request was answered."""

    model: str
    status: int
    text: str
    is_done: bool
    """It ended with [DONE]."""
    error: dict[str, Any] | None


def alphabet(alias: str, num_tokens: int = NUM_TOKENS) -> str:
    """What the paced engine of a model says after PROMPT."""
    start = len(PROMPT) + num_skipped_letters(alias)
    return "".join(chr(ord("a") + (start + index) % 26) for index in range(num_tokens))


def declare(directory: Path, *aliases: str) -> Path:
    """A models file with paced models of known size."""
    tables = []
    for alias in aliases:
        model = write_byte_model(directory / "models" / alias)
        (model / "config.json").write_text("{}")
        tables.append(f'[[models]]\nalias = "{alias}"\nmodel = "{model}"\nmemory = "64MiB"\n')
    path = directory / "models.toml"
    path.write_text("\n".join(tables))
    return path


@contextmanager
def serving(directory: Path, *flags: str, aliases: tuple[str, ...] = ("two", "three")) -> Iterator[QuireProcess]:
    """A server that is ready, whose default is `model` and that knows these as well."""
    declared = str(declare(directory, FIRST_ALIAS, *aliases))
    with running_quire(
        directory, "serve", FIRST_ALIAS, "--models-file", declared, "--port", "0", *flags, python=PACED
    ) as quire:
        quire.wait_for(READY)
        yield quire


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuireProcess]:
    """Two workers, three models; for tests that let it go on."""
    with serving(tmp_path_factory.mktemp("q"), "--workers", "2") as quire:
        yield quire


async def ask(address: str, model: str | None = None, **body: Any) -> Answer:
    """One streamed completion, on a connection of its own."""
    wanted = {"prompt": PROMPT, "max_tokens": NUM_TOKENS, "stream": True, "ignore_eos": True} | body
    wanted |= {} if model is None else {"model": model}
    texts, error, last = [], None, ""
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S, headers={"connection": "close"}) as client,
        client.stream("POST", f"{address}/v1/completions", json=wanted) as reply,
    ):
        async for line in reply.aiter_lines():
            last = line or last
            found = msgspec.json.decode(line.removeprefix("data: ")) if "{" in line else {}
            texts += [choice["text"] for choice in found.get("choices", [])]
            error = found.get("error", error)
    return Answer(model or "", reply.status_code, "".join(texts), last == "data: [DONE]", error)


async def get(address: str, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30, headers={"connection": "close"}) as client:
        return await client.get(f"{address}{path}")


async def order(address: str, alias: str, verb: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return await client.post(f"{address}/v1/models/{alias}/{verb}", json=options)


async def until_state(address: str, **states: str) -> None:
    """Twenty connections in a row, to whichever worker, agree."""
    async with asyncio.timeout(PATIENCE_S):
        num_agreed = 0
        while num_agreed < 20:
            cards = (await get(address, "/v1/models")).json()["data"]
            seen = {card["id"]: card["state"] for card in cards}
            num_agreed = num_agreed + 1 if states.items() <= seen.items() else 0
            await asyncio.sleep(0.01 if num_agreed else 0.05)


async def until_running(address: str, **counts: int) -> None:
    """So many sequences of these models are in a batch."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            models = (await get(address, "/stats")).json()["models"]
            if all(models[alias]["num_running"] >= count for alias, count in counts.items()):
                return
            await asyncio.sleep(0.05)


async def until_idle(address: str, alias: str) -> None:
    """What has been answered is not counted as running any more."""
    async with asyncio.timeout(PATIENCE_S):
        while (await get(address, "/stats")).json()["models"][alias]["num_running"]:
            await asyncio.sleep(0.05)


def engine_pids(quire: QuireProcess, alias: str) -> list[int]:
    """Every engine that ever was ready for the model, from the log."""
    name = "engine" if alias == "model" else f"engine of {alias}"
    lines = [msgspec.json.decode(line) for line in quire.errors.splitlines() if line.startswith("{")]
    return [line["pid"] for line in lines if line["event"] == "process_ready" and line["process"] == name]


def num_loads(quire: QuireProcess, *aliases: str) -> int:
    return sum(len(engine_pids(quire, alias)) for alias in aliases)


@asynccontextmanager
async def under_load(address: str, *models: str, prompts: int = 2, **body: Any) -> AsyncIterator[list[Answer]]:
    """Clients that ask again and again, some for each model; what they were answered, all of it at the end."""
    answers: list[Answer] = []
    is_over = False

    async def go_on(model: str) -> None:
        while not is_over:
            answers.append(await ask(address, model, **body))

    clients = [asyncio.create_task(go_on(model)) for model in models for _ in range(prompts)]
    try:
        yield answers
        is_over = True
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*clients)
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def wrong(answers: list[Answer], expected: Callable[[str], str] = alphabet) -> list[Answer]:
    """Those that are not what the model says when it is asked alone."""
    return [
        answer
        for answer in answers
        if (answer.status, answer.is_done, answer.error, answer.text) != (200, True, None, expected(answer.model))
    ]


async def until_loads(quire: QuireProcess, num: int, *aliases: str, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while num_loads(quire, *aliases) < num:
            await asyncio.sleep(0.1)


async def files_at_rest(quire: QuireProcess) -> list[list[str]]:
    """What the supervisor and the workers have open once all connections are gone."""
    pids = [quire.process.pid, *sorted(quire.worker_pids)]
    before: list[list[str]] = []
    async with asyncio.timeout(PATIENCE_S):
        while (now := [open_files(pid) for pid in pids]) != before:
            before = now
            await asyncio.sleep(1.0)
    return before


# ---- loading


@pytest.mark.slow
async def test_first_request_loads_and_every_worker_learns_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as quire:
        await until_state(quire.address, model="ready", two="unloaded", three="unloaded")
        answers = await asyncio.gather(*(ask(quire.address, "two") for _ in range(12)))
        assert wrong(list(answers)) == []
        await until_state(quire.address, model="ready", two="ready", three="unloaded")
        assert num_loads(quire, "model", "two", "three") == 2
        named_by_nobody = await ask(quire.address)
        assert named_by_nobody.text == alphabet("model")


@pytest.mark.slow
async def test_load_tells_its_stages_as_events(shared: QuireProcess) -> None:
    address = shared.address
    await order(address, "two", "unload", timeout_s=0)
    async with (
        httpx.AsyncClient(timeout=PATIENCE_S, headers={"accept": "text/event-stream"}) as client,
        client.stream("POST", f"{address}/v1/models/two/load") as reply,
    ):
        lines = [line.removeprefix("data: ") async for line in reply.aiter_lines() if line.startswith("data: ")]
    cards = [msgspec.json.decode(line) for line in lines[:-1]]
    stages = [card["progress"]["stage"] for card in cards if card["progress"]]
    assert lines[-1] == "[DONE]"
    assert (cards[0]["state"], cards[-1]["state"]) == ("unloaded", "ready")
    assert "pretending to load" in stages
    assert (await ask(address, "two")).text == alphabet("two")


@pytest.mark.parametrize("name", ["{tmp_path}", "openai-community/gpt2", "../model", "", "three/", " two", "TWO"])
async def test_path_or_hub_name_that_is_not_declared_is_not_found(
    shared: QuireProcess, tmp_path: Path, name: str
) -> None:
    name = name.format(tmp_path=write_byte_model(tmp_path / "secret"))
    num_before = num_loads(shared, "model", "two", "three")
    answer = await ask(shared.address, name)
    assert (answer.status, (answer.error or {}).get("code")) == (404, "model_not_found")
    orders = [await order(shared.address, f"x{name}", verb) for verb in ("load", "unload", "default")]
    assert [reply.status_code for reply in orders] == [404] * 3
    assert num_loads(shared, "model", "two", "three") == num_before


@pytest.mark.slow
async def test_model_that_cannot_be_loaded_says_why_and_the_default_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path, aliases=("two", "bad", "mute")) as quire:
        address = quire.address
        (tmp_path / "models" / "bad" / BROKEN).touch()
        (tmp_path / "models" / "mute" / "tokenizer.json").write_text("{}")
        async with under_load(address, "model") as answers:
            bad, mute = await ask(address, "bad"), await ask(address, "mute")
            refused = await order(address, "bad", "default")
            unsaid = await order(address, "mute", "default")
            again = await ask(address, "bad")
        assert [(one.status, one.error and one.error["code"]) for one in (bad, mute, again)] == [
            (503, "model_load_failed")
        ] * 3
        assert bad.error
        assert mute.error
        assert "'bad' could not be loaded: The weights in " in bad.error["message"]
        assert "1000 bytes are missing. Fetch them again." in bad.error["message"]
        assert "tokenizer" in mute.error["message"]
        assert [refused.status_code, unsaid.status_code] == [503, 503]
        cards = {card["id"]: card for card in (await get(address, "/v1/models")).json()["data"]}
        assert {alias: cards[alias]["state"] for alias in ("model", "bad", "mute")} == {
            "model": "ready",
            "bad": "failed",
            "mute": "failed",
        }
        assert "1000 bytes" in cards["bad"]["error"]
        assert cards["model"]["is_default"]
        assert wrong(answers) == []
        assert len(answers) >= 2
        (tmp_path / "models" / "bad" / BROKEN).unlink()
        assert (await order(address, "bad", "load")).status_code == 200
        assert (await ask(address, "bad")).text == alphabet("bad")
        assert "Traceback" not in quire.errors


# ---- switching


async def switch_under_load(directory: Path, num_switches: int, limit: str, *models: str) -> None:
    with serving(directory, "--workers", "2", "--max-loaded-models", limit) as quire:
        address = quire.address
        assert wrong([await ask(address, "model"), await ask(address, "two")]) == []
        baseline = await files_at_rest(quire)
        num_before = num_loads(quire, *models)
        async with under_load(address, *models) as answers:
            await until_loads(quire, num_before + num_switches, *models, within_s=SWITCH_WITHIN_S * num_switches)
        assert wrong(answers) == []
        assert {answer.model for answer in answers} == set(models)
        assert [len(files) for files in await files_at_rest(quire)] == [len(files) for files in baseline]
        assert len(quire.pids("-m tests.system.paced_engine")) <= int(limit)
        (sockets,) = [list(path.glob("*.sock")) for path in quire.socket_directories]
        assert len(sockets) <= int(limit)
        assert "Traceback" not in quire.errors
        assert await asyncio.to_thread(quire.stop, signal.SIGTERM, 20) == 0
        quire.wait_until_nothing_is_left()


@pytest.mark.slow
async def test_switches_under_load_break_no_stream(tmp_path: Path) -> None:
    await switch_under_load(tmp_path, 4, "1", "model", "two")


@pytest.mark.slow
async def test_switch_under_32_streams_waits_for_each_of_them_and_evicts_the_older(tmp_path: Path) -> None:
    """Two models of 64 MiB fit into the budget, a third does not."""
    with serving(tmp_path, "--workers", "2", "--max-loaded-memory", "150MiB") as quire:
        address = quire.address
        assert (await order(address, "two", "load")).status_code == 200
        await until_state(address, model="ready", two="ready", three="unloaded")
        streams = [
            asyncio.create_task(ask(address, name, max_tokens=500)) for name in ("model", "two") for _ in "x" * 16
        ]
        await until_running(address, model=16, two=16)
        moved = await order(address, "three", "default")
        assert (moved.status_code, moved.json()["is_default"]) == (200, True)
        assert {answer.text for answer in await asyncio.gather(*streams)} == {
            alphabet("model", 500),
            alphabet("two", 500),
        }
        assert wrong([await ask(address, "three")]) == []
        cards = {card["id"]: card["state"] for card in (await get(address, "/v1/models")).json()["data"]}
        assert sorted(cards[alias] for alias in ("model", "two", "three")) == ["ready", "ready", "unloaded"]
        assert cards["three"] == "ready"


@pytest.mark.slow
def test_official_client_lists_retrieves_and_uses_models_with_slashes(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2", aliases=("org/name", "org/deep/name")) as quire:
        client = openai.OpenAI(base_url=f"{quire.address}/v1", api_key="unused", timeout=PATIENCE_S)
        listed = {model.id for model in client.models.list()}
        assert {"model", "org/name", "org/deep/name"} <= listed
        assert client.models.retrieve("org/deep/name").id == "org/deep/name"
        reply = client.completions.create(model="org/name", prompt=PROMPT, max_tokens=NUM_TOKENS)
        assert (reply.model, reply.choices[0].text) == ("org/name", alphabet("org/name"))
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("org/other")


@pytest.mark.slow
async def test_twenty_switches_between_three_models_break_no_stream(tmp_path: Path) -> None:
    await switch_under_load(tmp_path, 20, "2", "model", "two", "three")


@pytest.mark.slow
async def test_twenty_switches_of_real_models_give_the_answers_of_each_alone(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "one")
    other = write_byte_model(tmp_path / "two")
    save(make_model(make_config("llama", vocab_size=VOCAB_SIZE), seed=1), other)
    sizes = ("--kv-cache-memory", "16MiB", "--dtype", "float32", "--num-threads", "1")
    flags = (*sizes, "--max-loaded-models", "1", "--models", f"two={other}")
    wanted: dict[str, Any] = {"temperature": 0.0, "max_tokens": 40}
    with running_quire(tmp_path, "serve", str(model), "--port", "0", *flags) as quire:
        quire.wait_for(READY)
        alone = {name: (await ask(quire.address, name, **wanted)).text for name in ("one", "two")}
        assert alone["one"] != alone["two"]
        async with under_load(quire.address, "one", "two", **wanted) as answers, asyncio.timeout(20 * SWITCH_WITHIN_S):
            while quire.errors.count('"event":"process_ready"') < 22:
                await asyncio.sleep(0.2)
        assert wrong(answers, alone.__getitem__) == []
        assert await asyncio.to_thread(quire.stop, signal.SIGTERM, 30) == 0


@pytest.mark.slow
async def test_default_moves_without_breaking_what_runs(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-loaded-models", "1", "--workers", "2") as quire:
        address = quire.address
        long = asyncio.create_task(ask(address, "model", max_tokens=400))
        await until_running(address, model=1)
        moved = await order(address, "two", "default")
        assert (moved.status_code, moved.json()["is_default"], moved.json()["state"]) == (200, True, "ready")
        assert (await long).text == alphabet("model", 400)
        assert [(await ask(address)).text for _ in range(6)] == [alphabet("two")] * 6
        await until_state(address, model="unloaded", two="ready")
        assert (await get(address, "/readyz")).status_code == 200


# ---- unloading


@pytest.mark.slow
async def test_unload_ends_what_is_left_after_its_time_with_a_word(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as quire:
        address = quire.address
        assert (await order(address, "two", "load")).status_code == 200
        long = [asyncio.create_task(ask(address, "two", max_tokens=90_000)) for _ in range(3)]
        other = asyncio.create_task(ask(address, "model", max_tokens=500))
        await until_running(address, model=1, two=3)
        unhurried = asyncio.create_task(order(address, "two", "unload"))
        await asyncio.sleep(0.5)
        assert not unhurried.done()
        began_s = time.monotonic()
        reply = await order(address, "two", "unload", timeout_s=1)
        assert (reply.status_code, reply.json()["state"]) == (200, "unloaded")
        assert 0.9 < time.monotonic() - began_s < 5.0
        assert (await unhurried).status_code == 200
        endings = await asyncio.gather(*long)
        assert [(one.status, one.is_done, one.error and one.error["code"]) for one in endings] == [
            (200, False, "shutting_down")
        ] * 3
        assert [alphabet("two", len(one.text)) for one in endings] == [one.text for one in endings]
        assert (await other).text == alphabet("model", 500)


@pytest.mark.slow
async def test_server_without_its_default_goes_on(tmp_path: Path) -> None:
    """Probes, numbers, pages, and the other model; then a worker that is new, a drain, and nothing is left."""
    with serving(tmp_path, "--workers", "1") as quire:
        address = quire.address
        assert (await ask(address, "two")).text == alphabet("two")
        assert (await order(address, "model", "unload", timeout_s=0)).json()["state"] == "unloaded"
        paths = ["/health", "/healthz", "/readyz", "/stats", "/v1/models", "/v1/requests", "/metrics", "/docs", "/"]
        assert [(await get(address, path)).status_code for path in paths] == [200] * len(paths)
        health = (await get(address, "/health")).json()
        assert (health["status"], health["model"], health["models"]["model"]) == ("healthy", None, "unloaded")
        stats = (await get(address, "/stats")).json()
        assert (stats["engine"], list(stats["models"])) == (None, ["two"])
        (worker_pid,) = quire.worker_pids
        os.kill(worker_pid, signal.SIGKILL)
        await until_ready(address)
        assert (await ask(address, "two")).text == alphabet("two")
        assert num_loads(quire, "model") == 1
        await until_idle(address, "two")
        running = asyncio.create_task(ask(address, "two", max_tokens=300))
        await until_running(address, two=1)
        quire.process.send_signal(signal.SIGTERM)
        assert wrong([await running], lambda alias: alphabet(alias, 300)) == []
        assert await asyncio.to_thread(quire.process.wait, 20) == 0
        quire.wait_until_nothing_is_left()


@pytest.mark.slow
async def test_request_brings_the_default_back(shared: QuireProcess) -> None:
    address = shared.address
    await order(address, "model", "unload", timeout_s=0)
    answers = await asyncio.gather(*(ask(address) for _ in range(8)))
    assert wrong([answer._replace(model="model") for answer in answers]) == []


# ---- what dies


@pytest.mark.slow
async def test_killed_engine_takes_no_other_model_with_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as quire:
        address = quire.address
        assert (await order(address, "two", "load")).status_code == 200
        clients = [StreamClient(address, model="two") for _ in range(3)]
        lost = [asyncio.create_task(client.run()) for client in clients]
        kept = [asyncio.create_task(ask(address, "model", max_tokens=600)) for _ in range(3)]
        await until_begun(clients)
        os.kill(engine_pids(quire, "two")[-1], signal.SIGKILL)
        assert {ending.error_code for ending in await asyncio.gather(*lost)} == {"engine_dead"}
        requests = await get(address, "/v1/requests")
        assert requests.status_code == 200
        assert wrong(list(await asyncio.gather(*kept)), lambda alias: alphabet(alias, 600)) == []
        await until_loads(quire, 2, "two", within_s=PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            while (await ask(address, "two")).text != alphabet("two"):
                await asyncio.sleep(0.2)
        assert num_loads(quire, "model") == 1


@pytest.mark.slow
async def test_worker_that_is_lost_while_a_model_loads_learns_of_it(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as quire:
        address = quire.address
        waiting = [asyncio.create_task(ask(address, "two")) for _ in range(8)]
        await asyncio.sleep(0.3)
        os.kill(quire.worker_pids[0], signal.SIGKILL)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        answered = [answer for answer in answers if isinstance(answer, Answer)]
        assert {type(answer) for answer in answers} <= {Answer, httpx.RemoteProtocolError, httpx.ReadError}
        assert wrong(answered) == []
        await until_state(address, model="ready", two="ready")
        assert wrong(list(await asyncio.gather(*(ask(address, "two") for _ in range(12))))) == []
        assert num_loads(quire, "two") == 1


@pytest.mark.slow
@pytest.mark.parametrize("state", ["loading", "ready"])
async def test_supervisor_that_is_killed_leaves_no_engine(tmp_path: Path, state: str) -> None:
    with serving(tmp_path, "--workers", "2") as quire:
        waiting = asyncio.create_task(ask(quire.address, "two"))
        await until_state(quire.address, two=state)
        quire.process.kill()
        quire.process.wait()
        async with asyncio.timeout(PATIENCE_S):  # this engine hears nothing before torch is imported
            while quire.pids():
                await asyncio.sleep(0.1)
        quire.wait_until_nothing_is_left()
        await asyncio.gather(waiting, return_exceptions=True)


# ---- seeing and stopping


@pytest.mark.slow
async def test_records_reasons_and_metrics_name_the_model(shared: QuireProcess) -> None:
    address = shared.address
    assert wrong([await ask(address, "two"), await ask(address, "three")]) == []
    listed = (await get(address, "/v1/requests?limit=100")).json()["data"]
    assert {"two", "three"} <= {one["model"] for one in listed}
    newest = (await get(address, "/v1/requests?limit=1")).json()["data"]
    assert [one["model"] for one in newest] == ["three"]
    by_id = await get(address, f"/v1/requests/{newest[0]['id']}")
    assert by_id.json()["model"] == "three"
    metrics = (await get(address, "/metrics")).text
    for alias in ("two", "three"):
        assert f'quire_model_state{{model="{alias}",state="ready"}} 1.0' in metrics
        assert f'quire_requests_total{{model="{alias}"}}' in metrics
    samples = [line.rpartition(" ")[0] for line in metrics.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))


@pytest.mark.slow
async def test_drain_ends_every_stream_of_every_model_and_leaves_nothing(tmp_path: Path) -> None:
    """Also of a model that is just being drained, while another is loading."""
    with serving(tmp_path, "--workers", "2", "--max-loaded-models", "2") as quire:
        address = quire.address
        assert (await order(address, "two", "load")).status_code == 200
        running = [asyncio.create_task(ask(address, alias, max_tokens=500)) for alias in ("model", "two") * 2]
        await until_running(address, model=2, two=2)
        homeless = asyncio.create_task(ask(address, "three"))
        ordering = asyncio.create_task(order(address, "three", "load"))
        await until_state(address, three="loading")
        quire.process.send_signal(signal.SIGTERM)
        answers = list(await asyncio.gather(*running))
        assert wrong(answers, lambda alias: alphabet(alias, 500)) == []
        refused = await homeless
        assert (refused.status, refused.error and refused.error["code"]) == (503, "shutting_down")
        assert (await ordering).status_code == 503
        assert await asyncio.to_thread(quire.process.wait, 60) == 0
        assert "Traceback" not in quire.errors
        quire.wait_until_nothing_is_left()
