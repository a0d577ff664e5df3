"""Wire structs of /v1/conversations, and the JSON in which a conversation is saved and loaded.

`ConversationFile` is what GET .../export sends and POST .../import takes; a terminal or a page that saves and loads
conversations uses the same. Knows no database.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from contracts.openai.common import MaxTokens, MinP, Seed, Temperature, TopK, TopP

DEFAULT_MAX_TURNS = 50
MAX_TURNS = 1000
MAX_TITLE_LEN = 200
MAX_SYSTEM_PROMPT_LEN = 64 * 1024
MAX_STORED_MESSAGES = 4096
"""Messages of one conversation. As many of an export stay below the strings that a request body may have."""
MAX_TEXT_BYTES = 4 * 1024 * 1024
"""Text of one conversation, so that an export fits the default limit of a request body."""

Title = Annotated[str, Meta(min_length=1, max_length=MAX_TITLE_LEN)]
SystemPrompt = Annotated[str, Meta(max_length=MAX_SYSTEM_PROMPT_LEN)]
ModelName = Annotated[str, Meta(min_length=1, max_length=512)]
TurnLimit = Annotated[int, Meta(ge=1, le=MAX_TURNS)]
FileLabel = Annotated[str, Meta(max_length=512)]
FileTime = Annotated[str, Meta(max_length=40)]


class GenerationDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What applies in a conversation where a request says nothing."""

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: MinP | None = None
    max_tokens: MaxTokens | None = None
    seed: Seed | None = None


class CreateConversation(msgspec.Struct, frozen=True, kw_only=True):
    """The body of POST /v1/conversations; every field may be left out."""

    title: Title | None = None
    """Left out: the beginning of the first message."""
    system_prompt: SystemPrompt | None = None
    model: ModelName | None = None
    max_turns: TurnLimit | None = None
    """Most turns, each a message and its reply, that a prompt holds; all are kept."""
    generation: GenerationDefaults | None = None


class ChangeConversation(msgspec.Struct, frozen=True, kw_only=True):
    """The body of PATCH /v1/conversations/{id}; what is left out stays, null takes the default."""

    title: Title | UnsetType = UNSET
    system_prompt: SystemPrompt | UnsetType | None = UNSET
    model: ModelName | UnsetType | None = UNSET
    max_turns: TurnLimit | UnsetType | None = UNSET
    generation: GenerationDefaults | UnsetType | None = UNSET


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation without its messages."""

    id: str
    object: Literal["conversation"] = "conversation"
    title: str | None
    """Null until the first message, where none was given."""
    created_at: int
    """Unix time in seconds, as everywhere here."""
    updated_at: int
    model: str | None
    system_prompt: str | None
    max_turns: int
    generation: GenerationDefaults | None
    num_messages: int


class ConversationMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it is kept."""

    id: str
    role: Literal["user", "assistant"]
    content: str
    created_at: int
    model: str | None = None
    """What answered; null for the user's messages."""
    finish_reason: str | None = None
    """Of a reply: stop, length, or cancelled where the client left before its end."""
    error: str | None = None
    """Of a message that has no reply: the code of the error that ended its last attempt."""


class ConversationDetail(Conversation, frozen=True, kw_only=True):
    """One conversation with all its messages, oldest first."""

    messages: list[ConversationMessage]


class ConversationList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of conversations, the one changed last first."""

    object: Literal["list"] = "list"
    data: list[Conversation]
    has_more: bool
    first_id: str | None
    last_id: str | None
    """What `after` takes for the next page."""


class ConversationDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to DELETE."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True


class FileMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One message of a saved conversation."""

    id: FileLabel | None = None
    role: Literal["system", "user", "assistant"]
    content: str
    timestamp: FileTime | None = None
    """ISO 8601; without an offset it is UTC."""
    model: ModelName | None = None
    finish_reason: FileLabel | None = None
    error: FileLabel | None = None


class ConversationFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A saved conversation. The system prompt is its first message, of the role system."""

    id: FileLabel | None = None
    title: Annotated[str, Meta(max_length=MAX_TITLE_LEN)] | None = None
    created_at: FileTime | None = None
    updated_at: FileTime | None = None
    max_length: TurnLimit | None = None
    """Most turns of a prompt."""
    model: ModelName | None = None
    generation: GenerationDefaults | None = None
    messages: Annotated[list[FileMessage], Meta(max_length=MAX_STORED_MESSAGES + 1)]
    message_count: dict[FileLabel, int] | int | None = None
    """By role, or of all; checked where it is given."""
