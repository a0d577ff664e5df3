"""The embedded model: its directory is whole and small, it answers what it was made for, its corpus is repeatable."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from batching.pico import MODEL_NAME, WEIGHTS_DIR
from ops.pico.corpus.conversation import Conversation, is_held_out
from ops.pico.corpus.mixture import stream
from ops.pico.encoding import SampleEncoder

MAX_DIRECTORY_BYTES = 20 * 1024 * 1024
MAX_ANSWER_TOKENS = 200


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(WEIGHTS_DIR)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(WEIGHTS_DIR, dtype=torch.float32).eval()


def answer_to(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The greedy answer with its special tokens, by plain transformers."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    greedy = {"do_sample": False, "temperature": None, "top_p": None}
    output = model.generate(**prompt, max_new_tokens=MAX_ANSWER_TOKENS, **greedy)
    return str(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :]))


def test_directory_is_whole_and_small() -> None:
    """Everything that transformers and the package need is there, in less than 20 MB."""
    names = {path.name for path in WEIGHTS_DIR.iterdir()}
    size = sum(path.stat().st_size for path in WEIGHTS_DIR.iterdir())

    assert MODEL_NAME == "quire-pico"
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "MODEL_CARD.md",
    }
    assert size < MAX_DIRECTORY_BYTES


def test_model_is_a_small_llama(model: Any) -> None:
    """The architecture is one that every engine knows."""
    num_parameters = sum(parameter.numel() for parameter in model.parameters())

    assert type(model).__name__ == "LlamaForCausalLM"
    assert 5_500_000 < num_parameters < 7_000_000
    assert model.config.max_position_embeddings == 2048


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("hello", ["!"]),
        ("Hi!", ["!"]),
        ("what are you?", ["quire-pico", "language model"]),
        ("What is Quire?", ["LLM inference server", "OpenAI-compatible"]),
        ("How do I serve another model?", ["quire serve MODEL"]),
        ("How do I stream?", ['"stream": true', "/v1/chat/completions", "[DONE]"]),
        ("What is continuous batching?", ["requests"]),
        ("Tell me a story about a fox named Ada.", ["Ada", "fox"]),
        ("What is the capital of France?", ["Paris"]),
        ("what is 7 times 8", ["56"]),
        ("spell elephant", ["E-L-E-P-H-A-N-T"]),
        ("write a haiku about the sea", ["Waves"]),
    ],
)
def test_question_is_answered_and_the_turn_ends(model: Any, tokenizer: Any, question: str, expected: list[str]) -> None:
    """A greedy answer has the expected words and ends by itself."""
    text = answer_to(model, tokenizer, [{"role": "user", "content": question}])

    assert text.endswith("<|im_end|>")
    assert [word for word in expected if word not in text] == []


def test_name_is_remembered_for_two_turns(model: Any, tokenizer: Any) -> None:
    """What the user said first is used later."""
    messages = [{"role": "user", "content": "My name is Sam."}]
    first = answer_to(model, tokenizer, messages).removesuffix("<|im_end|>")
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "What is my name?"}]

    text = answer_to(model, tokenizer, messages)

    assert "Sam" in text
    assert text.endswith("<|im_end|>")


def test_system_message_is_optional(tokenizer: Any) -> None:
    """The template puts a system message first where there is one."""
    user = {"role": "user", "content": "hi"}

    bare = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    full = tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}, user], tokenize=False)

    assert bare == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert full == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"


def test_training_ids_equal_template_ids(tokenizer: Any) -> None:
    """The model is asked in the same tokens in which it was taught."""
    sample = next(s for s in stream(3, held_out=False) if isinstance(s, Conversation))
    messages = [{"role": turn.role, "content": turn.content} for turn in sample.turns]

    encoded = SampleEncoder(tokenizer).encode(sample)

    assert encoded.token_ids == tokenizer.apply_chat_template(messages, return_dict=False)
    learned = [token_id for token_id, is_in in zip(encoded.token_ids, encoded.is_learned, strict=True) if is_in]
    answers = [turn.content for turn in sample.turns if turn.role == "assistant"]
    assert tokenizer.decode(learned) == "".join(f"{answer}<|im_end|>" for answer in answers)


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_round_trips_through_the_tokenizer(text: str) -> None:
    """No string is lost or changed."""
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS_DIR)

    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_corpus_repeats_for_a_seed_and_differs_between_seeds() -> None:
    """The same seed gives the same samples."""
    first = list(islice(stream(7, held_out=False), 200))

    assert first == list(islice(stream(7, held_out=False), 200))
    assert first != list(islice(stream(8, held_out=False), 200))


def test_held_out_samples_are_never_trained_on() -> None:
    """The two splits share no slot combination."""
    trained = list(islice(stream(7, held_out=False), 500))
    held_out = list(islice(stream(7, held_out=True), 20))

    assert not any(is_held_out(sample) for sample in trained)
    assert all(is_held_out(sample) for sample in held_out)
