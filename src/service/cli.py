"""The `quire` command: finds the sub-command, imports only that one, and turns errors into one line and an exit code.

Knows nothing of torch or of the server; `quire --help` imports click alone.
"""

from __future__ import annotations

import difflib
import importlib
import os
import traceback

import click

from contracts.errors import QuireError, StartupError
from contracts.version import VERSION
from service.cli_options import VERBOSE_KEY, verbose_option

_COMMANDS = {
    "serve": ("service.cli_serve:serve_command", "Serve a model over HTTP with an OpenAI-compatible API."),
    "chat": ("service.cli_chat:chat_command", "Talk to a running server, in a session or with one question."),
    "compare": ("service.cli_compare:compare_command", "Ask a running server one question with several settings."),
    "generate": ("service.cli_generate:generate_command", "Generate text from prompts, without a server."),
    "bench": ("service.bench.command:bench_command", "Measure a running server: throughput and latencies."),
    "smoke": ("service.cli_smoke:smoke_command", "Try every route of a running server."),
    "ps": ("service.cli_ps:ps_command", "Show the models and requests of a running server."),
    "monitor": ("service.cli_monitor:monitor_command", "Watch a running server at work."),
    "why": ("service.cli_why:why_command", "Say why a request to a running server took as long as it did."),
    "models": ("service.cli_models:models_command", "List the models that a server with these options would offer."),
    "doctor": ("service.cli_doctor:doctor_command", "Prove that a server with these options would work here."),
    "info": ("service.cli_info:info_command", "Show versions, device and the facts of a model."),
    "key": ("service.cli_key:key_command", "Make API keys."),
}


class ReportedError(click.ClickException):
    """A QuireError as click reports it: one red line on standard error, and a StartupError's own exit code."""

    def __init__(self, error: QuireError) -> None:
        super().__init__(" ".join(error.message.split()))
        self.exit_code = error.exit_code if isinstance(error, StartupError) else 1  # type: ignore[misc]

    def show(self, file: object = None) -> None:
        colour = None if os.environ.get("NO_COLOR") else "red"
        click.secho(f"Error: {self.format_message()}", fg=colour, err=True)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, so that help and mistyped names answer at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module_name, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module_name), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module_name}:{attribute} is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names; a mistyped one is refused with the nearest name."""
        close = difflib.get_close_matches(args[0], _COMMANDS, n=1) if args[0] not in _COMMANDS else []
        if close and not args[0].startswith("-"):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error of ours becomes one line, under `-v` below its traceback."""
        try:
            return super().invoke(ctx)
        except QuireError as error:
            if ctx.meta.get(VERBOSE_KEY):
                traceback.print_exception(error)
            raise ReportedError(error) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="quire")
@verbose_option
def main() -> None:
    """Quire: an LLM inference server with an OpenAI-compatible API.

    `quire serve` without a model serves the small one that is built in, on http://127.0.0.1:8000.
    """
