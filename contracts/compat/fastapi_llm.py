"""Wire structs of the form service: an echo. Its completions are forms and plain events of text."""

from __future__ import annotations

import msgspec


class PromptData(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /prompt_data, and its reply."""

    prompt: str
