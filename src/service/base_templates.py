"""The built-in chat templates, for models that come without one. Knows their marks and ends, not how they render.

`llama3`, `chatml` and `gemma` are the formats of models trained on them and need their control tokens. `gpt2` and
`default` write a transcript that a base model continues: the names in it are plain text, which a message can imitate.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from contracts.errors import ModelNotUsable
from service.tokenizer import TextTokenizer

_DIRECTORY = Path(__file__).parent / "templates"
_NEXT_USER_TURN = ("\nUser:",)


class BaseTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """One built-in template; its source is `templates/NAME.jinja`."""

    name: str
    description: str
    control_tokens: tuple[str, ...] = ()
    """Tokens that the tokenizer must know, or its marks would be text that callers can write too."""
    special_names: tuple[str, ...] = ()
    """Special tokens, such as eos_token, that the tokenizer must name."""
    stops: tuple[str, ...] = ()
    """Where an answer ends, beside the model's own end of sequence."""
    strips_space: bool = False
    """The prompt ends in the middle of a line: the answer begins with a space that is no part of it."""

    @property
    def source(self) -> str:
        """The text of the template."""
        return (_DIRECTORY / f"{self.name}.jinja").read_text(encoding="utf-8")

    def check_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Raise ModelNotUsable unless the tokenizer has every token that the template is made of."""
        missing = [token for token in self.control_tokens if tokenizer.control_id(token) is None]
        missing += [name for name in self.special_names if name not in tokenizer.special_tokens]
        if missing:
            raise ModelNotUsable(
                f"The template '{self.name}' needs {', '.join(missing)}, which the model's tokenizer does not have. "
                "Take the template 'default', which needs no token of its own, or a .jinja file."
            )


_ALL = (
    BaseTemplate(
        name="llama3",
        description="Llama 3's headers",
        control_tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        special_names=("bos_token",),
        stops=("<|eot_id|>",),
    ),
    BaseTemplate(
        name="chatml",
        description="ChatML, as in Qwen and SmolLM",
        control_tokens=("<|im_start|>", "<|im_end|>"),
        stops=("<|im_end|>",),
    ),
    BaseTemplate(
        name="gemma",
        description="Gemma's turns",
        control_tokens=("<start_of_turn>", "<end_of_turn>"),
        special_names=("bos_token",),
        stops=("<end_of_turn>",),
    ),
    BaseTemplate(
        name="dialogpt",
        description="turns that end with the end-of-sequence token",
        special_names=("eos_token",),
    ),
    BaseTemplate(
        name="gpt2", description="a plain User/Assistant transcript", stops=_NEXT_USER_TURN, strips_space=True
    ),
    BaseTemplate(
        name="default",
        description="a transcript that says first what it is",
        stops=_NEXT_USER_TURN,
        strips_space=True,
    ),
)

BASE_TEMPLATES = {template.name: template for template in _ALL}
