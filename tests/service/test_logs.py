"""Every event is one line, in JSON or for people; nothing that a client sends can break out of its line."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from contracts.settings import ServerSettings
from service.logs import configure_logging, encode_json_line

HOSTILE = 'a\r\nb\x1b[31m{"event":"forged"}\u2028c\ud800'


class Stream(io.TextIOWrapper):
    """Standard error as a program has it: text over bytes, a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    @property
    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Put structlog and the root logger back, so that no other test sees this one's streams."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def configured(log_format: Literal["auto", "console", "json"] = "json", is_terminal: bool = False) -> Stream:
    stream = Stream(is_terminal)
    configure_logging(ServerSettings(log_format=log_format), stream)
    return stream


def test_event_is_one_json_line_with_its_context() -> None:
    stream = configured()
    structlog.contextvars.bind_contextvars(request_id="r1")
    structlog.get_logger().info("request_finished", total_ms=1.5)
    event = json.loads(stream.text)
    assert (event["event"], event["request_id"], event["total_ms"], event["level"]) == (
        "request_finished",
        "r1",
        1.5,
        "info",
    )


def test_time_level_and_name_come_first() -> None:
    stream = configured()
    structlog.get_logger().info("request_finished", path="/")
    assert list(json.loads(stream.text)) == ["timestamp", "level", "event", "path"]


def test_library_lines_come_in_the_same_form() -> None:
    stream = configured()
    structlog.contextvars.bind_contextvars(request_id="r1")
    logging.getLogger("some.library").warning("careful: %s", "x")
    event = json.loads(stream.text)
    assert (event["event"], event["logger"], event["request_id"]) == ("careful: x", "some.library", "r1")


def test_python_warnings_become_log_lines() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old thing", DeprecationWarning, stacklevel=1)
    assert "old thing" in json.loads(stream.text)["event"]


def test_chatter_of_libraries_and_of_granian_is_left_out() -> None:
    stream = configured()
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("_granian").warning("Embedded server is experimental!")
    structlog.get_logger().debug("detail")
    assert stream.text == ""


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "is_json"),
    [("auto", False, True), ("auto", True, False), ("console", False, False), ("json", True, True)],
)
def test_format_follows_the_setting_and_the_terminal(
    log_format: Literal["auto", "console", "json"], is_terminal: bool, is_json: bool
) -> None:
    stream = configured(log_format, is_terminal)
    structlog.get_logger().info("request_finished")
    assert stream.text.startswith("{") is is_json


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("key", ["path", "bad\nkey"])
def test_hostile_value_stays_on_its_line(log_format: Literal["json", "console"], key: str) -> None:
    stream = configured(log_format)
    structlog.get_logger().info(HOSTILE, **{key: HOSTILE, "nested": {"inner": HOSTILE}})
    assert len(stream.text.splitlines()) == 1
    assert "\x1b[31m" not in stream.text


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_hostile_library_line_stays_on_its_line(log_format: Literal["json", "console"]) -> None:
    stream = configured(log_format)
    logging.getLogger("some.library").warning("got %s", HOSTILE)
    assert len(stream.text.splitlines()) == 1
    assert "\x1b[31m" not in stream.text


def test_exception_is_within_its_json_line() -> None:
    stream = configured()
    try:
        raise ValueError("inner")
    except ValueError:
        structlog.get_logger().exception("step_failed")
    assert "ValueError: inner" in json.loads(stream.text)["exception"]


def test_value_that_json_does_not_know_is_written_as_its_repr() -> None:
    assert json.loads(encode_json_line({"event": "x", "value": 1j}))["value"] == "1j"
