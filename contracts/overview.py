"""What `quire ps --json` prints: the models and the requests of a server, as the API tells them."""

from __future__ import annotations

import msgspec

from contracts.explanation import Explanation
from contracts.openai.models import ModelCard


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """Those that run first, then those that wait, in their turn, then the last that ended."""

    models: list[ModelCard]
    requests: list[Explanation]
