"""`python -m ops.pico`: corpus, tokenizer, training, evaluation, model directory."""

import argparse
import sys
from itertools import chain, islice
from pathlib import Path

import torch

from ops.pico.card import Run, write_card
from ops.pico.corpus.conversation import Conversation, Sample
from ops.pico.corpus.mixture import stream
from ops.pico.encoding import SampleEncoder, batches
from ops.pico.evaluate import evaluate
from ops.pico.model import build_model, num_parameters, save_model
from ops.pico.tokenizer import train_tokenizer
from ops.pico.train import BATCH_TOKENS, Budget, LogRow, Trainer

DEFAULT_OUT = Path(__file__).resolve().parents[2] / "src" / "batching" / "pico" / "weights"
_TOKENIZER_SAMPLES = 30_000
_HELD_OUT_SAMPLES = 400


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ops.pico", description=__doc__)
    parser.add_argument("--steps", type=int, default=None, help="optimizer steps; overrides --minutes")
    parser.add_argument("--minutes", type=float, default=50.0, help="wall time of the training")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the model directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="worker threads of the training")
    return parser.parse_args(arguments)


def _texts(samples: list[Sample]) -> list[str]:
    spoken = [s.turns if isinstance(s, Conversation) else () for s in samples]
    plain = [s.text for s in samples if not isinstance(s, Conversation)]
    return [*(turn.content for turn in chain(*spoken)), *plain]


def _report(row: LogRow) -> None:
    print(
        f"step {row.step:6d}  train {row.train_loss:.3f}  held-out {row.held_out_loss:.3f}  "
        f"tokens {row.num_tokens:10d}  {row.elapsed_s:7.0f} s",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    """Builds the model directory."""
    options = _parse(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    tokenizer = train_tokenizer(_texts(list(islice(stream(options.seed + 1, held_out=False), _TOKENIZER_SAMPLES))))
    encoder = SampleEncoder(tokenizer)
    held_out = list(batches(islice(stream(options.seed, held_out=True), _HELD_OUT_SAMPLES), encoder, BATCH_TOKENS, 0))
    data = batches(stream(options.seed, held_out=False), encoder, BATCH_TOKENS, options.seed)
    model = build_model(tokenizer)
    budget = Budget(steps=options.steps, minutes=options.minutes)
    log: list[LogRow] = []
    for row in Trainer(model, held_out, options.threads).train(data, budget):
        _report(row)
        log.append(row)
    model.set_attn_implementation("sdpa")
    save_model(model, tokenizer, options.out)
    transcript = evaluate(options.out)
    write_card(options.out, Run(num_parameters(model), arguments, log, transcript))
    print("\n".join(transcript))


if __name__ == "__main__":
    main(sys.argv[1:])
