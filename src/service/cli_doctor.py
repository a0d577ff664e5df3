"""`quire doctor`: proves that a server with these options would work here, check by check."""

from __future__ import annotations

import os
import sys

import click
import msgspec
from rich.console import Console

from contracts.checkup import FAILED_EXIT_CODE, conclude
from contracts.errors import SettingsError
from contracts.version import VERSION
from service.cli_options import resolve_settings, secrets_epilog, setting_options, verbose_option


@click.command("doctor", epilog=secrets_epilog())
@click.argument("model", required=False)
@click.option("--model", "named_model", metavar="MODEL", help="The same as the argument.")
@click.option("--quick", "is_quick", is_flag=True, help="Do not load the model: no tokens are compared.")
@click.option("--details", "is_detailed", is_flag=True, help="Print the numbers behind every finding.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object (contracts/checkup.py) instead of lines.")
@click.option(
    "--timeout-s", type=click.FloatRange(min=1), default=600.0, show_default=True, help="For loading and computing."
)
@setting_options("engine", "catalog", "server")
@verbose_option
@click.pass_context
def doctor_command(
    context: click.Context,
    /,
    model: str | None,
    named_model: str | None,
    is_quick: bool,
    is_detailed: bool,
    is_json: bool,
    timeout_s: float,
    **flags: object,
) -> None:
    """Prove that `quire serve MODEL` with the same options would work on this machine.

    Looks at the installation, the port, the disk, the keys, the model's files and the memory; sends a test span; and
    lets the engine and plain transformers continue the same texts, which must give the same tokens. Starts no server.
    Exits with 0 where nothing failed, with 7 where something did.
    """
    from service.cpu_threads import limit_spinning
    from service.terminal.doctor import NAME_LEN, DoctorOptions, run_checks
    from service.terminal.findings_table import print_finding, print_verdict

    if model is not None and named_model is not None:
        raise SettingsError("Give the model once: as the argument, or with --model.")
    settings = resolve_settings({"model": model or named_model, **flags})
    limit_spinning(os.environ)
    console = Console(highlight=False, file=sys.stderr if is_json else sys.stdout)
    findings = []
    for finding in run_checks(settings, DoctorOptions(is_quick=is_quick, timeout_s=timeout_s)):
        findings.append(finding)
        if not is_json:
            print_finding(finding, console, NAME_LEN, is_detailed=is_detailed)
    checkup = conclude("doctor", VERSION, settings.engine.model, findings)
    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(checkup), indent=2).decode())
    else:
        print_verdict(checkup, console)
    context.exit(0 if checkup.is_well else FAILED_EXIT_CODE)
