"""One part of a run in a process of its own: `python -m ops.bench.gpu.part NAME PLAN ROWS`.

A process of its own, because a device that failed once fails until the process ends, and memory is free at the end.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import msgspec

from contracts.errors import StartupError
from ops.bench.gpu.plan import Plan
from ops.bench.gpu.rows import RowFile

PARTS = {
    "checkpoint": "checkpoint_part:make_checkpoint",
    "machine": "machine_part:measure_machine",
    "check": "check_part:check_kernels",
    "attention": "attention_part:measure_attention",
    "offline": "engine_parts:measure_offline",
    "stream": "engine_parts:measure_stream",
    "start": "served_parts:measure_start",
    "http": "served_parts:measure_http",
    "transformers": "peer_part:measure_transformers",
}
"""Name of a part, to module and function, which is loaded when it is its turn."""


@click.command()
@click.argument("name", type=click.Choice(list(PARTS)))
@click.argument("plan_file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("row_file", type=click.Path(dir_okay=False, path_type=Path))
def main(name: str, plan_file: Path, row_file: Path) -> None:
    """Run one part and append its rows to a file."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    plan = msgspec.json.decode(plan_file.read_bytes(), type=Plan)
    rows = RowFile(row_file, name)
    module, _, function = PARTS[name].partition(":")
    measure: Callable[[Plan, RowFile], None] = getattr(import_module(f"ops.bench.gpu.{module}"), function)
    try:
        measure(plan, rows)
    except StartupError as refusal:
        if plan.kv_dtype == "auto":
            raise
        rows.add("not measured", None, "", note=f"skipped: a cache of {plan.kv_dtype} is refused: {refusal}")


if __name__ == "__main__":
    main()
