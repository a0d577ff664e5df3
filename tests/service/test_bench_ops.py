"""The benchmark scripts: random checkpoints that a server can load, process memory, the Markdown block."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from ops.bench.generate_loop import GenerateLoop, LoopResult, measure, read_vocab_size
from ops.bench.markdown import CpuRun, ServerFacts, render_markdown
from ops.bench.random_model import SHAPES, build_model, list_vocabulary, write_checkpoint
from ops.bench.server_process import list_tree, measure_tree_rss_bytes, read_parents
from service.bench.metrics import Ratio, summarize
from service.bench.records import RequestRecord
from service.bench.session import LevelResult
from service.bench.workload import LengthRange, WorkloadSpec, plan_request


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny shape on disk."""
    directory = tmp_path_factory.mktemp("tiny")
    write_checkpoint(SHAPES["tiny"], directory, torch.bfloat16)
    return directory


@pytest.mark.parametrize(("shape", "num_parameters"), [("small", 5_770_496), ("mid", 134_515_008)])
def test_shapes_have_the_sizes_of_the_targets(shape: str, num_parameters: int) -> None:
    """Counted without drawing the weights."""
    sizes = SHAPES[shape]
    width, kv_width = sizes.hidden_size, sizes.num_key_value_heads * sizes.head_dim
    layer = 2 * width * width + 2 * width * kv_width + 3 * width * sizes.intermediate_size + 2 * width
    assert sizes.num_attention_heads * sizes.head_dim == width
    assert sizes.vocab_size * width + sizes.num_hidden_layers * layer + width == num_parameters


@pytest.mark.parametrize("shape", list(SHAPES))
def test_vocabulary_has_a_distinct_text_for_every_id(shape: str) -> None:
    """So that every generated id decodes to something of its own."""
    vocabulary = list_vocabulary(SHAPES[shape].vocab_size)
    assert len(vocabulary) == len(set(vocabulary)) == SHAPES[shape].vocab_size


def test_text_prompts_are_as_long_as_id_prompts(checkpoint: Path) -> None:
    """A peer that takes only text gets the same work."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    planned = plan_request(WorkloadSpec(vocab_size=len(tokenizer)), "x", 3, "text")
    assert len(tokenizer) == 1024
    assert len(tokenizer(planned.prompt).input_ids) == planned.prompt_len


def test_any_text_comes_back_from_its_bytes(checkpoint: Path) -> None:
    """Words that the vocabulary lacks are bytes."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.decode(tokenizer("Grüße, 東京! 🙂").input_ids) == "Grüße, 東京! 🙂"


def test_weights_are_the_same_every_time() -> None:
    """Figures of different days are of the same model."""
    first, second = (build_model(SHAPES["tiny"], torch.float32).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_greedy_output_does_not_repeat_one_token() -> None:
    """The trap of tied random embeddings, in the smallest shape that is measured."""
    model = build_model(SHAPES["small"], torch.bfloat16).eval()
    prompt = torch.arange(300, 332)[None]
    output = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=32, do_sample=False)
    assert len(set(output[0, 32:].tolist())) > 24


def test_generate_loop_makes_every_token_asked_for(checkpoint: Path) -> None:
    """One request after another, with a first-token time."""
    spec = WorkloadSpec(
        prompt_tokens=LengthRange(4, 8), output_tokens=LengthRange(3, 6), vocab_size=read_vocab_size(str(checkpoint))
    )
    wanted = [plan_request(spec, "x", index, "ids").output_len for index in range(2)]
    result = measure(GenerateLoop(str(checkpoint), "float32"), spec, 2)
    assert result.num_output_tokens == sum(wanted)
    assert result.mean_ttft_ms > 0
    assert result.output_tokens_per_s > 0


def test_process_tree_holds_children_and_grandchildren() -> None:
    """And nobody else."""
    assert list_tree(5, {5: 1, 6: 5, 7: 6, 8: 1}) == [5, 6, 7]


def test_memory_of_a_live_process_is_read() -> None:
    """This one imports torch: more than 50 MB; a process that is gone has none."""
    assert os.getpid() in read_parents()
    assert measure_tree_rss_bytes(os.getpid()) > 50e6
    assert measure_tree_rss_bytes(2**22 + 1) == 0


def make_result(target: str, level: str, num_tokens: int, ratio: Ratio | None = None) -> LevelResult:
    """One request of one second."""
    record = RequestRecord(
        index=0,
        prompt_len=1,
        output_len=num_tokens,
        started_s=0.0,
        first_text_s=0.1,
        last_text_s=0.9,
        finished_s=1.0,
        gaps_s=[0.8],
        completion_tokens=num_tokens,
    )
    summary = summarize([[record]])
    return LevelResult(
        level=level,
        target=target,
        summary=summary,
        rounds=[summary],
        loader_cpu_s=0.0,
        speed_of_first_over_this=ratio,
    )


def test_markdown_block_has_figures_ratios_and_conditions() -> None:
    """Date, hardware, command and model stand above the table."""
    run = CpuRun(
        model="/models/mid",
        dtype="bfloat16",
        command="python -m ops.bench.cpu",
        servers=[ServerFacts(name="quire", first_answer_s=2.5, peak_rss_bytes=1_500_000_000), ServerFacts(name="peer")],
        results=[
            make_result("quire", "1", 100),
            make_result("peer", "1", 50, Ratio(min=1.9, median=2.0, max=2.1)),
            make_result("quire", "32", 400),
            make_result("peer", "32", 100, Ratio(min=4.0, median=4.0, max=4.0)),
        ],
        loop=LoopResult(num_requests=6, num_output_tokens=480, output_tokens_per_s=20.0, mean_ttft_ms=80.0, load_s=1.0),
    )
    block = render_markdown(run)
    assert ": mid, bfloat16\n" in block
    assert "- Command: `python -m ops.bench.cpu`." in block
    assert "| quire | 100 | 400 | 100 ms | 800 ms | 2.5 s | 1.50 GB | 0 |" in block
    assert "| quire / peer | 2.00x (1.90-2.10) | 4.00x (4.00-4.00) |" in block
    assert "| quire / generate loop | 5.0x | 20.0x |" in block
    assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) == 1
