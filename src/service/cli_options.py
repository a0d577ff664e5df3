"""Options that commands share: the settings as click options, and the resolution of what was given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

from contracts.settings import Settings
from service.older_names import OLDER_FLAGS
from service.setting_fields import GroupName, SettingField, setting_fields
from service.settings_loader import load_settings

_Command = TypeVar("_Command", bound=Callable[..., object])

VERBOSE_KEY = "quire.is_verbose"


def setting_options(*groups: GroupName) -> Callable[[_Command], _Command]:
    """Decorate a command with one option per setting of the groups; `model` is an argument, not an option.

    Secrets have no option: what stands on a command line is seen by everyone on the machine.
    """

    def decorate(command: _Command) -> _Command:
        for field in reversed(setting_fields()):
            if field.group in groups and field.name != "model" and not field.is_secret:
                command = _option(field)(command)
        return command

    return decorate


def verbose_option(command: _Command) -> _Command:
    """Decorate a command with `-v`: show the traceback of a startup error."""
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, callback=_set_verbose, help="Show the traceback of errors."
    )(command)


def resolve_settings(flags: Mapping[str, object]) -> Settings:
    """Settings from the flags, this process's environment and `.env` in the working directory.

    Secrets leave the environment, so that no child process and no dump of it holds them.
    """
    settings = load_settings(flags, os.environ, Path(".env"))
    for field in setting_fields():
        if field.is_secret:
            os.environ.pop(field.variable, None)
    if settings.engine.model_cache_dir is not None:
        os.environ["HF_HUB_CACHE"] = str(Path(settings.engine.model_cache_dir).expanduser().absolute())
    if settings.engine.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return settings


def secrets_epilog() -> str:
    """What the help of a command says of the settings that are variables only."""
    lines = [f"{field.variable}: {field.help}" for field in setting_fields() if field.is_secret]
    return "Only as a variable, never as a flag: " + " ".join(lines)


def _option(field: SettingField) -> Callable[[_Command], _Command]:
    if field.is_bool:
        return click.option(field.flag_declaration, field.name, default=None, help=_help(field))
    older = [flag for flag, newer in OLDER_FLAGS.items() if newer == field.flag]
    return click.option(field.flag, *older, field.name, metavar=field.metavar, default=None, help=_help(field))


def _help(field: SettingField) -> str:
    if field.default in (None, ""):
        return f"{field.help}  [{field.variable}]"
    shown = str(field.default).lower() if field.is_bool else str(field.default)
    return f"{field.help}  [{field.variable}, default {shown}]"


def _set_verbose(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[VERBOSE_KEY] = True
