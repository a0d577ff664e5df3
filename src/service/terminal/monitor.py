"""The loop of `quire monitor`: takes news from the live source, draws, and listens for the key that ends it."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.live import Live

from contracts.errors import QuireError, ServerUnreachable
from contracts.explanation import ExplanationList
from contracts.live import LiveView
from service.terminal.api_client import ApiClient
from service.terminal.background import in_background
from service.terminal.live_source import LiveSource, Lost
from service.terminal.monitor_meter import Meter, Quantiles, quantiles
from service.terminal.monitor_screen import Scene, draw_monitor

LATENCIES_EVERY_S = 2.0
NUM_REQUESTS = 100
ONCE_WAIT_S = 10.0
"""A snapshot of rates needs two looks."""


class Latencies:
    """What the last requests took, asked for now and then. Owner: one monitor."""

    def __init__(self, client: ApiClient) -> None:
        self.quantiles: dict[str, Quantiles] = {}
        self._client = client

    def refresh(self) -> None:
        """Ask once; a server that is away, or a key that may not see them, leaves what there was."""
        with contextlib.suppress(QuireError):
            wanted: dict[str, str | int] = {"limit": NUM_REQUESTS, "order": "newest"}
            self.quantiles = quantiles(self._client.get_json("/v1/requests", ExplanationList, wanted).data)

    def ask(self, closed: threading.Event) -> None:
        """Again and again, until it is closed."""
        while not closed.is_set():
            self.refresh()
            closed.wait(LATENCIES_EVERY_S)


class Monitor:
    """Owner: one command. `run` returns when the user has had enough; raises QuireError where waiting is of no use."""

    def __init__(self, client: ApiClient, model: str | None, console: Console) -> None:
        self._console = console
        self._source = LiveSource(client, model)
        self._latencies = Latencies(client)
        self._url = client.url
        self._meter = Meter()
        self._problem: str | None = None

    def run(self, refresh_s: float) -> None:
        """Draw until q, Escape or Ctrl-C."""
        reading = in_background("quire-live", self._source.read)
        asking = in_background("quire-latencies", self._latencies.ask)
        with reading, asking, contextlib.suppress(KeyboardInterrupt), _single_keys() as is_listening:
            hint = "q quits" if is_listening else "Ctrl-C quits"
            with Live(console=self._console, auto_refresh=False, screen=True) as live:
                while not _quit_within(refresh_s, is_listening=is_listening):
                    self._take_news()
                    live.update(self._draw(hint), refresh=True)

    def print_once(self) -> None:
        """One plain snapshot; raises ServerUnreachable where none comes."""
        with in_background("quire-live", self._source.read):
            self._latencies.refresh()
            deadline_s = time.monotonic() + ONCE_WAIT_S
            num_looks = 0
            while num_looks < 2:
                with contextlib.suppress(queue.Empty):
                    self._take(self._source.news.get(timeout=max(0.01, deadline_s - time.monotonic())))
                    num_looks += self._problem is None
                if self._problem is not None or time.monotonic() > deadline_s:
                    raise ServerUnreachable(self._problem or f"{self._url} shows nothing within {ONCE_WAIT_S:g} s.")
        self._console.print(self._draw(""))

    def _take_news(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._source.news.get_nowait())

    def _take(self, news: LiveView | Lost | QuireError) -> None:
        if isinstance(news, QuireError):
            raise news
        if isinstance(news, Lost):
            self._problem = f"{news.reason} Trying again every second."
            return
        self._problem = None
        self._meter.add(news)

    def _draw(self, hint: str) -> RenderableType:
        scene = Scene(
            url=self._url,
            meter=self._meter,
            quantiles=self._latencies.quantiles,
            problem=self._problem,
            hint=hint,
        )
        is_unicode = "utf" in (self._console.encoding or "").lower()
        size = self._console.size
        return draw_monitor(scene, size.width, size.height, is_unicode=is_unicode)


@contextlib.contextmanager
def _single_keys() -> Iterator[bool]:
    """Keys arrive as they are pressed, unseen; False where there is no keyboard."""
    if not sys.stdin.isatty():
        yield False
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield True
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _quit_within(seconds: float, *, is_listening: bool) -> bool:
    """Wait so long; True at once for a key that quits, or where the keyboard is gone."""
    if not is_listening:
        time.sleep(seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and is_quitting(os.read(sys.stdin.fileno(), 64))


def is_quitting(keys: bytes) -> bool:
    """q, Escape alone, or the end of the keyboard; arrows and the like begin with Escape and do not quit."""
    return keys in (b"", b"\x1b") or (not keys.startswith(b"\x1b") and b"q" in keys.lower())
