"""Keeps one child process running: starts it again when it ends unasked, with growing pauses, and ends it when silent.

Knows nothing of what the child does: whoever owns a keeper is given its messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

import structlog

from contracts.errors import QuireError, StartupError
from contracts.frames import ChildBound, Drain, SupervisorBound
from service.child_process import ChildProcess
from service.restart_policy import RestartPolicy

log = structlog.get_logger("service.supervisor")

OnMessage = Callable[["ProcessKeeper", SupervisorBound], None]


class ProcessKeeper:
    """A place that one child after another fills. Life cycle: `run` -> until `retire`, or until it gives up.

    `launch` makes the first message to each child, when it is sent.
    """

    def __init__(
        self, name: str, module: str, launch: Callable[[], ChildBound], timeout_s: float, on_message: OnMessage
    ) -> None:
        self.name = name
        self.module = module
        self.child: ChildProcess | None = None
        self.has_been_ready = False
        self._launch = launch
        self._timeout_s = timeout_s
        self._on_message = on_message
        self._policy = RestartPolicy()
        self._refusal: StartupError | None = None
        self._is_retired = asyncio.Event()

    @property
    def is_retired(self) -> bool:
        """Whatever ends now ends for good."""
        return self._is_retired.is_set()

    @property
    def place(self) -> str:
        """Where this child is, and no earlier one was."""
        return f"{self.name} {0 if self.child is None else self.child.pid}"

    async def run(self) -> None:
        """Start the child again and again. Returns once retired; raises StartupError where that makes no sense."""
        while not self.is_retired:
            child = self.child = await self._start()
            if self.is_retired:
                child.kill()
            log.debug("process_started", process=self.name, pid=child.pid)
            status = await child.wait()
            self.child = None
            if self.is_retired:
                return
            delay_s = self._delay_after(child, status)
            log.error("process_ended", process=self.name, status=describe_status(status), restart_in_s=delay_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_retired.wait(), delay_s)

    async def _start(self) -> ChildProcess:
        try:
            return await ChildProcess.start(
                self.name, self.module, self._launch, lambda message: self._on_message(self, message)
            )
        except OSError as error:
            raise StartupError(
                f"The {self.name} could not be started: {error}. The machine may be short of memory, processes or "
                "open files."
            ) from error

    def _delay_after(self, child: ChildProcess, status: int) -> float:
        if self._refusal is not None:
            raise self._refusal
        if not self.has_been_ready:
            raise StartupError(f"The {self.name} ended while starting ({describe_status(status)}).")
        delay_s = self._policy.delay_after(child.lived_s)
        if delay_s is None:
            raise StartupError(
                f"The {self.name} ended {self._policy.num_short_lives} times in a row, each within a minute of its "
                f"start; the last time: {describe_status(status)}. The log above says more."
            )
        return delay_s

    def note_ready(self) -> None:
        """The child serves."""
        if self.child is not None:
            self.child.is_ready = self.has_been_ready = True
            log.info("process_ready", process=self.name, pid=self.child.pid, after_s=round(self.child.lived_s, 2))

    def note_refusal(self, error: QuireError) -> None:
        """The child says why it cannot start. A first start that fails is final; a later one may be an accident such
        as full memory."""
        if not self.has_been_ready:
            self._refusal = error if isinstance(error, StartupError) else StartupError(error.message)

    def watch(self, *, is_excused: bool) -> None:
        """End a child that was ready once and has said nothing for too long; to be called again and again.

        `is_excused`: this process stood still itself, and its children are not to blame.
        """
        child = self.child
        if child is None or not child.is_ready:
            return
        if is_excused:
            child.excuse()
        elif child.silent_s > self._timeout_s:
            log.error("process_hung", process=self.name, silent_s=round(child.silent_s, 1))
            child.is_ready = False
            child.kill()

    def send(self, message: ChildBound) -> None:
        """To the child of this moment, if there is one."""
        if self.child is not None:
            self.child.send(message)

    def retire(self) -> None:
        """Start nothing again."""
        self._is_retired.set()

    def drain(self, order: Drain) -> None:
        """Start nothing again, and let the child end what it does; one that does not serve yet ends now."""
        self.retire()
        if self.child is not None and self.child.is_ready:
            self.child.send(order)
        else:
            self.kill()

    def kill(self) -> None:
        """End the child at once."""
        if self.child is not None:
            self.child.kill()


def describe_status(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"exit status {status}"
