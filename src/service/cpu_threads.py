"""How threads share the cores and the interpreter: set before torch is imported, knows nothing of the engine."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping

SPIN_COUNT = "20000"
"""libgomp's default of 300,000 turns keeps every core busy between products: seen to stall whole steps when another
program wanted a core. Sleeping at once costs more than a small product. Decode step of a 135 M model at 1 / 8 / 32
rows, 2 quiet cores: 19 / 24 / 38 ms by default, 19 / 24 / 40 ms with 20,000 turns, 35 / 43 / 68 ms asleep (2026-11-20,
Xeon with AMX). How much 20,000 turns help beside a busy program was not measured."""

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


GIL_SWITCH_S = 0.0005
"""Python's default of 5 ms lets a busy event loop hold up every call of the engine's thread for so long; `small` at
64 clients: 2,199 instead of 2,068 tok/s, 1,889 instead of 1,863 in a second pair (same machine and day)."""


def share_interpreter() -> None:
    """Let a process's threads have their turns soon while another is busy: in an engine the event loop and the runner,
    in a worker the event loop and those that tokenise."""
    sys.setswitchinterval(GIL_SWITCH_S)


def limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Let idle math threads sleep soon; whoever set one of libgomp's own variables keeps their choice."""
    if not any(name in environment for name in _CHOICES):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
