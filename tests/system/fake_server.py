"""A server process with a fake engine behind the real application and the real granian: `python -m ... '<json>'`.

Used by tests that need real sockets. Options are FakeServerOptions as JSON; prints one line when it serves.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import msgspec

from contracts.engine import Engine
from contracts.generation import GenerationRequest
from contracts.settings import ServerSettings, Settings
from service.app import create_app
from service.granian_server import GranianServer, run_event_loop
from service.listen_address import ListenAddress
from service.logs import configure_logging
from tests.fakes import EOS, FakeEngine, write_byte_model


class FakeServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the fake engine does; prompts may shorten the answer through max_tokens."""

    port: int
    num_tokens: int = 100
    tokens_per_delta: int = 1
    interval_s: float = 0.0
    max_body_bytes: int = 8 * 1024 * 1024


def main() -> None:
    """Serve until SIGTERM."""
    options = msgspec.json.decode(sys.argv[1], type=FakeServerOptions)
    configure_logging(ServerSettings(log_format="json"))
    with tempfile.TemporaryDirectory() as directory:
        run_event_loop(serve(options, Path(directory)))


async def serve(options: FakeServerOptions, directory: Path) -> None:
    """Run the application under granian in this event loop."""

    def count(request: GenerationRequest, sample: int) -> list[int]:
        return [ord("a") + number % 26 for number in range(options.num_tokens)] + [EOS]

    engine: Engine = FakeEngine(
        write_byte_model(directory),
        count,
        tokens_per_delta=options.tokens_per_delta,
        interval_s=options.interval_s,
        max_model_len=10_000_000,
    )
    settings = Settings(server=ServerSettings(port=options.port, max_body_bytes=options.max_body_bytes))
    server = GranianServer(create_app(settings, engine), ListenAddress(ip="127.0.0.1", port=options.port))
    await server.run()


if __name__ == "__main__":
    main()
