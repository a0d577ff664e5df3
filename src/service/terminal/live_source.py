"""Reads the live view of a server in a thread, and waits for a server that has gone. Knows no terminal."""

from __future__ import annotations

import queue
import threading
from urllib.parse import quote

import msgspec

from contracts.errors import QuireError, ServerUnreachable
from contracts.live import LiveView
from service.terminal.api_client import ApiClient, RequestRefused

RETRY_S = 1.0
CLOSE_S = 1.0
FINAL_STATUSES = frozenset({400, 401, 403})
"""Refusals that waiting does not mend."""


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """There is nothing to see for now."""

    reason: str


class LiveSource:
    """Owner: one monitor, which takes from `news` in its own thread. Ends with the process, or with `close`."""

    def __init__(self, client: ApiClient, model: str | None) -> None:
        self.news: queue.Queue[LiveView | Lost | QuireError] = queue.Queue()
        """A QuireError is the last of them."""
        self._client = client
        self._path = "/v1/live" if model is None else f"/v1/live?model={quote(model, safe='')}"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name="quire-live", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no more; waits a moment for the thread, which may be using the client that is closed next."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                with self._client.stream("GET", self._path) as events:
                    for event in events:
                        self.news.put(msgspec.json.decode(event.data, type=LiveView))
                        if self._closed.is_set():
                            return
                reason = "The server has ended the view: it stops, or the model is not loaded any longer."
            except RequestRefused as error:
                if error.status in FINAL_STATUSES:
                    self.news.put(error)
                    return
                reason = error.message
            except ServerUnreachable as error:
                reason = error.message
            except msgspec.DecodeError as error:
                self.news.put(
                    ServerUnreachable(f"{self._client.url} sends another live view than this version's: {error}.")
                )
                return
            self.news.put(Lost(reason=reason))
            self._closed.wait(RETRY_S)
