"""`quire generate`: the engine and the text half without a server; every prompt runs in one continuous batch."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator

import click
import msgspec

from contracts.errors import EngineError, InvalidRequest, SettingsError
from contracts.generation import FinishReason, GenerationDelta
from contracts.openai.chat import ChatCompletionRequest
from contracts.openai.completions import CompletionRequest
from contracts.presets import PRESETS
from contracts.settings import ServerSettings, Settings
from service.cli_options import resolve_settings, setting_options, verbose_option
from service.cpu_threads import limit_spinning
from service.detokenizer import SampleText, sample_texts
from service.model_check import check_model_exists
from service.translate import Limits, ServedModel, TextRequest, translate_chat, translate_completion

SYSTEM_OF_A_CHAT = "--system is for a chat; a raw prompt is continued as it is."
_SAMPLING = ("preset", "max_tokens", "temperature", "top_k", "top_p", "min_p")


class GeneratedText(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `--json`."""

    prompt: str
    text: str
    finish_reason: str
    num_prompt_tokens: int
    num_output_tokens: int


class PromptOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How every prompt of one command is to be continued."""

    is_chat: bool | None
    """None: as a chat where the model has a template, else raw."""
    system: str | None
    """Before each prompt of a chat."""
    sampling: dict[str, object]
    """Fields of a request, by name; what is missing is left to the preset and the model."""


@click.command("generate")
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@click.option("--model", help="Embedded model, local directory or hub name.  [LLM_MODEL, default quire-pico]")
@click.option("--system", metavar="TEXT", help="System prompt of a chat.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Named settings, as in the API.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Most tokens per answer; default: what fits (raw: 16).")
@click.option("--temperature", type=float, help="0 is greedy; default 1.")
@click.option("--top-k", type=int, help="Choose among the k most probable tokens; 0: all.")
@click.option("--top-p", type=float, help="Choose among the fewest tokens of this probability.")
@click.option("--min-p", type=float, help="Leave out what is this much less probable than the best.")
@click.option(
    "--chat/--raw", "is_chat", default=None, help="Ask through the chat template, or continue the text as is."
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object per prompt and line.")
@setting_options("engine")
@verbose_option
def generate_command(
    prompts: tuple[str, ...],
    system: str | None,
    is_chat: bool | None,
    is_json: bool,
    **flags: object,
) -> None:
    """Answer every PROMPT and print the text; one prompt is printed as it is generated, `-` reads standard input."""
    if system is not None and is_chat is False:
        raise SettingsError(SYSTEM_OF_A_CHAT)
    sampling = {name: value for name in _SAMPLING if (value := flags.pop(name)) is not None}
    settings = resolve_settings(flags)
    check_model_exists(settings.engine)
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in prompts]
    options = PromptOptions(is_chat=is_chat, system=system, sampling=sampling)
    _generate(settings, texts, options, is_json=is_json)


def _generate(settings: Settings, prompts: list[str], options: PromptOptions, *, is_json: bool) -> None:
    limit_spinning(os.environ)
    from batching.offline import OfflineEngine
    from service.engine_provider import load_served_model
    from service.load_progress import LoadProgress
    from service.logs import configure_logging

    configure_logging(ServerSettings(log_level="warning"))
    with LoadProgress() as progress, OfflineEngine(settings.engine, progress.report) as engine:
        model = load_served_model(engine.info)
        progress.close()
        requests = translate_prompts(prompts, options, model, settings.engine.seed)
        samples = {request.generation.request_id: sample_texts(model.tokenizer, request)[0] for request in requests}
        deltas = engine.generate([request.generation for request in requests])
        is_live = len(prompts) == 1 and not is_json
        texts = collect_texts(deltas, samples, is_live=is_live)
    for prompt, request in zip(prompts, requests, strict=True):
        request_id = request.generation.request_id
        if is_json:
            click.echo(msgspec.json.encode(_result(prompt, request, texts[request_id], samples[request_id])))
        elif not is_live:
            click.echo(texts[request_id] + "\n")
    if is_live:
        click.echo()


def translate_prompts(
    prompts: list[str], options: PromptOptions, model: ServedModel, default_seed: int | None
) -> list[TextRequest]:
    """One engine request per prompt, checked by the same code as the server's; raises RequestErrors, SettingsError."""
    is_chat = model.template is not None if options.is_chat is None else options.is_chat
    if is_chat and model.template is None:
        raise InvalidRequest(f"The model '{model.names[0]}' has no chat template. Use --raw.")
    if options.system is not None and not is_chat:
        raise SettingsError(SYSTEM_OF_A_CHAT)
    limits = Limits(default_seed=default_seed)
    before = [] if options.system is None else [{"role": "system", "content": options.system}]
    requests: list[TextRequest] = []
    for prompt in prompts:
        request_id = f"gen-{secrets.token_hex(8)}"
        try:
            if is_chat:
                body = {"messages": [*before, {"role": "user", "content": prompt}], **options.sampling}
                chat = msgspec.convert(body, ChatCompletionRequest)
                requests.append(translate_chat(chat, model, request_id, limits))
            else:
                completion = msgspec.convert({"prompt": prompt, **options.sampling}, CompletionRequest)
                requests += translate_completion(completion, model, request_id, limits)
        except msgspec.ValidationError as error:
            raise SettingsError(f"A prompt or option cannot be used: {error}.") from error
    return requests


def collect_texts(
    deltas: Iterator[GenerationDelta], samples: dict[str, SampleText], *, is_live: bool
) -> dict[str, str]:
    """The text of every request; `is_live` also prints it as it comes. Raises EngineError for one that failed."""
    texts = dict.fromkeys(samples, "")
    for delta in deltas:
        if delta.finish_reason is not None and not delta.finish_reason.is_complete:
            raise EngineError(f"The engine could not finish a prompt: {delta.error or delta.finish_reason.value}.")
        piece = samples[delta.request_id].push(delta).text
        texts[delta.request_id] += piece
        if is_live:
            click.echo(piece, nl=False)
    return texts


def _result(prompt: str, request: TextRequest, text: str, sample: SampleText) -> GeneratedText:
    return GeneratedText(
        prompt=prompt,
        text=text,
        finish_reason=sample.finish_reason or FinishReason.STOP.value,
        num_prompt_tokens=request.num_prompt_tokens,
        num_output_tokens=sample.num_tokens,
    )
