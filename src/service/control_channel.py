"""A child's line to its supervisor: an inherited socket pair with our frames on it. Knows nothing of what they mean.

The end of the line is the end of the child, whatever it is doing: a thread of its own waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import cast

from contracts.frames import BEAT_S, Alive, BrokenFrame, ChildBound, FrameReader, SupervisorBound, encode_frame

SUPERVISOR_GONE_EXIT_CODE = 71
_READ_BYTES = 65536


class ControlChannel:
    """Life cycle: receive_launch (blocks) -> listen -> send at any time, from any thread."""

    def __init__(self, file_descriptor: int) -> None:
        self._socket = socket.socket(fileno=file_descriptor)
        self._reader = FrameReader(ChildBound)
        self._waiting: list[ChildBound] = []
        self._lock = threading.Lock()
        self._on_gone: Callable[[], None] = lambda: None
        self.count_requests: Callable[[], int] = lambda: 0
        """Asked at every beat, in the loop; an engine has some."""

    def receive_launch(self) -> ChildBound:
        """The first message; blocks until it is there. Ends the process when the supervisor is gone."""
        while not self._waiting:
            self._waiting = self._read()
        return self._waiting.pop(0)

    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[ChildBound], None],
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        """Call `on_message` in the loop for every later message; beat there.

        When the supervisor is gone, call `on_gone` in a thread and end the process.
        """
        self._on_gone = on_gone
        for message in self._waiting:
            loop.call_soon(on_message, message)
        threading.Thread(target=self._listen, args=(loop, on_message), name="quire-control", daemon=True).start()
        self._beat(loop)

    def send(self, message: SupervisorBound) -> None:
        """Send one message; a supervisor that has just gone is noticed by the listening thread."""
        try:
            with self._lock:
                self._socket.sendall(encode_frame(message))
        except OSError:
            return

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beats that a supervisor which stands still does not read are left out: the loop never waits for it."""
        with contextlib.suppress(OSError), self._lock:
            self._socket.send(encode_frame(Alive(self.count_requests())), socket.MSG_DONTWAIT)
        loop.call_later(BEAT_S, self._beat, loop)

    def _listen(self, loop: asyncio.AbstractEventLoop, on_message: Callable[[ChildBound], None]) -> None:
        while True:
            for message in self._read():
                loop.call_soon_threadsafe(on_message, message)

    def _read(self) -> list[ChildBound]:
        """Wait for messages; the end of the process where there is no supervisor, or none that speaks our language."""
        with contextlib.suppress(OSError, BrokenFrame):
            if data := self._socket.recv(_READ_BYTES):
                return cast(list[ChildBound], self._reader.feed(data))
        try:
            self._on_gone()
        finally:  # whatever went wrong: nobody is left to end this process
            os._exit(SUPERVISOR_GONE_EXIT_CODE)
