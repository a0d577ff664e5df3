"""A command on a pseudo-terminal of its own: what is typed into it, and what it has written so far."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 20.0
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78]|\][^\x07]*\x07)")
COLOURS = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
ON_ITS_TERMINAL = (
    "-c",
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "from service.cli import main; main(prog_name='quire')",
)
"""The command with its standard input as the terminal from which Ctrl-C comes."""
ENTER, CTRL_C, CTRL_D, UP, TAB = "\r", "\x03", "\x04", "\x1b[A", "\t"


class Terminal:
    """One running command. Owner: the context of `terminal_running`."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._received = b""
        self._num_seen = 0

    @property
    def raw(self) -> str:
        """All that was written, with what moves and colours."""
        return self._received.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        """All that was written, without it."""
        return ESCAPES.sub("", self.raw)

    def send(self, keys: str) -> None:
        """Press keys."""
        os.write(self._descriptor, keys.encode())

    def enter(self, line: str) -> None:
        """Type a line and send it."""
        self.send(line)
        self.wait_for(line.splitlines()[-1])
        self.send(ENTER)

    def wait_for(self, text: str) -> None:
        """Return when the text was written behind what was waited for last; AssertionError after WAIT_S."""
        deadline_s = time.monotonic() + WAIT_S
        while text not in self.text[self._num_seen :]:
            self._read(deadline_s)
            assert time.monotonic() < deadline_s, f"no {text!r} in {self.text[self._num_seen :]!r}"
        self._num_seen = self.text.index(text, self._num_seen) + len(text)

    def wait_until_left(self) -> int:
        """The exit code; what is still written is read."""
        deadline_s = time.monotonic() + WAIT_S
        while self.process.poll() is None:
            self._read(deadline_s)
            assert time.monotonic() < deadline_s, self.text
        return self.process.returncode

    def _read(self, deadline_s: float) -> None:
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, min(0.1, deadline_s - time.monotonic())))
        if ready:
            try:
                self._received += os.read(self._descriptor, 65536)
            except OSError:  # the command has left
                time.sleep(0.01)


@contextmanager
def terminal_running(
    directory: Path, *arguments: str, width: int = 100, environ: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Run `quire` with the arguments on a terminal of `width` columns; its files stay in `directory`."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *ON_ITS_TERMINAL, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=directory,
        env=client_environment(directory) | dict(environ or {}),
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        os.close(ours)


def client_environment(directory: Path) -> dict[str, str]:
    """Without what the developer's own shell says of terminals and servers."""
    left_out = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "OPENAI_API_KEY", "OPENAI_BASE_URL"}
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    return inherited | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "XDG_STATE_HOME": str(directory / "state"),
        "XDG_DATA_HOME": str(directory / "data"),
    }
