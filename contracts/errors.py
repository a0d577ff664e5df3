"""Every error that Quire reports, as one tree; each class fixes its HTTP status, OpenAI `type` and `code`.

QuireError
├── RequestError                    the caller can mend the request
│   ├── InvalidRequest              400 invalid_request_error
│   │   ├── InvalidValue            400 invalid_value
│   │   ├── MissingParameter        400 missing_required_parameter
│   │   ├── UnsupportedParameter    400 unsupported_parameter
│   │   ├── UnknownParameter        400 unknown_parameter
│   │   └── ContextLengthExceeded   400 context_length_exceeded
│   ├── Unauthenticated             401 invalid_api_key
│   ├── InsufficientScope           403 insufficient_scope
│   ├── ModelNotFound               404 model_not_found
│   ├── RequestNotFound             404 not_found
│   ├── RequestCancelled            409 request_cancelled
│   ├── NotResumable                409 not_resumable
│   ├── ClientNotConnected          404 client_not_connected
│   ├── ClientBusy                  409 client_busy
│   ├── ClientReplaced              409 client_replaced
│   ├── EventsGone                  410 events_gone
│   ├── ConversationNotFound        404 conversation_not_found
│   ├── ConversationsOff            404 conversations_off
│   ├── ConversationFull            400 conversation_full
│   └── BodyTooLarge                413 request_too_large
├── OverloadError                   the same request works later; carries retry_after_s
│   ├── RateLimited                 429 rate_limit_exceeded
│   ├── QueueFull                   503 queue_full
│   ├── DeadlineExceeded            503 deadline_exceeded
│   ├── ConversationBusy            409 conversation_busy
│   ├── ConversationsUnavailable    503 conversations_unavailable
│   │   └── StorageFull             507 storage_full
│   └── ShuttingDown                503 shutting_down
├── EngineError                     500 engine_error: this request failed in the engine, the server goes on
│   ├── EngineDead                  503 engine_dead
│   └── ModelLoadFailed             503 model_load_failed
└── StartupError                    the process cannot start; carries an exit code
    ├── SettingsError               2
    ├── ModelNotUsable              3 missing, unreadable or unsupported model
    ├── NotEnoughMemory             4
    └── AddressInUse                5
"""

from __future__ import annotations

MAX_MESSAGE_LEN = 1000


def clip(text: str, max_len: int = 120) -> str:
    """Shorten text that a caller sent before it is quoted back, so that an error is never larger than its cause."""
    return text if len(text) <= max_len else text[: max_len - 1] + "…"


class QuireError(Exception):
    """The root; `message` says the value, the limit and the remedy in words for the caller."""

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    should_retry: bool | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(clip(message, MAX_MESSAGE_LEN))
        self.message = clip(message, MAX_MESSAGE_LEN)
        self.param = param
        self.retry_after_s = retry_after_s


class RequestError(QuireError):
    """The caller can mend the request; sending it again unchanged gives the same answer."""

    status = 400
    type = "invalid_request_error"
    should_retry = False


class InvalidRequest(RequestError):
    """The body cannot be read as a request at all."""


class InvalidValue(InvalidRequest):
    """A field is present but its value is outside what it allows."""

    code = "invalid_value"


class MissingParameter(InvalidRequest):
    """A required field is absent."""

    code = "missing_required_parameter"


class UnsupportedParameter(InvalidRequest):
    """A field of the OpenAI API that this server does not implement, refused rather than ignored."""

    code = "unsupported_parameter"


class UnknownParameter(InvalidRequest):
    """A field that neither OpenAI's API nor Quire knows."""

    code = "unknown_parameter"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and wanted output together are longer than the model's window or the KV cache."""

    code = "context_length_exceeded"


class Unauthenticated(RequestError):
    """The request carries no key, or one that is not known."""

    status = 401
    code = "invalid_api_key"


class InsufficientScope(RequestError):
    """The key is known but may not do this."""

    status = 403
    code = "insufficient_scope"


