"""Streamed completions, timed as their bytes arrive, and the model list. Knows nothing of levels, rates or reports."""

from __future__ import annotations

import asyncio
import time

import msgspec

from service.bench.connection import (
    ConnectionPool,
    ExchangeFailed,
    encode_request,
    exchange_pooled,
    parse_base_url,
)
from service.bench.http_parser import ResponseParser
from service.bench.records import RequestRecord
from service.bench.sse_parser import DONE, EventSplitter, StreamEvent, decode_event, describe_error

MAX_ERROR_CHARS = 300


class BodyResponse:
    """A reply whose body is wanted whole."""

    def __init__(self) -> None:
        self.parser = ResponseParser()
        self.body = b""

    def feed(self, data: bytes, now_s: float) -> None:
        """Add to the body."""
        self.body += self.parser.feed(data)


class StreamResponse:
    """A streamed reply, timed into its record; owned by one exchange."""

    __slots__ = ("_error_body", "_has_ended", "_splitter", "parser", "record")

    def __init__(self, record: RequestRecord) -> None:
        self.parser = ResponseParser()
        self.record = record
        self._splitter = EventSplitter()
        self._error_body = b""
        self._has_ended = False

    def feed(self, data: bytes, now_s: float) -> None:
        """Time the text in one socket read; all of its events arrived at `now_s`."""
        body = self.parser.feed(data)
        if self.parser.status != 200:
            self._error_body += body
            return
        has_text = False
        for payload in self._splitter.feed(body):
            if payload == DONE:
                self._has_ended = True
            else:
                has_text = self._note_event(_decode(payload)) or has_text
        if has_text:
            self._note_arrival(now_s)

    def _note_event(self, event: StreamEvent) -> bool:
        """Count one event; whether it brought text."""
        record = self.record
        has_text = False
        for choice in event.choices:
            if choice.finish_reason is not None:
                self._has_ended = True
            if choice.has_text:
                record.num_text_events += 1
                has_text = True
        if event.usage is not None:
            record.completion_tokens = event.usage.completion_tokens
            record.prompt_tokens = event.usage.prompt_tokens
        if event.error is not None and record.error is None:
            record.error = f"error in the stream: {describe_error(event.error)}"[:MAX_ERROR_CHARS]
        return has_text

    def _note_arrival(self, now_s: float) -> None:
        record = self.record
        if record.last_text_s is None:
            record.first_text_s = now_s
        else:
            record.gaps_s.append(now_s - record.last_text_s)
        record.last_text_s = now_s

    def close(self, now_s: float) -> None:
        """Settle the record after the last byte: a refusal or a stream without its end is an error."""
        record = self.record
        record.finished_s = now_s
        if self.parser.status != 200:
            record.error = f"HTTP {self.parser.status}: {_read_refusal(self._error_body)}"[:MAX_ERROR_CHARS]
        elif not self._has_ended and record.error is None:
            record.error = "the stream ended without [DONE] or a finish_reason"


def _decode(payload: bytes) -> StreamEvent:
    try:
        return decode_event(payload)
    except msgspec.DecodeError as error:
        raise ExchangeFailed(f"event is not a completion chunk ({error}): {payload[:120]!r}") from error


def _read_refusal(body: bytes) -> str:
    try:
        return describe_error(decode_event(body).error or body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace") or "empty body"


def _read_retry_after_s(headers: dict[str, str]) -> float | None:
    """The header's seconds; None where it is missing or a date."""
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:
        return None


async def send_stream(pool: ConnectionPool, request: bytes, record: RequestRecord, timeout_s: float) -> None:
    """Run one streamed request and fill its record; failures end in `record.error`, never as an exception."""
    response = StreamResponse(record)
    try:
        async with asyncio.timeout(timeout_s):
            await exchange_pooled(pool, request, response)
    except TimeoutError:
        record.error = f"no complete reply within {timeout_s:g} s"
    except (ExchangeFailed, OSError) as error:
        record.error = record.error or str(error)[:MAX_ERROR_CHARS] or type(error).__name__
    record.status = response.parser.status
    record.retry_after_s = _read_retry_after_s(response.parser.headers)
    if record.error is None or response.parser.is_complete:
        response.close(time.monotonic())
    else:
        record.finished_s = time.monotonic()


async def fetch_json(base_url: str, path: str, api_key: str | None = None, timeout_s: float = 30.0) -> object:
    """GET a JSON document below the base URL. Raises ExchangeFailed or OSError."""
    pool = ConnectionPool(parse_base_url(base_url))
    response = BodyResponse()
    try:
        async with asyncio.timeout(timeout_s):
            await exchange_pooled(pool, encode_request(pool.address, "GET", path, api_key=api_key), response)
    finally:
        pool.close()
    if response.parser.status != 200:
        raise ExchangeFailed(f"GET {path}: HTTP {response.parser.status}: {_read_refusal(response.body)}")
    return msgspec.json.decode(response.body)


async def fetch_first_model(base_url: str, api_key: str | None = None) -> str:
    """The id of the first model that the server lists. Raises ExchangeFailed when there is none."""
    reply = await fetch_json(base_url, "/models", api_key)
    try:
        return msgspec.convert(reply, ModelList).data[0].id
    except (msgspec.ValidationError, IndexError):
        raise ExchangeFailed(f"{base_url}/models lists no model; name one with --model") from None


class ListedModel(msgspec.Struct, frozen=True):
    """An entry of the model list."""

    id: str


class ModelList(msgspec.Struct, frozen=True):
    """The model list, as far as it is needed."""

    data: list[ListedModel]
