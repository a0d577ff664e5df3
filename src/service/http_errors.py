"""Errors that only HTTP knows, beside those of contracts.errors; free of litestar: every process may name them."""

from __future__ import annotations

from contracts.errors import InvalidRequest, QuireError


class NotFound(InvalidRequest):
    """No route has this path."""

    status = 404
    code = "not_found"


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not for this method."""

    status = 405
    code = "method_not_allowed"


class UnsupportedMediaType(InvalidRequest):
    """The body is declared to be something other than JSON."""

    status = 415
    code = "unsupported_media_type"


class SchemaError(InvalidRequest):
    """What is InvalidRequest elsewhere, on the routes of older services, whose clients know it as 422."""

    status = 422
    code: str | None = "invalid_value"

    @classmethod
    def of(cls, error: QuireError) -> SchemaError:
        """The same words and the same code."""
        renamed = cls(error.message, param=error.param)
        renamed.code = error.code
        return renamed


class RequestTimeout(InvalidRequest):
    """The body did not arrive in time."""

    status = 408
    code = "request_timeout"


class HeadersTooLarge(InvalidRequest):
    """More or longer headers than the server reads."""

    status = 431
    code = "headers_too_large"


class UriTooLong(InvalidRequest):
    """The path and query are longer than the server reads."""

    status = 414
    code = "uri_too_long"


class BadFraming(InvalidRequest):
    """The body is cut up in a way that servers read differently, or that costs more than it carries."""

    code = "bad_framing"


class ForbiddenOrigin(InvalidRequest):
    """A page of another site, or a name that is not this server's, sent the request."""

    status = 403
    code = "forbidden_origin"


class InternalError(QuireError):
    """Anything unforeseen; the cause is in the log only."""

    code = "internal_error"
    should_retry = False


class ClientGone(Exception):
    """The request broke off before it was complete: its client left, or its chunks are malformed; the server does not
    tell which."""