class ModelNotFound(RequestError):
    """No model of that name is served here."""

    status = 404
    code = "model_not_found"


class RequestNotFound(RequestError):
    """The engine remembers no request of that id that the caller may see."""

    status = 404
    code = "not_found"


class RequestCancelled(RequestError):
    """Somebody ended the request while it waited or ran."""

    status = 409
    code = "request_cancelled"


class NotResumable(RequestError):
    """The request is known, but its events cannot be made again."""

    status = 409
    code = "not_resumable"


class ClientNotConnected(RequestError):
    """Nobody of this key listens under that client id."""

    status = 404
    code = "client_not_connected"


class ClientBusy(RequestError):
    """Whoever listens under the client id has a prompt already: each connection takes one."""

    status = 409
    code = "client_busy"


class ClientReplaced(RequestError):
    """A newer connection listens under the same client id."""

    status = 409
    code = "client_replaced"


class EventsGone(RequestError):
    """The request is known, but its events have been given up to make room for those of others."""

    status = 410
    code = "events_gone"


class ConversationNotFound(RequestError):
    """No conversation of this key has that id."""

    status = 404
    code = "conversation_not_found"


class ConversationsOff(RequestError):
    """This server keeps no conversations."""

    status = 404
    code = "conversations_off"


class ConversationFull(RequestError):
    """The conversation holds as many messages, or as much text, as one may."""

    code = "conversation_full"


class BodyTooLarge(RequestError):
    """The request body is over the size limit."""

    status = 413
    code = "request_too_large"


class OverloadError(QuireError):
    """The request is fine and can be sent again after `retry_after_s` seconds."""

    status = 503
    type = "overloaded_error"
    should_retry = True


class RateLimited(OverloadError):
    """The key has used up its requests or tokens per minute, or runs as many requests as it may."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class QueueFull(OverloadError):
    """The waiting queue holds as many requests or tokens as it may."""

    code = "queue_full"


class NoRoom(QueueFull):
    """The waiting queue cannot take even the smallest request."""


class DeadlineExceeded(OverloadError):
    """The request waited or ran longer than its deadline."""

    code = "deadline_exceeded"


class ConversationBusy(OverloadError):
    """Another request writes to the conversation, and did not end while this one waited."""

    status = 409
    type = "conflict_error"
    code = "conversation_busy"


class ConversationsUnavailable(OverloadError):
    """The database of the conversations does not answer; requests without a conversation are served."""

    code = "conversations_unavailable"


class StorageFull(ConversationsUnavailable):
    """The disk of the conversations has no room; what there is can be read."""

    status = 507
    code = "storage_full"


class ShuttingDown(OverloadError):
    """The server is draining and takes no new requests."""

    code = "shutting_down"


class EngineError(QuireError):
    """This request failed inside the engine; the server and the other requests go on."""

    code = "engine_error"
    should_retry = False


class EngineDead(EngineError):
    """The engine stopped and cannot serve until it is restarted."""

    status = 503
    code = "engine_dead"
    should_retry = True


class ModelLoadFailed(EngineError):
    """A declared model could not be loaded; what was loaded before still is."""

    status = 503
    code = "model_load_failed"


class StartupError(QuireError):
    """The process cannot start; the command prints the message and leaves with `exit_code`."""

    exit_code: int = 1


class SettingsError(StartupError):
    """A flag, variable or file holds an unknown name or an impossible value."""

    exit_code = 2


class ServerUnreachable(StartupError):
    """A command that asks a running server got no usable answer."""

    exit_code = 6


class ModelNotUsable(StartupError):
    """The model is missing, unreadable, or of a family that would be served wrongly."""

    exit_code = 3


class NotEnoughMemory(StartupError):
    """Weights or the smallest useful KV cache do not fit."""

    exit_code = 4


class AddressInUse(StartupError):
    """Another process listens on the host and port."""

    exit_code = 5
