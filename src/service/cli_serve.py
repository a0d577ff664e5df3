"""`quire serve`: settle every question that can be settled at once, then load the model and serve it."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import click
import msgspec

from contracts.engine import EngineInfo
from contracts.model_catalog import ModelCatalog
from contracts.settings import Settings
from service.api_keys import seal_keys
from service.cli_options import resolve_settings, secrets_epilog, setting_options, verbose_option
from service.cpu_threads import limit_spinning
from service.listen_address import ListenAddress, find_listen_address
from service.model_catalog import check_models, read_catalog


@click.command("serve", epilog=secrets_epilog())
@click.argument("model", required=False)
@setting_options("engine", "catalog", "server")
@verbose_option
def serve_command(**flags: object) -> None:
    """Serve MODEL over HTTP: a local directory or hub name; without it, the small model that is built in.

    Every option can also be set by the variable named in brackets, in the environment or in a .env file.
    """
    from service.compat.dialects import read_dialects
    from service.exposure import check_exposure
    from service.tracing import check_tracing

    settings = seal_keys(resolve_settings(flags))
    check_exposure(settings, os.environ)
    check_tracing(settings.server)
    read_dialects(settings.server.compat)
    catalog = read_catalog(settings)
    check_models(catalog, settings)
    address = find_listen_address(settings.server.host, settings.server.port)
    if settings.server.ssl_certfile is not None:
        address = msgspec.structs.replace(address, scheme="https")
    server = msgspec.structs.replace(settings.server, port=address.port)
    _serve(msgspec.structs.replace(settings, server=server), catalog, address)


def _serve(settings: Settings, catalog: ModelCatalog, address: ListenAddress) -> None:
    """Run until stopped, then end the process. Raises the StartupError that a child ended with."""
    started_s = time.perf_counter()
    limit_spinning(os.environ)
    from service.event_loop import leave_now
    from service.load_progress import LoadProgress
    from service.logs import configure_logging
    from service.ready_panel import print_ready_panel
    from service.supervisor import Supervisor, SupervisorHooks

    configure_logging(settings.server)

    async def serve_until_stopped() -> None:
        with LoadProgress() as progress:

            def announce(info: EngineInfo) -> None:
                progress.close()
                print_ready_panel(settings, info, time.perf_counter() - started_s)

            hooks = SupervisorHooks(on_ready=announce, on_progress=progress.report, on_draining=_say_goodbye)
            await Supervisor(settings, catalog, address, hooks).run()

    asyncio.run(serve_until_stopped())
    leave_now(0)


def _say_goodbye(timeout_s: float) -> None:
    if sys.stderr.isatty():
        click.echo(
            f"\nStopping: running requests have {timeout_s:g} s to end; Ctrl-C again ends them at once.", err=True
        )
