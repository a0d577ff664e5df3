"""Which dialects there are, and which of them a server speaks (`--compat`); the others are never imported."""

from __future__ import annotations

import difflib
import importlib
from typing import Any, Final

from contracts.errors import SettingsError, clip
from service.hosts import split_list

MODULES: Final = {
    "picollm": ("picollm",),
    "ruvon": ("ruvon",),
    "fastapi_llm": ("fastapi_llm",),
    "gemma_stream": ("gemma_stream",),
    "llm_serving": ("llm_serving", "llm_serving_models"),
}
ALL: Final = "all"
NONE: Final = "none"


def read_dialects(text: str) -> tuple[str, ...]:
    """The names that --compat lists, in the order of `MODULES`; raises SettingsError for an unknown one."""
    names = split_list(text)
    if names == [ALL]:
        return tuple(MODULES)
    if names == [NONE]:
        return ()
    for name in names:
        if name not in MODULES:
            near = difflib.get_close_matches(name[:40], MODULES, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(MODULES)}; or all, or none."
            raise SettingsError(f"--compat names '{clip(name)}', which is no dialect. {hint}")
    if not names:
        raise SettingsError("--compat names no dialect. Give names with commas between them, or all, or none.")
    return tuple(name for name in MODULES if name in names)


def dialect_handlers(names: tuple[str, ...]) -> list[Any]:
    """The routes of the dialects."""
    modules = [module for name in names for module in MODULES[name]]
    return [handler for module in modules for handler in importlib.import_module(f"service.compat.{module}").HANDLERS]
