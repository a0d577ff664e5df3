"""How the math threads wait for one another, set before torch is imported; knows nothing else of the engine."""

from __future__ import annotations

from collections.abc import MutableMapping

SPIN_COUNT = "20000"
"""libgomp's default of 300,000 turns keeps every core busy between products, which starves the HTTP side and stalls
for whole time slices when another program wants a core; sleeping at once costs more than a small product. Decode step
of a 135 M model at 1 / 8 / 32 rows, 2 cores: 19 / 24 / 40 ms with 20,000 turns as with the default, 35 / 43 / 68 ms
asleep (2026-11-20, Xeon with AMX)."""

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Let idle math threads sleep soon; whoever set one of libgomp's own variables keeps their choice."""
    if not any(name in environment for name in _CHOICES):
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT
