"""/v1/conversations: make, list, search, read, rename, delete, export and import; a key sees its own only.

Another key's conversation is a 404 for everybody, keys with the scope 'admin' included: what people said is not an
administrator's business. Continuing one is POST /v1/chat/completions with `conversation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response, delete, get, patch, post
from litestar.params import FromPath

from contracts.conversations import (
    ChangeConversation,
    ConversationDeleted,
    ConversationFile,
    CreateConversation,
)
from contracts.errors import InvalidValue, clip
from contracts.settings import ServerSettings
from service.api_keys import ApiKey
from service.clocks import unix_ms
from service.conversations.access import Conversations, OpenConversations
from service.conversations.exchange import encode_file, read_file, to_file
from service.conversations.texts import check_kept, check_title
from service.engine_provider import EngineProvider
from service.routes.body import BodyDecoder

MAX_LIMIT: Final = 100
DEFAULT_LIMIT: Final = 20
MAX_SEARCH_LEN: Final = 200

_CREATE: Final = BodyDecoder(CreateConversation)
_CHANGE: Final = BodyDecoder(ChangeConversation)
_FILE: Final = BodyDecoder(ConversationFile)
_HEADERS: Final = {"cache-control": "no-store"}


@post("/v1/conversations", status_code=200)
async def create_conversation(request: Request[Any, Any, Any]) -> Response[bytes]:
    """An empty conversation."""
    received = await _CREATE.receive(request, _provider(request).settings)
    _check(received.body)
    opened = await open_conversations(request)
    wanted = with_turn_limit(received.body, _provider(request).settings)
    return _reply(await opened.store.create(owner_of(request), wanted), received.reply_headers)


@get("/v1/conversations")
async def list_conversations(request: Request[Any, Any, Any]) -> Response[bytes]:
    """One page, the conversation changed last first; `q` searches titles and messages."""
    wanted = read_query(list(request.query_params.multi_items()))
    opened = await open_conversations(request)
    from service.conversations.store import ConversationQuery

    found = await opened.store.find(owner_of(request), msgspec.convert(wanted, ConversationQuery))
    return _send(await asyncio.to_thread(msgspec.json.encode, found))


@post("/v1/conversations/import", status_code=200)
async def import_conversation(request: Request[Any, Any, Any]) -> Response[bytes]:
    """A new conversation from a saved one; its ids are new."""
    received = await _FILE.receive(request, _provider(request).settings)
    imported = await asyncio.to_thread(read_file, received.body, unix_ms())
    opened = await open_conversations(request)
    return _reply(await opened.store.restore(owner_of(request), imported), received.reply_headers)


@get("/v1/conversations/{conversation_id:str}")
async def retrieve_conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> Response[bytes]:
    """One, with all its messages."""
    opened = await open_conversations(request)
    found = await opened.store.read(owner_of(request), conversation_id)
    # Up to 4 MiB of text are milliseconds of encoding.
    return _send(await asyncio.to_thread(msgspec.json.encode, found))


@patch("/v1/conversations/{conversation_id:str}")
async def change_conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> Response[bytes]:
    """Rename it, or change its system prompt, model or options."""
    received = await _CHANGE.receive(request, _provider(request).settings)
    _check(received.body)
    opened = await open_conversations(request)
    changed = await opened.store.change(owner_of(request), conversation_id, received.body)
    return _reply(changed, received.reply_headers)


@delete("/v1/conversations/{conversation_id:str}", status_code=200)
async def delete_conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> Response[bytes]:
    """Remove it with all its messages."""
    opened = await open_conversations(request)
    await opened.store.delete(owner_of(request), conversation_id)
    return _reply(ConversationDeleted(id=conversation_id))


@get("/v1/conversations/{conversation_id:str}/export")
async def export_conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> Response[bytes]:
    """The file that import takes."""
    opened = await open_conversations(request)
    found = await opened.store.read(owner_of(request), conversation_id)
    body = await asyncio.to_thread(lambda: encode_file(to_file(found)))
    return _send(body, [(b"content-disposition", f'attachment; filename="{found.id}.json"'.encode())])


@delete("/v1/conversations/{conversation_id:str}/messages/{message_id:str}", status_code=200)
async def cut_conversation(
    request: Request[Any, Any, Any], conversation_id: FromPath[str], message_id: FromPath[str]
) -> Response[bytes]:
    """Remove a message and all after it, once no reply is under way.

    Without its reply a message can be posted again and is answered anew; without the message, so can another.
    """
    opened = await open_conversations(request)
    claim, _ = await opened.locks.acquire(owner_of(request), conversation_id)
    try:
        cut = await opened.turns.cut(claim, message_id)
    finally:
        await asyncio.shield(asyncio.create_task(opened.give_back(claim)))
    return _reply(cut)


def owner_of(request: Request[Any, Any, Any]) -> str:
    """Whose conversations these are: the label of the key, or nothing where the server has no keys."""
    api_key: ApiKey = request.scope["state"]["api_key"]
    return api_key.label


def with_turn_limit(wanted: CreateConversation, settings: ServerSettings) -> CreateConversation:
    """With the server's limit of turns where it names none."""
    if wanted.max_turns is not None:
        return wanted
    return msgspec.structs.replace(wanted, max_turns=settings.max_conversation_length)


