"""Reads the live view of a server, and waits for a server that has gone. Knows no terminal."""

from __future__ import annotations

import queue
import threading
from urllib.parse import quote

import msgspec

from contracts.errors import QuireError, ServerUnreachable
from contracts.live import LiveView
from service.terminal.api_client import ApiClient, RequestRefused

RETRY_S = 1.0
FINAL_STATUSES = frozenset({400, 401, 403})
"""Refusals that waiting does not mend."""


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """There is nothing to see for now."""

    reason: str


class LiveSource:
    """Owner: one monitor, which takes from `news` while another thread reads."""

    def __init__(self, client: ApiClient, model: str | None) -> None:
        self.news: queue.Queue[LiveView | Lost | QuireError] = queue.Queue()
        """A QuireError is the last of them."""
        self._client = client
        self._path = "/v1/live" if model is None else f"/v1/live?model={quote(model, safe='')}"

    def read(self, closed: threading.Event) -> None:
        """Until it is closed, or a QuireError is the last of the news."""
        while not closed.is_set():
            try:
                with self._client.stream("GET", self._path) as events:
                    for event in events:
                        self.news.put(msgspec.json.decode(event.data, type=LiveView))
                        if closed.is_set():
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
            closed.wait(RETRY_S)
