"""`quire monitor`: the engine of a running server at work, live."""

from __future__ import annotations

import click
from rich.console import Console

from service.cli_options import verbose_option
from service.terminal.server_options import server_options

READ_TIMEOUT_S = 20.0
"""The live view sends something several times a second."""


@click.command("monitor")
@server_options
@click.option("--model", metavar="MODEL", help="The model to watch; default: the server's default one.")
@click.option("--refresh", "refresh_s", type=click.FloatRange(0.1, 60), default=0.5, show_default=True, help="Seconds.")
@click.option("--once", "is_once", is_flag=True, help="Print one snapshot and end; so does a pipe.")
@verbose_option
def monitor_command(base_url: str, api_key: str | None, model: str | None, refresh_s: float, is_once: bool) -> None:
    """Watch a server: throughput, batch and queue, KV blocks, cache hits, step time, latencies, who comes and goes.

    q, Escape or Ctrl-C quits. A server that restarts is waited for. Needs the scope metrics where there are keys.
    """
    from service.terminal.api_client import ApiClient
    from service.terminal.monitor import Monitor

    console = Console(highlight=False)
    with ApiClient(base_url, api_key, READ_TIMEOUT_S) as client:
        monitor = Monitor(client, model, console)
        if is_once or not console.is_terminal:
            monitor.print_once()
        else:
            monitor.run(refresh_s)
