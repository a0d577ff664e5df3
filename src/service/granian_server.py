"""Runs the application under granian in this process, from start-up to the last stream.

granian's embedded server shares one event loop with the application: a start-up error ends this process with its own
exit code, never a dead worker, and SIGTERM reaches us before it reaches the streams. Knows nothing of settings.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server
from litestar import Litestar

from contracts.errors import AddressInUse
from service.engine_provider import EngineProvider
from service.listen_address import ListenAddress

STREAM_GRACE_S = 5.0
"""How long running requests may go on after SIGTERM or Ctrl-C before they are ended."""
_FLUSH_GRACE_S = 2.0
_MAX_CONNECTIONS = 16_384
"""Far above what the queue admits: granian counts idle connections too and would let health checks starve."""

_QUIET = {"loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True}}, "handlers": {}}

log = structlog.get_logger()


class GranianServer:
    """One application on one address; `run` returns when a signal or `stop` has stopped it.

    Life cycle: loading (a signal ends the process at once: there is nothing to save), serving, draining (a second
    signal ends the process at once).
    """

    def __init__(self, app: Litestar, address: ListenAddress) -> None:
        self._app = app
        self._address = address
        self._stop_requested = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`, then drain; the model loads meanwhile."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, self._handle_signal, signum)
        async with self._app.lifespan():
            server = self._build()
            serving = asyncio.ensure_future(server.serve())
            stopping = asyncio.ensure_future(self._stop_requested.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await self._drain(server, serving)

    def stop(self) -> None:
        """Let `run` drain and return; for the event loop's thread."""
        self._stop_requested.set()

    def _build(self) -> Server:
        return Server(
            self._app,
            address=self._address.ip,
            port=self._address.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=4096,
            backpressure=_MAX_CONNECTIONS,
            log_level=LogLevels.warning,
            log_dictconfig=_QUIET,
        )

    async def _drain(self, server: Server, serving: asyncio.Future[None]) -> None:
        """Refuse new connections, let requests end within the grace time, end the rest."""
        server.stop()  # type: ignore[no-untyped-call]
        provider: EngineProvider = self._app.state.provider
        if provider.is_loaded:
            log.info("server_draining", grace_s=STREAM_GRACE_S)
            await provider.serving.engine.drain(STREAM_GRACE_S)
        await asyncio.wait({serving}, timeout=_FLUSH_GRACE_S)
        if not serving.done():
            log.warning("connections_cut", after_s=_FLUSH_GRACE_S)
            serving.cancel()
        (outcome,) = await asyncio.gather(serving, return_exceptions=True)
        if isinstance(outcome, RuntimeError):  # granian's only words for a socket that it cannot open
            reason = str(outcome).partition("\n")[0]
            raise AddressInUse(f"Cannot listen on {self._address.url}: {reason}. Choose another --port.") from outcome
        if isinstance(outcome, Exception):
            raise outcome

    def _handle_signal(self, signum: signal.Signals) -> None:
        provider: EngineProvider = self._app.state.provider
        if self._stop_requested.is_set():
            leave_now(128 + signum)
        if not provider.is_loaded:
            leave_now(0)
        self.stop()


def run_event_loop(main: Coroutine[object, object, None]) -> None:
    """Run to completion on uvloop where it is installed, else on asyncio's loop."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def leave_now(status: int) -> None:
    """End the process with what was printed, without waiting for threads or tearing modules down.

    A model half loaded cannot be interrupted in any other way, and the teardown of torch and numba after the last
    request takes seconds (2-4 s on two busy cores, November 2026).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
