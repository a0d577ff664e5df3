"""One HTTP worker: `python -m service.worker FD`, made by the supervisor. Never imports torch."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from contracts.errors import StartupError
from contracts.frames import (
    ChildBound,
    Drain,
    ErrorReport,
    Failed,
    LaunchWorker,
    MailboxNews,
    Models,
    OrderDone,
    WorkerReady,
)
from service.app import build_app
from service.control_channel import ControlChannel
from service.cpu_threads import share_interpreter
from service.event_loop import keep_collections_short, leave_now, run_event_loop
from service.granian_server import GranianServer
from service.listen_address import ListenAddress
from service.logs import configure_logging
from service.mailboxes import Mailboxes
from service.model_pool import ModelPool, PoolHooks
from service.private_directory import remove_private_directory
from service.tracing import tracing


def main(arguments: list[str]) -> None:
    """Serve until the supervisor says Drain or is gone."""
    channel = ControlChannel(int(arguments[0]))
    launch = channel.receive_launch()
    if not isinstance(launch, LaunchWorker):
        raise TypeError(f"a worker process was given {type(launch).__name__}")
    configure_logging(launch.settings.server)
    exit_codes = [0]

    async def serve() -> None:
        try:
            await _serve(launch, channel, exit_codes)
        except StartupError as error:
            channel.send(Failed(ErrorReport.of(error)))
            exit_codes.append(error.exit_code)

    share_interpreter()
    run_event_loop(serve())
    leave_now(exit_codes[-1])


async def _serve(launch: LaunchWorker, channel: ControlChannel, exit_codes: list[int]) -> None:
    settings = launch.settings

    def announce() -> None:
        keep_collections_short()
        channel.send(WorkerReady())

    def give_up(error: StartupError) -> None:
        channel.send(Failed(ErrorReport.of(error)))
        exit_codes.append(error.exit_code)
        server.stop()

    hooks = PoolHooks(on_started=announce, on_failure=give_up)
    pool = ModelPool(settings, launch.catalog, launch.table, channel.send, hooks)
    address = ListenAddress(ip=launch.ip, port=settings.server.port)
    mailboxes = Mailboxes(channel.send)
    server = GranianServer(build_app(settings, pool, mailboxes=mailboxes), address, settings.server, is_supervised=True)

    def handle(message: ChildBound) -> None:
        if isinstance(message, Drain):
            server.stop(message)
        elif isinstance(message, Models):
            pool.update(message.table)
        elif isinstance(message, OrderDone):
            pool.orders.settle(message.number, message.error)
        elif isinstance(message, MailboxNews):
            mailboxes.handle(message)

    directory = Path(launch.directory)
    channel.listen(asyncio.get_running_loop(), handle, lambda: remove_private_directory(directory))
    async with tracing(settings.server):
        await server.run()


if __name__ == "__main__":
    main(sys.argv[1:])
