"""From token ids to the text, log probabilities and end of one sample. Knows no HTTP and no other sample.

Text goes out as soon as no character of it is incomplete and no stop string can begin in it; what is held back is at
most one character and the longest stop string less one character. Work per token does not grow with the text.
"""

from __future__ import annotations

from collections import deque

import msgspec

from contracts.generation import FinishReason, GenerationDelta, TokenLogprob
from service.stop_strings import StopStrings
from service.tokenizer import TextTokenizer
from service.translate import TextRequest

MIN_LOGPROB = -9999.0
"""Stands for -inf, which JSON cannot say."""


class TopEntry(msgspec.Struct, frozen=True, array_like=True):
    """One of the most probable tokens at a position."""

    text: str
    bytes: bytes
    logprob: float


class LogprobEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen token at a position; `text` may be lossy, `bytes` are exact."""

    text: str
    bytes: bytes
    logprob: float
    top: list[TopEntry]
    text_offset: int
    """Characters of the sample's text before this token."""


class TextPiece(msgspec.Struct, frozen=True, kw_only=True):
    """What one delta adds to a sample's answer."""

    text: str = ""
    """Safe to send now; often a part of it is held back until a later piece."""
    logprobs: list[LogprobEntry] = []
    """Entries whose text has been sent, where they were asked for."""
    finish_reason: str | None = None
    """`stop` or `length`; the names of the other FinishReasons are for the caller to map to an error."""
    is_stopped_by_string: bool = False
    """The engine does not know that this sample has ended: abort the request once all its samples have."""


class SampleText:
    """The text of one sample. Owner: the task that answers the request; push deltas in order until finished."""

    __slots__ = (
        "_decoded_len",
        "_entries",
        "_held",
        "_is_plain",
        "_sent_len",
        "_stop",
        "_stop_state",
        "_stream",
        "_tokenizer",
        "finish_reason",
        "num_tokens",
    )

    def __init__(self, tokenizer: TextTokenizer, request: TextRequest, stop: StopStrings | None) -> None:
        self._tokenizer = tokenizer
        self._stream = tokenizer.stream(request.continues_prompt, request.strips_space)
        self._stop = stop
        self._stop_state = 0
        self._is_plain = stop is None and not request.wants_logprobs
        self._held = ""
        self._sent_len = 0
        self._decoded_len = 0
        self._entries: deque[tuple[int, LogprobEntry]] = deque()
        self.num_tokens = 0
        """Tokens generated up to the end of the sample, an end-of-sequence token included."""
        self.finish_reason: str | None = None

    def push(self, delta: GenerationDelta) -> TextPiece:
        """Take the tokens of one delta; a sample that has ended ignores them."""
        if self.finish_reason is not None:
            return TextPiece()
        token_ids = delta.token_ids
        if self._is_plain and delta.finish_reason is None:
            self.num_tokens += len(token_ids)
            if len(token_ids) == 1:
                return TextPiece(text=self._stream.push(token_ids[0]))
            return TextPiece(text="".join(map(self._stream.push, token_ids)))
        sent: list[str] = []
        is_stopped = self._push_tokens(delta, sent)
        if is_stopped:
            self.finish_reason = FinishReason.STOP.value
        elif delta.finish_reason is not None:
            is_stopped = self._end(sent)
            self.finish_reason = FinishReason.STOP.value if is_stopped else delta.finish_reason.value
        return TextPiece(
            text="".join(sent),
            logprobs=self._ready_entries(),
            finish_reason=self.finish_reason,
            is_stopped_by_string=is_stopped,
        )

    def _push_tokens(self, delta: GenerationDelta, sent: list[str]) -> bool:
        """Decode token by token; True when a stop string is complete, and the tokens after it are not counted."""
        num_text_tokens = len(delta.token_ids) - delta.ended_by_token
        for position in range(num_text_tokens):
            token_id = delta.token_ids[position]
            start = self._decoded_len
            text = self._stream.push(token_id)
            self.num_tokens += 1
            self._decoded_len += len(text)
            if delta.logprobs is not None:
                end = self._decoded_len + self._stream.has_pending
                self._entries.append((end, self._entry(token_id, delta.logprobs[position], start)))
            if self._send(text, sent):
                return True
        self.num_tokens += delta.ended_by_token
        return False

    def _send(self, text: str, sent: list[str]) -> bool:
        """Append to `sent` what may go out; True when a stop string is complete."""
        if self._stop is None:
            self._sent_len += len(text)
            sent.append(text)
            return False
        if not text:
            return False
        self._stop_state, match_end, match_len = self._stop.scan(self._stop_state, text)
        num_held = match_len if match_end else self._stop.depths[self._stop_state]
        known = self._held + (text[:match_end] if match_end else text)
        cut = len(known) - num_held
        self._held = "" if match_end else known[cut:]
        self._sent_len += cut
        if cut:
            sent.append(known[:cut])
        return match_end > 0

    def _end(self, sent: list[str]) -> bool:
        """Send all that is held back; True when the last incomplete character completes a stop string."""
        rest = self._stream.flush()
        self._decoded_len += len(rest)
        if self._send(rest, sent):
            return True
        sent.append(self._held)
        self._sent_len += len(self._held)
        self._held = ""
        return False

    def _ready_entries(self) -> list[LogprobEntry]:
        ready: list[LogprobEntry] = []
        while self._entries and self._entries[0][0] <= self._sent_len:
            ready.append(self._entries.popleft()[1])
        return ready

    def _entry(self, token_id: int, logprob: TokenLogprob, text_offset: int) -> LogprobEntry:
        tokenizer = self._tokenizer
        return LogprobEntry(
            text=tokenizer.token_text(token_id),
            bytes=tokenizer.token_bytes(token_id),
            logprob=max(logprob.logprob, MIN_LOGPROB),
            top=[
                TopEntry(tokenizer.token_text(top_id), tokenizer.token_bytes(top_id), max(top_logprob, MIN_LOGPROB))
                for top_id, top_logprob in logprob.top
            ],
            text_offset=text_offset,
        )


def sample_texts(tokenizer: TextTokenizer, request: TextRequest) -> list[SampleText]:
    """Make one SampleText per sample of the request, by sample index."""
    stop = StopStrings(request.stop_strings) if request.stop_strings else None
    return [SampleText(tokenizer, request, stop) for _ in range(request.generation.num_samples)]
