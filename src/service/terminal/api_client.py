"""The one client of the server's HTTP API that all terminal commands share.

Turns every failure into a QuireError that says its cause and the remedy. Knows paths and JSON, not what they mean, and
no terminal. httpx is imported by the first client, so that help and mistyped options answer at once.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from contracts.errors import QuireError, ServerUnreachable, SettingsError, clip
from service.terminal.event_stream import ServerEvent, read_events

if TYPE_CHECKING:
    import httpx

DEFAULT_URL: Final = "http://127.0.0.1:8000"
URL_VARIABLE: Final = "OPENAI_BASE_URL"
KEY_VARIABLE: Final = "OPENAI_API_KEY"
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 600.0
"""A first request may wait while its model is loaded; a stream sends a comment every 15 seconds."""
_T = TypeVar("_T")


class ConnectionLost(ServerUnreachable):
    """The connection broke while a reply came."""


class RequestRefused(QuireError):
    """The server answered with an error; `status`, `type` and `code` are the server's."""

    def __init__(self, message: str, *, status: int, code: str | None, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.status = status
        self.code = code


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A whole reply, whatever its status."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class EventStream:
    """The events of one reply. Owner: the `with` of `ApiClient.stream`; leaving it ends the request at the server."""

    def __init__(self, events: Iterator[ServerEvent], headers: Mapping[str, str]) -> None:
        self._events = events
        self.headers = headers

    def __iter__(self) -> Iterator[ServerEvent]:
        """Until `[DONE]` or the end; raises RequestRefused for an error event, ConnectionLost."""
        for event in self._events:
            if event.data == "[DONE]":
                return
            if event.event == "error" or event.data.startswith('{"error"'):
                raise refusal_of(event.data.encode(), 500)
            yield event


class ApiClient:
    """Connections to one server. Use it as a context, or close it; threads may share it.

    Every method raises ServerUnreachable where nothing answers, or something that is no Quire server, and
    RequestRefused with the server's words for an error.
    """

    def __init__(
        self, base_url: str = DEFAULT_URL, api_key: str | None = None, read_timeout_s: float = READ_TIMEOUT_S
    ) -> None:
        """`base_url` with or without the /v1 that OpenAI's clients put there. Raises SettingsError."""
        import httpx

        self.url = root_of(base_url)
        self._client = httpx.Client(
            headers=_headers(api_key),
            timeout=httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None),
            trust_env=not is_loopback(self.url),  # a proxy cannot reach this machine's own addresses
            verify=ssl.create_default_context(),  # follows SSL_CERT_FILE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get_json(self, path: str, reply_type: type[_T], params: Mapping[str, str | int] | None = None) -> _T:
        """GET `path`, which begins with a slash below the root of the server: `/v1/models`."""
        return self._ask("GET", path, reply_type, params=params)

    def post_json(self, path: str, body: object, reply_type: type[_T], headers: Mapping[str, str] | None = None) -> _T:
        """POST `body`, a Struct or anything else that msgspec encodes."""
        return self._ask("POST", path, reply_type, body=body, headers=headers)

    def patch_json(self, path: str, body: object, reply_type: type[_T]) -> _T:
        """PATCH with `body`."""
        return self._ask("PATCH", path, reply_type, body=body)

    def delete(self, path: str, reply_type: type[_T]) -> _T:
        """DELETE `path`."""
        return self._ask("DELETE", path, reply_type)

    def get_text(self, path: str, params: Mapping[str, str | int] | None = None) -> str:
        """GET what is no JSON, such as `/metrics`."""
        with self._open("GET", path, params=params) as response:
            return response.read().decode("utf-8", "replace")

    def exchange(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Exchange:
        """The reply as it is: nothing is refused and nothing decoded. A body that is msgspec.Raw is sent as it is."""
        with self._open(method, path, body=body, headers=headers, is_checked=False) as response:
            return Exchange(status=response.status_code, headers=response.headers, content=response.read())

    @contextmanager
    def stream(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[EventStream]:
        """Open a stream of events by GET or POST."""
        sent = {"accept": "text/event-stream", **(headers or {})}
        with self._open(method, path, body=body, headers=sent) as response:
            yield EventStream(read_events(response.iter_bytes()), response.headers)

    def _ask(
        self,
        method: str,
        path: str,
        reply_type: type[_T],
        *,
        body: object = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _T:
        with self._open(method, path, body=body, params=params, headers=headers) as response:
            content = response.read()
        try:
            return msgspec.json.decode(content, type=reply_type)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:  # ValidationError is a DecodeError
            raise ServerUnreachable(
                f"{self.url} answers {method} {path} in another form than Quire ({clip(str(error))}). Is it a Quire "
                "server of this version? --base-url names another."
            ) from None

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        is_checked: bool = True,
    ) -> Iterator[httpx.Response]:
        """The reply, a successful one unless told otherwise, its body still to be read.

        Also what fails while the caller reads is translated.
        """
        import httpx

        sent = {"content-type": "application/json", **(headers or {})} if body is not None else headers
        content = None if body is None else msgspec.json.encode(body)
        has_head = False
        try:
            with self._client.stream(method, self.url + path, content=content, params=params, headers=sent) as response:
                has_head = True
                if is_checked and not response.is_success:
                    raise refusal_of(response.read(), response.status_code, response.headers.get("retry-after"))
                yield response
        except httpx.ConnectError as error:
            raise ServerUnreachable(
                f"Nothing answers at {self.url} ({error}). Start a server with `quire serve`, or name another with "
                "--base-url."
            ) from None
        except httpx.ConnectTimeout:
            raise ServerUnreachable(
                f"{self.url} took no connection within {CONNECT_TIMEOUT_S:g} s. Check --base-url and the network."
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            when = "while it answered" if has_head else "before it answered"
            raise ConnectionLost(
                f"The connection to {self.url} broke {when} ({error or type(error).__name__}). Has the server stopped?"
            ) from None


class _ErrorObject(msgspec.Struct):
    message: str
    code: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorObject
    status_code: int | None = None


def refusal_of(body: bytes, status: int, retry_after: str | None = None) -> RequestRefused:
    """The error that a reply's body, or an event's data, describes in OpenAI's form or any other."""
    retry_after_s = float(retry_after) if retry_after is not None and retry_after.isdigit() else None
    try:
        told = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        words = clip(" ".join(body.decode("utf-8", "replace").split()), 300)
        return RequestRefused(
            f"The server answers with status {status}: {words or 'no words'}", status=status, code=None
        )
    status = told.status_code or status
    message = told.error.message
    if status == 401:
        message += f" Put your key into the variable {KEY_VARIABLE}, or give --api-key."
    return RequestRefused(message, status=status, code=told.error.code, retry_after_s=retry_after_s)


def root_of(base_url: str) -> str:
    """The address without the /v1 behind it; http where it has no scheme. Raises SettingsError."""
    url = base_url.strip() if "://" in base_url else f"http://{base_url.strip()}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or parts.query or parts.fragment:
        raise SettingsError(
            f"--base-url (or {URL_VARIABLE}) is '{clip(base_url)}', but needs an address such as {DEFAULT_URL}."
        )
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _headers(api_key: str | None) -> dict[str, Any]:
    if not api_key:
        return {}
    if not (api_key.isascii() and api_key.isprintable()):
        raise SettingsError(f"The API key holds characters that no key has. Check {KEY_VARIABLE} or --api-key.")
    return {"authorization": f"Bearer {api_key}"}
