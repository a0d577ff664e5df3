"""Writes a random-weight Llama checkpoint with a tokenizer: the models that the benchmarks serve.

    python -m ops.bench.random_model mid OUT --dtype bfloat16

Initialisation: with tied embeddings and the usual deviation of 0.02 greedy output is one token repeated for ever; with
0.1 in the layers 64 greedy tokens are 63-64 distinct ones (both shapes, bfloat16, torch 2.13).
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from service.bench.workload import FIRST_WORD_ID, spell_word

SEED = 0
EMBEDDING_STD = 0.02
LAYER_STD = 0.1
END_TOKEN = "<|endoftext|>"  # noqa: S105
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a Llama configuration that decide its cost; embeddings are tied."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    head_dim: int = 64
    max_position_embeddings: int = 2048


SHAPES = {
    "tiny": ModelShape(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=128,
        vocab_size=1024,
        head_dim=32,
    ),
    "small": ModelShape(
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=768,
        vocab_size=4096,
    ),
    "mid": ModelShape(
        hidden_size=576,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
        vocab_size=49152,
    ),
}


def build_model(shape: ModelShape, dtype: torch.dtype) -> LlamaForCausalLM:
    """A model whose weights depend on the shape only (drawn in float32, then rounded to `dtype`)."""
    config = LlamaConfig(
        **msgspec.structs.asdict(shape), tie_word_embeddings=True, bos_token_id=None, eos_token_id=0, pad_token_id=0
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(0.0, EMBEDDING_STD if "embed" in name else LAYER_STD, generator=generator)
    return model.to(dtype)


def list_vocabulary(vocab_size: int) -> list[str]:
    """Distinct token texts in id order: the end token, 256 bytes, fillers, then words from FIRST_WORD_ID on.

    Word `id` is the one that the text workload spells for `id`, so that prompts of words and of ids are equally long.
    """
    byte_tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    fillers = [f"<|filler_{number}|>" for number in range(FIRST_WORD_ID - 1 - len(byte_tokens))]
    words = ["Ġ" + spell_word(number) for number in range(FIRST_WORD_ID, vocab_size)]
    return [END_TOKEN, *byte_tokens, *fillers, *words]


def build_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE without merges: known words are one token, everything else is bytes."""
    vocabulary = {text: token_id for token_id, text in enumerate(list_vocabulary(vocab_size))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END_TOKEN, pad_token=END_TOKEN)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def write_checkpoint(shape: ModelShape, directory: Path, dtype: torch.dtype) -> int:
    """Write weights, configuration and tokenizer; returns the number of parameters."""
    model = build_model(shape, dtype)
    model.save_pretrained(directory)
    build_tokenizer(shape.vocab_size).save_pretrained(directory)
    return sum(parameter.numel() for parameter in model.parameters())


@click.command()
@click.argument("shape", type=click.Choice(list(SHAPES)))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True)
def main(shape: str, out: Path, dtype: str) -> None:
    """Write a random-weight checkpoint of SHAPE to the directory OUT."""
    num_parameters = write_checkpoint(SHAPES[shape], out, getattr(torch, dtype))
    print(f"{out}: {num_parameters / 1e6:.1f} M parameters, {dtype}")


if __name__ == "__main__":
    main()
