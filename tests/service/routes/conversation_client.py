"""What tests of conversations ask over HTTP, and how they read prompts."""

from __future__ import annotations

from typing import Any

import httpx

from tests.fakes import FakeEngine

PATH = "/v1/conversations"
CHAT = "/v1/chat/completions"


def turn_body(conversation: str, text: str, **options: Any) -> dict[str, Any]:
    return {"conversation": conversation, "messages": [{"role": "user", "content": text}]} | options


async def make(client: httpx.AsyncClient, **body: Any) -> str:
    made: str = (await client.post(PATH, json=body)).raise_for_status().json()["id"]
    return made


async def talk(client: httpx.AsyncClient, conversation: str, text: str, **options: Any) -> Any:
    """The reply of one turn."""
    return (await client.post(CHAT, json=turn_body(conversation, text, **options))).raise_for_status().json()


async def stored(client: httpx.AsyncClient, conversation: str) -> list[dict[str, Any]]:
    """The messages as they are kept."""
    messages: list[dict[str, Any]] = (await client.get(f"{PATH}/{conversation}")).raise_for_status().json()["messages"]
    return messages


async def contents(client: httpx.AsyncClient, conversation: str) -> list[str]:
    return [message["content"] for message in await stored(client, conversation)]


def error_of(reply: httpx.Response) -> tuple[int, str | None, str | None]:
    error = reply.json()["error"]
    return reply.status_code, error["code"], error["param"]


def prompt_of(engine: FakeEngine) -> list[str]:
    """The last prompt as `role: text` for each message; the last is what the answer continues."""
    pieces = bytes(token if token < 256 else 0 for token in engine.requests[-1].prompt_token_ids).decode().split("\0")
    return [piece.rstrip("\n") for piece in pieces[1:]]
