"""A worker follows the supervisor's table: it opens what is ready, leaves what is not, and asks for what is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.errors import (
    EngineDead,
    ModelLoadFailed,
    ModelNotFound,
    NoRoom,
    NotEnoughMemory,
    ShuttingDown,
)
from contracts.frames import ErrorReport, ModelOrder, UseModel
from contracts.generation import FinishReason, GenerationRequest
from contracts.model_state import ModelPhase
from contracts.sampling import SamplingParams
from service import model_fleet, model_pool
from service.engine_provider import OrderVerb, Serving, Starting
from service.model_fleet import CALLED_OFF
from service.overload_gate import OverloadGate
from tests.batching.engine_rig import read, tokens_of, until
from tests.service.pool_worker import Worker, state
from tests.service.scripted_engine import PATIENCE_S


@pytest.fixture
async def worker(tmp_path: Path, model_path: Path) -> AsyncIterator[Worker]:
    before = asyncio.all_tasks()
    worker = Worker(tmp_path, model_path)
    yield worker
    await asyncio.wait_for(worker.close(), PATIENCE_S)
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


VERBS: tuple[OrderVerb, ...] = ("load", "unload", "default")


def request_of(request_id: str) -> GenerationRequest:
    return GenerationRequest(request_id=request_id, prompt_token_ids=[1], sampling=SamplingParams())


async def until_waiting(task: asyncio.Task[Serving]) -> None:
    """It has asked and waits."""
    await asyncio.sleep(0.02)
    assert not task.done()


# ---- starting


async def test_default_that_is_ready_is_opened_and_told_once(worker: Worker) -> None:
    one = await worker.engine("one")
    pool = await worker.start(first=state("ready", one))
    with pytest.raises(Starting):
        pool.check_started()
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    worker.tell(first=state("ready", one))
    await asyncio.sleep(0.1)
    assert (len(worker.started), pool.status, pool.is_ready) == (1, "ok", True)
    assert pool.serving.model.names == ("first",)
    assert pool.served(None) is pool.served("first") is pool.serving


@pytest.mark.parametrize("phase", ["unloaded", "loading", "draining", "failed"])
async def test_worker_that_is_new_while_the_default_is_away_serves_at_once(worker: Worker, phase: str) -> None:
    pool = await worker.start(first=state(phase, error="why" if phase == "failed" else ""))
    pool.check_started()
    assert len(worker.started) == 1
    assert (pool.is_started, pool.is_loaded, pool.all_serving()) == (True, False, [])


async def test_before_the_first_load_nothing_is_served(worker: Worker) -> None:
    worker.table = msgspec.structs.replace(worker.table, has_started=False)
    pool = await worker.start(first=state("loading"))
    assert (pool.status, pool.is_ready, worker.started) == ("starting", False, [])
    with pytest.raises(Starting):
        await pool.serving_for(None)


async def test_default_that_moves_while_the_old_one_is_opened_starts_the_worker(worker: Worker) -> None:
    one, other = await worker.engine("one"), await worker.engine("other")
    one.is_greeting = False
    pool = await worker.start(first=state("ready", one))
    worker.table = msgspec.structs.replace(worker.table, default_alias="two")
    worker.tell(two=state("ready", other))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    assert pool.serving.model.names == ("two",)


async def test_first_default_without_a_tokenizer_is_a_failure(worker: Worker, tmp_path: Path) -> None:
    one = await worker.engine("one", model_path=tmp_path)
    pool = await worker.start(first=state("ready", one))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    assert "tokenizer.json" in worker.failures[0].message
    assert (pool.status, worker.started) == ("dead", [])
    with pytest.raises(EngineDead):
        await pool.serving_for(None)


# ---- requests that wait


async def test_thousand_requests_for_a_model_are_one_wish(worker: Worker) -> None:
    pool = await worker.start()
    waiting = [asyncio.create_task(pool.serving_for("two")) for _ in range(1000)]
    await until_waiting(waiting[0])
    worker.tell(two=state("loading", stage="reading"))
    await until_waiting(waiting[0])
    assert worker.wishes("two") == 1
    worker.tell(two=state("ready", await worker.engine("two")))
    served = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE_S)
    assert {one.model.names for one in served} == {("two",)}
    assert len(worker.said) <= 3
    assert pool.all_serving() == [served[0]]


@pytest.mark.parametrize("name", ["", "three", "/etc/passwd", "openai-community/gpt2", "First", "first/", " first"])
async def test_name_that_nobody_declared_is_not_found_and_not_asked_for(worker: Worker, name: str) -> None:
    pool = await worker.start()
    with pytest.raises(ModelNotFound):
        pool.served(name)
    with pytest.raises(ModelNotFound):
        await pool.serving_for(name)
    with pytest.raises(ModelNotFound):
        await pool.order("load", name)
    assert worker.said == []


async def test_failed_load_is_told_to_all_who_wait(worker: Worker) -> None:
    pool = await worker.start()
    waiting = [asyncio.create_task(pool.serving_for("two")) for _ in range(3)]
    await until_waiting(waiting[0])
    worker.tell(two=state("loading"))
    worker.tell(two=state("failed", error="It needs 4 GiB, 2 GiB are free."))
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {str(outcome) for outcome in outcomes} == {
        "The model 'two' could not be loaded: It needs 4 GiB, 2 GiB are free."
    }
    assert {type(outcome) for outcome in outcomes} == {ModelLoadFailed}


async def test_request_after_a_failure_is_refused_at_once_and_later_waits_for_another_try(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = await worker.start(two=state("failed", error="why"))
    with pytest.raises(ModelLoadFailed) as refusal:
        await pool.serving_for("two")
    assert refusal.value.retry_after_s == model_pool.FAILED_RETRY_AFTER_S > model_fleet.RETRY_FAILED_S
    assert worker.said == []
    monkeypatch.setattr(model_pool, "FAILED_RETRY_AFTER_S", 0.05)
    await asyncio.sleep(0.06)
    waiting = asyncio.create_task(pool.serving_for("two"))
    await until_waiting(waiting)
    assert worker.said == [UseModel("two")]
    worker.tell(two=state("loading"))
    worker.tell(two=state("failed", error="still"))
    with pytest.raises(ModelLoadFailed, match="still"):
        await waiting


async def test_load_that_is_called_off_ends_the_wait_but_not_for_the_next(worker: Worker) -> None:
    pool = await worker.start()
    waiting = asyncio.create_task(pool.serving_for("two"))
    await until_waiting(waiting)
    worker.tell(two=state("loading"))
    await until_waiting(waiting)
    worker.tell(two=state("unloaded", error=CALLED_OFF))
    with pytest.raises(ModelLoadFailed, match="unloaded while it was being loaded"):
        await waiting
    following = asyncio.create_task(pool.serving_for("two"))
    await until_waiting(following)
    worker.tell(first=state("loading"))  # news of another model
    await until_waiting(following)
    assert worker.wishes("two") >= 2
    worker.tell(two=state("ready", await worker.engine("two")))
    assert (await asyncio.wait_for(following, PATIENCE_S)).model.names == ("two",)


async def test_model_that_goes_before_it_was_opened_is_asked_for_again(worker: Worker) -> None:
    pool = await worker.start()
    mute = await worker.engine("mute")
    mute.is_greeting = False
    waiting = asyncio.create_task(pool.serving_for("two"))
    await until_waiting(waiting)
    worker.tell(two=state("ready", mute))
    await until_waiting(waiting)
    worker.tell(two=state("draining", mute))
    await until_waiting(waiting)
    worker.tell(two=state("unloaded"))
    await until_waiting(waiting)
    assert worker.wishes("two") == 3
    worker.tell(two=state("ready", await worker.engine("again")))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).engine.info.model_name == "again"


async def test_client_that_leaves_while_it_waits_leaves_nothing(worker: Worker) -> None:
    pool = await worker.start()
    waiting = asyncio.create_task(pool.serving_for("two"))
    await until_waiting(waiting)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    worker.tell(two=state("ready", await worker.engine("two")))
    await until(lambda: pool.served("two") is not None)


async def test_drain_ends_every_wait(worker: Worker) -> None:
    pool = await worker.start()
    mute = await worker.engine("mute")
    mute.is_greeting = False
    worker.tell(two=state("ready", mute))
    waiting = [asyncio.create_task(pool.serving_for(name)) for name in (None, "first", "two")]
    ordered = [asyncio.create_task(pool.order(verb, "first")) for verb in VERBS]
    await until_waiting(waiting[0])
    await asyncio.wait_for(pool.drain(30.0), 5.0)
    outcomes = await asyncio.gather(*waiting, *ordered, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ShuttingDown}
    with pytest.raises(ShuttingDown):
        await pool.order("load", "first")


# ---- models that go and come


async def test_new_socket_is_a_new_engine_and_what_runs_on_the_old_one_ends_there(worker: Worker) -> None:
    one, again = await worker.engine("one"), await worker.engine("again")
    pool = await worker.start(first=state("ready", one))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    old = pool.serving
    stream, _ = await asyncio.gather(old.engine.submit(request_of("a")), one.admit())
    worker.tell(first=state("ready", again))
    await until(lambda: pool.is_loaded)
    assert (pool.serving is old, pool.serving.engine.info.model_name) == (False, "again")
    with pytest.raises(ShuttingDown):
        await old.engine.submit(request_of("b"))
    one.say("a", 7, reason=FinishReason.LENGTH)
    assert tokens_of(await read(stream)) == [7]
    assert await one.receive() is None


async def test_one_that_was_drained_is_not_given_again(worker: Worker) -> None:
    """A request may hear from the engine that it drains before the table says so."""
    one = await worker.engine("one")
    pool = await worker.start(first=state("ready", one))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    waiting = asyncio.create_task(pool.serving_for("first", after=pool.serving))
    await until_waiting(waiting)
    worker.tell(first=state("draining", one))
    await until_waiting(waiting)
    worker.tell(first=state("unloaded"))
    worker.tell(first=state("loading"))
    worker.tell(first=state("ready", await worker.engine("again")))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).engine.info.model_name == "again"


async def test_drain_waits_for_what_runs_on_a_model_that_is_leaving(worker: Worker) -> None:
    one = await worker.engine("one")
    pool = await worker.start(first=state("ready", one))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    stream, _ = await asyncio.gather(pool.serving.engine.submit(request_of("a")), one.admit())
    worker.tell(first=state("draining", one))
    draining = asyncio.create_task(pool.drain(PATIENCE_S))
    await asyncio.sleep(0.1)
    assert not draining.done()
    one.say("a", 7, reason=FinishReason.LENGTH)
    assert tokens_of(await read(stream)) == [7]
    await asyncio.wait_for(draining, 5.0)


async def test_drain_ends_what_is_left_on_a_model_that_is_leaving(worker: Worker) -> None:
    one = await worker.engine("one")
    pool = await worker.start(first=state("ready", one))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    stream, _ = await asyncio.gather(pool.serving.engine.submit(request_of("a")), one.admit())
    worker.tell(first=state("draining", one))
    await asyncio.wait_for(pool.drain(0.2), 5.0)
    assert [delta.finish_reason for delta in await read(stream)] == [FinishReason.ABORT]


async def test_use_of_a_loaded_model_is_told_now_and_then(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = await worker.start(first=state("ready", await worker.engine("one")))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    seen = [pool.served(name) for name in ("first", None) * 200]
    assert (len(set(map(id, seen))), worker.said) == (1, [UseModel("first")])
    monkeypatch.setattr(model_pool, "TOUCH_EVERY_S", 0.0)
    pool.served("first")
    await pool.serving_for("first")
    assert worker.wishes("first") == 3


async def test_looking_on_is_no_use_of_a_model(worker: Worker) -> None:
    pool = await worker.start(first=state("ready", await worker.engine("one")))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    assert pool.seen("first") is pool.serving
    assert (pool.seen("two"), worker.said) == (None, [])


async def test_model_without_a_tokenizer_counts_as_failed_until_it_is_loaded_again(
    worker: Worker, tmp_path: Path
) -> None:
    mute = await worker.engine("mute", model_path=tmp_path)
    pool = await worker.start()
    worker.tell(two=state("ready", mute))
    with pytest.raises(ModelLoadFailed, match=r"'two' could not be loaded: .*tokenizer\.json"):
        await asyncio.wait_for(pool.serving_for("two"), PATIENCE_S)
    seen = pool.table.get("two")
    assert (seen.phase, "tokenizer.json" in seen.error) == (ModelPhase.FAILED, True)
    assert (pool.status, worker.failures) == ("ok", [])
    worker.tell(two=state("ready", await worker.engine("two")))
    assert (await asyncio.wait_for(pool.serving_for("two"), PATIENCE_S)).model.names == ("two",)


async def test_unforeseen_error_while_a_model_is_opened_is_told(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*args: object) -> None:
        raise ZeroDivisionError("no merges")

    monkeypatch.setattr(model_pool, "load_served_model", break_down)
    pool = await worker.start()
    worker.tell(two=state("ready", await worker.engine("two")))
    with pytest.raises(ModelLoadFailed, match="ZeroDivisionError: no merges"):
        await asyncio.wait_for(pool.serving_for("two"), PATIENCE_S)


# ---- orders


async def answer_orders(worker: Worker, count: int) -> list[ModelOrder]:
    """Wait for so many orders and settle each; they come one after the other."""
    async with asyncio.timeout(PATIENCE_S):
        while len(orders := [said for said in worker.said if isinstance(said, ModelOrder)]) < count:
            for order in orders:
                worker.pool.orders.settle(order.number, None)
            await asyncio.sleep(0.01)
    for order in orders:
        worker.pool.orders.settle(order.number, None)
    return orders


async def test_default_is_loaded_and_opened_before_it_is_the_default(worker: Worker) -> None:
    pool = await worker.start()
    ordering = asyncio.create_task(pool.order("default", "two"))
    await answer_orders(worker, 1)
    worker.tell(two=state("ready", await worker.engine("two")))
    orders = await answer_orders(worker, 2)
    await asyncio.wait_for(ordering, PATIENCE_S)
    assert [(order.verb, order.alias) for order in orders] == [("load", "two"), ("default", "two")]


async def test_model_without_a_tokenizer_does_not_become_the_default(worker: Worker, tmp_path: Path) -> None:
    mute = await worker.engine("mute", model_path=tmp_path)
    pool = await worker.start(two=state("ready", mute))
    ordering = asyncio.create_task(pool.order("default", "two"))
    await answer_orders(worker, 1)
    with pytest.raises(ModelLoadFailed, match=r"tokenizer\.json"):
        await asyncio.wait_for(ordering, PATIENCE_S)
    assert [said.verb for said in worker.said if isinstance(said, ModelOrder)] == ["load"]


async def test_order_that_cannot_be_obeyed_says_why(worker: Worker) -> None:
    pool = await worker.start()
    ordering = asyncio.create_task(pool.order("unload", "two", 1.5))
    await asyncio.sleep(0.01)
    assert worker.said == [ModelOrder(1, "unload", "two", 1.5)]
    pool.orders.settle(1, ErrorReport.of(NotEnoughMemory("It needs 4 GiB, 2 GiB are free.")))
    with pytest.raises(ModelLoadFailed, match="It needs 4 GiB"):
        await ordering
    pool.orders.settle(1, None)  # again
    pool.orders.settle(99, None)  # never given


async def test_changes_are_told_one_by_one(worker: Worker) -> None:
    pool = await worker.start()
    changes = pool.changes("two")
    phases = [(await anext(changes)).phase]
    worker.tell(first=state("loading"))
    worker.tell(two=state("loading", stage="reading"))
    told = await asyncio.wait_for(anext(changes), 5.0)
    phases.append(told.phase)
    assert (phases, told.stage) == ([ModelPhase.UNLOADED, ModelPhase.LOADING], "reading")


# ---- the gate before the bodies


async def test_gate_counts_what_it_refused_even_when_the_model_is_gone(worker: Worker) -> None:
    one = await worker.engine("one")
    pool = await worker.start(first=state("ready", one))
    await asyncio.wait_for(pool.wait_until_loaded(), PATIENCE_S)
    gate: OverloadGate = pool.serving.gate
    gate.shut(NoRoom("full", retry_after_s=1.0))
    with pytest.raises(NoRoom):
        pool.gate.check()
    worker.tell(first=state("unloaded"))
    pool.gate.check()
    assert pool.gate.num_refused == 1
