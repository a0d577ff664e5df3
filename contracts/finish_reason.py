"""Why a sample ended."""

from __future__ import annotations

import enum


class FinishReason(enum.Enum):
    """Why a sample ended; every sample ends exactly once with one of these."""

    STOP = "stop"
    """An end-of-sequence or stop token was sampled."""
    LENGTH = "length"
    """max_tokens or the model's window was reached."""
    ABORT = "abort"
    """The client went away, or the server stopped."""
    CANCELLED = "cancelled"
    """Somebody with the right to it asked for its end."""
    DEADLINE = "deadline"
    """timeout_s passed."""
    LOST = "lost"
    """The engine stopped under the request; it can be sent again."""
    ERROR = "error"
    """The engine failed on this request; `GenerationDelta.error` says how."""

    @property
    def is_complete(self) -> bool:
        """The sample has said all it was to say."""
        return self in (FinishReason.STOP, FinishReason.LENGTH)
