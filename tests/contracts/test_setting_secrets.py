"""Secrets among the settings are shown to nobody, and processes without a use for them do not get them."""

from __future__ import annotations

import msgspec

from contracts.settings import ServerSettings

SECRETS = ServerSettings(
    api_keys="a=sk-canary-0123456789", conversations_url="postgresql://u:canary@host/name", port=8123
)


def test_no_secret_is_shown() -> None:
    assert "canary" not in repr(SECRETS)
    assert "api_keys='***'" in repr(SECRETS)


def test_settings_without_secrets_keep_the_rest() -> None:
    bare = SECRETS.without_secrets()
    assert (bare.api_keys, bare.conversations_url, bare.port) == (None, None, 8123)
    assert "canary" not in msgspec.json.encode(bare).decode()
    assert bare == ServerSettings(port=8123)
