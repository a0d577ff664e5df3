"""Reads the parameters of Jaeger's API one by one: moments, durations, tags, ids. Pure; knows no search.

What cannot be read, is repeated or not known raises an error that names the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec

from contracts.errors import InvalidValue, UnknownParameter, UnsupportedParameter, clip

REPEATED: Final = frozenset({"tags", "tag", "traceID"})
UNSUPPORTED: Final = frozenset({"query.filter"})

_NS_OF_UNIT: Final = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
}
_MICROSECONDS = re.compile("[\u00b5\u03bc]s")
"""The micro sign and the Greek letter."""
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ns|us|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9.]+)([a-z]+)")
_LOOKBACK = re.compile(r"([0-9]{1,6})([smhdw])")
_WHOLE = re.compile(r"[0-9]{1,18}")
_HEX_ID = re.compile(r"[0-9a-f]{1,32}")
_LOGFMT_PAIR = re.compile(r'\s*([^\s="]+)(?:=("(?:[^"\\]|\\.)*"|[^\s"]*))?(?=\s|\Z)')

Parameters = list[tuple[str, str]]
Given = dict[str, list[str]]
T = TypeVar("T")


def collect(parameters: Parameters, known: Collection[str]) -> Given:
    """Values by name; empty ones count as absent."""
    given: Given = {}
    for name, value in parameters:
        if name in UNSUPPORTED:
            raise UnsupportedParameter(f"'{name}' is not supported here; use query.attributes.", param=name)
        if name not in known:
            names = f"there are {', '.join(known)}" if known else "there are none"
            raise UnknownParameter(f"The parameter '{clip(name)}' is not known here; {names}.", param=name)
        if value:
            given.setdefault(name, []).append(value)
    for name, values in given.items():
        if len(values) > 1 and name not in REPEATED:
            raise InvalidValue(f"The parameter '{name}' is given {len(values)} times; give it once.", param=name)
    return given


def in_todays_spelling(parameters: Parameters, names: Collection[str]) -> Parameters:
    """query.search_depth, as older clients have it, is query.searchDepth, and so is query.num_traces."""
    today = {re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name): name for name in names}
    today["query.num_traces"] = "query.searchDepth"
    return [(today.get(name, name), value) for name, value in parameters]


def read(given: Given, name: str, read_text: Callable[[str, str], T]) -> T | None:
    """The parameter's value, or None where it is absent."""
    return read_text(given[name][0], name) if name in given else None


def read_text(text: str, param: str) -> str:
    """Anything."""
    return text


def read_trace_id(text: str, param: str) -> str:
    """32 hex digits; leading zeros may be missing."""
    if not _HEX_ID.fullmatch(text.lower()):
        raise wrong(param, text, "1 to 32 hex digits")
    return text.lower().zfill(32)


def read_whole(text: str, param: str) -> int:
    """A number without sign or fraction."""
    if not _WHOLE.fullmatch(text):
        raise wrong(param, text, "a whole number")
    return int(text)


def read_microseconds(text: str, param: str) -> int:
    """Microseconds since 1970, as nanoseconds."""
    return read_whole(text, param) * 1000


def read_moment(text: str, param: str) -> int:
    """RFC 3339, as nanoseconds since 1970; a plus that was not encoded arrives as a space."""
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise wrong(param, text, "a moment such as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise wrong(param, text, "a moment with its zone, such as 2026-01-31T12:00:00Z")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def read_duration(text: str, param: str) -> int:
    """Such as 1.5s, 100ms or 1m30s, in nanoseconds."""
    compact = _MICROSECONDS.sub("us", text.replace(" ", ""))
    if not _DURATION.fullmatch(compact):
        raise wrong(param, text, "a duration such as 1.2s, 100ms or 500us")
    return sum(round(float(number) * _NS_OF_UNIT[unit]) for number, unit in _DURATION_PART.findall(compact))


def read_lookback(text: str, param: str) -> int | None:
    """Such as 1h or 2d, in nanoseconds; None for 'custom', which says that start and end are given."""
    if text == "custom":
        return None
    match = _LOOKBACK.fullmatch(text)
    if match is None:
        raise wrong(param, text, "custom, or a span of time such as 15m, 1h or 2d")
    return int(match[1]) * _NS_OF_UNIT[match[2]]


def read_bool(text: str, param: str) -> bool:
    """As Go reads it, nearly."""
    if text.lower() not in ("true", "false", "1", "0"):
        raise wrong(param, text, "true or false")
    return text.lower() in ("true", "1")


def read_tags(text: str, param: str) -> dict[str, str]:
    """A JSON object, or logfmt: `error=true http.method="GET"`."""
    return _read_json(text, param) if text.lstrip().startswith("{") else _read_logfmt(text, param)


def read_pair(text: str, param: str) -> dict[str, str]:
    """One tag as `key:value`."""
    name, colon, value = text.partition(":")
    if not colon or not name:
        raise wrong(param, text, "the form key:value")
    return {name: value}


def tag_text(value: object) -> str:
    """A tag's value as a person types it into the search form."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def wrong(param: str, text: str, needed: str) -> InvalidValue:
    """The error of a value that cannot be read."""
    return InvalidValue(f"The parameter '{param}' is '{clip(text)}', but needs {needed}.", param=param)


def _read_json(text: str, param: str) -> dict[str, str]:
    try:
        tags: Mapping[str, bool | int | float | str] = msgspec.json.decode(
            text, type=dict[str, bool | int | float | str]
        )
    except (msgspec.DecodeError, UnicodeError):
        raise wrong(param, text, 'a JSON object of texts, such as {"error":"true"}') from None
    return {name: tag_text(value) for name, value in tags.items()}


def _read_logfmt(text: str, param: str) -> dict[str, str]:
    """A key alone is true."""
    tags: dict[str, str] = {}
    position = 0
    while text[position:].strip():
        match = _LOGFMT_PAIR.match(text, position)
        if match is None:
            raise wrong(param, text, 'pairs such as error=true http.method="GET"')
        value = "true" if match[2] is None else match[2]
        tags[match[1]] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        position = match.end()
    return tags
