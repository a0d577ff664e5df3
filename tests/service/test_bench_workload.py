"""The bench workload: the right distributions, and the same requests for the same seed."""

from __future__ import annotations

import itertools
import statistics

import msgspec
import pytest

from service.bench.workload import (
    LengthRange,
    Target,
    WorkloadSpec,
    draw_arrivals_s,
    draw_lengths,
    encode_body,
    plan_request,
    spell_word,
)

SPEC = WorkloadSpec()
TARGET = Target(name="a", base_url="http://127.0.0.1:1/v1", model="m")


def test_prompt_lengths_are_log_uniform_with_the_mean_of_the_targets() -> None:
    """Log-uniform 32-512 has a mean of 480 / ln 16 = 173 and as many prompts of 32-128 as of 128-512."""
    lengths = [draw_lengths(SPEC, index)[0] for index in range(4000)]
    assert (min(lengths), max(lengths)) == (32, 512)
    assert statistics.fmean(lengths) == pytest.approx(173, rel=0.04)
    assert statistics.median(lengths) == pytest.approx(128, rel=0.06)


def test_output_lengths_are_uniform_and_inclusive() -> None:
    """Uniform 32-128 has a mean of 80."""
    lengths = [draw_lengths(SPEC, index)[1] for index in range(4000)]
    assert (min(lengths), max(lengths)) == (32, 128)
    assert statistics.fmean(lengths) == pytest.approx(80, rel=0.03)


def test_same_arguments_give_the_same_request() -> None:
    """Nothing but the arguments decides a request."""
    assert plan_request(SPEC, "8/0", 5, "ids") == plan_request(SPEC, "8/0", 5, "ids")


def test_another_label_keeps_the_length_and_changes_the_prompt() -> None:
    """So that rounds are comparable and none hits the prefix cache of another."""
    first, second = plan_request(SPEC, "8/0", 5, "ids"), plan_request(SPEC, "8/1", 5, "ids")
    assert (first.prompt_len, first.output_len) == (second.prompt_len, second.output_len)
    assert first.prompt != second.prompt


def test_another_seed_changes_lengths() -> None:
    """The seed decides everything."""
    other = WorkloadSpec(seed=1)
    assert [draw_lengths(SPEC, i) for i in range(20)] != [draw_lengths(other, i) for i in range(20)]


def test_ids_keep_clear_of_both_ends_of_the_vocabulary() -> None:
    """Special tokens live at the ends."""
    spec = WorkloadSpec(vocab_size=400, prompt_tokens=LengthRange(20_000, 20_000))
    prompt = plan_request(spec, "x", 0, "ids").prompt
    assert (min(prompt), max(prompt)) == (10, 389)


def test_text_has_one_word_per_token_wanted() -> None:
    """A tokenizer with those words counts the same length as for ids."""
    planned = plan_request(SPEC, "x", 3, "text")
    assert isinstance(planned.prompt, str)
    assert len(planned.prompt.split()) == planned.prompt_len


def test_words_are_distinct() -> None:
    """A word stands for one number."""
    assert len({spell_word(number) for number in range(60_000)}) == 60_000


def test_shared_prefix_comes_first_in_every_prompt() -> None:
    """The prefix is in addition to the drawn length."""
    spec = WorkloadSpec(shared_prefix_tokens=50)
    first, second = plan_request(spec, "8/0", 1, "ids"), plan_request(spec, "8/1", 2, "ids")
    assert first.prompt[:50] == second.prompt[:50]
    assert first.prompt[50:60] != second.prompt[50:60]
    assert first.prompt_len == 50 + draw_lengths(spec, 1)[0]


def test_completions_body_is_greedy_streaming_with_usage_and_no_early_stop() -> None:
    """The workload of the targets, field by field."""
    planned = plan_request(SPEC, "x", 0, "ids")
    assert msgspec.json.decode(encode_body(TARGET, planned)) == {
        "model": "m",
        "prompt": planned.prompt,
        "max_tokens": planned.output_len,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


def test_chat_body_has_messages_and_can_leave_out_the_vendor_field() -> None:
    """Some peers refuse ignore_eos."""
    target = msgspec.structs.replace(TARGET, endpoint="chat", is_eos_ignored=False)
    planned = plan_request(SPEC, "x", 0, "text")
    body = msgspec.json.decode(encode_body(target, planned))
    assert body["messages"] == [{"role": "user", "content": planned.prompt}]
    assert not {"ignore_eos", "prompt"} & set(body)


def test_arrivals_rise_at_the_rate() -> None:
    """A Poisson process of 50/s has a mean gap of 20 ms, and gaps as spread as they are long."""
    arrivals_s = draw_arrivals_s(0, 50.0, 4000)
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(arrivals_s)]
    assert min(gaps_s) >= 0
    assert statistics.fmean(gaps_s) == pytest.approx(0.02, rel=0.05)
    assert statistics.stdev(gaps_s) == pytest.approx(0.02, rel=0.1)
