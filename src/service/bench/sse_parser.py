"""Server-sent events of a completion stream: splits bytes into payloads and reads the few fields a benchmark needs.

Field names other than `data` and comments are skipped. Knows nothing of HTTP or time.
"""

from __future__ import annotations

import msgspec

DONE = b"[DONE]"


class EventSplitter:
    """Owned by one exchange; holds the bytes of the event that is still arriving."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take body bytes and return the data payloads of the events that they complete."""
        data = self._buffer + data if self._buffer else data
        tail = b""
        if b"\r" in data:
            if data.endswith(b"\r"):
                data, tail = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = data.split(b"\n\n")
        self._buffer = rest + tail
        return [payload for block in blocks if (payload := _extract_data(block)) is not None]


def _extract_data(block: bytes) -> bytes | None:
    """The payload of one event; None for a comment or an event without data."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


class Delta(msgspec.Struct, frozen=True):
    """The new piece of a chat answer; thinking counts as output too."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class EventChoice(msgspec.Struct, frozen=True):
    """One choice of an event, of either endpoint."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None

    @property
    def has_text(self) -> bool:
        """Some text of the answer arrived with this choice."""
        if self.text:
            return True
        delta = self.delta
        return delta is not None and bool(delta.content or delta.reasoning_content or delta.reasoning)


class TokenUsage(msgspec.Struct, frozen=True):
    """Token counts as the server reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class StreamEvent(msgspec.Struct, frozen=True):
    """One event of a stream; `error` set means that the request failed after its 200."""

    choices: list[EventChoice] = []
    usage: TokenUsage | None = None
    error: object = None


DECODER = msgspec.json.Decoder(StreamEvent)


def decode_event(payload: bytes) -> StreamEvent:
    """Read one payload. Raises msgspec.DecodeError or msgspec.ValidationError when it is not such an event."""
    return DECODER.decode(payload)


def describe_error(error: object) -> str:
    """The words of an OpenAI-shaped error object, or of whatever stands in its place."""
    if isinstance(error, dict) and "message" in error:
        return str(error["message"])
    return str(error)
