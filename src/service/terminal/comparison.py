"""One prompt with several settings at the same time: what is asked, and what has come of each. Knows no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from threading import Event, Thread
from typing import Any, Final

import msgspec

from contracts.errors import InvalidValue, QuireError
from contracts.explanation import Explanation
from contracts.openai.models import ModelCard
from contracts.presets import Preset
from service.terminal.answer_stream import Answer, Question, find_request, read_answer
from service.terminal.api_client import ApiClient
from service.terminal.figures import tokens_per_s
from service.terminal.sampling_settings import SamplingSettings, change, change_all

MAX_VARIANTS: Final = 16
STOPPED: Final = "stopped"


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One column."""

    name: str
    model: ModelCard
    options: dict[str, Any]


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """One column as JSON has it."""

    name: str
    model: str
    options: dict[str, Any]
    text: str
    finish_reason: str | None
    tokens: int
    tokens_per_s: float | None
    ttft_ms: float | None
    request_id: str
    error: str | None


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line names."""

    presets: Sequence[str]
    sets: Sequence[str]
    """Each `temperature=0.2,top_k=5`."""
    models: Sequence[ModelCard]
    common: SamplingSettings
    """Applies in every column that says nothing else."""


def plan_variants(choices: Choices, presets: Sequence[Preset]) -> list[Variant]:
    """Every model with every settings; without any settings, all presets, or several models as they are.

    Raises InvalidValue for names that there are not, and for more columns than MAX_VARIANTS.
    """
    plain = SamplingSettings()
    wanted = [(name, change(plain, "preset", name, presets)) for name in choices.presets]
    wanted += [(text, change_all(plain, text, presets)) for text in choices.sets]
    if not wanted and len(choices.models) > 1:
        wanted = [("", plain)]
    elif not wanted:
        wanted = [(preset.id, SamplingSettings(preset=preset.id)) for preset in presets] or [("", plain)]
    is_named = len(choices.models) > 1
    variants = [
        Variant(
            name=", ".join(part for part in (card.id if is_named else "", name) if part) or card.id,
            model=card,
            options=choices.common.request_fields | settings.request_fields,
        )
        for card in choices.models
        for name, settings in wanted
    ]
    if len(variants) > MAX_VARIANTS:
        raise InvalidValue(f"These are {len(variants)} columns, at most {MAX_VARIANTS}. Name fewer.")
    return variants


class Column:
    """One answer under way. Written by its thread, read by the one that draws."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.answer = Answer()
        self.explanation: Explanation | None = None
        self.error: QuireError | None = None
        self.is_over = False

    @property
    def result(self) -> VariantResult:
        """As it is now."""
        answer, told = self.answer, self.explanation
        ttft_s, rate = answer.ttft_s, tokens_per_s(answer, told)
        return VariantResult(
            name=self.variant.name,
            model=answer.model or self.variant.model.id,
            options=self.variant.options,
            text=answer.text,
            finish_reason=answer.finish_reason,
            tokens=answer.num_tokens,
            tokens_per_s=None if rate is None else round(rate, 1),
            ttft_ms=None if ttft_s is None else round(ttft_s * 1e3, 1),
            request_id=answer.request_id,
            error=None if self.error is None else self.error.message,
        )


class Comparison:
    """Owner of the threads that ask, one for each column."""

    def __init__(self, client: ApiClient, variants: Sequence[Variant], messages: list[dict[str, str]]) -> None:
        self.columns = [Column(variant) for variant in variants]
        self._client = client
        self._messages = messages
        self._is_stopped = Event()
        self._threads = [Thread(target=self._ask, args=(column,), daemon=True) for column in self.columns]

    def start(self) -> None:
        """Ask for all of them."""
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Whether all have ended, after at most that time."""
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """End the answers; what came of each stays."""
        self._is_stopped.set()

    def _ask(self, column: Column) -> None:
        variant = column.variant
        question = Question(
            model=variant.model.id,
            messages=self._messages,
            options=variant.options,
            is_base=variant.model.kind == "base",
        )
        try:
            with closing(read_answer(self._client, question, column.answer)) as pieces:
                for _ in pieces:
                    if self._is_stopped.is_set():
                        column.answer.finish_reason = STOPPED
                        return
            column.explanation = find_request(self._client, column.answer.request_id)
        except QuireError as error:
            column.error = None if column.answer.finish_reason is not None else error
        finally:
            column.is_over = True
