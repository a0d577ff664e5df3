"""The tokenizer of the served model, from its tokenizer.json: text to ids, ids to text and exact bytes.

Uses the `tokenizers` library alone, so that an HTTP worker never imports torch. Knows no requests and no templates.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer

from contracts.errors import ModelNotUsable
from service.text_stream import ByteTextStream, TextPieces, TextStream, WindowTextStream
from service.token_bytes import DecodingKind, TokenBytes, read_decoding

MAX_CHARS_UNDER_GIL = 2048
"""Longer texts are tokenised with the GIL free; 512 KiB held it for 0.7 s (tokenizers 0.23.3, 2 vCPU, 2026-11-20)."""


class TextPart(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of a prompt; only in trusted parts does the text of a control token mean that token."""

    text: str
    is_trusted: bool


class _AddedToken(msgspec.Struct, frozen=True):
    id: int
    content: str
    special: bool
    lstrip: bool = False
    rstrip: bool = False


class _TokenizerFile(msgspec.Struct, frozen=True):
    """What is read of tokenizer.json here; the library reads the rest."""

    decoder: dict[str, Any] | None = None
    added_tokens: list[_AddedToken] = []
    normalizer: Any = None


class TextTokenizer:
    """Thread-safe after construction; shared by all requests of a process.

    `special_tokens` maps names such as `eos_token` to their text, for the chat template.
    """

    def __init__(self, json_text: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self._json_text = json_text
        self._tokenizer = _read(json_text)
        self.special_tokens: dict[str, str] = dict(special_tokens or {})
        file = msgspec.json.decode(json_text, type=_TokenizerFile)
        named = set(self.special_tokens.values())
        added = [token for token in file.added_tokens if token.special or token.content in named]
        self.control_tokens: tuple[str, ...] = tuple(token.content for token in added if token.content)
        """Texts that stand for control tokens: special ones, and those that the configuration names."""
        self._control_ids = {token.content: token.id for token in added}
        self._special_ids = frozenset(self._control_ids.values())
        self._decoding = read_decoding(file.decoder)
        self._token_bytes = TokenBytes(self._tokenizer, self._decoding, self._special_ids)
        self._pieces = TextPieces(self._token_bytes, self._special_ids)
        self._plain: Tokenizer | None = None
        self._plain_lock = threading.Lock()
        self._max_token_len = self._longest_token(file)
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)

    @classmethod
    def load(cls, model_path: Path) -> TextTokenizer:
        """Read `tokenizer.json` and the names of special tokens beside it; ModelNotUsable where it is missing."""
        path = model_path / "tokenizer.json"
        try:
            json_text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ModelNotUsable(
                f"{path} cannot be read ({error.strerror}). Quire needs the fast tokenizer file: save it with "
                "transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...) into the model's directory."
            ) from error
        try:
            return cls(json_text, read_special_tokens(model_path))
        except (ValueError, msgspec.DecodeError) as error:
            raise ModelNotUsable(f"{path} is not a valid tokenizer file: {error}. Download the model again.") from error

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        """Tokenise text in which the text of a control token means that token."""
        return _encode(self._tokenizer, text, add_special_tokens)

    def encode_trusted(self, parts: Iterable[TextPart]) -> list[int]:
        """Tokenise parts one after the other; in untrusted ones the text of a control token is plain text."""
        ids: list[int] = []
        plain_ids: dict[str, list[int]] = {}
        for part in parts:
            if part.is_trusted:
                ids += self.encode(part.text, add_special_tokens=False)
                continue
            if part.text not in plain_ids:
                plain_ids[part.text] = self._plain_ids(part.text)
            ids += plain_ids[part.text]
        return ids

    def min_num_tokens(self, text: str) -> int:
        """Return a number of tokens that the text has at least, without tokenising it; 0 where nothing is known."""
        return 0 if self._max_token_len is None else -(-len(text) // self._max_token_len)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Return the text of all ids at once."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """Return the exact bytes of one token, maybe a part of a character."""
        return self._token_bytes[token_id]

    def token_text(self, token_id: int) -> str:
        """Return the text of one token; bytes that are no whole character become U+FFFD."""
        return self._token_bytes[token_id].decode("utf-8", "replace")

    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control token, which has no text in an answer."""
        return token_id in self._special_ids

    def control_id(self, text: str) -> int | None:
        """Return the id of the control token that is written so, None for any other text."""
        return self._control_ids.get(text)

    def stream(self, continues_prompt: bool = False, strips_space: bool = False) -> TextStream:
        """Start decoding a sample; one that continues a prompt keeps the space before its first word, unless told."""
        if self._decoding.kind is DecodingKind.OPAQUE:
            return WindowTextStream(self._tokenizer, self._special_ids)
        num_stripped_spaces = 0 if continues_prompt else self._decoding.num_stripped_spaces
        return ByteTextStream(self._pieces, max(num_stripped_spaces, int(strips_space)))

    def _longest_token(self, file: _TokenizerFile) -> int | None:
        """Characters that one token can stand for, where no normalizer and no added token makes text shorter."""
        is_shortened = file.normalizer is not None or any(token.lstrip or token.rstrip for token in file.added_tokens)
        if is_shortened or self._decoding.kind is not DecodingKind.BYTE_LEVEL:
            return None
        return max(map(len, self._tokenizer.get_vocab(with_added_tokens=True)), default=None)

    def _plain_ids(self, text: str) -> list[int]:
        ids = _encode(self._plain_tokenizer(), text, add_special_tokens=False)
        if len(text) > 1 and not self._special_ids.isdisjoint(ids):
            # The model's own vocabulary holds the control token as a piece (Unigram): break the text inside it.
            return self._plain_ids(text[:1]) + self._plain_ids(text[1:])
        return ids

    def _plain_tokenizer(self) -> Tokenizer:
        """A second tokenizer that never matches control tokens; made when first needed, as it costs memory."""
        with self._plain_lock:
            if self._plain is None:
                data = msgspec.json.decode(self._json_text)
                for token in data["added_tokens"]:
                    token["special"] = token["special"] or token["content"] in self.control_tokens
                plain = _read(msgspec.json.encode(data).decode())
                plain.encode_special_tokens = True
                self._plain = plain
            return self._plain


def read_special_tokens(model_path: Path) -> dict[str, str]:
    """Collect `bos_token`, `eos_token` and the like; as in transformers, the older map only rules older models."""
    config = read_json_object(model_path / "tokenizer_config.json")
    older = read_json_object(model_path / "special_tokens_map.json")
    found: dict[str, str] = {}
    for source in (older, config) if "added_tokens_decoder" in config else (config, older):
        for key, value in source.items():
            text = value.get("content") if isinstance(value, dict) else value
            if re.fullmatch(r"[a-z_]+_token", key) and isinstance(text, str):
                found[key] = text
    return found


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty where there is no such file; ModelNotUsable where it is broken."""
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ModelNotUsable(f"{path} cannot be read: {error}. Download the model again.") from error


def _read(json_text: str) -> Tokenizer:
    """Build a tokenizer that neither cuts nor pads, whatever the file says; ValueError where it is not one."""
    tokenizer = Tokenizer.from_buffer(json_text.encode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _encode(tokenizer: Tokenizer, text: str, add_special_tokens: bool) -> list[int]:
    """Tokenise without stalling other threads: of the library's calls only those for batches let go of the GIL."""
    if len(text) <= MAX_CHARS_UNDER_GIL:
        encoding = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    else:
        encoding = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0]
    ids: list[int] = encoding.ids
    return ids
