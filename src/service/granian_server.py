"""Runs the application under granian in this process, from start-up to the last stream.

granian's embedded server shares one event loop with the application: a start-up error ends this process with its own
exit code, and SIGTERM reaches us before it reaches the streams.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import structlog
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from litestar import Litestar

from contracts.errors import AddressInUse
from contracts.frames import Drain
from contracts.settings import ServerSettings
from service.engine_provider import ModelProvider
from service.event_loop import leave_now
from service.listen_address import ListenAddress
from service.mailboxes import Mailboxes

_FLUSH_GRACE_S = 2.0
_MAX_CONNECTIONS = 16_384
"""Far above what the queue admits: granian counts idle connections too and would let health checks starve."""

_QUIET = {"loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True}}, "handlers": {}}

log = structlog.get_logger()


class GranianServer:
    """One application on one address; `run` returns when a signal or `stop` has stopped it.

    Life cycle: loading (a signal ends the process at once: there is nothing to save), serving, draining (a second
    signal ends the process at once). Under a supervisor signals are ignored: what is to be done comes from there, also
    when a service manager signals every process at the same time.
    """

    def __init__(
        self, app: Litestar, address: ListenAddress, settings: ServerSettings, *, is_supervised: bool = False
    ) -> None:
        self._app = app
        self._is_supervised = is_supervised
        self._address = address
        self._order = Drain(settings.drain_delay_s, settings.drain_timeout_s)
        self._settings = settings
        self._stop_requested = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`, then drain; the model loads meanwhile."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            if self._is_supervised:
                signal.signal(signum, signal.SIG_IGN)
            else:
                asyncio.get_running_loop().add_signal_handler(signum, self._handle_signal, signum)
        async with self._app.lifespan():
            server = self._build()
            serving = asyncio.ensure_future(server.serve())
            stopping = asyncio.ensure_future(self._stop_requested.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await self._drain(server, serving)

    def stop(self, order: Drain | None = None) -> None:
        """Let `run` drain, as the settings say or as ordered, and return; for the event loop's thread."""
        self._order = order or self._order
        self._stop_requested.set()

    def _build(self) -> Server:
        certificate, key = self._settings.ssl_certfile, self._settings.ssl_keyfile
        return Server(
            self._app,
            address=self._address.ip,
            port=self._address.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=4096,
            backpressure=_MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(header_read_timeout=round(self._settings.header_timeout_s * 1000)),
            ssl_cert=Path(certificate) if certificate else None,
            ssl_key=Path(key) if key else None,
            ssl_protocol_min=SSLProtocols.tls12,
            log_level=LogLevels.warning,
            log_dictconfig=_QUIET,
        )

    async def _drain(self, server: Server, serving: asyncio.Future[None]) -> None:
        """Not ready; after the delay refuse new requests, let running ones end within the time, end the rest."""
        provider: ModelProvider = self._app.state.provider
        if provider.is_started:
            log.info("server_draining", delay_s=self._order.delay_s, timeout_s=self._order.timeout_s)
            provider.begin_drain()
            await asyncio.sleep(self._order.delay_s)
            mailboxes: Mailboxes = self._app.state.mailboxes
            mailboxes.stop()
            await provider.drain(self._order.timeout_s)
        server.stop()  # type: ignore[no-untyped-call]
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
        provider: ModelProvider = self._app.state.provider
        if self._stop_requested.is_set():
            leave_now(128 + signum)
        if not provider.is_started:
            leave_now(0)
        self.stop()
