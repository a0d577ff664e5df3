"""The engine's end of the socket in the test's own hands: it says what the test says, and notes what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from contracts.engine import EngineStats
from contracts.frames import (
    Abort,
    Admitted,
    Beat,
    Deltas,
    EngineBound,
    FrameReader,
    Hello,
    Message,
    Submit,
    WorkerBound,
    encode_frame,
)
from contracts.generation import FinishReason, GenerationDelta
from tests.fakes import fake_engine_info

PATIENCE_S = 20.0
STATS = EngineStats(
    num_running=0,
    num_waiting=0,
    num_waiting_tokens=0,
    num_free_blocks=9,
    num_cached_blocks=0,
    num_blocks=9,
    num_steps=0,
    num_requests=0,
    num_finished=0,
    num_aborted=0,
    num_failed=0,
    num_rejected=0,
    num_preemptions=0,
    num_prompt_tokens=0,
    num_cached_tokens=0,
    num_generated_tokens=0,
    num_scheduled_seqs=0,
    step_time_s=0.0,
    is_alive=True,
    is_draining=False,
)
HELLO = Hello(fake_engine_info(Path("/nowhere")), STATS)


class ScriptedEngine:
    """One engine after another on the same socket. Owner: the context of `scripted_engine`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_greeting = True
        self.hello = HELLO
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()

    async def listen(self) -> None:
        """Be there."""
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def die(self) -> None:
        """Be gone: no socket, no connection."""
        self.path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Lose the connections, but go on listening."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    def send(self, message: WorkerBound) -> None:
        self.write(encode_frame(message))

    def write(self, data: bytes) -> None:
        self._writers[-1].write(data)

    async def receive(self) -> Message | None:
        """The next message of the worker; None where it has closed a connection."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._messages.get()

    async def admit(self) -> Submit:
        """Receive a Submit and admit it."""
        message = await self.receive()
        assert isinstance(message, Submit)
        self.send(Admitted(message.request.request_id))
        return message

    async def expect_abort(self, request_id: str) -> None:
        assert await self.receive() == Abort(request_id)

    def say(self, request_id: str, *token_ids: int, reason: FinishReason | None = None) -> None:
        """One frame with one delta."""
        delta = GenerationDelta(request_id=request_id, sample_index=0, token_ids=list(token_ids), finish_reason=reason)
        self.send(Deltas([delta]))

    def beat(self, stats: EngineStats = STATS) -> None:
        self.send(Beat(stats))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self.is_greeting:
            writer.write(encode_frame(self.hello))
        frames = FrameReader(EngineBound)
        try:
            while data := await reader.read(65536):
                for message in frames.feed(data):
                    self._messages.put_nowait(message)
        except ConnectionError:
            return
        finally:
            self._messages.put_nowait(None)
            writer.close()


@asynccontextmanager
async def scripted_engine(path: Path) -> AsyncIterator[ScriptedEngine]:
    """Listening; gone at the end."""
    engine = ScriptedEngine(path)
    await engine.listen()
    yield engine
    await engine.die()
    await asyncio.sleep(0)
