"""A server process with a fake engine behind the real application and the real granian.

`running_server` starts it for a test that needs sockets; `python -m tests.system.fake_server '<json>'` is that process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import create_default_context
from typing import Literal

import httpx
import msgspec

from contracts.engine import Engine
from contracts.generation import GenerationRequest
from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.event_loop import run_event_loop
from service.granian_server import GranianServer
from service.listen_address import ListenAddress
from service.logs import configure_logging
from tests.fakes import EOS, FakeEngine, write_byte_model

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


class FakeServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the fake engine says: the alphabet, as long as wanted; requests shorten it by max_tokens."""

    server: ServerSettings = ServerSettings()
    """Its port is chosen for the test; /health is asked with the first key of `api_keys`, given without a label."""

    num_tokens: int = 100
    tokens_per_delta: int = 1
    interval_s: float = 0.0


class FakeServer(msgspec.Struct, frozen=True, kw_only=True):
    """A running process."""

    port: int
    pid: int
    log_path: Path
    key: str | None = None
    certfile: str | None = None

    @property
    def url(self) -> str:
        scheme: Literal["http", "https"] = "http" if self.certfile is None else "https"
        return ListenAddress(ip="127.0.0.1", port=self.port, scheme=scheme).url

    def client(self) -> httpx.Client:
        """A client that trusts the certificate and presents the key."""
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        verify = create_default_context(cafile=self.certfile) if self.certfile is not None else True
        return httpx.Client(base_url=self.url, headers=headers, verify=verify, timeout=20)

    def health(self) -> dict[str, object]:
        """What /health says now."""
        with self.client() as client:
            reply: dict[str, object] = client.get("/health").json()
        return reply

    def log_lines(self) -> list[dict[str, object]]:
        """Every line that the process has logged."""
        return [msgspec.json.decode(line) for line in self.log_path.read_bytes().splitlines()]


@contextmanager
def running_server(options: FakeServerOptions) -> Iterator[FakeServer]:
    """Start the process in a group of its own, wait until it serves, and end it, by force if need be."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as directory:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        probe.close()
        log_path = Path(directory) / "server.log"
        arguments = [sys.executable, "-m", "tests.system.fake_server", str(port), directory]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*arguments, msgspec.json.encode(options).decode()],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        try:
            server = FakeServer(
                port=port,
                pid=process.pid,
                log_path=log_path,
                key=options.server.api_keys and options.server.api_keys.partition(",")[0],
                certfile=options.server.ssl_certfile,
            )
            _wait_until_serving(server, process)
            yield server
        finally:
            _stop(process)


def _wait_until_serving(server: FakeServer, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            server.health()
        except httpx.TransportError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"The server did not start:\n{server.log_path.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    """Serve until SIGTERM."""
    port, directory = int(sys.argv[1]), Path(sys.argv[2])
    options = msgspec.json.decode(sys.argv[3], type=FakeServerOptions)
    configure_logging(msgspec.structs.replace(options.server, log_format="json"))
    run_event_loop(_serve(port, directory / "model", options))


async def _serve(port: int, model_path: Path, options: FakeServerOptions) -> None:
    """Run the application under granian in this event loop."""

    def say_alphabet(request: GenerationRequest, sample: int) -> list[int]:
        return [ord("a") + number % 26 for number in range(options.num_tokens)] + [EOS]

    engine: Engine = FakeEngine(
        write_byte_model(model_path),
        say_alphabet,
        tokens_per_delta=options.tokens_per_delta,
        interval_s=options.interval_s,
        max_model_len=10_000_000,
    )
    server = msgspec.structs.replace(options.server, port=port)
    app = create_app(Settings(server=server), engine)
    await GranianServer(app, ListenAddress(ip="127.0.0.1", port=port), server).run()


if __name__ == "__main__":
    main()
