"""What the description of the API says of /v1/conversations."""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.conversations import (
    ChangeConversation,
    Conversation,
    ConversationDeleted,
    ConversationDetail,
    ConversationFile,
    ConversationList,
    CreateConversation,
)
from service.api_operation import Operation
from service.routes.conversations import DEFAULT_LIMIT, MAX_LIMIT, MAX_SEARCH_LEN

_BAD_BODY = {
    400: "The request is refused; `param` names the field.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
}
_NOT_KEPT = {
    404: "No such conversation of this key, or none are kept.",
    503: "The database of the conversations does not answer; see retry-after.",
    507: "The disk of the conversations is full.",
}


def conversation_operations() -> list[Operation]:
    """In the order of the page."""
    return [
        Operation(
            method="post",
            path="/v1/conversations",
            operation_id="createConversation",
            summary="Begin a conversation; POST /v1/chat/completions goes on with it where it is named.",
            request=CreateConversation,
            reply=Conversation,
            example={"system_prompt": "Answer briefly."},
            errors=_BAD_BODY | _NOT_KEPT,
        ),
        Operation(
            method="get",
            path="/v1/conversations",
            operation_id="listConversations",
            summary="List the key's conversations, the one changed last first; search titles and messages.",
            reply=ConversationList,
            errors={400: "A parameter is refused."} | _NOT_KEPT,
            query={
                "q": {"type": "string", "minLength": 1, "maxLength": MAX_SEARCH_LEN},
                "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "after": {"type": "string"},
            },
        ),
        Operation(
            method="post",
            path="/v1/conversations/import",
            operation_id="importConversation",
            summary="Make a conversation of a saved one; its ids are new.",
            request=ConversationFile,
            reply=Conversation,
            example={"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi!"}]},
            errors=_BAD_BODY | _NOT_KEPT,
        ),
        _of_one("get", "", "retrieveConversation", "One conversation with all its messages.", ConversationDetail),
        msgspec.structs.replace(
            _of_one("patch", "", "changeConversation", "Rename it, or change what applies in it.", Conversation),
            request=ChangeConversation,
            example={"title": "About trees"},
            errors=_BAD_BODY | _NOT_KEPT,
        ),
        _of_one("delete", "", "deleteConversation", "Remove it with its messages.", ConversationDeleted),
        _of_one("get", "/export", "exportConversation", "The file that import takes.", ConversationFile),
        msgspec.structs.replace(
            _of_one(
                "delete",
                "/messages/{message_id}",
                "cutConversation",
                "Remove a message and all after it, so that it can be posted again, or another in its place.",
                Conversation,
            ),
            parameters=("conversation_id", "message_id"),
            errors=_NOT_KEPT | {409: "A reply is under way; see retry-after."},
        ),
    ]


def _of_one(method: str, end: str, operation_id: str, summary: str, reply: type[Any]) -> Operation:
    return Operation(
        method=method,
        path=f"/v1/conversations/{{conversation_id}}{end}",
        operation_id=operation_id,
        summary=summary,
        reply=reply,
        errors=_NOT_KEPT,
        parameters=("conversation_id",),
    )
