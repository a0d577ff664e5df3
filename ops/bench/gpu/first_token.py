"""A process that loads a model, says one token and waits for its end: what `start` times from outside.

python -m ops.bench.gpu.first_token DIR --device cuda
"""

from __future__ import annotations

import click

from batching.offline import OfflineEngine
from ops.bench.gpu.plan import Plan, engine_settings
from ops.bench.gpu.workload import greedy_request
from service.event_loop import without_garbage_collection

MAX_MODEL_LEN = 256
PROMPT = [1, 2, 3, 4]


@click.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--device", default="cuda")
@click.option("--kv-dtype", default="auto")
def main(directory: str, device: str, kv_dtype: str) -> None:
    """Print `token ID` as soon as it is there."""
    plan = Plan(model_name="", directory=directory, device=device, kv_dtype=kv_dtype)
    settings = engine_settings(plan, max_num_seqs=16, max_model_len=MAX_MODEL_LEN)
    with without_garbage_collection():
        engine = OfflineEngine(settings)
    for delta in engine.generate([greedy_request("first", PROMPT, 1)]):
        print("token", *delta.token_ids, flush=True)


if __name__ == "__main__":
    main()
