"""`quire serve`: settle every question that can be settled at once, then load the model and serve it."""

from __future__ import annotations

import os
import time

import click
import msgspec

from contracts.engine import EngineInfo
from contracts.errors import StartupError
from contracts.settings import Settings
from service.cli_options import resolve_settings, setting_options, verbose_option
from service.cpu_threads import limit_spinning, share_interpreter
from service.listen_address import ListenAddress, find_listen_address
from service.model_check import check_model_exists


@click.command("serve")
@click.argument("model", required=False)
@setting_options("engine", "server")
@verbose_option
def serve_command(**flags: object) -> None:
    """Serve MODEL over HTTP: a local directory or hub name; without it, the small model that is built in.

    Every option can also be set by the variable named in brackets, in the environment or in a .env file.
    """
    settings = resolve_settings(flags)
    check_model_exists(settings.engine)
    address = find_listen_address(settings.server.host, settings.server.port)
    server = msgspec.structs.replace(settings.server, port=address.port)
    _serve(msgspec.structs.replace(settings, server=server), address)


def _serve(settings: Settings, address: ListenAddress) -> None:
    """Run until stopped, then end the process. Raises the StartupError that ended the loading of the model."""
    started_s = time.perf_counter()
    limit_spinning(os.environ)
    share_interpreter()
    from service.app import create_app
    from service.engine_provider import StartupHooks
    from service.granian_server import GranianServer, leave_now, run_event_loop
    from service.load_progress import LoadProgress
    from service.logs import configure_logging
    from service.ready_panel import print_ready_panel

    configure_logging(settings.server)
    failures: list[StartupError] = []

    async def serve_until_stopped() -> None:
        with LoadProgress() as progress:

            def announce(info: EngineInfo) -> None:
                progress.close()
                print_ready_panel(settings, info, time.perf_counter() - started_s)

            def give_up(error: StartupError) -> None:
                progress.close()
                failures.append(error)
                server.stop()

            hooks = StartupHooks(on_ready=announce, on_failure=give_up, on_progress=progress.report)
            app = create_app(settings, hooks=hooks)
            server = GranianServer(app, address)
            await server.run()

    run_event_loop(serve_until_stopped())
    if failures:
        raise failures[0]
    leave_now(0)
