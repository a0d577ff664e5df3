"""Reads and decodes a JSON body strictly into its struct; every failure is an error that names the field.

One typed pass, no coercion: "2" is not 2. Knows the structs by type only, nothing of their meaning.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec
from litestar import Request

from contracts.errors import BodyTooLarge, InvalidRequest, InvalidValue, MissingParameter, UnknownParameter, clip
from contracts.settings import ServerSettings
from service.http_errors import BadFraming, ClientGone, RequestTimeout, UnsupportedMediaType
from service.refusals import unknown_field_error, unknown_fields
from service.routes.body_shape import check_shape

NUM_FREE_CHUNKS = 4096
MIN_MEAN_CHUNK_BYTES = 64
"""Every chunk costs 18 us of one core, however small (two shared x86 cores, November 2026): beyond the free ones they
must be of this size on average, which bounds a body of 8 MiB to 2.4 s."""
MAX_INLINE_BODY_BYTES = 64 * 1024
"""Longer bodies are counted and decoded in a thread, so that the event loop goes on between the passes."""
MAX_QUOTED_BODY_BYTES = 64 * 1024
MAX_UNKNOWN_FIELDS = 64
MAX_IGNORED_HEADER_LEN = 2048

# What a page of another site can send without the browser asking first.
_FORM_TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
_MISSING_FIELD = "Object missing required field `"
_UNKNOWN_FIELD = "Object contains unknown field `"

T = TypeVar("T", bound=msgspec.Struct)


async def read_body(request: Request[Any, Any, Any], settings: ServerSettings) -> bytes:
    """The whole body of what is not declared as a form."""
    content_type = request.headers.get("content-type", "").lower()
    if content_type.startswith(_FORM_TYPES):
        raise UnsupportedMediaType(
            f"content-type is '{clip(content_type)}', but the body must be JSON; send 'content-type: application/json'."
        )
    return await read_bytes(request, settings)


async def read_bytes(request: Request[Any, Any, Any], settings: ServerSettings) -> bytes:
    """The whole body, whatever it is; refuses by content-length before reading, by size while reading, and by time."""
    max_bytes, timeout_s = settings.max_body_bytes, settings.body_timeout_s
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            return await _receive_all(request, max_bytes)
    except TimeoutError:
        raise RequestTimeout(f"The body was not complete after {timeout_s:g} s; send it faster.") from None


async def _receive_all(request: Request[Any, Any, Any], max_bytes: int) -> bytes:
    """One buffer whatever the chunks are: a list of tiny ones would hold many times their bytes."""
    first, rest = b"", bytearray()
    for num_chunks in itertools.count(1):
        message = await request.receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message.get("body", b"")
        size = len(first) + len(rest) + len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if first:
            rest += chunk
        else:
            first = chunk
        if not message.get("more_body", False):
            break
        if num_chunks > NUM_FREE_CHUNKS and size < num_chunks * MIN_MEAN_CHUNK_BYTES:
            raise BadFraming(f"The body comes in pieces of under {MIN_MEAN_CHUNK_BYTES} bytes; send larger ones.")
    return first + rest if rest else first


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than {max_bytes} bytes; send less, or raise --max-body-bytes.")


def has_body(request: Request[Any, Any, Any]) -> bool:
    """The request declares one; an empty one counts as none."""
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


class ReceivedBody(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A decoded body, and what the reply says about it."""

    body: T
    num_bytes: int
    reply_headers: list[tuple[bytes, bytes]]


class BodyDecoder(Generic[T]):
    """Decodes bodies of one type; made once, used for every request of a route."""

    def __init__(self, struct_type: type[T]) -> None:
        self._struct_type = struct_type
        self._decoder = msgspec.json.Decoder(struct_type)
        self._names_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._known_names = frozenset(struct_type.__struct_encode_fields__)

    async def receive(self, request: Request[Any, Any, Any], settings: ServerSettings) -> ReceivedBody[T]:
        """Read, decode, and refuse or report the fields that nobody knows."""
        return await self.receive_bytes(await read_body(request, settings), settings)

    async def receive_bytes(self, data: bytes, settings: ServerSettings) -> ReceivedBody[T]:
        """The same of a body that has been read."""
        if len(data) > MAX_INLINE_BODY_BYTES:
            body, num_unknown = await asyncio.to_thread(self.decode, data)
        else:
            body, num_unknown = self.decode(data)
        if num_unknown > MAX_UNKNOWN_FIELDS:
            raise UnknownParameter(f"The body has {num_unknown} fields that are not known; send only known ones.")
        unknown = unknown_fields(data, self._struct_type) if num_unknown else []
        if unknown and settings.unknown_fields == "refuse":
            raise unknown_field_error(unknown, self._struct_type)
        return ReceivedBody(body=body, num_bytes=len(data), reply_headers=_ignored_fields_header(unknown))

    def decode(self, body: bytes) -> tuple[T, int]:
        """The struct, and the number of fields in the body that it lacks.

        Raises InvalidRequest, InvalidValue, MissingParameter or UnknownParameter.
        """
        if not body.strip(b" \t\r\n"):
            raise InvalidRequest("The request body is empty; send a JSON object.")
        check_shape(body)
        try:
            return self._decoder.decode(body), len(self._names_decoder.decode(body).keys() - self._known_names)
        except msgspec.ValidationError as error:
            raise _explain(str(error), body) from None
        except UnicodeDecodeError:
            raise InvalidRequest("The request body is not valid UTF-8.") from None
        except RecursionError:
            raise InvalidRequest("The request body is nested too deeply.") from None
        except (msgspec.DecodeError, ValueError) as error:
            raise InvalidRequest(f"The request body is not valid JSON: {clip(str(error))}.") from None


def _ignored_fields_header(names: list[str]) -> list[tuple[bytes, bytes]]:
    if not names:
        return []
    listed = ", ".join(quote(clip(name, 60), safe="") for name in names)
    return [(b"x-quire-ignored-fields", listed[:MAX_IGNORED_HEADER_LEN].encode())]


def _explain(text: str, body: bytes) -> InvalidRequest:
    """Name the field and quote its value: msgspec ends its text with ` - at `$.path``, its only structured part."""
    detail, separator, path = text.rpartition(" - at `$")
    if not separator:
        detail, path = text, ""
    path = path.removesuffix("`").partition("[...]")[0].removeprefix(".").removeprefix("~").removesuffix(".")
    if detail.startswith(_MISSING_FIELD):
        name = _join(path, detail[len(_MISSING_FIELD) : -1])
        return MissingParameter(f"`{clip(name)}` is required but missing; add it.", param=name)
    if detail.startswith(_UNKNOWN_FIELD):
        name = _join(path, detail[len(_UNKNOWN_FIELD) : -1])
        return UnknownParameter(f"`{clip(name)}` is not a known field; remove it.", param=name)
    detail = detail[:1].lower() + detail[1:]
    if not path:
        return InvalidRequest(f"The request body is not usable: {clip(detail)}.")
    return InvalidValue(f"`{clip(path)}`{_quote_value(body, path)} is refused: {clip(detail)}.", param=path)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _quote_value(body: bytes, path: str) -> str:
    """` = <value>` for a short scalar at the path, else nothing; runs on the error path only."""
    if len(body) > MAX_QUOTED_BODY_BYTES:
        return ""
    try:
        value: Any = msgspec.json.decode(body)
        for step in path.replace("[", ".[").split("."):
            value = value[int(step[1:-1])] if step.startswith("[") else value[step]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""
    return f" = {clip(repr(value), 60)}" if isinstance(value, (int, float, str, bool)) else ""
