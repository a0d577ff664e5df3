"""The offline workload is the one that others run."""

from __future__ import annotations

from ops.bench.gpu.workload import WorkloadSize, draw_requests, lengths_of

VOCAB_SIZE = 1000


def test_lengths_add_up_to_the_known_totals() -> None:
    lengths = lengths_of(draw_requests(WorkloadSize(), VOCAB_SIZE))
    assert (len(lengths), sum(one.prompt for one in lengths), sum(one.output for one in lengths)) == (
        256,
        142_827,
        133_966,
    )


def test_another_run_has_the_same_lengths_and_other_prompts() -> None:
    size = WorkloadSize(num_requests=4, shortest=5, longest=9)
    first, second = (draw_requests(size, VOCAB_SIZE, number=number) for number in (0, 1))
    assert lengths_of(first) == lengths_of(second)
    assert all(one.prompt_token_ids != other.prompt_token_ids for one, other in zip(first, second, strict=True))
    assert not {one.request_id for one in first} & {one.request_id for one in second}


def test_requests_are_greedy_without_an_early_end_and_know_no_token_beyond_the_vocabulary() -> None:
    requests = draw_requests(WorkloadSize(num_requests=4), VOCAB_SIZE)
    assert all(request.sampling.is_greedy and request.sampling.ignore_eos for request in requests)
    assert max(max(request.prompt_token_ids) for request in requests) < VOCAB_SIZE
