"""The models of a server for people: the list, the one that is meant, and loading it with its stages shown."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.errors import QuireError, clip
from contracts.model_state import ModelPhase
from contracts.openai.models import ModelCard, ModelList
from service.load_progress import LoadProgress
from service.terminal.api_client import ApiClient, RequestRefused

FORBIDDEN = 403
NARROW = 60


class UnknownModel(QuireError):
    """The server declares no model of that name."""

    status = 404
    code = "model_not_found"


def list_models(client: ApiClient) -> list[ModelCard]:
    """Every declared model."""
    return client.get_json("/v1/models", ModelList).data


def choose_model(models: Sequence[ModelCard], name: str | None) -> ModelCard:
    """The model of that name, or the default. Raises UnknownModel with the nearest name."""
    for card in models:
        if card.id == name or (name is None and card.is_default):
            return card
    names = [card.id for card in models]
    close = difflib.get_close_matches(name or "", names, n=1)
    hint = f"Did you mean {close[0]}?" if close else f"It has {', '.join(names) or 'none'}."
    raise UnknownModel(f"The server has no model '{clip(name or '')}'. {hint}")


def load_model(client: ApiClient, card: ModelCard, console: Console) -> ModelCard:
    """The card of the model once it is loaded; its stages are shown. Raises as the client does.

    Where the key may not load models, the card comes back as it is: the first message loads it.
    """
    if card.state is ModelPhase.READY:
        return card
    try:
        with (
            LoadProgress(console) as progress,
            client.stream("POST", f"/v1/models/{quote(card.id, safe='')}/load") as events,
        ):
            for event in events:
                card = msgspec.json.decode(event.data, type=ModelCard)
                if card.progress is not None:
                    progress.report(card.progress.stage or "loading", card.progress.fraction)
    except RequestRefused as error:
        if error.status != FORBIDDEN:
            raise
    return card


def models_table(models: Sequence[ModelCard], current: str, width: int) -> Table:
    """One line for each; a narrow terminal sees names and states."""
    is_narrow = width < NARROW
    columns = ["Model", "State"] if is_narrow else ["Model", "State", "Kind", "Context", "Description"]
    table = Table(*columns, header_style="bold", box=None, pad_edge=False)
    for card in models:
        name = Text(("* " if card.id == current else "  ") + card.id, overflow="fold")
        if card.is_default and not is_narrow:
            name.append(" (default)", style="dim")
        window = "" if card.max_model_len is None else f"{card.max_model_len:,}"
        row = [name, Text(card.state.value)]
        if not is_narrow:
            row += [Text(card.kind or ""), Text(window), Text(card.error or card.description, overflow="fold")]
        table.add_row(*row)
    return table
