"""The click options by which every command that asks a running server names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from service.terminal.api_client import DEFAULT_URL, KEY_VARIABLE, URL_VARIABLE

_Command = TypeVar("_Command", bound=Callable[..., object])


def server_options(command: _Command) -> _Command:
    """Decorate a command with --base-url and --api-key; it gets `base_url` and `api_key`."""
    with_key = click.option(
        "--api-key", envvar=KEY_VARIABLE, metavar="KEY", help=f"Bearer key; also read from {KEY_VARIABLE}."
    )(command)
    return click.option(
        "--base-url",
        envvar=URL_VARIABLE,
        default=DEFAULT_URL,
        show_default=True,
        metavar="URL",
        help=f"Address of the server, with or without /v1; also read from {URL_VARIABLE}.",
    )(with_key)
