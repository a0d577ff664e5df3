"""The engine's own process: `python -m service.engine_process FD`, made by the supervisor. No HTTP here."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from contracts.engine import Engine
from contracts.errors import ModelNotUsable, StartupError
from contracts.frames import ChildBound, Drain, EngineReady, ErrorReport, Failed, LaunchEngine, Progress
from contracts.settings import ServerSettings
from service.clocks import unix_offset_ns
from service.control_channel import ControlChannel
from service.cpu_threads import share_interpreter
from service.event_loop import keep_collections_short, leave_now, run_event_loop, without_garbage_collection
from service.logs import configure_logging
from service.private_directory import remove_private_directory
from service.startup_spans import IMPORTING, StartupLog
from service.tracing import start_tracing, stop_tracing

if TYPE_CHECKING:
    from batching.step_spans import StepSpans

DIED_EXIT_CODE = 72

log = structlog.get_logger("quire.engine")


def main(arguments: list[str]) -> None:
    """Serve until the supervisor says Drain or is gone.

    Service managers signal every process: the answer is the supervisor's, who still needs this one to drain.
    """
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)
    channel = ControlChannel(int(arguments[0]))
    launch = channel.receive_launch()
    if not isinstance(launch, LaunchEngine):
        raise TypeError(f"an engine process was given {type(launch).__name__}")
    configure_logging(launch.settings.server)
    exit_codes: list[int] = []

    async def serve() -> None:
        exit_codes.append(await _serve(launch, channel))

    run_event_loop(serve())
    leave_now(exit_codes[0])


class DrainOrders:
    """The first ends the serving; a later one may hurry it, never slow it down. Owner: an engine's event loop."""

    def __init__(self) -> None:
        self.first: asyncio.Future[Drain] = asyncio.get_running_loop().create_future()
        self.engine: Engine | None = None
        """Set once it serves; before, the supervisor ends a process instead of draining it."""
        self._later: set[asyncio.Task[None]] = set()

    def take(self, message: ChildBound) -> None:
        """What the supervisor says."""
        if not isinstance(message, Drain):
            return
        if not self.first.done():
            self.first.set_result(message)
        elif self.engine is not None:
            self._later.add(asyncio.create_task(self.engine.drain(message.timeout_s)))


async def _serve(launch: LaunchEngine, channel: ControlChannel) -> int:
    orders = DrainOrders()
    drain = orders.first
    startup = StartupLog(launch.launched_s)
    startup.begin(IMPORTING)
    socket_path = Path(launch.socket_path)

    channel.listen(asyncio.get_running_loop(), orders.take, lambda: remove_private_directory(socket_path.parent))
    try:
        with without_garbage_collection():
            from batching.async_engine import AsyncEngine
            from batching.engine_server import EngineServer
            from batching.watchdog import Watchdog

            def report(stage: str, fraction: float | None) -> None:
                startup.begin(stage)
                channel.send(Progress(stage, fraction))

            engine = await AsyncEngine.start(launch.settings.engine, report)
    except StartupError as error:
        log.error("startup_failed", reason=error.message)
        channel.send(Failed(ErrorReport.of(error)))
        return error.exit_code
    except Exception as error:  # the top handler of loading: nobody else would hear of it
        log.exception("startup_failed")
        failure = ModelNotUsable(
            f"The model could not be loaded: {type(error).__name__}: {error}. The checkpoint may be damaged; the log "
            "above shows where it failed."
        )
        channel.send(Failed(ErrorReport.of(failure)))
        return failure.exit_code
    server = EngineServer(engine, socket_path)
    orders.engine = engine
    await server.start()
    watchdog = Watchdog(engine.timer, launch.settings.engine.step_timeout_s)
    watchdog.start()
    share_interpreter()
    channel.count_requests = lambda: engine.num_requests
    channel.send(EngineReady(engine.info))
    startup.end()
    providers = start_tracing(launch.settings.server)
    if providers:
        startup.emit(engine.info)
        engine.step_spans = make_step_spans(launch.settings.server)
    keep_collections_short()
    ends: set[asyncio.Future[Any]] = {drain, asyncio.create_task(engine.wait_until_ended())}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if drain.done():
        await engine.drain(drain.result().timeout_s)
    await server.stop()
    watchdog.stop()
    if not drain.done():
        return DIED_EXIT_CODE  # its spans go with it: another engine is waited for
    await stop_tracing(providers)
    return 0


def make_step_spans(settings: ServerSettings) -> StepSpans | None:
    """What makes spans of steps; None where none are wanted."""
    from batching.step_spans import StepSpans

    return StepSpans(settings.trace_steps, unix_offset_ns) if settings.trace_steps else None


if __name__ == "__main__":
    main(sys.argv[1:])
