"""`quire models`: the models that `quire serve` with the same options would offer, without loading or fetching any."""

from __future__ import annotations

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.sizes import format_bytes
from service.cli_options import resolve_settings, setting_options, verbose_option
from service.model_catalog import read_catalog
from service.model_listing import ModelRow, list_models
from service.model_memory import device_memory, memory_budget
from service.ready_models import READY_MODELS


@click.command("models")
@click.argument("model", required=False)
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array instead of a table.")
@click.option("--ready", "is_ready", is_flag=True, help="List the ready entries, which --models takes by name.")
@setting_options("engine", "catalog")
@verbose_option
def models_command(is_json: bool, is_ready: bool, **flags: object) -> None:
    """List what `quire serve MODEL` with the same options would offer: names, places, templates, memory."""
    if is_ready:
        flags = {**flags, "models": ",".join(READY_MODELS), "models_file": None}
    settings = resolve_settings(flags)
    memory = device_memory(settings.engine)
    rows = list_models(read_catalog(settings), settings.engine, memory)
    if is_json:
        click.echo(msgspec.json.encode(rows))
        return
    console = Console(highlight=False)
    console.print(_table(rows))
    for row in rows:
        if row.problem is not None:
            console.print(Text(f"{row.alias}: {row.problem}", style="red"))
    place = "GPU" if memory.is_gpu else "machine"
    budget = format_bytes(memory_budget(settings.catalog, memory))
    console.print(f"Loaded models may take {budget} together; the {place} has {format_bytes(memory.free_bytes)} free.")


def _table(rows: list[ModelRow]) -> Table:
    table = Table("Name", "Model", "Where", "Chat", "Context", "Memory", header_style="bold", box=None, pad_edge=False)
    for row in rows:
        name = Text(row.alias, overflow="fold")
        if row.is_default:
            name.append(" (default)", style="dim")
        window = "?" if row.max_model_len is None else f"{row.max_model_len:,}"
        memory = "?" if row.memory_bytes is None else format_bytes(row.memory_bytes)
        table.add_row(name, Text(row.model, overflow="fold"), row.location, _chat(row), window, memory)
    return table


def _chat(row: ModelRow) -> Text:
    if row.is_chat is None:
        return Text("?")
    return Text(row.template or "yes", overflow="fold") if row.is_chat else Text("no")