async def open_conversations(request: Request[Any, Any, Any]) -> OpenConversations:
    """Raises ConversationsOff."""
    conversations: Conversations = request.app.state["conversations"]
    return await conversations.open()


def read_query(parameters: list[tuple[str, str]]) -> dict[str, Any]:
    """What `?q=text&limit=5&after=conv_...` asks for; raises InvalidValue that names the parameter."""
    wanted: dict[str, Any] = {"limit": DEFAULT_LIMIT}
    for name, value in parameters:
        if name == "limit":
            wanted["limit"] = _read_limit(value)
        elif name == "after":
            wanted["after"] = check_kept(value, "after")
        elif name == "q":
            wanted["text"] = _read_text(value)
        else:
            raise InvalidValue(
                f"The parameter '{clip(name)}' is not known here; there are q, limit and after.", param=name
            )
    return wanted


def _read_limit(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 3 and 1 <= int(value) <= MAX_LIMIT):
        raise InvalidValue(f"The limit is '{clip(value)}', but needs a number from 1 to {MAX_LIMIT}.", param="limit")
    return int(value)


def _read_text(value: str) -> str:
    if not 1 <= len(value) <= MAX_SEARCH_LEN:
        raise InvalidValue(f"'q' has {len(value)} characters, but needs 1 to {MAX_SEARCH_LEN}.", param="q")
    return check_kept(value, "q")


def _check(body: CreateConversation | ChangeConversation) -> None:
    """What the types of the fields do not say."""
    if isinstance(body.title, str):
        check_title(body.title)
    if isinstance(body.system_prompt, str):
        check_kept(body.system_prompt, "system_prompt")
    if isinstance(body.model, str):
        check_kept(body.model, "model")


def _provider(request: Request[Any, Any, Any]) -> EngineProvider:
    provider: EngineProvider = request.app.state["provider"]
    return provider


def _reply(content: msgspec.Struct, extra_headers: Sequence[tuple[bytes, bytes]] = ()) -> Response[bytes]:
    return _send(msgspec.json.encode(content), extra_headers)


def _send(body: bytes, extra_headers: Sequence[tuple[bytes, bytes]] = ()) -> Response[bytes]:
    more = {name.decode(): value.decode() for name, value in extra_headers}
    return Response(body, media_type=MediaType.JSON, headers=_HEADERS | more)


HANDLERS = (
    create_conversation,
    list_conversations,
    import_conversation,
    retrieve_conversation,
    change_conversation,
    delete_conversation,
    export_conversation,
    cut_conversation,
)
