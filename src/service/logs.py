"""Log lines: events of Quire and of the libraries under it, as JSON lines or as coloured lines on a terminal.

Owns the format and nothing else; no event carries prompt or output text. Every event is one line whatever its values
hold: JSON escapes control characters, the console renderer gets them escaped.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import BinaryIO, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from contracts.settings import ServerSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTROL_IN_TRACEBACK = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FIRST_KEYS = ("timestamp", "level", "event")
_EXPECTED_FOREIGN = ("Embedded server is experimental!",)


def configure_logging(settings: ServerSettings, stream: TextIO | None = None) -> None:
    """Send structlog and stdlib logging to `stream` (standard error) in the chosen format, from the chosen level up.

    Lines of libraries appear from warning up, or all of them at level debug.
    """
    target = stream if stream is not None else sys.stderr
    level = _LEVELS[settings.log_level]
    is_json = is_json_wanted(settings.log_format, target)
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=is_json, key="timestamp"),
    ]
    structlog.configure(
        processors=[*common, *_render(is_json, target, is_text_wanted=False)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(_binary(target))
        if is_json
        else structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.addFilter(_is_unexpected)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_render(is_json, target, is_text_wanted=True),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    logging.captureWarnings(True)


def is_json_wanted(log_format: Literal["auto", "console", "json"], stream: TextIO) -> bool:
    """Whether lines are JSON: as asked for, or wherever nobody reads along on a terminal."""
    return log_format == "json" or (log_format == "auto" and not stream.isatty())


def encode_json_line(event: EventDict) -> bytes:
    """One event as JSON without a line break, time and name first; what JSON does not know appears as its repr."""
    try:
        ordered = {**{key: event[key] for key in _FIRST_KEYS if key in event}, **event}
        return msgspec.json.encode(ordered, enc_hook=repr)
    except (UnicodeEncodeError, TypeError, ValueError, RecursionError):
        return msgspec.json.encode({_escape(str(key)): _escape(repr(value)) for key, value in event.items()})


def escape_control_characters(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Make line breaks, terminal sequences and lone surrogates in keys and values visible instead of active.

    Tracebacks keep their line breaks.
    """
    return {
        _escape(str(key)): _escape(value, is_traceback=key == "exception") if isinstance(value, str) else _tame(value)
        for key, value in event.items()
    }


def _render(is_json: bool, stream: TextIO, *, is_text_wanted: bool) -> list[Processor]:
    """Processors that end the chain: bytes for the native logger, text for the stdlib formatter."""
    if not is_json:
        return [
            structlog.processors.format_exc_info,
            escape_control_characters,
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=30),
        ]
    return [structlog.processors.format_exc_info, _render_json_text if is_text_wanted else _render_json_bytes]


def _render_json_bytes(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return encode_json_line(event)


def _render_json_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return encode_json_line(event).decode()


def _tame(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else _escape(repr(value))


def _escape(text: str, *, is_traceback: bool = False) -> str:
    pattern = _CONTROL_IN_TRACEBACK if is_traceback else _CONTROL
    return pattern.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def _is_unexpected(record: logging.LogRecord) -> bool:
    """False for what granian says at every start of its embedded server."""
    return record.msg not in _EXPECTED_FOREIGN


def _binary(stream: TextIO) -> BinaryIO:
    return stream.buffer
