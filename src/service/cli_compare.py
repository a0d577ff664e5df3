"""`quire compare`: one prompt with several settings or models, side by side."""

from __future__ import annotations

import click
import msgspec
from rich.console import Console
from rich.live import Live

from contracts.presets import PresetList
from service.cli_chat import INTERRUPTED, read_prompt
from service.cli_options import verbose_option
from service.terminal.answer_view import FRAMES_PER_S
from service.terminal.api_client import ApiClient
from service.terminal.comparison import Choices, Comparison, VariantResult, plan_variants
from service.terminal.comparison_view import LiveColumns, draw_columns, is_wide, print_stacked
from service.terminal.model_switch import choose_model, list_models
from service.terminal.sampling_settings import SamplingSettings, change
from service.terminal.server_options import server_options

WAIT_S = 0.2
COMMON = ("max_tokens", "seed")


class CompareOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options as click reads them."""

    base_url: str
    api_key: str | None
    preset: tuple[str, ...]
    sets: tuple[str, ...]
    model: tuple[str, ...]
    system: str | None
    max_tokens: str | None
    seed: str | None
    is_json: bool


@click.command("compare")
@click.argument("words", metavar="PROMPT...", nargs=-1)
@click.option("--preset", multiple=True, metavar="NAME", help="A column with these settings of the server; repeatable.")
@click.option(
    "--set", "sets", multiple=True, metavar="NAME=VALUE,...", help="A column with settings of your own; repeatable."
)
@click.option("--model", multiple=True, metavar="MODEL", help="Ask this model; repeatable.")
@click.option("--system", metavar="TEXT", help="System prompt of all columns.")
@click.option("--max-tokens", metavar="NUMBER", help="Most tokens of an answer, where a column does not say.")
@click.option("--seed", metavar="NUMBER", help="Seed, where a column does not say.")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array instead.")
@server_options
@verbose_option
def compare_command(words: tuple[str, ...], **flags: object) -> None:
    """Answer one PROMPT with several settings at the same time and show the answers side by side.

    Without --preset and --set there is a column for each preset of the server; several models are each asked with all
    settings.

    \b
      quire compare "Tell me a story." --preset balanced --preset creative
      quire compare "2+2?" --set temperature=0 --set temperature=1.5,top_k=5
      quire compare "Who are you?" --model quire-pico --model gpt2 --json
    """
    options = msgspec.convert(flags, CompareOptions)
    prompt = read_prompt(words, None)
    if prompt is None:
        raise click.UsageError("Give a PROMPT, or a text on standard input.")
    with ApiClient(options.base_url, options.api_key) as client:
        comparison = open_comparison(client, options, prompt)
        results = run_comparison(comparison, Console(highlight=False), is_json=options.is_json)
    if any(result.error is not None for result in results):
        raise click.exceptions.Exit(1)


def open_comparison(client: ApiClient, options: CompareOptions, prompt: str) -> Comparison:
    """What is to be asked. Raises QuireError for names that the server does not know."""
    presets = client.get_json("/v1/presets", PresetList).data
    models = list_models(client)
    common = SamplingSettings()
    for name in COMMON:
        text = getattr(options, name)
        common = common if text is None else change(common, name, text, presets)
    choices = Choices(
        presets=options.preset,
        sets=options.sets,
        models=[choose_model(models, name) for name in options.model or (None,)],
        common=common,
    )
    messages = [{"role": "user", "content": prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    return Comparison(client, plan_variants(choices, presets), messages)


def run_comparison(comparison: Comparison, console: Console, *, is_json: bool) -> list[VariantResult]:
    """Show the answers while they come, and then whole; Ctrl-C shows what there is and leaves."""
    is_interrupted = False
    comparison.start()
    try:
        if is_json or not console.is_terminal or console.is_dumb_terminal:
            _wait(comparison)
        else:
            with Live(
                LiveColumns(comparison.columns), console=console, transient=True, refresh_per_second=FRAMES_PER_S
            ):
                _wait(comparison)
    except KeyboardInterrupt:
        is_interrupted = True
        comparison.stop()
        comparison.wait(1.0)
    results = [column.result for column in comparison.columns]
    show_results(results, console, is_json=is_json)
    if is_interrupted:
        raise click.exceptions.Exit(INTERRUPTED)
    return results


def _wait(comparison: Comparison) -> None:
    while not comparison.wait(WAIT_S):
        pass


def show_results(results: list[VariantResult], console: Console, *, is_json: bool) -> None:
    """All of them, whole."""
    if is_json:
        click.echo(msgspec.json.format(msgspec.json.encode(results), indent=2).decode())
    elif is_wide(console, len(results)):
        console.print(draw_columns(results))
    else:
        print_stacked(console, results)
