"""The supervisor's side of one child: its process, its control channel, and the last sign of life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from typing import cast

import structlog

from contracts.frames import BrokenFrame, ChildBound, FrameReader, SupervisorBound, encode_frame

log = structlog.get_logger("service.supervisor")

SECRET_VARIABLES = frozenset({"LLM_API_KEYS"})
"""What children learn in another form (digests) and have no need of."""
_LAST_WORDS_S = 1.0
"""What a child has sent is read within this time after its end."""

OnMessage = Callable[[SupervisorBound], None]


class ChildProcess:
    """Life cycle: start -> (messages) -> wait returns its exit status. Owner: the supervisor."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, line: _Line) -> None:
        self.name = name
        self.is_ready = False
        """Set by the supervisor."""
        self._process = process
        self._line = line
        self._started_s = line.heard_s

    @classmethod
    async def start(
        cls, name: str, module: str, make_launch: Callable[[], ChildBound], on_message: OnMessage
    ) -> ChildProcess:
        """Run `python -m module` with our line to it as its only inherited file beside the standard streams.

        In a session of its own: Ctrl-C in the terminal reaches the supervisor alone. The first message is made when
        it is sent, so that nothing which changes while the process is made is missing from it. Raises OSError where
        no process can be made.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", module, str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env={name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES},
                )
            except BaseException:
                ours.close()
                raise
        loop = asyncio.get_running_loop()
        transport, line = await loop.create_unix_connection(lambda: _Line(process, on_message), sock=ours)
        transport.write(encode_frame(make_launch()))
        return cls(name, process, line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lived_s(self) -> float:
        return asyncio.get_running_loop().time() - self._started_s

    @property
    def silent_s(self) -> float:
        """Since it last said anything."""
        return asyncio.get_running_loop().time() - self._line.heard_s

    def excuse(self) -> None:
        """Begin to count its silence anew."""
        self._line.heard_s = asyncio.get_running_loop().time()

    async def wait(self) -> int:
        """Its exit status, negative for a signal, once all it had sent was handled."""
        status = await self._process.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._line.closed.wait(), _LAST_WORDS_S)
        self._line.transport.close()
        return status

    def send(self, message: ChildBound) -> None:
        """Send one message; a child that has ended does not mind."""
        if not self._line.transport.is_closing():
            self._line.transport.write(encode_frame(message))

    def kill(self) -> None:
        """End it at once, stopped or hung as it may be."""
        _kill(self._process)


class _Line(asyncio.Protocol):
    """What the child says, frame by frame."""

    def __init__(self, process: asyncio.subprocess.Process, on_message: OnMessage) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        """On the loop's clock."""
        self.closed = asyncio.Event()
        self._process = process
        self._on_message = on_message
        self._reader = FrameReader(SupervisorBound)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        try:
            for message in self._reader.feed(data):
                self._on_message(cast(SupervisorBound, message))
        except BrokenFrame as error:
            log.error("broken_frame", pid=self._process.pid, reason=str(error)[:200])
            _kill(self._process)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
