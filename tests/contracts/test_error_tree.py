"""The error tree fixes status, type and code, and never grows with what a caller sent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contracts import errors
from contracts.errors import MAX_MESSAGE_LEN, OverloadError, QuireError, RequestError, StartupError, clip


def _subclasses(kind: type[QuireError]) -> Iterator[type[QuireError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _subclasses(child)


OURS = [kind for kind in _subclasses(QuireError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", OURS)
def test_every_error_has_a_status_and_a_text_code_or_none(kind: type[QuireError]) -> None:
    """OpenAI's clients need `code` to be a string or null, and statuses choose their exception class."""
    assert 400 <= kind.status < 600
    assert kind.code is None or isinstance(kind.code, str)


@pytest.mark.parametrize("kind", [kind for kind in OURS if issubclass(kind, RequestError)])
def test_a_caller_is_told_not_to_repeat_a_bad_request(kind: type[QuireError]) -> None:
    """Sending the same again gives the same answer."""
    assert kind.should_retry is False
    assert kind.status < 500


@pytest.mark.parametrize("kind", [kind for kind in OURS if issubclass(kind, OverloadError)])
def test_overload_invites_to_come_back(kind: type[QuireError]) -> None:
    """The same request works later."""
    assert kind.should_retry is True


def test_startup_errors_leave_with_exit_codes_of_their_own() -> None:
    """A script can tell why the server did not start."""
    codes = [kind.exit_code for kind in OURS if issubclass(kind, StartupError)]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes


def test_messages_are_cut() -> None:
    """An error is never larger than its cause."""
    assert len(QuireError("x" * 10**6).message) == MAX_MESSAGE_LEN
    assert clip("short") == "short"
    assert clip("y" * 500, 10) == "y" * 9 + "…"
