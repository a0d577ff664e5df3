"""What the waiting queue promises: the order, lazy removal and an exact count of tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batching.block_table import BlockTable
from batching.sequence import Sequence, SequenceStatus
from batching.waiting_queue import WaitingQueue
from contracts.generation import Tenant
from tests.batching.core_world import small_request


def sequence(seq_id: int, order: float, num_tokens: int = 1, tenant: Tenant | None = None) -> Sequence:
    return Sequence(
        seq_id,
        small_request(f"r{seq_id}", [0] * num_tokens, tenant=tenant or Tenant()),
        0,
        block_table=BlockTable(2, ""),
        stop_ids=frozenset(),
        submitted_s=0.0,
        order=order,
    )


def push(queue: WaitingQueue, waiting: Sequence) -> None:
    queue.shares.open(waiting.request.tenant.name)
    queue.push(waiting)


def queue_of(*sequences: Sequence) -> WaitingQueue:
    queue = WaitingQueue()
    for waiting in sequences:
        push(queue, waiting)
    return queue


def drained(queue: WaitingQueue, *, is_charged: bool = False) -> list[int]:
    seq_ids = []
    while (head := queue.peek()) is not None:
        seq_ids.append(head.seq_id)
        queue.remove(head)
        if is_charged and head.scheduled_s is None:
            queue.shares.charge(head.request.tenant, head.num_remaining_tokens)
    return seq_ids


def test_smallest_order_goes_first() -> None:
    assert drained(queue_of(sequence(1, 5.0), sequence(2, 3.0), sequence(3, 4.0))) == [2, 3, 1]


def test_equals_go_in_order_of_arrival() -> None:
    assert drained(queue_of(sequence(1, 1.0), sequence(2, 1.0), sequence(3, 1.0))) == [1, 2, 3]


def test_peek_leaves_the_head_in_place() -> None:
    queue = queue_of(sequence(1, 1.0))
    assert queue.peek() is queue.peek()
    assert len(queue) == 1


def test_empty_queue_has_no_head() -> None:
    assert queue_of().peek() is None


@given(
    waiting=st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0.0, 9.0), st.integers(1, 9), st.booleans()), max_size=20
    ),
    removed=st.sets(st.integers(0, 19)),
)
def test_turns_are_told_as_they_will_be(waiting: list[tuple[str, float, int, bool]], removed: set[int]) -> None:
    """Whoever is let in is charged its tokens, unless it had been in before."""
    weights = {"a": 1.0, "b": 2.5, "c": 0.5}
    queue = WaitingQueue()
    known = []
    for seq_id, (tenant, order, num_tokens, was_in) in enumerate(waiting):
        one = sequence(seq_id, order, num_tokens, Tenant(name=tenant, weight=weights[tenant]))
        one.scheduled_s = 1.0 if was_in else None
        push(queue, one)
        known.append(one)
    for index in removed & set(range(len(known))):
        queue.remove(known[index])
    told = [one.seq_id for one in queue.in_turn()]
    assert [one.seq_id for one in queue.in_turn()] == told
    assert drained(queue, is_charged=True) == told


def test_sequence_removed_from_the_middle_never_comes_up() -> None:
    middle = sequence(2, 2.0)
    queue = queue_of(sequence(1, 1.0), middle, sequence(3, 3.0))
    queue.remove(middle)
    assert [waiting.seq_id for waiting in queue] == [1, 3]
    assert drained(queue) == [1, 3]


def test_pushed_again_it_returns_to_its_old_place_once() -> None:
    old = sequence(1, 1.0)
    queue = queue_of(old, sequence(2, 2.0))
    queue.remove(old)
    queue.push(old)
    assert drained(queue) == [1, 2]


def test_aborted_sequences_behind_a_stuck_head_do_not_pile_up() -> None:
    queue = queue_of(sequence(1, 1.0), sequence(2, 2.0))
    for seq_id in range(3, 1000):
        passing = sequence(seq_id, 3.0)
        push(queue, passing)
        queue.remove(passing)
    assert sum(len(lane.heap) for lane in queue._lanes.values()) < 100
    assert drained(queue) == [1, 2]


def test_tokens_are_counted_while_they_wait() -> None:
    long, short = sequence(1, 1.0, num_tokens=7), sequence(2, 2.0, num_tokens=2)
    queue = queue_of(long, short)
    assert queue.num_tokens == 9
    queue.remove(long)
    queue.remove(long)
    assert queue.num_tokens == 2


def test_pushed_sequence_is_waiting() -> None:
    parked = sequence(1, 1.0)
    parked.status = SequenceStatus.PARKED
    queue_of(parked)
    assert parked.status is SequenceStatus.WAITING
