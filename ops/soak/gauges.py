"""The numbers that a server tells of itself in /health and /stats, by dotted name, whatever their nesting."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import msgspec

TIMEOUT_S = 10.0
LOAD_GAUGES = frozenset({"running", "waiting", "waiting_tokens"})
"""Zero when nothing is served."""
IDLE_GAUGES = LOAD_GAUGES | {"free_blocks", "blocks", "tasks", "asyncio_tasks", "open_streams", "connections"}
"""Back at their old values when nothing is served. A leading `num_` does not count."""
PREEMPTIONS = "preemptions"

Gauges = dict[str, float]


def list_numbers(value: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a JSON document with its dotted name; truth values are none."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from list_numbers(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from list_numbers(inner, f"{name}.{position}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def last_part(name: str) -> str:
    """The field's own name without a leading `num_`."""
    return re.sub(r"^(.*\.)?(num_)?", "", name)


def read_gauges(root_url: str, api_key: str | None) -> Gauges:
    """Every number of both documents; one that the server lacks or refuses gives none. Raises httpx.HTTPError."""
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    gauges: Gauges = {}
    for path in ("/health", "/stats"):
        reply = httpx.get(f"{root_url}{path}", headers=headers, timeout=TIMEOUT_S)
        if reply.status_code == httpx.codes.OK:
            gauges |= {f"{path[1:]}.{name}": value for name, value in list_numbers(msgspec.json.decode(reply.content))}
    return gauges


def is_idle(gauges: Gauges) -> bool:
    """Nothing runs or waits, as far as the server tells."""
    return not any(value for name, value in gauges.items() if last_part(name) in LOAD_GAUGES)


def pick_idle_gauges(gauges: Gauges) -> Gauges:
    """Those that must return to their old values."""
    return {name: value for name, value in gauges.items() if last_part(name) in IDLE_GAUGES}


def count_preemptions(gauges: Gauges) -> float | None:
    """Preemptions since the start; None where the server does not tell."""
    found = [value for name, value in gauges.items() if last_part(name) == PREEMPTIONS]
    return max(found, default=None)
