"""What is loaded, what is on its way, and why something could not be: the supervisor's view of the declared models.

Pure data; the supervisor makes it, every worker has a copy.
"""

from __future__ import annotations

import enum

import msgspec


class ModelPhase(enum.Enum):
    """Where a declared model is between the disk and its requests."""

    UNLOADED = "unloaded"
    """The first request for it loads it."""
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """It takes nothing new; what runs ends, then its memory is free."""
    FAILED = "failed"
    """The last attempt to load it failed, or its engine ended too often; the next request tries again."""


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """One declared model, now."""

    alias: str
    phase: ModelPhase = ModelPhase.UNLOADED
    stage: str = ""
    """Of loading, in words."""
    fraction: float | None = None
    """Of the stage, 0 to 1, where that is known."""
    error: str = ""
    """Why it failed, or was not loaded to the end: cause, numbers, remedy."""
    socket_path: str = ""
    """Of its engine; another one after each load."""
    memory_bytes: int | None = None
    """What it was given of the budget; None: nobody knows."""
    load_s: float | None = None
    """How long the load took that made it ready."""


class ModelTable(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, in the order of declaration."""

    default_alias: str
    models: tuple[ModelState, ...]
    has_started: bool = False
    """The model that the server starts with was ready once; from then on any of them may be unloaded."""

    def get(self, alias: str) -> ModelState:
        """The state of a declared model; KeyError for any other name."""
        for state in self.models:
            if state.alias == alias:
                return state
        raise KeyError(alias)
