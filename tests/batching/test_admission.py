"""Who is let in, who is refused at once, and when to come back."""

from __future__ import annotations

import pytest

from batching.admission import Admission
from batching.scheduler import Scheduler
from batching.waiting_queue import WaitingQueue
from contracts.errors import ContextLengthExceeded, InvalidValue, NoRoom, QueueFull
from tests.batching.core_world import small_config, small_request


def submit(scheduler: Scheduler, request_id: str, num_tokens: int = 1, num_samples: int = 1) -> None:
    scheduler.submit(small_request(request_id, [0] * num_tokens, max_tokens=1, num_samples=num_samples), 0.0)


def is_refused(scheduler: Scheduler, request_id: str, num_tokens: int = 1, num_samples: int = 1) -> bool:
    try:
        submit(scheduler, request_id, num_tokens, num_samples)
    except QueueFull:
        return True
    return False


def test_request_that_fits_to_the_last_token_is_admitted_and_finishes() -> None:
    scheduler = Scheduler(small_config(num_blocks=4, block_size=2))
    scheduler.submit(small_request("r", [0] * 6, max_tokens=2), 0.0)
    assert scheduler.num_waiting == 1


def test_request_that_can_never_fit_the_pool_is_refused_with_its_size() -> None:
    scheduler = Scheduler(small_config(num_blocks=4, block_size=2))
    with pytest.raises(
        ContextLengthExceeded, match=r"holds 8 tokens, but 9 were requested \(6 in the prompt, 3 to gen"
    ):
        scheduler.submit(small_request("r", [0] * 6, max_tokens=3), 0.0)
    assert not scheduler.has_work


def test_request_longer_than_the_model_is_refused_with_the_limit() -> None:
    scheduler = Scheduler(small_config(num_blocks=100, limits=(24, 10, 60)))
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 24 tokens, but 25 were"):
        scheduler.submit(small_request("r", [0] * 20, max_tokens=5), 0.0)


@pytest.mark.parametrize(
    ("prompt", "options", "param"),
    [
        ([], {}, "prompt"),
        ([4], {}, "prompt"),
        ([0, -1], {}, "prompt"),
        ([0], {"num_samples": 0}, "n"),
        ([0], {"max_tokens": 0}, "max_tokens"),
    ],
)
def test_impossible_value_is_refused_by_name(prompt: list[int], options: dict[str, int], param: str) -> None:
    scheduler = Scheduler(small_config())
    with pytest.raises(InvalidValue) as refusal:
        scheduler.submit(small_request("r", prompt, **options), 0.0)
    assert refusal.value.param == param
    assert not scheduler.has_work


def test_id_in_use_is_refused_and_free_again_after_the_end() -> None:
    scheduler = Scheduler(small_config())
    submit(scheduler, "r")
    with pytest.raises(InvalidValue, match="'r' is in use"):
        submit(scheduler, "r")
    scheduler.abort("r", 0.0)
    submit(scheduler, "r")
    assert scheduler.num_waiting == 1


def test_of_twice_the_limit_exactly_the_limit_is_admitted() -> None:
    scheduler = Scheduler(small_config(limits=(24, 5, 60)))
    refused = [is_refused(scheduler, f"r{number}") for number in range(10)]
    assert refused == [False] * 5 + [True] * 5
    assert scheduler.num_waiting == 5
    assert scheduler.admission.num_rejected == 5


def test_samples_are_admitted_all_or_none() -> None:
    scheduler = Scheduler(small_config(limits=(24, 5, 60)))
    submit(scheduler, "first", num_samples=3)
    assert is_refused(scheduler, "three", num_samples=3)
    assert not is_refused(scheduler, "two", num_samples=2)
    assert scheduler.num_waiting == 5


@pytest.mark.parametrize("limits", [(24, 2, 60), (24, 10, 8)], ids=["requests", "tokens"])
def test_refusal_says_whether_a_smaller_request_would_have_been_taken(limits: tuple[int, int, int]) -> None:
    scheduler = Scheduler(small_config(num_blocks=100, limits=limits))
    submit(scheduler, "first", num_tokens=4)
    with pytest.raises(QueueFull) as refusal:
        submit(scheduler, "large", num_tokens=5, num_samples=2)
    assert type(refusal.value) is QueueFull
    submit(scheduler, "small", num_tokens=4)
    with pytest.raises(NoRoom):
        submit(scheduler, "smallest", num_tokens=1)


def test_token_limit_is_exact() -> None:
    scheduler = Scheduler(small_config(num_blocks=100, limits=(24, 10, 12)))
    submit(scheduler, "first", num_tokens=8)
    assert is_refused(scheduler, "five", num_tokens=5)
    assert not is_refused(scheduler, "four", num_tokens=4)


def test_prompt_longer_than_the_token_limit_is_admitted_to_an_empty_queue() -> None:
    scheduler = Scheduler(small_config(num_blocks=100, limits=(24, 10, 12)))
    submit(scheduler, "long", num_tokens=20)
    assert scheduler.num_waiting == 1


def test_refusal_leaves_the_queue_as_it_was() -> None:
    scheduler = Scheduler(small_config(limits=(24, 1, 60)))
    submit(scheduler, "first")
    before = (scheduler.waiting.num_tokens, scheduler.num_waiting, scheduler.counters.num_requests)
    assert is_refused(scheduler, "second", num_tokens=3)
    assert (scheduler.waiting.num_tokens, scheduler.num_waiting, scheduler.counters.num_requests) == before


def test_retry_after_is_one_second_before_anything_is_measured() -> None:
    assert Admission(small_config(), WaitingQueue()).retry_after_s == 1.0


@pytest.mark.parametrize(
    ("num_tokens", "duration_s", "retry_after_s"), [(1000, 1.0, 1.0), (2, 1.0, 10.0), (4, 6.0, 30.0), (1, 60.0, 120.0)]
)
def test_retry_after_is_the_time_to_drain_the_queue_within_bounds(
    num_tokens: int, duration_s: float, retry_after_s: float
) -> None:
    scheduler = Scheduler(small_config(num_blocks=100))
    submit(scheduler, "r", num_tokens=20)
    scheduler.admission.observe(num_tokens, duration_s)
    assert scheduler.admission.retry_after_s == retry_after_s


def test_refusal_says_when_to_come_back() -> None:
    scheduler = Scheduler(small_config(num_blocks=100, limits=(24, 1, 60)))
    submit(scheduler, "r", num_tokens=20)
    scheduler.admission.observe(4, 1.0)
    with pytest.raises(QueueFull) as refusal:
        submit(scheduler, "late")
    assert refusal.value.retry_after_s == 5.0
    assert refusal.value.should_retry


def test_step_without_duration_teaches_nothing() -> None:
    admission = Admission(small_config(), WaitingQueue())
    admission.observe(5, 0.0)
    assert admission.retry_after_s == 1.0
