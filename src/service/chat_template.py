"""The model's chat template: messages in, prompt text out, in Jinja's immutable sandbox. Knows no token ids.

The environment is that of transformers' apply_chat_template, so that a template gives the same text here. A template
is the model's, never the caller's; what callers write in messages cannot pass for its control tokens.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.errors import InvalidRequest, ModelNotUsable, clip
from service.base_templates import BASE_TEMPLATES
from service.control_pattern import compile_any
from service.tokenizer import TextPart, TextTokenizer, read_json_object

MAX_RENDERED_CHARS = 4 * 1024 * 1024
MAX_RENDER_S = 0.2
"""CPU time of the rendering thread, after which a template is cut off at its next output or count."""
MAX_RANGE_ITEMS = 100_000
"""Sum of all that `range` counts in one rendering."""
MAX_EXPONENT = 64
PRIVATE_USE_PLANE = (0xF0000, 0xFFFFE)
"""First code point and the one after the last of the plane that stands in for control tokens while rendering."""

ChatMessage = Mapping[str, str]
"""role, content and maybe name, as the template sees them."""


class GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012 (Jinja reads a class attribute)

    def parse(self, parser: Parser) -> nodes.Node:
        """Read up to `{% endgeneration %}` and keep the body in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which neither a product nor a power can fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left * right` or `left ** right`; TemplateError where the result would be huge."""
        if operator == "**":
            is_huge = not isinstance(right, int | float) or abs(right) > MAX_EXPONENT or _magnitude(left) > MAX_EXPONENT
        else:
            is_huge = _magnitude(left) * _magnitude(right) > MAX_RENDERED_CHARS
        if is_huge:
            raise jinja2.TemplateError(f"The chat template computes something huge with '{operator}'.")
        return super().call_binop(context, operator, left, right)


def _magnitude(value: object) -> float:
    """What a factor adds to the size of a product: the length of a text or list, else 1 for fractions and more."""
    if isinstance(value, str | list | tuple):
        return len(value)
    return abs(value) if isinstance(value, int | float) else 1


class Budget:
    """What one rendering may still use. Raises TemplateError when it is spent. Owner: one call of `render`."""

    def __init__(self) -> None:
        self._deadline_s = time.thread_time() + MAX_RENDER_S
        self._num_items = 0

    def check_time(self) -> None:
        """To be called between pieces of output."""
        if time.thread_time() > self._deadline_s:
            raise jinja2.TemplateError(f"The messages take the chat template longer than {MAX_RENDER_S} s. Send fewer.")

    def range(self, *bounds: int) -> range:
        """What templates know as `range`."""
        counted = range(*bounds)
        self._num_items += len(counted)
        self.check_time()
        if self._num_items > MAX_RANGE_ITEMS:
            raise jinja2.TemplateError(f"The chat template counts beyond {MAX_RANGE_ITEMS} for these messages.")
        return counted


class ChatTemplate:
    """Compiled once at start; rendering is thread-safe."""

    def __init__(
        self,
        source: str,
        special_tokens: Mapping[str, str],
        control_tokens: Sequence[str],
        *,
        stops: tuple[str, ...] = (),
        strips_space: bool = False,
    ) -> None:
        self.stops = stops
        """Where an answer ends, beside the caller's stop strings and the model's own end."""
        self.strips_space = strips_space
        """The answer begins with a space that is no part of it."""
        self._special_tokens = dict(special_tokens)
        self._control_pattern = compile_any(control_tokens)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelNotUsable(
                f"The model's chat template does not compile: line {error.lineno}: {error.message}. "
                "Correct chat_template.jinja, or remove it and use /v1/completions."
            ) from error

    @classmethod
    def load(cls, model_path: Path, tokenizer: TextTokenizer) -> ChatTemplate | None:
        """Read the template beside the model's tokenizer; None for a base model, which has none."""
        source = read_template_source(model_path)
        return None if source is None else cls(source, tokenizer.special_tokens, tokenizer.control_tokens)

    @classmethod
    def for_model(cls, model_path: Path, tokenizer: TextTokenizer, wanted: str | None) -> ChatTemplate | None:
        """The template that the operator wants, a built-in one or a .jinja file; None wanted: the model's own."""
        if wanted is None:
            return cls.load(model_path, tokenizer)
        base = BASE_TEMPLATES.get(wanted)
        if base is None:
            return cls(read_template_file(Path(wanted)), tokenizer.special_tokens, tokenizer.control_tokens)
        base.check_tokenizer(tokenizer)
        return cls(
            base.source,
            tokenizer.special_tokens,
            tokenizer.control_tokens,
            stops=base.stops,
            strips_space=base.strips_space,
        )

    def render(self, messages: Sequence[ChatMessage]) -> str:
        """Return the prompt up to where the answer begins; raises InvalidRequest with the template's own sentence."""
        pieces: list[str] = []
        num_chars = 0
        budget = Budget()
        context: dict[str, Any] = {
            **self._special_tokens,
            "messages": [dict(message) for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            "range": budget.range,
        }
        try:
            for piece in self._template.generate(context):
                pieces.append(piece)
                num_chars += len(piece)
                budget.check_time()
                if num_chars > MAX_RENDERED_CHARS:
                    raise InvalidRequest(
                        f"The messages make a prompt of more than {MAX_RENDERED_CHARS} characters. Send fewer.",
                        param="messages",
                    )
        except jinja2.TemplateError as error:
            raise InvalidRequest(clip(str(error.message), 400), param="messages") from error
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise InvalidRequest(
                f"The model's chat template cannot render these messages: {clip(str(error), 200)}", param="messages"
            ) from error
        return "".join(pieces)

    def render_parts(self, messages: Sequence[ChatMessage]) -> list[TextPart]:
        """Render, and mark as untrusted each text of a control token that came with the messages."""
        pattern = self._control_pattern
        found = set() if pattern is None else {token for text in texts_of(messages) for token in pattern.findall(text)}
        if pattern is None or not found:
            return [TextPart(self.render(messages), True)]
        marker_of = dict(zip(sorted(found), unused_characters(messages, len(found)), strict=True))
        marked = [
            {key: pattern.sub(lambda match: marker_of[match[0]], text) for key, text in message.items()}
            for message in messages
        ]
        token_of = {marker: token for token, marker in marker_of.items()}
        segments: list[str] = re.split(f"([{''.join(token_of)}])", self.render(marked))
        return [TextPart(token_of.get(text, text), text not in token_of) for text in segments if text]


def texts_of(messages: Sequence[ChatMessage]) -> Iterator[str]:
    """Every text that callers wrote."""
    return (text for message in messages for text in message.values())


def unused_characters(messages: Sequence[ChatMessage], num_characters: int) -> list[str]:
    """Pick private-use characters that no message holds; one character cannot be cut, trimmed or changed in case."""
    used = set().union(*texts_of(messages))
    unused = (character for code in range(*PRIVATE_USE_PLANE) if (character := chr(code)) not in used)
    return list(itertools.islice(unused, num_characters))


def read_template_file(path: Path) -> str:
    """The text of a template that an operator wrote; raises ModelNotUsable."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelNotUsable(f"The chat template {path} cannot be read as UTF-8 text: {error}.") from error


def read_template_source(model_path: Path) -> str | None:
    """Find chat_template.jinja, or `chat_template` in a JSON file: a text, or the one named default in a list."""
    path = model_path / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = read_json_object(model_path / name).get("chat_template")
        if isinstance(found, list):
            found = {entry["name"]: entry["template"] for entry in found}.get("default")
        if isinstance(found, str):
            return found
    return None


def _environment() -> TemplateSandbox:
    environment = TemplateSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which would change the prompt."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
