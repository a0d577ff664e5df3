"""`quire key new`: makes a key for one user and the lines that let it in."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import get_args

import click

from contracts.errors import SettingsError, clip
from service.api_keys import LABEL_PATTERN, LABEL_RULE, KeyScope, hash_text

KEY_PREFIX = "sk-quire-"
KEY_BYTES = 32


@click.group("key")
def key_command() -> None:
    """Make API keys."""


@key_command.command("new")
@click.option("--label", required=True, metavar="TEXT", help="Name of the key's user, as the log shows it.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(get_args(KeyScope)),
    multiple=True,
    default=("infer",),
    help="What the key may do; may be given again.  [default infer]",
)
def new_command(label: str, scopes: tuple[str, ...]) -> None:
    """Print a new random key, once, and its lines for the file that --api-keys-file names.

    The key goes to standard error and the lines, which hold only its hash, to standard output: `>> keys.toml` works.
    """
    if not re.fullmatch(LABEL_PATTERN, label):
        raise SettingsError(f"--label is {clip(label)!r}, but needs {LABEL_RULE}.")
    key = new_key()
    click.echo(key, err=True)
    click.echo(key_lines(label, key, scopes))


def new_key() -> str:
    """A key of 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def key_lines(label: str, key: str, scopes: tuple[str, ...]) -> str:
    """The TOML table that lets the key in, without the key."""
    listed = ", ".join(f'"{scope}"' for scope in dict.fromkeys(scopes))
    digest = hash_text(hashlib.sha256(key.encode()).digest())
    return f'[[keys]]\nlabel = "{label}"\nhash = "{digest}"\nscopes = [{listed}]\n'
