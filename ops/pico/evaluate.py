"""Asks a model directory a fixed set of questions and checks the answers."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from ops.pico.tokenizer import TURN_END

MAX_ANSWER_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Question:
    """User turns in order; the last answer must contain every expected word, in any case."""

    turns: tuple[str, ...]
    expected: tuple[str, ...] = ()
    system: str | None = None


QUESTIONS = [
    Question(("hello",), ("help",)),
    Question(("Hi there! How are you?",)),
    Question(("what are you?",), ("quire-pico", "small")),
    Question(("Who made you?",), ("Quire",)),
    Question(("are you ChatGPT",), ("No", "quire-pico")),
    Question(("How big are you?",), ("six million",)),
    Question(("What is Quire?",), ("OpenAI-compatible", "batches")),
    Question(("how do I stream?",), ('"stream": true', "/v1/chat/completions", "[DONE]")),
    Question(("How do I serve another model?",), ("quire serve MODEL",)),
    Question(("What is continuous batching?",), ("batch",)),
    Question(("what is a kv cache",), ("keys",)),
    Question(("How do I use the openai python client?",), ("http://127.0.0.1:8000/v1",)),
    Question(("Tell me a story about a fox named Ada.",), ("Ada", "fox")),
    Question(("write a short story about a lighthouse keeper named Zorbin",), ("Zorbin",)),
    Question(("Tell me a joke",)),
    Question(("write a haiku about the sea",)),
    Question(("What is the capital of Japan?",), ("Tokyo",)),
    Question(("What does a cow say?",), ("moo",)),
    Question(("What is 37 + 25?",), ("62",)),
    Question(("what is 7 times 8",), ("56",)),
    Question(("What is 20 + 15?", "add 3 to that"), ("38",)),
    Question(("Name three fruits",)),
    Question(("what is the opposite of hot?",), ("cold",)),
    Question(("spell elephant",), ("E-L-E-P-H-A-N-T",)),
    Question(("Say: the moon is green",), ("moon is green",)),
    Question(("My name is Sam.", "What is my name?"), ("Sam",)),
    Question(("my favourite colour is teal", "what is 2 + 2?", "what is my favourite colour?"), ("teal",)),
    Question(("tell me a story about a bear named Otto", "what was the bear's name?"), ("Otto",)),
    Question(("explain quantum entanglement",), ("small",)),
    Question(("hello",), (), "Talk like a pirate."),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """The last answer to a question and what was wrong with it."""

    text: str
    has_ended: bool
    missing: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        return self.has_ended and not self.missing


@torch.no_grad()
def generate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[dict[str, str]],
    *,
    temperature: float,
) -> tuple[str, bool]:
    """The model's next message, and whether it ended its turn by itself."""
    prompt = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.95}
    greedy = {"do_sample": False, "temperature": None, "top_p": None}
    output = model.generate(**prompt, max_new_tokens=MAX_ANSWER_TOKENS, **(sampling if temperature else greedy))
    new_ids = output[0, prompt["input_ids"].shape[1] :].tolist()
    has_ended = new_ids[-1] == tokenizer.convert_tokens_to_ids(TURN_END)
    return str(tokenizer.decode(new_ids, skip_special_tokens=True)), has_ended


def answer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: Question, temperature: float
) -> Answer:
    """Plays the whole dialogue and judges its last answer."""
    messages = [{"role": "system", "content": question.system}] if question.system else []
    text, has_ended = "", True
    for turn in question.turns:
        messages.append({"role": "user", "content": turn})
        text, has_ended = generate(model, tokenizer, messages, temperature=temperature)
        messages.append({"role": "assistant", "content": text})
    missing = tuple(word for word in question.expected if word.lower() not in text.lower())
    return Answer(text, has_ended, missing)


def evaluate(directory: Path) -> list[str]:
    """The transcript as lines of Markdown, ending with the number of good greedy answers."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    lines: list[str] = []
    num_good = 0
    for question in QUESTIONS:
        system = [f"(system: {question.system})"] if question.system else []
        lines.append(f"- **{' / '.join([*system, *question.turns])}**")
        greedy = answer(model, tokenizer, question, 0.0)
        sampled = answer(model, tokenizer, question, 0.7)
        num_good += greedy.is_good
        for label, found in (("greedy", greedy), ("T=0.7", sampled)):
            flaw = "" if found.is_good else f" [missing: {found.missing}, ended: {found.has_ended}]"
            lines.append(f"  - {label}: {' '.join(found.text.split())}{flaw}")
    lines.append("")
    lines.append(f"Greedy answers as expected: {num_good} of {len(QUESTIONS)}.")
    return lines


if __name__ == "__main__":
    print("\n".join(evaluate(Path(sys.argv[1]))))
