"""Writes the model card next to the weights."""

from dataclasses import dataclass
from pathlib import Path

from ops.pico.train import BATCH_TOKENS, LogRow

_CARD = """\
# quire-pico

A very small English chat model that is served when Quire is started without naming a model.
It exists so that the first minute needs no download and no GPU. It is not a source of facts.

## Architecture

Llama (`LlamaForCausalLM`), {parameters:,} parameters: 6 layers, hidden size 256, 4 query heads and
2 key-value heads of 64, MLP 768, tied embedding, rotary positions (theta 10,000), context 2,048.
Tokenizer: byte-level BPE of 4,096 entries, digits one by one, any Unicode string round-trips.
Chat markup: `<|im_start|>role`, a newline, the content, `<|im_end|>`, a newline. Weights: bfloat16.

## How it was made

```
{command}
```

One command, from the repository root. It generates the corpus, trains the tokenizer, trains the
network from random weights and writes this directory. Needs torch, transformers, tokenizers and
safetensors. With `--steps` the run is repeatable on the same machine and software; with
`--minutes` the number of steps depends on the speed of the machine.

**Data.** Every sentence is synthetic and comes from the grammars and word lists of
`ops/pico/corpus/`; nothing was downloaded and no person's text was used. Themes: greetings and small
talk, what the model is, Quire and its API, LLM inference, short stories on a requested topic with
questions about them, jokes, riddles, poems, facts about the world and about animals, small
arithmetic, words, lists, copying, memory of what the user said, advice, polite refusals, system
messages, long conversations over several themes, and plain documents. One slot combination in
fifty (a pair of numbers, a hero with a name and a plot, or else the whole text) is held out
by a hash and never trained on. The loss is on the answers and on plain documents.

**Training.** Muon on the matrices, AdamW on the rest (float32 masters, bfloat16 network), two
micro-batches of at most {batch_tokens:,} tokens a step, a short warmup and a cosine to zero. Hardware:
two cores of a server CPU with bfloat16 matrix instructions, shared with other work. No sample is
drawn twice on purpose. Losses are in nats per learned token; the train loss is a running mean.

| step | train loss | held-out loss | tokens | seconds |
|---:|---:|---:|---:|---:|
{log}

## Evaluation

`python -m ops.pico.evaluate src/batching/pico/weights` prints this; each question is answered
greedily and at temperature 0.7.

{transcript}

## Limits

It is tiny. It knows only what its grammars say, gets sums, spelling and facts wrong, miscopies rare names
and words, loses the thread in long conversations, and answers anything unusual with a refusal or with
nonsense. English only. Do not rely on it; serve a larger model for real work.

## Licence

Apache-2.0, like the project.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one training run did."""

    num_parameters: int
    arguments: list[str]
    log: list[LogRow]
    transcript: list[str]


def _command(arguments: list[str]) -> str:
    """The command line without the output directory, which says nothing about the model."""
    shown = [
        word
        for i, word in enumerate(arguments)
        if not word.startswith("--out") and (i == 0 or arguments[i - 1] != "--out")
    ]
    return " ".join(["python -m ops.pico", *shown])


def write_card(directory: Path, run: Run) -> None:
    """Writes `MODEL_CARD.md`."""
    rows = [
        f"| {row.step:,} | {row.train_loss:.3f} | {row.held_out_loss:.3f} | {row.num_tokens:,} | {row.elapsed_s:,.0f} |"
        for row in run.log
    ]
    text = _CARD.format(
        parameters=run.num_parameters,
        batch_tokens=BATCH_TOKENS,
        command=_command(run.arguments),
        log="\n".join(rows),
        transcript="\n".join(run.transcript),
    )
    (directory / "MODEL_CARD.md").write_text(text, encoding="utf-8")
