"""`quire smoke`: tries every route of a running server and says what does not do what it should."""

from __future__ import annotations

import sys

import click
import msgspec
from rich.console import Console

from contracts.checkup import conclude
from contracts.version import VERSION
from service.cli_options import verbose_option
from service.terminal.server_options import server_options


@click.command("smoke")
@server_options
@click.option("--model", metavar="MODEL", help="The model to try; default: the server's default one.")
@click.option("--details", "is_detailed", is_flag=True, help="Print the numbers behind every finding.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object (contracts/checkup.py) instead of lines.")
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    help="Longest silence of the server; a model that is not loaded needs some.",
)
@verbose_option
@click.pass_context
def smoke_command(
    context: click.Context,
    /,
    base_url: str,
    api_key: str | None,
    model: str | None,
    is_detailed: bool,
    is_json: bool,
    timeout_s: float,
) -> None:
    """Try every route of a running server: shapes, texts, records, refusals, metrics, traces, conversations.

    Works with any model and disturbs nobody: a few short requests, two that are cancelled, two conversations that are
    deleted again, and no model is unloaded. Exits with 0 where nothing failed, else with 1.
    """
    from service.terminal.api_client import ApiClient
    from service.terminal.findings_table import print_finding, print_verdict
    from service.terminal.smoke import NAME_LEN, run_smoke
    from service.terminal.smoke_session import SmokeSession

    console = Console(highlight=False, file=sys.stderr if is_json else sys.stdout)
    findings = []
    with ApiClient(base_url, api_key, timeout_s) as client:
        session = SmokeSession(client, model)
        for finding in run_smoke(session):
            findings.append(finding)
            if not is_json:
                print_finding(finding, console, NAME_LEN, is_detailed=is_detailed)
        checkup = conclude("smoke", VERSION, client.url, findings)
    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(checkup), indent=2).decode())
    else:
        print_verdict(checkup, console)
    context.exit(0 if checkup.is_well else 1)
