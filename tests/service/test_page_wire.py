"""The page's idea of the API: every field that its TypeScript names is one that the server describes."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from tests.shape_rules import ROOT

WIRE = (ROOT / "ops/page/src/wire.ts").read_text()
SCHEMAS: dict[str, Any] = msgspec.json.decode((ROOT / "contracts/openapi.json").read_bytes())["components"]["schemas"]
INTERFACES = dict(re.findall(r"^export interface (\w+)(?: extends \w+)? \{\n(.*?)^\}", WIRE, re.DOTALL | re.MULTILINE))
NAMED_OTHERWISE = {
    "Sampling": ["ChatCompletionRequest"],
    "KeptMessage": ["ConversationMessage"],
    "ChatChunk": ["ChatCompletionChunk", "ErrorBody"],
}
"""The schemas that an interface stands for where none has its name: a stream also carries errors."""


@pytest.mark.parametrize("name", INTERFACES)
def test_every_field_of_the_page_is_described(name: str) -> None:
    fields = set(re.findall(r"^  (\w+)\??:", INTERFACES[name], re.MULTILINE))
    described = {field for schema in NAMED_OTHERWISE.get(name, [name]) for field in SCHEMAS[schema]["properties"]}
    assert fields
    assert fields - described == set()
