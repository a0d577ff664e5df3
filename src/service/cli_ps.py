"""`quire ps`: the models of a running server, and the requests that run, wait or have just ended."""

from __future__ import annotations

import time
from contextlib import suppress

import click
import msgspec
from rich.console import Console
from rich.live import Live

from service.cli_options import verbose_option
from service.clocks import unix_ms
from service.terminal.server_options import server_options

PIPE_WIDTH = 160
"""Columns of output that no terminal limits: ids stay whole."""


@click.command("ps")
@server_options
@click.option(
    "-n", "--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="Most requests to show."
)
@click.option("--watch", "is_watching", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--refresh",
    "refresh_s",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    help="Seconds, for --watch.",
)
@click.option(
    "--json", "is_json", is_flag=True, help="Print one JSON object (contracts/overview.py) instead of tables."
)
@verbose_option
def ps_command(
    base_url: str, api_key: str | None, limit: int, is_watching: bool, refresh_s: float, is_json: bool
) -> None:
    """Show models with state and memory, and requests with their place in the queue, tokens, age and cause of waiting.

    A key sees its own requests; one with the scope admin sees all. `quire why ID` tells more of one.
    """
    from service.terminal.api_client import ApiClient
    from service.terminal.overview import fetch_overview
    from service.terminal.overview_table import draw_overview

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    with ApiClient(base_url, api_key) as client:
        if is_json or not is_watching:
            overview = fetch_overview(client, limit)
            if is_json:
                click.echo(msgspec.json.format(msgspec.json.encode(overview), indent=2).decode())
            else:
                console.print(draw_overview(overview, unix_ms() / 1000, console.width))
            return
        with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                overview = fetch_overview(client, limit)
                live.update(draw_overview(overview, unix_ms() / 1000, console.width), refresh=True)
                time.sleep(refresh_s)
