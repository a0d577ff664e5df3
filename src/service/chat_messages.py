"""Wire messages as a chat template sees them: plain dicts of text. Runs after `refusals`, knows no template."""

from __future__ import annotations

from contracts.openai.chat import AssistantMessage, Content, DeveloperMessage, Message, ToolMessage
from service.text_checks import check_text


def template_messages(messages: list[Message]) -> list[dict[str, str]]:
    """Return role, content and what else is given; InvalidValue, naming the place, for text that is not Unicode."""
    return [_template_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _template_message(message: Message, path: str) -> dict[str, str]:
    role = "system" if isinstance(message, DeveloperMessage) else str(message.__struct_config__.tag)
    content = _text(message.content)
    extra: dict[str, str | None] = {}
    if isinstance(message, AssistantMessage):
        if message.content is None:
            content = message.refusal or ""
        # The names under which templates look for earlier reasoning.
        extra |= {"reasoning_content": message.reasoning_content, "thinking": message.reasoning_content}
    if not isinstance(message, ToolMessage):
        extra["name"] = message.name
    seen = {"role": role, "content": check_text(content, f"{path}.content")}
    seen.update({key: check_text(text, f"{path}.{key}") for key, text in extra.items() if text is not None})
    return seen


def _text(content: Content | None) -> str:
    """The parts of a list follow each other unchanged."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)
