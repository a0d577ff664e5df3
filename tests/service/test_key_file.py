"""The TOML file of keys: what it may hold, and refusals that repeat nothing from it."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from contracts.errors import SettingsError
from contracts.generation import Tenant
from service.api_keys import ALL_SCOPES, ApiKey, Keyring
from service.cli import main
from service.key_file import parse_keys, read_key_file

KEY = "sk-canary-0123456789"
HASH = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()


def parse(text: str) -> Keyring:
    return Keyring(parse_keys(text.encode(), "keys.toml"))


@pytest.mark.parametrize("secret", [f'key = "{KEY}"', f'hash = "{HASH}"'])
def test_key_or_hash_lets_the_key_infer_only_by_default(secret: str) -> None:
    assert parse(f'[[keys]]\nlabel = "ci"\n{secret}').find(KEY.encode()) == ApiKey(
        label="ci", scopes=frozenset({"infer"}), tenant=Tenant(name="ci")
    )


def test_scopes_and_limits_become_the_tenant() -> None:
    text = f"""
        [[keys]]
        label = "team-a"
        hash = "{HASH}"
        scopes = ["infer", "admin", "metrics"]
        weight = 2
        requests_per_minute = 60
        tokens_per_minute = 100_000
        max_concurrency = 8
    """
    assert parse(text).find(KEY.encode()) == ApiKey(
        label="team-a",
        scopes=ALL_SCOPES,
        tenant=Tenant(name="team-a", weight=2.0, requests_per_minute=60, tokens_per_minute=100_000, max_concurrency=8),
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('label = "a"', "keys.toml, key 1 ('a'): give either 'key' or 'hash'."),
        (f'label = "a"\nkey = "{KEY}"\nhash = "{HASH}"', "keys.toml, key 1 ('a'): give either 'key' or 'hash'."),
        (f'key = "{KEY}"', "keys.toml, keys[0]: Object missing required field `label`."),
        (f'label = "a b"\nkey = "{KEY}"', "keys.toml, keys[0].label: Expected 1 to 64 letters"),
        (f'label = "a\\n"\nkey = "{KEY}"', "keys.toml, keys[0].label: Expected 1 to 64 letters"),
        ('label = "a"\nkey = "canary"', "keys.toml, key 1 ('a'): the key has 6 characters, but needs 16 to 512."),
        ('label = "a"\nhash = "canary"', "keys.toml, key 1 ('a'): 'hash' must begin with 'sha256:'."),
        ('label = "a"\nhash = "sha256:canary"', "keys.toml, key 1 ('a'): after 'sha256:' there must be 64"),
        (f'label = "a"\nhash = "{HASH.upper()}"', "keys.toml, key 1 ('a'): 'hash' must begin with 'sha256:'."),
        (f'label = "a"\nkye = "{KEY}"', "keys.toml, key 1 holds 'kye' that is not known. Did you mean 'key'?"),
        (f'label = "a"\nscope = ["infer"]\nkey = "{KEY}"', "keys.toml, key 1 holds 'scope' that is not known. Did you"),
        (f'label = "a"\nkey = "{KEY}"\nscopes = []', "keys.toml, keys[0].scopes: Expected `array` of length >= 1."),
        (f'label = "a"\nkey = "{KEY}"\nscopes = ["root"]', "keys.toml, keys[0].scopes[0]: Invalid enum value"),
        (f'label = "a"\nkey = "{KEY}"\nweight = 0', "keys.toml, keys[0].weight: Expected `float` > 0.0."),
        (f'label = "a"\nkey = "{KEY}"\nweight = inf', "keys.toml, key 1 ('a'): 'weight' must be a finite number."),
        (f'label = "a"\nkey = "{KEY}"\nweight = nan', "keys.toml, key"),
        (f'label = "a"\nkey = "{KEY}"\nmax_concurrency = 0', "keys.toml, keys[0].max_concurrency: Expected"),
        ('label = "a"\nkey = 5', "keys.toml, keys[0].key: Expected `str | null`, got `int`."),
    ],
)
def test_wrong_table_is_refused_by_place(lines: str, message: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse(f"[[keys]]\n{lines}")
    assert refusal.value.message.startswith(message)
    assert "canary" not in refusal.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("canary", "keys.toml is not valid TOML in UTF-8 (at end of document)."),
        ('canary = "a\n', "keys.toml is not valid TOML in UTF-8 (at line 1, column 12)."),
        ("\udcff", "keys.toml is not valid TOML in UTF-8."),
        ("a = " + "[" * 5000, "keys.toml is nested too deeply"),
        ('Canary-1 = "x"', "keys.toml holds a name that is not known. Known are keys."),
        ('[[key]]\nlabel = "a"', "keys.toml holds 'key' that is not known. Did you mean 'keys'?"),
        ('[keys]\nlabel = "canary"', "keys.toml, keys: Expected `array`, got `object`."),
        ("keys = [5]", "keys.toml, keys[0]: Expected `object`, got `int`."),
        ("a = {canary = 1, canary = 2}", "keys.toml is not valid TOML in UTF-8"),
    ],
)
def test_wrong_file_is_refused_without_its_content(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        parse_keys(text.encode(errors="surrogateescape"), "keys.toml")
    assert refusal.value.message.startswith(message)
    assert "canary" not in refusal.value.message.lower()


def test_labels_and_keys_are_unique() -> None:
    table = '[[keys]]\nlabel = "{}"\nkey = "{}"\n'
    with pytest.raises(SettingsError, match="Two API keys have the label 'a'"):
        parse(table.format("a", KEY) + table.format("a", "x" * 16))
    with pytest.raises(SettingsError, match="'a' and 'b' are the same"):
        parse(table.format("a", KEY) + f'[[keys]]\nlabel = "b"\nhash = "{HASH}"\n')


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o440, False), (0o620, True), (0o604, True)])
def test_permissions_that_let_others_read_are_noticed(tmp_path: Path, mode: int, is_open: bool) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(f'[[keys]]\nlabel = "a"\nkey = "{KEY}"')
    path.chmod(mode)
    assert read_key_file(path).is_open_to_others is is_open


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no ordinary file"):
        read_key_file(tmp_path)
    with pytest.raises(SettingsError, match=r"cannot be read: No such file or directory\."):
        read_key_file(tmp_path / "nowhere")


class TestKeyNew:
    def test_printed_lines_let_the_printed_key_in(self) -> None:
        result = CliRunner().invoke(main, ["key", "new", "--label", "laptop"])
        key = result.stderr.strip()
        assert len(key) == len("sk-quire-") + 43
        assert key not in result.stdout
        found = parse(result.stdout).find(key.encode())
        assert found == ApiKey(label="laptop", scopes=frozenset({"infer"}), tenant=Tenant(name="laptop"))

    def test_scopes_are_those_asked_for(self) -> None:
        arguments = ["key", "new", "--label", "ops", "--scope", "metrics", "--scope", "admin"]
        result = CliRunner().invoke(main, arguments)
        assert tomllib.loads(result.stdout)["keys"][0]["scopes"] == ["metrics", "admin"]

    def test_every_key_is_new(self) -> None:
        keys = [CliRunner().invoke(main, ["key", "new", "--label", "a"]).stderr for _ in range(2)]
        assert keys[0] != keys[1]

    def test_bad_label_is_refused(self) -> None:
        result = CliRunner().invoke(main, ["key", "new", "--label", 'a"\n'])
        assert result.exit_code == 2
        assert "--label is" in result.stderr
