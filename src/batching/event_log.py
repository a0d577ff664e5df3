"""What each request's samples were given, delta by delta, so that it can be told again. Pure; knows no record, no text.

A token of a step costs eight bytes here and no object that the garbage collector would visit. What is more than one
token (log probabilities, ends) is kept encoded. When all logs together grow too large, the oldest of the ended
requests loses its own first.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict

import msgspec

from contracts.followed import MAX_SLICE_DELTAS, EventSlice
from contracts.generation import GenerationDelta, GenerationRequest

MAX_LOG_BYTES = 32 * 1024 * 1024
"""Of all logs together: four million tokens, or a tenth of that with a log probability each."""
LOG_BYTES, TOKEN_BYTES, ODD_BYTES = 512, 8, 192
"""What a log, a token and a delta of another kind cost, the latter two without and with its entry in a dict."""
_SAMPLE_SHIFT = 32
_TOKEN_MASK = 2**_SAMPLE_SHIFT - 1
_ODD = 2**64 - 1
"""Stands in the row of tokens for a delta that is kept elsewhere."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(GenerationDelta)


class _Log:
    """One request's deltas. Owner: the EventLog."""

    __slots__ = ("num_bytes", "num_cached_tokens", "num_open", "odd", "packed")

    def __init__(self, num_samples: int) -> None:
        self.packed = array("Q")
        """Sample index and token id of each delta, in order."""
        self.odd: dict[int, bytes] = {}
        """Place in `packed` -> the whole delta."""
        self.num_cached_tokens: dict[int, int] = {}
        """Sample -> what its first delta said, and all others of it that are packed."""
        self.num_open = num_samples
        self.num_bytes = LOG_BYTES

    def is_plain(self, delta: GenerationDelta) -> bool:
        """One token, and nothing else that later ones do not share."""
        num_cached_tokens = delta.num_cached_tokens
        is_shared = self.num_cached_tokens.setdefault(delta.sample_index, num_cached_tokens) == num_cached_tokens
        return is_shared and len(delta.token_ids) == 1

    def append_odd(self, delta: GenerationDelta) -> int:
        """Keep a delta as it is, but for the record, which others have; returns the bytes that it takes."""
        if delta.finish_reason is not None:
            self.num_open -= 1
            delta = msgspec.structs.replace(delta, record=None)
        encoded = self.odd[len(self.packed)] = _ENCODER.encode(delta)
        self.packed.append(_ODD)
        return len(encoded) + ODD_BYTES

    def delta(self, request_id: str, place: int) -> GenerationDelta:
        packed = self.packed[place]
        if packed == _ODD:
            return _DECODER.decode(self.odd[place])
        sample_index = packed >> _SAMPLE_SHIFT
        return GenerationDelta(
            request_id=request_id,
            sample_index=sample_index,
            token_ids=[packed & _TOKEN_MASK],
            num_cached_tokens=self.num_cached_tokens[sample_index],
        )


class EventLog:
    """The logs of the requests that live and of some that have ended. Owner: the AsyncEngine.

    Life cycle of one: begin -> append until every sample has ended -> given up in its turn, or by `forget`.
    """

    def __init__(self, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._max_bytes = max_bytes
        self._live: dict[str, _Log] = {}
        self._ended: OrderedDict[str, _Log] = OrderedDict()
        self.num_bytes = 0
        """Of all logs."""

    def __len__(self) -> int:
        return len(self._live) + len(self._ended)

    def begin(self, request: GenerationRequest) -> None:
        """A request was admitted; one of the same id that has ended is given up."""
        self.forget(request.request_id)
        self._live[request.request_id] = _Log(request.num_samples)
        self.num_bytes += LOG_BYTES

    def append(self, delta: GenerationDelta) -> None:
        """Keep what a sample has just been given; of a request that has no log, nothing."""
        log = self._live.get(delta.request_id)
        if log is None:
            return
        if delta.finish_reason is None and delta.logprobs is None and log.is_plain(delta):
            log.packed.append(delta.sample_index << _SAMPLE_SHIFT | delta.token_ids[0])
            num_bytes = TOKEN_BYTES
        else:
            num_bytes = log.append_odd(delta)
            if log.num_open == 0:
                self._ended[delta.request_id] = self._live.pop(delta.request_id)
        log.num_bytes += num_bytes
        self.num_bytes += num_bytes
        if self.num_bytes > self._max_bytes:
            self._make_room(delta.request_id)

    def read(self, request_id: str, after: int) -> EventSlice | None:
        """At most MAX_SLICE_DELTAS behind the first `after`; None where there is no log."""
        is_live = request_id in self._live
        log = self._live.get(request_id) or self._ended.get(request_id)
        if log is None:
            return None
        end = min(after + MAX_SLICE_DELTAS, len(log.packed))
        deltas = [log.delta(request_id, place) for place in range(after, end)]
        return EventSlice(deltas, is_over=not is_live and end >= len(log.packed))

    def forget(self, request_id: str) -> None:
        """Give up a log, if there is one."""
        log = self._live.pop(request_id, None) or self._ended.pop(request_id, None)
        if log is not None:
            self.num_bytes -= log.num_bytes

    def _make_room(self, growing_id: str) -> None:
        """Give up ended logs, the oldest first; where that is not enough, the one that has just grown."""
        while self.num_bytes > self._max_bytes and self._ended:
            self.forget(next(iter(self._ended)))
        if self.num_bytes > self._max_bytes:
            self.forget(growing_id)
