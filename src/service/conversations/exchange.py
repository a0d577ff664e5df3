"""Conversations to and from their one JSON file: what the API exports and imports, a terminal saves and a page loads.

A terminal's /save writes `encode_file(to_file(detail))` of what GET /v1/conversations/{id} answered, or the body of
.../export as it is; its /load posts the file to /v1/conversations/import and goes on with the id that comes back. The
page does the same with a download and a file field. Knows no database.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import msgspec

from contracts.conversations import (
    DEFAULT_MAX_TURNS,
    MAX_STORED_MESSAGES,
    MAX_SYSTEM_PROMPT_LEN,
    MAX_TEXT_BYTES,
    ConversationDetail,
    ConversationFile,
    FileMessage,
    GenerationDefaults,
)
from contracts.errors import InvalidValue
from service.conversations.texts import check_kept, clean_title, default_title

_MIN_MS, _MAX_MS = 0, 253_402_300_799_999
"""1970 to 9999."""


class ImportedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a file, checked."""

    role: str
    content: str
    turn: int
    created_ms: int
    model: str | None
    finish_reason: str | None
    error: str | None


class ImportedConversation(msgspec.Struct, frozen=True, kw_only=True):
    """A file, checked; its ids are not kept, so that no import overwrites anything."""

    title: str | None
    system_prompt: str | None
    model: str | None
    max_turns: int
    generation: GenerationDefaults | None
    created_ms: int
    updated_ms: int
    messages: list[ImportedMessage]


def to_file(conversation: ConversationDetail) -> ConversationFile:
    """The file of a conversation; its system prompt is the first message."""
    messages = [
        FileMessage(
            id=message.id,
            role=message.role,
            content=message.content,
            timestamp=iso_time(message.created_at),
            model=message.model,
            finish_reason=message.finish_reason,
            error=message.error,
        )
        for message in conversation.messages
    ]
    if conversation.system_prompt is not None:
        started = iso_time(conversation.created_at)
        messages.insert(0, FileMessage(role="system", content=conversation.system_prompt, timestamp=started))
    return ConversationFile(
        id=conversation.id,
        title=conversation.title,
        created_at=iso_time(conversation.created_at),
        updated_at=iso_time(conversation.updated_at),
        max_length=conversation.max_turns,
        model=conversation.model,
        generation=conversation.generation,
        messages=messages,
        message_count=count_by_role(messages),
    )


def encode_file(file: ConversationFile) -> bytes:
    """Indented JSON in UTF-8."""
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def read_file(file: ConversationFile, now_ms: int) -> ImportedConversation:
    """Check a file; raises InvalidValue that names the place. `now_ms` is the date of what has none."""
    if file.message_count is not None:
        _check_count(file)
    created_ms = _to_ms(file.created_at, "created_at", now_ms)
    system_prompt, messages = _split(file.messages)
    imported = list(_number_turns(messages, created_ms, first=len(file.messages) - len(messages)))
    if len(imported) > MAX_STORED_MESSAGES:
        raise InvalidValue(f"'messages' are more than {MAX_STORED_MESSAGES}. Remove some.", param="messages")
    num_bytes = sum(len(message.content.encode()) for message in imported)
    if num_bytes > MAX_TEXT_BYTES:
        raise InvalidValue(f"'messages' have {num_bytes} bytes of text, at most {MAX_TEXT_BYTES}.", param="messages")
    first_of_user = next((message.content for message in imported if message.role == "user"), "")
    title = clean_title(check_kept(file.title, "title")) if file.title is not None else None
    return ImportedConversation(
        title=title or default_title(first_of_user),
        system_prompt=system_prompt,
        model=None if file.model is None else check_kept(file.model, "model"),
        max_turns=file.max_length or DEFAULT_MAX_TURNS,
        generation=file.generation,
        created_ms=created_ms,
        updated_ms=_to_ms(file.updated_at, "updated_at", now_ms),
        messages=imported,
    )


def _split(messages: list[FileMessage]) -> tuple[str | None, list[FileMessage]]:
    """The system prompt, and the rest."""
    has_system = bool(messages) and messages[0].role == "system"
    rest = messages[1:] if has_system else messages
    for index, message in enumerate(rest, start=int(has_system)):
        if message.role == "system":
            raise InvalidValue(
                f"'messages[{index}].role' is system, but only the first message may be.",
                param=f"messages[{index}].role",
            )
    if not has_system:
        return None, rest
    system_prompt = check_kept(messages[0].content, "messages[0].content")
    if len(system_prompt) > MAX_SYSTEM_PROMPT_LEN:
        raise InvalidValue(
            f"'messages[0].content' has {len(system_prompt)} characters, a system prompt at most "
            f"{MAX_SYSTEM_PROMPT_LEN}.",
            param="messages[0].content",
        )
    return system_prompt, rest


def _number_turns(messages: list[FileMessage], default_ms: int, first: int) -> list[ImportedMessage]:
    """A message of the user begins a turn where the turn before has one already."""
    imported: list[ImportedMessage] = []
    turn, has_user = 1, False
    for index, message in enumerate(messages, start=first):
        if message.role == "user":
            turn += has_user
            has_user = True
        place = f"messages[{index}]"
        imported.append(
            ImportedMessage(
                role=message.role,
                content=check_kept(message.content, f"{place}.content"),
                turn=turn,
                created_ms=_to_ms(message.timestamp, f"{place}.timestamp", default_ms),
                model=_kept_label(message.model, f"{place}.model"),
                finish_reason=_kept_label(message.finish_reason, f"{place}.finish_reason"),
                error=_kept_label(message.error, f"{place}.error"),
            )
        )
    return imported


def _kept_label(text: str | None, param: str) -> str | None:
    return None if text is None else check_kept(text, param)


def _check_count(file: ConversationFile) -> None:
    """A file that was cut or glued says so by its counts."""
    said = file.message_count
    found = count_by_role(file.messages)
    is_right = said == len(file.messages) if isinstance(said, int) else found | (said or {}) == found
    if not is_right:
        raise InvalidValue(
            f"'message_count' does not fit the {len(file.messages)} messages of the file: it is not whole. Remove "
            "'message_count' to import it as it is.",
            param="message_count",
        )


def count_by_role(messages: list[FileMessage]) -> dict[str, int]:
    counts = Counter(message.role for message in messages)
    return {role: counts[role] for role in ("system", "user", "assistant")}


def iso_time(unix_s: float) -> str:
    """As the file has it: in UTC with its offset."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat()


def _to_ms(text: str | None, param: str, default_ms: int) -> int:
    if text is None:
        return default_ms
    try:
        moment = datetime.fromisoformat(text)
        unix_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        unix_ms = -1
    if not _MIN_MS <= unix_ms <= _MAX_MS:
        raise InvalidValue(
            f"'{param}' is no date from 1970 to 9999 in ISO 8601, such as 2026-11-21T18:30:00+00:00.", param=param
        )
    return unix_ms
